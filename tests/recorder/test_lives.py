"""What the tracer's life and the program's have to do with each other: threads, runs, guests, forks, cycles."""

import gc
import os
import queue
import threading
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import tracesvc
from tests.recorder.recording import Memory, Recording, close_ledger, finish
from tracesvc import FileSink, Tracer, TracerState, open_tracer
from tracesvc.events import ProcKind
from tracesvc.model.verify import verify
from tracesvc.recorder.seams import OWN
from tracesvc.recorder.tracer import current_tracer
from tracesvc.sinks.outside import OutsideTracer


def seams() -> tuple:
    return trio._core._run.setup_runner, getattr(trio._threads, "start_thread_soon")  # noqa: B009  # mypy: not exported


def instruments_here() -> dict:
    """The current run's: hook (or all) -> those who want it."""
    instruments = trio.lowlevel.current_task()._runner.instruments
    return {hook: list(wanted) for hook, wanted in instruments.items() if wanted}


@pytest.fixture(autouse=True)
def everything_is_restored():
    """Whatever a test does: afterwards trio and Python are exactly as they were."""
    before, callbacks = seams(), list(gc.callbacks)
    yield
    assert seams() == before
    assert gc.callbacks == callbacks
    assert current_tracer() is None


async def works(rounds: int = 20) -> None:
    """A bit of everything."""
    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[int](2)
        nursery.start_soon(produces, send, rounds)
        nursery.start_soon(consumes, receive)
        nursery.start_soon(trio.to_thread.run_sync, partial(tracesvc.log, "in a thread"))
        with tracesvc.span("works"):
            await trio.sleep(0.001)
            await trio.lowlevel.checkpoint()


async def produces(send, rounds: int) -> None:
    async with send:
        for number in range(rounds):
            await send.send(number)


async def consumes(receive) -> None:
    async for _ in receive:
        await trio.lowlevel.checkpoint()


def runs_of(recording: Recording) -> set[int]:
    return {event.proc for event in recording.of("proc_start") if event.kind == ProcKind.RUN}


# --- threads that live longer --------------------------------------------------------------------


async def abandons(function, called: threading.Event) -> None:
    """Leave a thread behind once ``called`` is set in it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.to_thread.run_sync, function, abandon_on_cancel=True))
        await trio.to_thread.run_sync(called.wait)
        nursery.cancel_scope.cancel()


def test_a_thread_that_outlives_its_run_and_its_session():
    memory, gate, done, called = Memory(), threading.Event(), threading.Event(), threading.Event()

    def outlives() -> None:
        tracesvc.log("before the end")
        called.set()
        gate.wait(30)
        with tracesvc.span("after the end"):
            tracesvc.log("after the end")
            for _ in range(5000):  # more than a buffer
                tracesvc.counter("after the end", 1)
        done.set()

    async def main() -> Tracer:
        async with open_tracer(memory) as tracer:
            await abandons(outlives, called)
        return tracer

    tracer = trio.run(main)
    before = memory.data
    gate.set()
    assert done.wait(30)
    statistics = tracer.statistics()
    recording = Recording(memory.data, statistics=statistics)
    assert memory.data == before
    assert [log.message for log in recording.of("log")] == ["before the end"]
    assert len(recording.of("thread_start")) == 2
    assert len(recording.of("thread_end")) == 1


def test_a_thread_that_outlives_its_run_while_the_session_goes_on(tmp_path):
    gate, called, done = threading.Event(), threading.Event(), threading.Event()

    def outlives() -> None:
        called.set()
        gate.wait(30)
        tracesvc.log("the run is over")
        done.set()

    path = tmp_path / "x.trace"
    tracer = OutsideTracer(FileSink(path))
    tracer.start()
    trio.run(abandons, outlives, called)
    gate.set()
    assert done.wait(30)
    trio.run(works)
    tracer.stop()
    recording = Recording(path.read_bytes(), statistics=tracer.tracer.statistics())
    assert "the run is over" in {log.message for log in recording.of("log")}


def test_what_is_emitted_late_is_dropped_and_counted():
    """A thread that holds its proc when the session ends under it."""
    memory, procs = Memory(), list[Any]()

    async def main() -> Tracer:
        async with open_tracer(memory) as tracer:
            tracesvc.log("in time")
            assert tracer._session is not None
            procs.extend(tracer._session.procs.values())
        return tracer

    tracer = trio.run(main)
    late = tracer.statistics().late
    run = next(proc for proc in procs if proc.kind == ProcKind.RUN)
    for _ in range(3 * 1024):
        run.extend((6, 1, 1, 0, 0))
        if len(run.records) >= run.capacity:
            run.seal()
    statistics = tracer.statistics()
    assert statistics.late == late + 3 * 1024
    close_ledger(statistics)
    Recording(memory.data, statistics=statistics)


# --- many runs -----------------------------------------------------------------------------------


def in_threads(count: int) -> None:
    """So many runs at once."""
    ready = threading.Barrier(count)

    async def program() -> None:
        ready.wait(30)  # all of them are there
        await works()

    threads = [threading.Thread(target=trio.run, args=(program,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_8_runs_at_once_and_some_after_another_from_outside(tmp_path):
    path = tmp_path / "x.trace"
    tracer = OutsideTracer(FileSink(path))
    tracer.start()
    in_threads(8)
    for _ in range(3):
        trio.run(works)
    tracer.stop()
    tracer.stop()  # nothing
    recording = Recording(path.read_bytes(), statistics=tracer.tracer.statistics())
    assert len(runs_of(recording)) == 11
    assert len(recording.of("task_exit", task="produces")) == 11
    assert not [event for event in recording.of("proc_start") if event.name.startswith(OWN)]


async def test_8_runs_at_once_beside_the_one_with_the_tracer(tmp_path):
    path = tmp_path / "x.trace"
    async with open_tracer(FileSink(path)) as tracer:
        await trio.to_thread.run_sync(in_threads, 8)
        await works()
    recording = Recording(path.read_bytes(), statistics=tracer.statistics())
    assert len(runs_of(recording)) == 9
    assert len(recording.of("log")) == 9


def test_a_run_that_is_there_before_the_tracer_and_stays_after_it_is_left_as_it_was(tmp_path):
    """It is in another thread, and nobody in it asks for anything: it is not recorded, and nothing of it changes."""
    up, down = threading.Event(), threading.Event()
    instruments = []

    async def long() -> None:
        up.set()
        while not down.is_set():  # noqa: ASYNC110  # it is set in another thread
            await trio.sleep(0.001)
        instruments.append(instruments_here())

    thread = threading.Thread(target=trio.run, args=(long,))
    thread.start()
    assert up.wait(30)
    path = tmp_path / "x.trace"
    tracer = OutsideTracer(FileSink(path))
    tracer.start()
    trio.run(works)
    tracer.stop()
    down.set()
    thread.join(30)
    assert instruments == [{}]
    assert len(runs_of(Recording(path.read_bytes()))) == 1


# --- guest mode ----------------------------------------------------------------------------------


def as_guest(program) -> None:
    """A host loop as small as can be, as in trio's own tests of guest mode."""
    todo: queue.SimpleQueue = queue.SimpleQueue()
    outcomes = []

    def done(outcome) -> None:
        outcomes.append(outcome)
        todo.put(None)

    trio.lowlevel.start_guest_run(
        program,
        run_sync_soon_threadsafe=todo.put,
        done_callback=done,
        host_uses_signal_set_wakeup_fd=False,
    )
    while (call := todo.get(timeout=30)) is not None:
        call()
    outcomes[0].unwrap()


def test_guest_runs_from_outside(tmp_path):
    path = tmp_path / "x.trace"
    tracer = OutsideTracer(FileSink(path))
    tracer.start()
    as_guest(works)
    as_guest(works)
    tracer.stop()
    recording = Recording(path.read_bytes(), statistics=tracer.tracer.statistics())
    assert len(runs_of(recording)) == 2


def test_a_tracer_opened_inside_a_guest_run(tmp_path):
    path = tmp_path / "x.trace"

    async def program() -> None:
        async with open_tracer(FileSink(path)) as tracer:
            await works()
        assert tracer.state is TracerState.OFF

    as_guest(program)
    recording = Recording(path.read_bytes())
    assert recording.of("task_exit", task="produces")
    assert len(runs_of(recording)) == 1


# --- fork ----------------------------------------------------------------------------------------


async def test_a_fork_under_open_tracer(tmp_path):
    path = tmp_path / "x.trace"
    async with open_tracer(FileSink(path)) as tracer:
        await works()
        child = os.fork()
        if not child:
            code = 1
            try:
                in_order = current_tracer() is None and tracer.state is TracerState.OFF
                tracesvc.log("of the child")
                with tracesvc.span("of the child"):
                    pass
                code = 0 if in_order else 2
            finally:
                os._exit(code)
        await trio.to_thread.run_sync(os.waitpid, child, 0)
        tracesvc.log("of the parent")
    recording = Recording(path.read_bytes(), statistics=tracer.statistics())
    assert {log.message for log in recording.of("log")} == {"in a thread", "of the parent"}
    assert not recording.of("span_begin")[1:]


def test_a_forked_child_traces_on_its_own(tmp_path):
    path, of_child = tmp_path / "parent.trace", tmp_path / "child.trace"

    def in_child() -> None:
        if not hasattr(trio._core._thread_cache, "clear_worker_threads"):
            # a trio that takes the parent's idle threads, and `works` leaves one, for the child's
            trio._core._thread_cache.THREAD_CACHE._idle_workers.clear()

        async def program() -> None:
            async with open_tracer(FileSink(of_child)):
                await works()

        trio.run(program)

    before, callbacks = seams(), list(gc.callbacks)
    tracer = OutsideTracer(FileSink(path))
    tracer.start()
    trio.run(works)
    child = os.fork()
    if not child:
        code = 1
        try:
            in_child()
            code = 0 if before == seams() and callbacks == gc.callbacks else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    trio.run(works)
    tracer.stop()
    assert len(runs_of(Recording(path.read_bytes(), statistics=tracer.tracer.statistics()))) == 2
    assert len(runs_of(Recording(of_child.read_bytes()))) == 1


# --- again and again -----------------------------------------------------------------------------


async def test_100_starts_and_stops_under_load():
    """Tasks that yield, channels, timers, threads and regions, all of them there before, while and after."""
    before, instruments = seams(), instruments_here()
    events, stop = 0, False

    async def yields() -> None:
        while not stop:
            with tracesvc.region("yields"):
                await trio.lowlevel.checkpoint()

    async def loads() -> None:
        while not stop:
            await works(5)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(yields)
            nursery.start_soon(loads)
        await trio.lowlevel.checkpoint()
        for cycle in range(100):
            tracer = Tracer(buffer_events=64)
            tracer.start()
            assert seams() != before
            for _ in range(cycle % 7):
                await trio.lowlevel.checkpoint()
            data = await finish(tracer)
            assert tracer.state is TracerState.OFF
            assert seams() == before
            assert instruments_here() == instruments
            recording = Recording(data, statistics=tracer.statistics())
            events += len(recording.events)
        stop = True
    assert events > 100 * 20
    print(f"100 cycles, {events:,} events")


def test_many_procs_come_and_go(tmp_path):
    """500 runs in one session: what is over is forgotten, and the account is whole all the same."""
    path = tmp_path / "x.trace"
    tracer = OutsideTracer(FileSink(path))
    tracer.start()
    for _ in range(500):
        trio.run(wait_all_tasks_blocked)
    tracer.stop()
    report = verify(path)
    assert report.ok
    assert report.ended
    assert sum(account.kind == "run" for account in report.accounts) == 500
    close_ledger(tracer.tracer.statistics())
