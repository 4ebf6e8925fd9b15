"""The flight recorder: what it keeps, and what a snapshot of it is."""

import threading
from pathlib import Path

import pytest
import trio

import tracesvc
from benchmarks.flight import main as fly
from tests.recorder.recording import Memory, Recording, close_ledger
from tests.streams import Maker
from tracesvc import FlightRecorder, SinkError
from tracesvc.events import LossCause
from tracesvc.model.verify import verify
from tracesvc.sinks.flight import FRAME_OVERHEAD


def put(recorder, frames):
    queue = recorder.open_queue()
    for frame in frames:
        queue.put(frame)
        assert recorder.held_bytes <= recorder.max_bytes
    return queue


def size_of(frames):
    return sum(len(frame.data) + FRAME_OVERHEAD for frame in frames)


def whole(path):
    return Recording(path.read_bytes())


async def read_back(recorder, path):
    window = await recorder.snapshot(path)
    recording = Recording(path.read_bytes(), whole=False)
    assert len(recording.events) == window.events
    return window, recording


# --- what it keeps -------------------------------------------------------------------------------


async def test_what_is_too_old_goes_in_whole_generations(tmp_path):
    made = Maker()
    frames = made.start()
    for _ in range(20):  # of 0.1 s each
        frames += made.events(100)
        made.time += 100_000_000
        frames += made.generation()
    recorder = FlightRecorder(min_age=0.55)
    put(recorder, frames)
    window, recording = await read_back(recorder, tmp_path / "a")
    assert made.time - window.begin >= 550_000_000
    assert made.time - window.begin < 750_000_000
    assert not window.full
    assert [e.seq for e in recording.events] == list(range(1400, 2000))
    assert recording.first == {0: 1400}


async def test_what_does_not_fit_goes_and_the_limit_holds_at_every_moment(tmp_path):
    made = Maker(text="x" * 1000)
    frames = made.start()
    for _ in range(30):
        for _ in range(10):
            frames += made.events(20, number=20)
        frames += made.generation()
    recorder = FlightRecorder(min_age=1000, max_bytes=1 << 20)
    put(recorder, frames)
    window, recording = await read_back(recorder, tmp_path / "a")
    assert 3 << 18 < recorder.held_bytes <= 1 << 20
    assert recording.events[-1].seq == 5999
    assert recording.generations == window.generations == 6
    assert recorder.statistics().events == window.events


async def test_a_generation_that_alone_is_too_large_is_dropped_and_the_next_one_is_kept(tmp_path):
    made = Maker(text="x" * 10_000)
    frames = [*made.start(), *(f for _ in range(20) for f in made.events(20, number=20))]
    assert size_of(frames) > 1 << 20
    recorder = FlightRecorder(max_bytes=1 << 20)
    queue = put(recorder, frames)
    with pytest.raises(SinkError, match="no generation fits in 1,048,576 bytes"):
        await recorder.snapshot(tmp_path / "a")
    assert not list(tmp_path.iterdir())
    for frame in [*made.generation(), *made.events(3)]:
        queue.put(frame)
    _, recording = await read_back(recorder, tmp_path / "a")
    assert [e.seq for e in recording.events] == [400, 401, 402]


async def test_a_loss_before_it_stays_in_the_account(tmp_path):
    made = Maker()
    frames = [*made.start(), *made.events(10), *made.lose(5), *made.generation()]
    made.time += 10**9
    frames += [*made.generation(), *made.events(10), *made.lose(3), *made.generation()]
    recorder = FlightRecorder(min_age=0)
    put(recorder, [*frames, *made.events(2), *made.end()])
    path = tmp_path / "a"
    await recorder.snapshot(path)
    (account,) = verify(path).accounts
    assert (account.before, account.emitted, account.stored) == (28, 30, 2)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="max_bytes must be at least 1048576"):
        FlightRecorder(max_bytes=1 << 19)
    with pytest.raises(ValueError, match="min_age"):
        FlightRecorder(min_age=-1)


async def test_one_that_was_never_opened_says_so(tmp_path):
    with pytest.raises(SinkError, match="give it to open_tracer"):
        await FlightRecorder().snapshot(tmp_path / "a")


# --- snapshots -----------------------------------------------------------------------------------


async def test_a_snapshot_has_all_that_came_before_it_and_the_recording_goes_on(tmp_path):
    recorder, memory = FlightRecorder(), Memory()
    async with tracesvc.open_tracer(recorder, memory) as tracer:
        with tracesvc.span("outer", n=1):
            for i in range(5):
                tracesvc.log(f"before {i}")
                path = tmp_path / f"{i}.trace"
                await recorder.snapshot(path)
                recording = Recording(path.read_bytes(), statistics=None)
                said = [e.message for e in recording.of("log") if e.level == 20]
                assert said == [f"before {j}" for j in range(i + 1)]
                assert recording.rows[1].live
    close_ledger(tracer.statistics())
    whole = Recording(memory.data, statistics=tracer.statistics())
    assert len(whole.of("log")) == 10
    await recorder.snapshot(tmp_path / "after")
    assert Recording((tmp_path / "after").read_bytes(), statistics=tracer.statistics()).events


async def test_a_span_that_is_open_since_long_before_is_in_it(tmp_path):
    recorder = FlightRecorder(min_age=0)
    async with tracesvc.open_tracer(recorder, FlightRecorder(max_bytes=1 << 20)):
        with tracesvc.span("old", n=7):
            while recorder.window.generations == 0 or not (
                await recorder.snapshot(tmp_path / "a")
            ).begin > recorder_began(tmp_path / "a"):
                for i in range(3000):
                    tracesvc.log("x" * 300, n=i)
                await trio.lowlevel.checkpoint()
    recording = Recording((tmp_path / "a").read_bytes())
    assert not recording.of("span_begin")
    spans = {strings[row.name] for snap, strings in recording.snapshots for row in snap.spans}
    assert spans == {"old"}


def recorder_began(path):
    with tracesvc.read(path) as trace:
        list(trace.batches())
        return trace.session.monotonic + 10_000_000


async def test_snapshots_at_once_are_each_whole(tmp_path):
    recorders = [FlightRecorder(), FlightRecorder(min_age=0)]

    async def busy():
        while True:
            with tracesvc.span("busy"):
                await trio.lowlevel.checkpoint()

    async def shoot(path: Path, recorder: FlightRecorder) -> None:
        for _ in range(3):
            await recorder.snapshot(path)  # two write to the same path
            whole(path)

    async with tracesvc.open_tracer(*recorders), trio.open_nursery() as nursery:
        nursery.start_soon(busy)
        async with trio.open_nursery() as shots:
            for i in range(8):
                shots.start_soon(shoot, tmp_path / str(i // 2), recorders[i % 2])
        nursery.cancel_scope.cancel()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "1", "2", "3"]


async def test_a_snapshot_into_a_sink_of_its_own():
    recorder, memory = FlightRecorder(), Memory()
    async with tracesvc.open_tracer(recorder):
        tracesvc.log("hello")
        window = await recorder.snapshot(memory)
    assert memory.statistics().events == window.events
    assert "hello" in [e.message for e in Recording(memory.data).of("log")]


async def test_a_cancelled_or_failed_snapshot_leaves_no_file_and_the_next_one_works(tmp_path):
    recorder = FlightRecorder()
    async with tracesvc.open_tracer(recorder):
        with trio.CancelScope() as scope:
            scope.cancel()
            await recorder.snapshot(tmp_path / "a")
        assert scope.cancelled_caught
        with pytest.raises(SinkError, match="No such file"):
            await recorder.snapshot(tmp_path / "no" / "where")
        (tmp_path / "directory").mkdir()
        with pytest.raises(SinkError, match="choose another path"):
            await recorder.snapshot(tmp_path / "directory")
        await recorder.snapshot(tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "directory"]


def test_a_snapshot_from_another_run_than_the_recorders(tmp_path):
    recorder, inside, done = FlightRecorder(), threading.Event(), threading.Event()

    async def records() -> None:
        async with tracesvc.open_tracer(recorder):
            tracesvc.log("hello")
            inside.set()
            await trio.to_thread.run_sync(done.wait)

    thread = threading.Thread(target=trio.run, args=(records,))
    thread.start()
    inside.wait()
    try:
        trio.run(recorder.snapshot, tmp_path / "a")
    finally:
        done.set()
        thread.join()
    recording = Recording((tmp_path / "a").read_bytes())
    assert "hello" in [e.message for e in recording.of("log")]


async def test_who_joins_late_has_a_window_of_its_own(tmp_path):
    async with tracesvc.open_tracer(FlightRecorder()):
        tracesvc.log("early")
        await trio.lowlevel.checkpoint()
        async with tracesvc.open_tracer(late := FlightRecorder()):
            tracesvc.log("late")
            await late.snapshot(tmp_path / "a")
            recording = Recording((tmp_path / "a").read_bytes())
            assert "late" in [e.message for e in recording.of("log")]
        await late.snapshot(tmp_path / "b")  # what it has is its own for ever
        Recording((tmp_path / "b").read_bytes())


async def test_losses_of_the_reader_are_in_it(tmp_path):
    recorder = FlightRecorder()
    async with tracesvc.open_tracer(recorder, buffer_events=16, queue_buffers=2) as tracer:
        for i in range(1000):
            tracesvc.log("x", n=i)
        await recorder.snapshot(tmp_path / "a")
    assert tracer.statistics().lost["queue_full"]
    assert Recording((tmp_path / "a").read_bytes()).lost[LossCause.QUEUE_FULL]


@pytest.mark.slow
def test_full_speed_for_a_moment(capsys):
    assert fly(seconds=3, snapshots=6) == 0, capsys.readouterr().out
