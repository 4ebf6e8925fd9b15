"""`Tracer.stop`, line by line of the checklist for Go's StopTrace (section 2.3)."""

import gc
import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import tracesvc
from tests.recorder.recording import Recording, close_ledger, finish
from tracesvc import Tracer, TracerState
from tracesvc.recorder import tracer as tracer_module
from tracesvc.recorder.proc import Buffer


async def test_line_1_not_on_it_does_nothing(nursery):
    tracer = Tracer()
    await tracer.stop()  # never started
    assert tracer.state is TracerState.OFF
    tracer.start()
    assert await tracer.read() is not None
    nursery.start_soon(tracer.stop)
    await wait_all_tasks_blocked()
    assert tracer.state is TracerState.DRAINING
    await tracer.stop()  # while another one waits for the reader
    assert tracer.state is TracerState.DRAINING
    while await tracer.read() is not None:
        pass
    await wait_all_tasks_blocked()
    assert tracer.state is TracerState.OFF
    await tracer.stop()
    assert tracer.state is TracerState.OFF


async def test_line_1_stopped_by_eight_threads_at_once():
    tracer = Tracer()
    tracer.start()
    ready, failures = threading.Barrier(8), []

    def stop() -> None:
        ready.wait()
        try:
            trio.run(tracer.stop)
        except BaseException as exc:
            failures.append(exc)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(trio.to_thread.run_sync, stop)
        data = await finish(tracer)
    assert failures == []
    assert tracer.state is TracerState.OFF
    Recording(data, statistics=tracer.statistics())


async def test_line_2_the_step_of_the_caller_has_an_end():
    tracer = Tracer()
    tracer.start()
    recording = Recording(await finish(tracer))
    *_, end, stop = [event for event in recording.events if event.proc == 1]
    assert (end.type, end.task) == ("step_yield", trio.lowlevel.current_task()._counter + 1)
    assert stop.type == "proc_stop"


async def test_line_3_every_buffer_of_every_proc_arrives_also_of_those_that_have_ended():
    tracer = Tracer()
    tracer.start()
    async with tracer.proc("a task's own"):
        tracesvc.log("from the task's own proc")
    thread = threading.Thread(target=tracesvc.log, args=("from a thread that is over",))
    thread.start()
    await trio.to_thread.run_sync(thread.join)
    await trio.to_thread.run_sync(tracesvc.log, "from a thread that waits for work")

    async def log() -> None:
        tracesvc.log("from a run that is over")

    await trio.to_thread.run_sync(trio.run, log)
    tracesvc.log("from the run")
    recording = Recording(await finish(tracer), statistics=tracer.statistics())
    messages = {event.message: event.proc for event in recording.of("log")}
    assert messages.keys() == {
        "from the task's own proc",
        "from a thread that is over",
        "from a thread that waits for work",
        "from a run that is over",
        "from the run",
    }
    assert len(set(messages.values())) == 5


async def test_line_4_the_clock_has_moved_since_the_start(monkeypatch):
    tracer = Tracer(groups=["!nurseries"])  # those have a clock that is not coarse
    ticks = iter([])

    def coarse() -> int:
        return next(ticks, last)

    tracer.start()
    start = tracer._session.monotonic
    last = start + 16_000_000
    ticks = iter([start] * 1000)
    monkeypatch.setattr(tracer_module, "now", coarse)
    data = await finish(tracer)
    assert next(ticks, None) is None, "stop() did not wait for the clock"
    recording = Recording(data)
    assert recording.end.monotonic > recording.header.monotonic


async def test_line_4_while_it_drains_nothing_more_is_recorded(nursery):
    tracer = Tracer()
    tracer.start()
    header = await tracer.read()
    tracesvc.log("before")
    nursery.start_soon(tracer.stop)
    await wait_all_tasks_blocked()
    assert tracer.state is TracerState.DRAINING
    tracesvc.log("after")
    with tracesvc.span("after"), tracesvc.region("after"):
        await trio.lowlevel.checkpoint()
    tracesvc.counter("after", 1)
    data = header
    while (piece := await tracer.read()) is not None:
        data += piece
    await wait_all_tasks_blocked()
    recording = Recording(data, statistics=tracer.statistics())
    assert [event.message for event in recording.of("log")] == ["before"]
    assert recording.of("span_begin", "region_begin") == []
    assert recording.events[-1].type == "proc_stop"


async def test_line_5_stop_returns_after_the_last_read_has(nursery):
    tracer, order = Tracer(), []
    tracer.start()

    async def stop() -> None:
        await tracer.stop()
        order.append("stopped")

    order.append(len(await tracer.read()))
    nursery.start_soon(stop)
    while (piece := await tracer.read()) is not None:
        await wait_all_tasks_blocked()  # however long the reader takes
        order.append(len(piece))
    order.append("the end")
    await wait_all_tasks_blocked()
    assert len(order) > 4
    assert order[-2:] == ["the end", "stopped"]


def test_line_5_from_another_run_than_the_reader():
    """Stop in one run, the reader in another thread's."""
    tracer, data, ready = Tracer(), [], threading.Event()

    async def read() -> None:
        data.append(await tracer.read())
        ready.set()
        while (piece := await tracer.read()) is not None:
            data.append(piece)

    tracer.start()
    thread = threading.Thread(target=trio.run, args=(read,))
    thread.start()
    ready.wait()
    trio.run(tracer.stop)
    thread.join()
    assert tracer.state is TracerState.OFF
    Recording(b"".join(data), statistics=tracer.statistics())


def test_line_5_a_reader_whose_run_ends_is_not_waited_for():
    """Go waits for ever."""
    tracer, let_go = Tracer(), threading.Event()

    async def read_a_little() -> None:
        await tracer.read()
        reading.set()
        await trio.to_thread.run_sync(let_go.wait)

    reading = threading.Event()
    tracer.start()
    thread = threading.Thread(target=trio.run, args=(read_a_little,))
    thread.start()
    reading.wait()

    async def stop() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tracer.stop)
            await wait_all_tasks_blocked()
            assert tracer.state is TracerState.DRAINING
            let_go.set()

    trio.run(stop)
    thread.join()
    statistics = tracer.statistics()
    assert statistics.state == "OFF"
    close_ledger(statistics)
    assert set(statistics.lost) == {"no_reader"}


@pytest.mark.parametrize("pieces", range(8))
async def test_line_5_cancelled_it_gives_up_on_the_reader_and_the_ledger_closes(pieces, nursery):
    tracer = Tracer(buffer_events=16)
    tracer.start()
    data = b""
    for _ in range(pieces):
        for i in range(32):
            tracesvc.log(str(i))
        data += await tracer.read()
    for i in range(32):
        tracesvc.log(str(i))
    with trio.CancelScope() as scope:
        nursery.start_soon(cancel_when_blocked, scope)
        await tracer.stop()
    statistics = tracer.statistics()
    assert statistics.state == "OFF"
    assert await tracer.read() is None
    close_ledger(statistics)
    stored = len(Recording(data, whole=False).events) if pieces else 0
    assert statistics.stored == stored
    assert statistics.lost == {"no_reader": statistics.events - stored}


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_line_6_no_buffer_is_left_behind():
    gc.collect()
    before = [thing for thing in gc.get_objects() if isinstance(thing, Buffer)]
    tracer = Tracer(buffer_events=16)
    tracer.start()
    for i in range(1000):
        tracesvc.log(str(i))
    Recording(await finish(tracer))
    gc.collect()
    buffers = [thing for thing in gc.get_objects() if isinstance(thing, Buffer)]
    assert [buffer for buffer in buffers if buffer.records] == []
    assert len(buffers) <= len(before)


async def test_after_the_end_another_session_may_begin_at_once():
    tracer, sessions = Tracer(), set()
    for _ in range(3):
        tracer.start()
        sessions.add(Recording(await finish(tracer), statistics=tracer.statistics()).header.session)
    assert len(sessions) == 3
