"""Threads, garbage collections, the run loop's counters, and procs of a program's own."""

import functools
import gc
import os
import threading
import time

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import tracesvc
from tests.recorder.recording import Recording, finish, trace
from tracesvc import Tracer
from tracesvc.events import ProcKind

# --- threads -------------------------------------------------------------------------------------


def work() -> None:
    tracesvc.log("in the thread")


class Work:
    def method(self) -> None:
        pass

    def __call__(self) -> None:
        pass


def test_a_call_in_a_thread_is_that_threads_and_that_tasks():
    async def main() -> None:
        with tracesvc.span("request"):
            await trio.to_thread.run_sync(work)

    recording = trace(main)
    (start,), (end,) = recording.of("thread_start"), recording.of("thread_end")
    (log,) = recording.of("log")
    (span,) = recording.of("span_begin")
    (main_task,) = recording.of("task_create", task="main")
    assert start.task == end.task == log.task == main_task.task
    assert start.proc == end.proc == log.proc != main_task.proc
    assert start.function == f"{__name__}.work"
    assert start.time <= log.time <= end.time
    assert log.span == span.span, "the context goes with the call"
    (proc,) = (row for row in recording.rows.values() if row.proc == start.proc)
    assert proc.kind == ProcKind.THREAD
    assert proc.thread not in (0, threading.get_native_id())


@pytest.mark.parametrize(
    "function, name",
    [
        (work, f"{__name__}.work"),
        (Work().method, f"{__name__}.Work.method"),
        (Work(), f"{__name__}.Work"),
        (os.getpid, "posix.getpid"),
        (functools.partial(functools.partial(work)), f"{__name__}.work"),
        (lambda: None, f"{__name__}.<lambda>"),
    ],
)
def test_the_name_of_what_is_called(function, name):
    async def main() -> None:
        await trio.to_thread.run_sync(function)

    assert [event.function for event in trace(main).of("thread_start")] == [name]


def test_a_thread_that_calls_back_into_the_run():
    async def main() -> None:
        await trio.to_thread.run_sync(calls_back)

    def calls_back() -> None:
        trio.from_thread.run_sync(tracesvc.log, "sync, from the thread")
        trio.from_thread.run(log, "async, from the thread")

    async def log(message: str) -> None:
        tracesvc.log(message)

    recording = trace(main)
    (start,) = recording.of("thread_start")
    (main_task,) = recording.of("task_create", task="main")
    logs = {event.message: event for event in recording.of("log")}
    # both run in the waiting task, which is woken for it
    assert {event.proc for event in logs.values()} == {main_task.proc}
    assert main_task.proc != start.proc
    assert logs["async, from the thread"].task == main_task.task


def test_an_exception_in_a_thread_ends_its_call():
    def fails() -> None:
        raise ValueError

    async def main() -> None:
        with pytest.raises(ValueError):  # noqa: PT011
            await trio.to_thread.run_sync(fails)

    recording = trace(main)
    assert len(recording.of("thread_start")) == len(recording.of("thread_end")) == 1


async def test_a_thread_that_is_left_behind_ends_in_no_session_but_its_own():
    """Its end comes after the stop: late, counted, dropped; the next session does not know it."""
    tracer, began = Tracer(), threading.Event()
    release, ended = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        release.wait()
        tracesvc.log("from a call of an earlier session")
        ended.set()

    tracer.start()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                functools.partial(trio.to_thread.run_sync, work, abandon_on_cancel=True)
            )
            await wait_all_tasks_blocked()
            await trio.to_thread.run_sync(began.wait)
            scope.cancel()
    first = Recording(await finish(tracer), statistics=tracer.statistics())
    assert first.of("thread_start") != []
    assert len(first.of("thread_end")) == 1  # that of the call that waited for it to begin
    again = Tracer()
    again.start()
    release.set()
    await trio.to_thread.run_sync(ended.wait)
    second = Recording(await finish(again), statistics=again.statistics())
    (log,) = second.of("log")
    assert (log.message, log.task) == ("from a call of an earlier session", 0)
    calls = {event.function for event in second.of("thread_start")}
    assert not any("work" in call for call in calls)


def test_a_thread_of_the_programs_own_is_a_proc_once_it_says_something():
    async def main() -> None:
        thread = threading.Thread(target=tracesvc.log, args=("hello",), name="their own")
        thread.start()
        thread.join()

    recording = trace(main)
    (log,) = recording.of("log")
    (start,) = (event for event in recording.of("proc_start") if event.name == "their own")
    assert log.proc == start.proc
    assert start.kind == ProcKind.THREAD
    assert log.task == 0


# --- garbage collection --------------------------------------------------------------------------


def test_a_collection_is_in_the_proc_of_the_thread_that_it_stopped():
    async def main() -> None:
        gc.collect(2)
        await trio.to_thread.run_sync(gc.collect, 1)

    recording = trace(main)
    (thread,) = recording.of("thread_start")
    (main_task,) = recording.of("task_create", task="main")
    collections = [
        (event.type, event.generation, event.proc)
        for event in recording.of("gc_start", "gc_end")
        if event.generation and event.proc
    ]
    assert collections == [
        ("gc_start", 2, main_task.proc),
        ("gc_end", 2, main_task.proc),
        ("gc_start", 1, thread.proc),
        ("gc_end", 1, thread.proc),
    ]


def test_a_collection_says_how_much_it_found():
    class Ring:
        def __init__(self) -> None:
            self.me = self

    async def main() -> None:
        gc.collect()
        for _ in range(100):
            Ring()
        gc.collect()

    ends = [event.collected for event in trace(main).of("gc_end") if event.generation == 2]
    assert max(ends) >= 100


# --- counters ------------------------------------------------------------------------------------


def test_the_loop_counts_what_is_runnable_and_how_long_it_made_others_wait():
    async def main() -> None:
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for _ in range(7):
                    nursery.start_soon(trio.lowlevel.checkpoint)
            time.sleep(0.3)  # noqa: ASYNC251  # hogs the loop, for longer than it takes to the next sample
            await trio.lowlevel.checkpoint()

    recording = trace(main)
    samples: dict[str, list[float]] = {}
    for event in recording.of("counter"):
        samples.setdefault(event.name, []).append(event.value)
        assert event.task == 0
    assert max(samples["trio.loop_lag"]) >= 0.3e9
    assert max(samples["trio.loop_lag"]) < 30e9
    assert all(value == int(value) >= 0 for value in samples["trio.run_queue"])


def test_the_loop_counts_the_tasks_at_the_beginning_of_a_pass():
    async def main() -> None:
        time.sleep(0.3)  # noqa: ASYNC251  # the next pass is sampled
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(trio.lowlevel.checkpoint)

    values = [e.value for e in trace(main).of("counter") if e.name == "trio.run_queue"]
    assert 50 in values


def test_resident_memory_is_that_of_the_process():
    psutil = pytest.importorskip("psutil")
    ready = threading.Event()

    async def main() -> None:
        tracer = tracesvc.recorder.tracer.current_tracer()
        tracer.on_beat = ready.set
        await trio.to_thread.run_sync(ready.wait)

    samples = [e for e in trace(main).of("counter") if e.name == "process.rss"]
    assert samples
    assert {event.proc for event in samples} == {0}
    now = psutil.Process().memory_info().rss
    assert now / 2 < samples[-1].value < now * 2


@pytest.mark.parametrize("value", [0, -1.5, 2**53, 1e300, True, "12.5"])
def test_a_counter_of_the_programs_own(value):
    async def main() -> None:
        tracesvc.counter("mine", value)

    (event,) = (e for e in trace(main).of("counter") if e.name == "mine")
    assert event.value == float(value)
    assert event.task > 0


@pytest.mark.parametrize("value", ["no number", None, object(), float("nan"), float("inf")])
def test_what_is_no_number_is_not_counted_but_told(value):
    async def main() -> None:
        tracesvc.counter("mine", value)

    recording = trace(main)
    assert [event for event in recording.of("counter") if event.name == "mine"] == []
    assert recording.statistics.repairs == {"counter without a number": 1}


# --- procs of the program's own ------------------------------------------------------------------


async def test_a_task_may_write_to_buffers_of_its_own():
    """``async with tracer.proc(name)``: what it and its children annotate goes there; the scheduler's events do not."""
    tracer = Tracer()

    async def child() -> None:
        tracesvc.log("child")
        await trio.to_thread.run_sync(tracesvc.log, "thread")

    tracer.start()
    async with tracer.proc("ingest") as proc:
        tracesvc.log("own")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
    assert not proc.live
    tracesvc.log("outside")
    async with tracer.proc("second"):
        pass
    recording = Recording(await finish(tracer), statistics=tracer.statistics())
    where = {event.message: event.proc for event in recording.of("log")}
    assert where["own"] == where["child"] == proc.number
    assert where["outside"] == 1
    assert where["thread"] not in (1, proc.number), "another thread has its own"
    own = [event.type for event in recording.events if event.proc == proc.number]
    assert own == ["proc_start", "log", "log", "proc_stop"]
    start = next(event for event in recording.events if event.proc == proc.number)
    assert (start.kind, start.name) == (ProcKind.TASK, "ingest")


async def test_a_proc_of_ones_own_while_the_tracer_is_off():
    async with Tracer().proc("nothing") as proc:
        tracesvc.log("nothing")
    assert proc is None


async def test_a_proc_of_ones_own_that_outlives_its_session():
    tracer = Tracer()
    tracer.start()
    async with tracer.proc("first"):
        Recording(await finish(tracer), statistics=tracer.statistics())
        tracer.start()
        tracesvc.log("in the second session")
    recording = Recording(await finish(tracer), statistics=tracer.statistics())
    assert [event.proc for event in recording.of("log")] == [1]


def test_time_is_the_monotonic_clock_also_under_a_mock_clock():
    async def main() -> None:
        times.append(time.monotonic_ns())
        await trio.sleep(7 * 24 * 3600)
        times.append(time.monotonic_ns())

    times: list[int] = []
    recording = trace(main, run={"clock": MockClock(autojump_threshold=0)})
    (block,) = (e for e in recording.of("step_block", task="main"))
    assert times[0] <= block.time <= times[1]
    assert recording.header.monotonic <= times[0]
    assert (
        abs(recording.header.wall + times[1] - recording.header.monotonic - time.time_ns()) < 60e9
    )
