import io
from itertools import pairwise

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tests.streams import Maker, joined, session
from tracesvc.events import FrameKind, LossCause
from tracesvc.format import Batch, Frame, Item, Loss, LossRow, Procs, StreamDecoder
from tracesvc.model.verify import verify
from tracesvc.sinks import FrameQueue, SinkError
from tracesvc.sinks.gap import ROWS_PER_PROC


def decode(frames):
    decoder = StreamDecoder()
    decoder.feed(joined(frames))
    decoder.close()
    items = list(decoder)
    assert all(isinstance(item, Item) for item in items)
    return items


def kinds(frames):
    return [FrameKind(frame.kind).name for frame in frames]


class Account:
    """What a sink's stream says: which events are in it, which are lost, and whether all can be decoded."""

    def __init__(self, frames):
        self.seen: dict[int, list[tuple[int, int, str]]] = {}
        self.procs = {}
        decoder = StreamDecoder()
        decoder.feed(joined(frames))
        for item in decoder:
            assert isinstance(item, Item)
            match item.record:
                case Batch() as batch:
                    self.note(batch.proc, batch.first, batch.end, "stored")
                    assert not any(
                        getattr(e, "name", "").startswith("?") for e in decoder.events(batch)
                    )
                case Loss(rows):
                    for row in rows:
                        self.note(row.proc, row.first, row.last + 1, LossCause(row.cause).name)
                        assert row.start <= row.end
                case Procs(rows):
                    self.procs.update({row.proc: row for row in rows})

    def note(self, proc, first, end, what):
        self.seen.setdefault(proc, []).append((first, end, what))

    def total(self, proc):
        """Events accounted for; fails unless they are all of 0..n-1, each once."""
        at = 0
        for first, end, _ in sorted(self.seen.get(proc, [])):
            assert first == at
            at = end
        return at

    def count(self, what):
        return sum(e - f for rows in self.seen.values() for f, e, w in rows if w == what)


STEP = st.one_of(
    st.tuples(st.just("events"), st.integers(1, 60), st.integers(0, 2)),
    st.tuples(st.just("lose"), st.integers(1, 9), st.integers(0, 2)),
    st.just(("generation",)),
    st.just(("get",)),
    st.tuples(st.just("stop"), st.integers(0, 2)),
)


@settings(max_examples=300)
@given(st.lists(STEP, max_size=60), st.integers(1, 6000))
async def test_stored_and_lost_are_what_was_emitted(steps, capacity):
    made = Maker(procs=3)
    queue = FrameQueue(capacity)
    taken: list[Frame] = []
    produced = made.start()
    always = len(produced[0].data)

    def put(frames):
        for frame in frames:
            queue.put(frame)

    put(produced)
    for step in steps:
        match step:
            case "events", n, proc if proc not in made.ended:
                put(made.events(n, proc))
            case "lose", n, proc if proc not in made.ended:
                put(made.lose(n, proc))
            case ("generation",):
                put(made.generation())
            case ("get",) if queue.queued_bytes:
                taken += await queue.get()
            case "stop", proc if proc not in made.ended:
                put(made.stop_proc(proc))
        assert queue.queued_bytes <= max(capacity, always)
    put(made.end())
    queue.finish()
    while batch := await queue.get():
        taken += batch

    if taken[1].kind == FrameKind.GENERATION:
        report = verify(io.BytesIO(joined(taken)))
        assert report.ok, report.violations
    account = Account(taken)
    for proc, emitted in made.emitted.items():
        assert account.total(proc) == emitted
        assert account.procs[proc].emitted == emitted
        assert not account.procs[proc].live
    assert queue.lost[LossCause.SINK_FULL] == account.count("SINK_FULL")
    assert queue.taken_events == account.count("stored")
    assert sum(made.lost.values()) == account.count("QUEUE_FULL")
    numbers = [frame.number for frame in taken]
    assert numbers == sorted(set(numbers))
    assert kinds(taken)[0] == "HEADER"
    assert kinds(taken)[-1] == "END"
    for before, after in pairwise(taken):
        if after.number != before.number + 1:
            assert after.kind in (FrameKind.LOSS, FrameKind.PROCS)


async def test_a_gap_lasts_to_the_next_generation_and_is_explained_there():
    made = Maker()
    queue = FrameQueue(2000)
    start = made.start()
    first = made.events(10)
    dropped = made.events(5000)
    small = made.events(1)
    for frame in [*start, *first, *dropped, *small]:
        queue.put(frame)
    assert queue.dropping
    got = await queue.get()
    assert got == [*start, *first]
    again = made.generation()
    more = made.events(3)
    for frame in [*again, *more]:
        queue.put(frame)
    assert not queue.dropping
    loss, *rest = await queue.get()
    assert rest == [*again, *more]
    assert loss.number == again[0].number - 1
    times = [(f.oldest, f.newest) for f in (*dropped, *small) if f.count]
    row = LossRow(0, 10, 5010, LossCause.SINK_FULL, times[0][0], times[-1][1])
    assert Loss.unpack(loss.body()).rows == [row]


async def test_a_gap_without_events_is_explained_too():
    made = Maker()
    header, generation, procs, snapshot = made.start()
    queue = FrameQueue(len(header.data))
    for frame in (header, generation, procs, snapshot):
        queue.put(frame)
    await queue.get()
    queue.capacity_bytes = 1 << 20
    again = made.generation()
    for frame in again:
        queue.put(frame)
    loss, *rest = await queue.get()
    assert rest == again
    assert loss.number == snapshot.number
    assert Loss.unpack(loss.body()).rows == []


async def test_accounts_of_procs_that_ended_in_a_gap_survive_it():
    made = Maker(procs=2)
    queue = FrameQueue(3000)
    for frame in [*made.start(), *made.events(5000, 1), *made.stop_proc(1)]:
        queue.put(frame)
    await queue.get()
    for frame in made.generation():
        queue.put(frame)
    loss, procs, *rest = await queue.get()
    assert kinds([loss, procs, *rest]) == ["LOSS", "PROCS", "GENERATION", "PROCS", "SNAPSHOT"]
    (row,) = Procs.unpack(procs.body()).rows
    assert (row.proc, row.emitted, row.live) == (1, 5000, False)


async def test_get_waits_for_enough_or_a_tick_or_the_end(nursery, mock_clock):
    made = Maker()
    queue = FrameQueue()
    got = []

    async def take():
        while batch := await queue.get(min_bytes=5000):
            got.append(batch)

    nursery.start_soon(take)
    start = made.start()
    for frame in start:
        queue.put(frame)
    await wait_all_tasks_blocked()
    assert got == []
    queue.tick()
    await wait_all_tasks_blocked()
    assert got == [start]
    queue.tick()
    await wait_all_tasks_blocked()
    assert got == [start]
    big = made.events(3000)
    for frame in big:
        queue.put(frame)
    await wait_all_tasks_blocked()
    assert got == [start, big]
    end = made.end()
    for frame in end:
        queue.put(frame)
    queue.finish()
    await wait_all_tasks_blocked()
    assert got == [start, big, end]


async def test_get_is_a_checkpoint_and_takes_nothing_when_cancelled():
    queue = FrameQueue()
    for frame in session():
        queue.put(frame)
    with trio.testing.assert_checkpoints():
        assert await queue.get()
    for frame in session():
        queue.put(frame)
    with trio.CancelScope() as scope:
        scope.cancel()
        await queue.get()
    assert scope.cancelled_caught
    assert len(await queue.get()) == len(session())


async def test_a_closed_queue_counts_everything_under_its_cause(nursery):
    seen = []
    queue = FrameQueue(lost=lambda n, cause: seen.append((n, cause)))
    frames = session(100, procs=1)
    for frame in frames:
        queue.put(frame)
    await queue.get()
    for frame in frames:
        queue.put(frame)
    queue.close(LossCause.SINK_FAILED, "the disk is gone")
    queue.close(LossCause.QUOTA)
    for frame in frames:
        queue.put(frame)
    assert queue.lost == {LossCause.SINK_FAILED: 200}
    assert seen == [(100, LossCause.SINK_FAILED), (100, LossCause.SINK_FAILED)]
    assert queue.queued_bytes == 0
    with pytest.raises(SinkError, match="the disk is gone"):
        await queue.get()


async def test_closing_wakes_the_sink(nursery):
    queue = FrameQueue()

    async def take():
        with pytest.raises(SinkError):
            await queue.get()
        done.set()

    done = trio.Event()
    nursery.start_soon(take)
    await wait_all_tasks_blocked()
    queue.close()
    await done.wait()


def test_a_sink_that_stands_still_for_ever_costs_bounded_memory():
    made = Maker()
    queue = FrameQueue(1)
    for frame in made.start():
        queue.put(frame)
    for _ in range(5 * ROWS_PER_PROC):
        for frame in [*made.events(2), *made.lose(3)]:
            queue.put(frame)
    assert queue._gap is not None
    assert queue._gap.rows < 2 * ROWS_PER_PROC
    queue.finish()
    account = Account(queue._frames)
    assert account.total(0) == made.emitted[0]
    assert account.count("SINK_FULL") == 10 * ROWS_PER_PROC
    assert account.count("QUEUE_FULL") == 15 * ROWS_PER_PROC


def test_a_gap_with_more_procs_than_can_be_told_gives_the_sink_up(monkeypatch):
    monkeypatch.setattr("tracesvc.sinks.queue.MAX_ROWS", 50)
    made = Maker(procs=60)
    queue = FrameQueue(1)
    frames = made.start()
    for proc in range(60):
        frames += made.events(1, proc)
    for frame in frames:
        queue.put(frame)
    assert queue.dropping
    assert sum(queue.lost.values()) == 60
    assert queue.lost[LossCause.SINK_FAILED] > 0


def test_a_capacity_of_nothing_is_refused():
    with pytest.raises(ValueError, match="capacity_bytes"):
        FrameQueue(0)
