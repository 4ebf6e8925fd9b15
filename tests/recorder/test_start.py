"""`Tracer.start`, line by line of the checklist for Go's StartTrace (section 2.2)."""

import gc
import importlib.metadata
import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import tracesvc
from tests.recorder.recording import Recording, finish, trace
from tracesvc import Tracer, TracerBusyError, TracerState
from tracesvc.events import EVENTS, Reason
from tracesvc.recorder.source import source


async def test_line_1_refused_while_on_and_while_draining_and_nothing_changes(nursery):
    first, second = Tracer(), Tracer()
    first.start()
    session = first.statistics().session
    for tracer in (first, second):
        with pytest.raises(TracerBusyError, match="ON"):
            tracer.start()
    assert first.state is TracerState.ON
    assert second.state is TracerState.OFF
    assert first.statistics().session == session
    assert second.statistics().session is None

    assert await first.read() is not None  # there is a reader: stop() will wait for it
    nursery.start_soon(first.stop)
    await wait_all_tasks_blocked()
    assert first.state is TracerState.DRAINING
    for tracer in (first, second):
        with pytest.raises(TracerBusyError, match="DRAINING"):
            tracer.start()
    while await first.read() is not None:
        pass
    await wait_all_tasks_blocked()
    assert first.state is TracerState.OFF

    second.start()
    data = await finish(second)
    assert Recording(data, statistics=second.statistics()).header.session != session


def test_line_1_of_many_threads_that_start_at_once_one_wins():
    ready, outcomes = threading.Barrier(8), []

    def start() -> None:
        tracer = Tracer()
        ready.wait()
        try:
            tracer.start()
        except TracerBusyError as exc:
            outcomes.append(exc)
        else:
            outcomes.append(tracer)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [outcome for outcome in outcomes if isinstance(outcome, Tracer)]
    assert len(outcomes) == 8
    assert len(winners) == 1
    Recording(trio.run(finish, winners[0]))


async def test_line_2_nobody_else_records_before_the_snapshot_is_done():
    """Go's startingtrace: the tasks are entered while the tracer is not enabled for anybody else."""
    tracer, states = Tracer(), set()

    def nosy(phase: str, info: object) -> None:
        states.add(tracer.state)
        if tracer.state is TracerState.OFF:
            tracesvc.log("too early")

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(trio.sleep_forever)
        await wait_all_tasks_blocked()
        threshold = gc.get_threshold()
        gc.callbacks.append(nosy)
        gc.set_threshold(1)
        try:
            tracer.start()
        finally:
            gc.set_threshold(*threshold)
            gc.callbacks.remove(nosy)
        nursery.cancel_scope.cancel()
    recording = Recording(await finish(tracer))
    assert TracerState.OFF in states, "the collector never ran within start()"
    assert recording.of("log") == []
    run = [event.type for event in recording.events if event.proc == 1]
    assert set(run[: run.index("proc_start")]) == {"task_create", "nursery_open", "task_waiting"}


async def waits_for_event(event: trio.Event) -> None:
    await event.wait()


async def sleeps() -> None:
    await trio.sleep_forever()


async def runnable() -> None:
    await trio.lowlevel.checkpoint()


async def test_line_3_every_live_task_with_what_it_waits_for():
    tracer, event = Tracer(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits_for_event, event)
        nursery.start_soon(sleeps, name="has another name")
        nursery.start_soon(runnable, name="dead by then")
        await wait_all_tasks_blocked()
        nursery.start_soon(runnable)
        tracer.start()
        me = trio.lowlevel.current_task()
        nursery.cancel_scope.cancel()
    recording = Recording(await finish(tracer))
    creates = {event.name.rsplit(".", 1)[-1]: event for event in recording.of("task_create")}
    assert creates.keys() >= {"waits_for_event", "has another name", "runnable"}
    assert "dead by then" not in creates
    number = me._counter + 1
    children = [creates[name] for name in ("waits_for_event", "has another name", "runnable")]
    assert {child.parent for child in children} == {number}
    assert len({child.nursery for child in children}) == 1
    assert children[0].nursery > 0
    line = sleeps.__code__.co_firstlineno
    assert creates["has another name"].entry == f"sleeps ({__file__}:{line})"
    waiting = {recording.names[event.task]: event for event in recording.of("task_waiting")}
    assert waiting["waits_for_event"].reason == Reason.EVENT
    assert waiting["waits_for_event"].object > 0
    assert waiting["has another name"].reason == Reason.SLEEP
    assert "runnable" not in waiting
    assert recording.names[number] not in waiting


async def test_line_3_parents_come_before_children():
    async def parent(depth: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(*((parent, depth - 1) if depth else (sleeps,)))

    tracer = Tracer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parent, 4)
        await wait_all_tasks_blocked()
        tracer.start()
        nursery.cancel_scope.cancel()
    recording = Recording(await finish(tracer))
    seen = {0}
    for event in recording.of("task_create"):
        assert event.parent in seen
        seen.add(event.task)
    assert len(seen) > 63


async def test_line_4_proc_start_and_the_step_of_the_caller():
    tracer = Tracer()
    tracer.start()
    recording = Recording(await finish(tracer))
    run = [event for event in recording.events if event.proc == 1]
    at = [event.type for event in run].index("proc_start")
    start, step = run[at : at + 2]
    assert (start.kind, start.thread) == (1, threading.get_native_id())
    assert start.name == threading.current_thread().name
    assert (step.type, step.task) == ("step_start", trio.lowlevel.current_task()._counter + 1)


async def test_line_5_the_start_time_is_taken_when_the_snapshot_is_done():
    tracer = Tracer()
    tracer.start()
    recording = Recording(await finish(tracer))
    step = next(event for event in recording.events if event.type == "step_start")
    later = [event.time for event in recording.events if event.seq > step.seq]
    assert step.time <= recording.header.monotonic <= min(later)


async def test_line_5_each_session_begins_with_empty_tables_and_its_own_header():
    tracer, recordings = Tracer(), []
    for _ in range(2):
        tracer.start()
        with tracesvc.span("the same name"):
            pass
        recordings.append(Recording(await finish(tracer), statistics=tracer.statistics()))
    first, second = recordings
    assert first.header.session != second.header.session
    for recording in recordings:
        assert recording.generations == 1
        assert recording.snapshots == []
        assert min(event.seq for event in recording.events) == 0
        assert [event.name for event in recording.of("span_begin")] == ["the same name"]


def test_line_6_what_every_trace_needs_is_registered_at_the_start():
    """Go registers labels of its own; here the vocabulary and the program's description travel in the header."""

    async def main() -> None:
        pass

    header = trace(main).header
    assert {row[0]: row[1] for row in header.events} == {n: e.type for n, e in EVENTS.items()}
    assert header.source["name"] == "program"
    assert header.source["trio"] == trio.__version__


def test_line_7_what_writes_later_says_so_first():
    """Go: the other Ps emit ProcStart when they are acquired."""

    async def main() -> None:
        await trio.to_thread.run_sync(tracesvc.log, "from a thread")
        await trio.to_thread.run_sync(trio.run, trio.sleep, 0)

    recording = trace(main)
    kinds = {}
    for event in recording.events:
        if event.seq == 0 and event.proc:
            assert event.type == "proc_start"
            kinds[event.proc] = event.kind
    assert kinds[1] == 1
    assert sorted(kinds.values()) == [1, 1, 2]  # main, within the thread, the thread itself


async def test_a_start_that_fails_leaves_everything_as_it_was(monkeypatch):
    def refuse(self) -> None:
        raise RuntimeError("can't start new thread")

    tracer = Tracer()
    task = trio.lowlevel.current_task()
    before = (
        dict(task._runner.instruments),
        trio._core._run.setup_runner,
        trio._threads.start_thread_soon,
    )
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            tracer.start()
    assert tracer.state is TracerState.OFF
    after = (
        dict(task._runner.instruments),
        trio._core._run.setup_runner,
        trio._threads.start_thread_soon,
    )
    assert before == after
    tracesvc.log("recorded by nobody")
    tracer.start()
    tracesvc.log("recorded")
    recording = Recording(await finish(tracer), statistics=tracer.statistics())
    assert [event.message for event in recording.of("log")] == ["recorded"]


@pytest.mark.parametrize(
    "option, value",
    [("buffer_events", 15), ("buffer_events", 65_537), ("queue_buffers", 1)],
)
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(ValueError, match=f"{option} must be between .* not {value}"):
        Tracer(**{option: value})


def test_a_copy_without_its_metadata_records_all_the_same(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert source("frozen")["tracesvc"] == "unknown"
