"""`open_tracer`: whatever happens to the body, the sinks or the clock, the file is whole, the program undisturbed."""

import contextlib
import threading
import time
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import tracesvc
from tests.recorder.recording import Memory, Recording, close_ledger, finish
from tracesvc import FileSink, Sink, Tracer, TracerBusyError, TracerState, open_tracer
from tracesvc.events import LossCause
from tracesvc.recorder.tracer import current_tracer


class Stalls(Sink):
    """Takes nothing, for ever."""

    async def run(self, frames):
        self._begin(frames)
        try:
            await trio.sleep_forever()
        finally:
            self._end()


class Fails(Sink):
    """Fails at every write."""

    def __init__(self, error: Exception) -> None:
        super().__init__("fails")
        self.error = error
        self.tried = trio.Event()

    async def run(self, frames):
        self._begin(frames)
        try:
            while await frames.get():
                assert not self.tried.is_set(), "it is asked again"
                self.tried.set()
                raise self.error
        finally:
            self._end()


async def works(rounds: int = 10) -> None:
    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[int](0)
        nursery.start_soon(produces, send, rounds)
        async for number in receive:
            with tracesvc.span("takes", number=number):
                await trio.lowlevel.checkpoint()


async def produces(send, rounds: int) -> None:
    async with send:
        for number in range(rounds):
            await send.send(number)


# --- real time and the program's -----------------------------------------------------------------


def test_seven_virtual_days_take_no_real_time(tmp_path):
    path = tmp_path / "week.trace"

    async def week() -> tuple[Tracer, float]:
        begun = trio.current_time()
        async with open_tracer(FileSink(path)) as tracer:
            for hour in range(7 * 24):
                with tracesvc.span("hourly", hour=hour):
                    await works(5)
                await trio.sleep(3600)
            days = (trio.current_time() - begun) / 86400
        assert trio.current_time() - begun < 7.01 * 86400  # leaving takes no virtual time
        return tracer, days

    began = time.monotonic()
    tracer, days = trio.run(week, clock=MockClock(autojump_threshold=0))
    took = time.monotonic() - began
    print(f"{days:.2f} days in {took:.2f} s")
    assert took < 10
    assert days == pytest.approx(7)
    recording = Recording(path.read_bytes(), statistics=tracer.statistics())
    assert sum(event.name == "hourly" for event in recording.of("span_begin")) == 7 * 24


@pytest.mark.parametrize(
    "clock", [None, MockClock(), MockClock(autojump_threshold=0)], ids=["real", "mock", "autojump"]
)
def test_a_sink_that_stalls_for_ever_beside_one_that_works(tmp_path, clock):
    path, stalled, memory = tmp_path / "x.trace", Stalls("stalls"), Memory()

    async def main() -> tuple[Tracer, float]:
        async with open_tracer(stalled, FileSink(path), memory, drain_timeout=0.5) as tracer:
            for _ in range(20):
                tracesvc.log("x" * 10_000)
                await works()
            leaving = time.monotonic()
        return tracer, time.monotonic() - leaving

    tracer, took = trio.run(main, clock=clock)
    assert 0.4 < took < 3, "the exit is bounded by drain_timeout, in real time"
    recording = Recording(path.read_bytes(), statistics=tracer.statistics())
    assert memory.data == path.read_bytes()
    assert recording.lost.total() == 0
    assert len(recording.of("log")) == 20
    events = len(recording.events)
    by_sink = {sink.name: sink for sink in tracer.statistics().sinks}
    assert (by_sink["stalls"].events, sum(by_sink["stalls"].lost.values())) == (0, events)
    assert (by_sink["memory"].events, sum(by_sink["memory"].lost.values())) == (events, 0)


@pytest.mark.parametrize(
    "error", [OSError(28, "no space"), ValueError("a bug"), trio.BusyResourceError()]
)
async def test_a_sink_that_fails_at_every_write(tmp_path, caplog, error):
    failing, path = Fails(error), tmp_path / "x.trace"
    async with open_tracer(failing, FileSink(path)) as tracer:
        await works()
        await failing.tried.wait()
        await wait_all_tasks_blocked()
        await works()
    recording = Recording(path.read_bytes(), statistics=tracer.statistics())
    assert "sink fails failed and was dropped" in caplog.text
    statistics = next(sink for sink in tracer.statistics().sinks if sink.name == "fails")
    assert statistics.lost == {LossCause.SINK_FAILED: len(recording.events)}


# --- how the body ends ---------------------------------------------------------------------------


class CancelsAt(trio.abc.Instrument):
    """Cancels a scope before the step number ``k`` of a task, or of all of them."""

    def __init__(self, scope: trio.CancelScope, task: trio.lowlevel.Task | None, k: int) -> None:
        self.scope, self.task, self.left = scope, task, k

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.task is None or task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


@pytest.mark.parametrize("of", ["the task", "any task"])
def test_cancelled_at_every_await(tmp_path, of):
    """Before its k-th step, for all k until the body is never reached by it; on the way in, inside, on the way out."""
    path, entered, cut, whole = tmp_path / "x.trace", 0, 0, False

    async def main(k: int) -> Tracer | None:
        nonlocal entered, cut, whole
        tracer, inside, through = None, False, False
        with trio.CancelScope() as scope:
            cancels = CancelsAt(
                scope, trio.lowlevel.current_task() if of == "the task" else None, k
            )
            trio.lowlevel.add_instrument(cancels)
            async with open_tracer(FileSink(path)) as tracer:
                inside = True
                with tracesvc.span("body"):
                    await trio.lowlevel.checkpoint()
                    await works(2)
                    await trio.to_thread.run_sync(tracesvc.log, "in a thread")
                through = True
        trio.lowlevel.remove_instrument(cancels)
        entered += inside
        cut += inside and not through
        whole = cancels.left > 0
        return tracer

    k = 0
    while not whole:
        k += 1
        path.unlink(missing_ok=True)
        tracer = trio.run(main, k)
        assert current_tracer() is None
        if tracer is not None:
            recording = Recording(path.read_bytes(), statistics=tracer.statistics())
            assert len(recording.of("span_begin")) == len(recording.of("span_end"))
        assert k < 300
    print(f"cancelled at {k - 1} steps of {of}: {entered} inside, {cut} cut the body short")
    assert cut >= 5
    assert entered >= cut + 5


ENDINGS = [
    ValueError("of the body"),
    KeyboardInterrupt(),
    SystemExit(3),
    ExceptionGroup("of the body", [ValueError(1), TypeError(2)]),
    BaseExceptionGroup("of the body", [KeyboardInterrupt()]),
    StopAsyncIteration(),
    GeneratorExit(),
    trio.TooSlowError(),
]


@pytest.mark.parametrize("error", ENDINGS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "others",
    [[], [partial(Stalls, "stalls")], [partial(Fails, OSError())]],
    ids=["alone", "stall", "fail"],
)
async def test_the_bodys_exception_leaves_unchanged(tmp_path, error, others):
    error.__traceback__ = error.__context__ = None
    path, caught = tmp_path / "x.trace", None
    try:
        sinks, timeout = [other() for other in others], 0.2 if others else 5
        async with open_tracer(FileSink(path), *sinks, drain_timeout=timeout):
            await works(1)
            raise error  # noqa: TRY301
    except BaseException as exc:
        caught = exc
    assert caught is error
    assert (error.__context__, error.__cause__) == (None, None)
    Recording(path.read_bytes())


async def test_a_cancellation_leaves_unchanged(tmp_path):
    path, cancelled = tmp_path / "x.trace", list[BaseException]()

    @contextlib.contextmanager
    def notes():
        try:
            yield
        except BaseException as exc:
            cancelled.append(exc)
            raise

    with trio.CancelScope() as scope, notes():
        async with open_tracer(FileSink(path)):
            scope.cancel()
            with notes():
                await trio.sleep_forever()
    assert scope.cancelled_caught
    assert cancelled[0] is cancelled[1]
    Recording(path.read_bytes())


async def test_the_body_stops_the_tracer_itself(tmp_path):
    path = tmp_path / "x.trace"
    async with open_tracer(FileSink(path)) as tracer:
        await works()
        await tracer.stop()
        assert tracer.state is TracerState.OFF
        tracesvc.log("to nobody")
        await works()
        await tracer.stop()
    recording = Recording(path.read_bytes(), statistics=tracer.statistics())
    assert recording.of("log") == []
    assert len(recording.of("span_begin")) == 10


# --- more than one -------------------------------------------------------------------------------


async def test_a_second_one_joins_and_leaves(tmp_path):
    first, second = tmp_path / "first.trace", tmp_path / "second.trace"
    async with open_tracer(FileSink(first)) as tracer:
        tracesvc.log("before")
        with tracesvc.span("around"):
            async with open_tracer(FileSink(second)) as same:
                assert same is tracer
                tracesvc.log("both")
                await works()
            assert tracer.state is TracerState.ON
        part = Recording(second.read_bytes(), whole=False)  # complete as soon as it is left
        tracesvc.log("after")
        await works()
    whole = Recording(first.read_bytes(), statistics=tracer.statistics())
    assert [log.message for log in whole.of("log")] == ["before", "both", "after"]
    messages = {log.message for log in part.of("log")}
    assert messages - {"before"} == {"both"}
    assert part.end is not None
    assert part.header
    assert whole.header
    assert part.header.session == whole.header.session


async def test_the_owner_leaves_first_and_the_session_goes_on(tmp_path):
    first, second = tmp_path / "first.trace", tmp_path / "second.trace"
    joined, left = trio.Event(), trio.Event()

    async def joins() -> None:
        async with open_tracer(FileSink(second)) as tracer:
            joined.set()
            await left.wait()
            assert tracer.statistics().state == "ON"
            tracesvc.log("second only")
            await works()
        assert tracer.state is TracerState.OFF
        close_ledger(tracer.statistics())

    async with trio.open_nursery() as nursery:
        async with open_tracer(FileSink(first)):
            nursery.start_soon(joins)
            await joined.wait()
            tracesvc.log("both")
        left.set()
    one, two = (Recording(path.read_bytes(), whole=False) for path in (first, second))
    assert None not in {one.end, two.end}
    assert [log.message for log in one.of("log")] == ["both"]
    assert [log.message for log in two.of("log")] == ["both", "second only"]


@pytest.mark.parametrize("leaves_first", ["owner", "other"])
def test_one_joins_from_the_run_of_another_thread(tmp_path, leaves_first):
    paths = {name: tmp_path / f"{name}.trace" for name in ("owner", "other")}
    ready, gone = threading.Barrier(2), threading.Event()

    async def member(name: str) -> None:
        if name == "other":
            await trio.to_thread.run_sync(ready.wait, 30)
        async with open_tracer(FileSink(paths[name])) as tracer:
            if name == "owner":
                await trio.to_thread.run_sync(ready.wait, 30)
            await trio.to_thread.run_sync(ready.wait, 30)  # both are in
            tracesvc.log(f"{name} with both")
            await works()
            if name != leaves_first:
                await trio.to_thread.run_sync(gone.wait, 30)
                assert tracer.state is TracerState.ON
                tracesvc.log(f"{name} alone")
        gone.set()

    threads = [threading.Thread(target=trio.run, args=(member, name)) for name in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    stays = "other" if leaves_first == "owner" else "owner"
    for name, path in paths.items():
        recording = Recording(path.read_bytes(), whole=False)
        assert recording.end is not None
        messages = {log.message for log in recording.of("log")}
        assert f"{name} with both" in messages
        assert (f"{stays} alone" in messages) == (name == stays)


async def test_who_comes_while_it_drains_waits_and_gets_a_session_of_its_own(tmp_path):
    first, second = tmp_path / "first.trace", tmp_path / "second.trace"
    sessions = []

    async def comes() -> None:
        while (found := current_tracer()) is None or found.state is not TracerState.DRAINING:
            await trio.lowlevel.checkpoint()
        async with open_tracer(FileSink(second)) as tracer:
            sessions.append(tracer.statistics().session)
            await works()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(comes)
        async with open_tracer(FileSink(first)) as tracer:
            sessions.append(tracer.statistics().session)
            await works(200)
    assert len(set(sessions)) == 2
    for path, session in zip((first, second), sessions, strict=True):
        header = Recording(path.read_bytes()).header
        assert header
        assert header.session == session


# --- refusals ------------------------------------------------------------------------------------


def test_what_is_no_sink_is_refused_at_once(tmp_path):
    for wrong in (str(tmp_path / "x.trace"), FileSink, None):
        with pytest.raises(TypeError, match="FileSink"):
            open_tracer(wrong)  # type: ignore[arg-type]


BAD: dict[str, list] = {
    "drain_timeout": [0, -1, float("nan")],
    "buffer_events": [15, 1 << 17],
    "queue_buffers": [1],
}


@pytest.mark.parametrize("option", BAD)
def test_bad_options_are_refused_at_once(option):
    for value in BAD[option]:
        with pytest.raises(ValueError, match=option):
            open_tracer(Memory(), **{option: value})


@pytest.mark.parametrize("read", [False, True])
async def test_a_tracer_that_was_started_by_hand_cannot_be_joined(read):
    tracer, memory = Tracer(), Memory()
    tracer.start()
    if read:
        await tracer.read()
    with pytest.raises(TracerBusyError, match="by hand"):
        async with open_tracer(memory):
            pytest.fail("it was entered")
    assert tracer.state is TracerState.ON
    assert await finish(tracer)
    assert memory.data == b""


async def test_without_sinks_it_is_read_and_thrown_away():
    async with open_tracer() as tracer:
        await works()
    close_ledger(tracer.statistics())
    assert tracer.statistics().lost == {}
