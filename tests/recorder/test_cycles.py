"""A trace can be started, stopped and started again, under load and with any number of tasks.

After Go's TestEventBatch, TestTraceStress and TestTraceStressStartStop.
"""

import contextlib
import gc
import random
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import tracesvc
from benchmarks.memory import growth
from tests.recorder.recording import Recording, finish
from tracesvc import Tracer
from tracesvc.events import ProcStart, Reason, TaskWaiting
from tracesvc.format import Batch
from tracesvc.format.stream import StreamDecoder

SIZES = range(4_950, 5_051)


@pytest.mark.slow
@pytest.mark.parametrize("buffer_events, step", [(5_000, 2), (1_024, 10)])
async def test_4_950_to_5_050_waiting_tasks_at_start(buffer_events, step):
    """A buffer fills up within the snapshot, at another place for each number of tasks."""
    event, filled = trio.Event(), set()
    async with trio.open_nursery() as nursery:
        for _ in range(SIZES.start - step):
            nursery.start_soon(event.wait)
        for waiting in SIZES[::step]:
            for _ in range(step):
                nursery.start_soon(event.wait)
            await wait_all_tasks_blocked()
            tracer = Tracer(buffer_events=buffer_events)
            tracer.start()
            filled.add(len(tracer._session.procs[1].records))
            assert tracer.statistics().buffers >= 1, "no buffer was full within the snapshot"
            data = await finish(tracer)
            waits = types_before_proc_start(data).count(TaskWaiting.number)
            assert waits - waiting in range(10), "the test's own tasks wait as well"
        assert len(filled) == len(SIZES[::step])
        nursery.cancel_scope.cancel()
    recording = Recording(data, statistics=tracer.statistics())
    waits = [e for e in recording.of("task_waiting", task="wait") if e.reason == Reason.EVENT]
    assert len({e.task for e in waits}) == len(waits) == SIZES[-1]
    assert len({e.object for e in waits}) == 1


def types_before_proc_start(data: bytes) -> bytes:
    """The event types of the snapshot."""
    decoder = StreamDecoder()
    decoder.feed(data)
    batches = [item.record for item in decoder if isinstance(item.record, Batch)]
    types = b"".join(batch.types for batch in batches if batch.proc == 1)
    return types[: types.index(ProcStart.number)]


class Load:
    """Tasks that yield, sleep, send, receive, lock, call threads and annotate, until they are told to stop."""

    def __init__(self) -> None:
        self.steps = 0

    async def run(self) -> None:
        self.lock = trio.Lock()
        async with trio.open_nursery() as nursery:
            send, receive = trio.open_memory_channel[int](2)
            nursery.start_soon(self.sends, send)
            nursery.start_soon(self.receives, receive)
            for work in (
                self.yields,
                self.sleeps,
                self.locks,
                self.calls,
                self.spawns,
                self.collects,
            ):
                nursery.start_soon(work)
                nursery.start_soon(work)

    async def sends(self, channel: trio.MemorySendChannel[int]) -> None:
        while True:
            with tracesvc.span("send", n=self.steps):
                await channel.send(self.steps)

    async def receives(self, channel: trio.MemoryReceiveChannel[int]) -> None:
        async for n in channel:
            tracesvc.counter("received", n)
            self.steps += 1

    async def yields(self) -> None:
        while True:
            with tracesvc.region("yields"):
                await trio.lowlevel.checkpoint()

    async def sleeps(self) -> None:
        while True:
            await trio.sleep(random.random() / 1_000)
            tracesvc.log("slept", level="debug")

    async def locks(self) -> None:
        while True:
            async with self.lock:
                await trio.lowlevel.checkpoint()

    async def calls(self) -> None:
        while True:
            await trio.to_thread.run_sync(self.in_thread)

    def in_thread(self) -> None:
        with tracesvc.region("in a thread"):
            trio.from_thread.run_sync(tracesvc.log, "from a thread")

    async def spawns(self) -> None:
        while True:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.checkpoint)
                nursery.start_soon(trio.sleep, 0)

    async def collects(self) -> None:
        while True:
            await trio.sleep(0.001)
            gc.collect(0)


@contextlib.contextmanager
def another_run_under_load() -> Iterator[None]:
    stop: list[Callable[[], None]] = []

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            stop.append(lambda: token.run_sync_soon(scope.cancel))
            await Load().run()

    # a daemon: where this fails, nothing waits for a run that nobody stops
    thread = threading.Thread(target=trio.run, args=(main,), daemon=True)
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.000_1)  # else each run has to wait 5 ms for the other, all the time
    thread.start()
    try:
        yield
    finally:
        stop[0]()
        thread.join(10)
        sys.setswitchinterval(before)


@pytest.mark.slow
async def test_100_cycles_under_load(nursery):
    load, tracer, sessions = Load(), Tracer(buffer_events=64), set()
    nursery.start_soon(load.run)
    with another_run_under_load():
        for cycle in range(100):
            steps = load.steps
            tracer.start()
            while load.steps < steps + cycle % 10:
                await trio.lowlevel.checkpoint()
            recording = Recording(await finish(tracer), statistics=tracer.statistics())
            sessions.add(recording.header.session)
            assert recording.of("step_start")
    assert len(sessions) == 100
    nursery.cancel_scope.cancel()


def test_nothing_grows_over_many_cycles(way):
    """`make campaign-cycles` does 10,000. A leak is there in every stretch of them, a cache fills up only once."""
    stretches = [growth(100, before=50, native=way[1] == "1") for _ in range(3)]
    assert min(blocks for blocks, _ in stretches) < 0.5, stretches
