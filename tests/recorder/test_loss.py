"""What does not fit is dropped, counted to the event, placed in the stream; and the state heals after it."""

import gc
import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import tracesvc
from tests.recorder.recording import Memory, Recording, close_ledger, finish, read_tasks_again
from tracesvc import Tracer
from tracesvc.events import LossCause, Reason, TaskState


async def sleeps() -> None:
    await trio.sleep_forever()


class Reading:
    """A tracer with a tiny queue, and a task that reads it."""

    def __init__(self, nursery: trio.Nursery, **options: int) -> None:
        self.tracer = Tracer(**{"buffer_events": 16, "queue_buffers": 2, **options})
        self.data = b""
        self.tracer.start()
        nursery.start_soon(self._read, name="tracesvc reader")

    async def _read(self) -> None:
        while (piece := await self.tracer.read()) is not None:
            self.data += piece

    async def stop(self) -> Recording:
        await self.tracer.stop()
        return Recording(self.data, statistics=self.tracer.statistics())


async def test_what_found_no_room_is_told_with_cause_place_and_time(nursery):
    reading = Reading(nursery)
    await wait_all_tasks_blocked()
    gc.disable()  # what it says would be lost among them
    try:
        for i in range(1000):  # in one step: the reader does not come to run
            tracesvc.log(str(i))
    finally:
        gc.enable()
    await wait_all_tasks_blocked()
    tracesvc.log("after")
    recording = await reading.stop()
    (row,) = recording.losses
    assert (row.proc, row.cause) == (1, LossCause.QUEUE_FULL)
    messages = [event.message for event in recording.of("log")]
    kept = [event for event in recording.of("log") if event.message != "after"]
    assert messages[-1] == "after"
    assert row.last - row.first + 1 == 1000 - len(kept)
    around = [event for event in recording.events if event.seq in (row.first - 1, row.last + 1)]
    first, last = (event for event in around if event.proc == 1)
    assert first.time <= row.start <= row.end <= last.time
    assert reading.tracer.statistics().lost == {"queue_full": 1000 - len(kept)}


async def test_losses_again_and_again(nursery):
    reading = Reading(nursery)
    await wait_all_tasks_blocked()
    for _ in range(20):
        for i in range(100):
            tracesvc.log(str(i))
        await wait_all_tasks_blocked()
    recording = await reading.stop()
    assert len(recording.losses) >= 15
    assert recording.lost == {LossCause.QUEUE_FULL: recording.lost.total()}
    logs = len(recording.of("log"))
    assert logs + recording.lost.total() >= 2000


async def test_many_procs_lose_each_their_own(nursery):
    reading, barrier = Reading(nursery), threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        for i in range(500):
            tracesvc.log(str(i))

    async with trio.open_nursery() as inner:
        for _ in range(4):
            inner.start_soon(trio.to_thread.run_sync, work)
        for _ in range(500):
            tracesvc.log("main")
    recording = await reading.stop()
    lost = {row.proc for row in recording.losses}
    assert len(lost) >= 3
    for row in recording.rows.values():
        assert row.lost == sum(r.last - r.first + 1 for r in recording.losses if r.proc == row.proc)


async def test_the_account_of_a_proc_that_has_ended_is_not_forgotten(nursery):
    reading = Reading(nursery)

    def work() -> None:
        for i in range(500):
            tracesvc.log(str(i))

    for _ in range(3):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        await wait_all_tasks_blocked()
    reading.tracer._beat()  # notes that the threads are over
    await wait_all_tasks_blocked()
    for _ in range(3):  # each generation retires the procs that are wholly out
        reading.tracer.new_generation()
        for _ in range(16):
            tracesvc.log("next")
        await wait_all_tasks_blocked()
    threads = [proc for proc in reading.tracer.statistics().procs if proc.kind == "thread"]
    assert threads == []
    close_ledger_while_on(reading.tracer)
    recording = await reading.stop()
    assert recording.lost.total() > 1000


def close_ledger_while_on(tracer: Tracer) -> None:
    """What is neither stored nor lost is in the run's buffer still."""
    statistics = tracer.statistics()
    waiting = statistics.events - statistics.stored - sum(statistics.lost.values())
    assert 0 <= waiting < 100


@pytest.mark.parametrize("tasks", [50, 600])
async def test_the_state_heals_after_a_loss(nursery, tasks):
    """The tasks are read from trio again, and the next generation's snapshot says how it is."""
    reading = Reading(nursery)
    await wait_all_tasks_blocked()
    event = trio.Event()
    for i in range(tasks):  # their creation is lost, all in one step
        nursery.start_soon(sleeps, name=f"sleeps {i}")
        nursery.start_soon(event.wait, name=f"waits {i}")
    await wait_all_tasks_blocked()
    assert reading.tracer.statistics().lost
    for _ in range(20):
        tracesvc.log("so that the loss is told of")
    await wait_all_tasks_blocked()
    read_tasks_again(reading.tracer)
    await wait_all_tasks_blocked()
    for _ in range(3):
        for _ in range(16):
            tracesvc.log("what follows")
        await wait_all_tasks_blocked()
    healed = await reading.stop()
    snapshot = last_snapshot(healed, proc=1)
    for i in range(tasks):
        assert snapshot[f"sleeps {i}"][1:] == (TaskState.WAITING, Reason.SLEEP)
        assert snapshot[f"waits {i}"][1:] == (TaskState.WAITING, Reason.EVENT)
    assert (
        len({parent for parent, *_ in map(snapshot.get, (f"waits {i}" for i in range(tasks)))}) == 1
    )
    created = {event.name for event in healed.of("task_create")}
    assert not created.issuperset(snapshot)


def last_snapshot(recording: Recording, proc: int) -> dict[str, tuple[int, int, int]]:
    """task name -> (parent, state, reason)."""
    parts = [(s, strings) for s, strings in recording.snapshots if s.proc == proc]
    last = max(i for i, (s, _) in enumerate(parts) if s.part == 0)
    return {
        strings[row.name]: (row.parent, row.state, row.reason)
        for snapshot, strings in parts[last:]
        for row in snapshot.tasks
    }


async def test_a_loss_in_between_makes_the_tasks_be_read_again(nursery):
    """What was read before another loss says nothing any more."""
    reading = Reading(nursery)
    await wait_all_tasks_blocked()
    for round_ in range(3):
        for i in range(50):
            nursery.start_soon(sleeps, name=f"sleeps {round_} {i}")
        await wait_all_tasks_blocked()
        read_tasks_again(reading.tracer)
        for i in range(100):
            tracesvc.log(str(i))
    await wait_all_tasks_blocked()
    read_tasks_again(reading.tracer)
    await wait_all_tasks_blocked()
    for _ in range(20):
        tracesvc.log("what follows")
    await wait_all_tasks_blocked()
    snapshot = last_snapshot(await reading.stop(), proc=1)
    assert {f"sleeps {r} {i}" for r in range(3) for i in range(50)} <= snapshot.keys()


async def test_a_span_whose_task_is_gone_is_not_open_for_ever_after_a_loss(nursery):
    reading = Reading(nursery)
    await wait_all_tasks_blocked()

    async def spans(event: trio.Event) -> None:
        with tracesvc.span("was open"), tracesvc.region("was open"):
            await event.wait()
            for i in range(100):
                tracesvc.log(str(i))
        for i in range(100):  # the end is lost
            tracesvc.log(str(i))

    event = trio.Event()
    async with trio.open_nursery() as inner:
        inner.start_soon(spans, event)
        await wait_all_tasks_blocked()
        for _ in range(16):
            tracesvc.log("so that the begin is out")
        await wait_all_tasks_blocked()
        event.set()
    for _ in range(20):
        tracesvc.log("so that the loss is told of")
    await wait_all_tasks_blocked()
    reading.tracer._beat()
    await wait_all_tasks_blocked()
    for _ in range(20):
        tracesvc.log("what follows")
    await wait_all_tasks_blocked()
    recording = await reading.stop()
    assert len(recording.of("span_begin", "region_begin")) == 2
    assert recording.of("span_end", "region_end") == []
    proc_0 = [snapshot for snapshot, _ in recording.snapshots if snapshot.proc == 0]
    assert all(not snapshot.spans and not snapshot.regions for snapshot in proc_0[-1:])


async def test_nobody_reads_and_then_somebody_does():
    """The cause changes with it."""
    tracer = Tracer(buffer_events=16, queue_buffers=2)
    tracer.start()
    for i in range(100):
        tracesvc.log(str(i))
    data = await tracer.read()
    for i in range(100):
        tracesvc.log(str(i))
    data += await finish(tracer)
    recording = Recording(data, statistics=tracer.statistics())
    assert recording.lost.keys() == {LossCause.NO_READER, LossCause.QUEUE_FULL}


async def test_losses_of_the_recorder_and_of_a_sink_stand_side_by_side():
    class Slow(Memory):
        async def run(self, frames):
            frames.capacity_bytes = 4_000
            await release.wait()
            await super().run(frames)

    release, slow, fast = trio.Event(), Slow("slow"), Memory("fast")
    async with tracesvc.open_tracer(slow, fast, buffer_events=16, queue_buffers=4) as tracer:
        for _ in range(50):
            for i in range(100):
                tracesvc.log(str(i))
            await wait_all_tasks_blocked()
        release.set()
    whole = Recording(fast.data, statistics=tracer.statistics())
    part = Recording(slow.data)
    assert whole.lost.keys() == {LossCause.QUEUE_FULL}
    assert part.lost.keys() == {LossCause.QUEUE_FULL, LossCause.SINK_FULL}
    told = {sink.name: sink for sink in tracer.statistics().sinks}
    assert told["fast"].events == len(whole.events)
    assert told["slow"].events == len(part.events)
    assert told["slow"].lost == {LossCause.SINK_FULL: len(whole.events) - len(part.events)}
    close_ledger(tracer.statistics())
