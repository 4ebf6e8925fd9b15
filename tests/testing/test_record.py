"""A program's trace by trio's virtual clock: the same whatever the machine does, and true to the clock."""

import gc
import random
import threading
import time
from itertools import pairwise

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import tracesvc
from tracesvc import TracerBusyError
from tracesvc.analysis import lint, summarize, why
from tracesvc.model.verify import verify
from tracesvc.recorder.tracer import current_tracer
from tracesvc.testing import record


def of(trace, *types):
    return [event for event in trace if event.type in types]


def told(trace):
    """What it says, but for numbers that are counted on within a process."""
    return [(event.type, event.time, event.seq, getattr(event, "name", "")) for event in trace]


async def works(seconds):
    trio.lowlevel.current_clock().jump(seconds)


def test_a_second_is_one_of_the_virtual_clock():
    async def main():
        with tracesvc.span("sleeps"):
            await trio.sleep(1.5)
        with tracesvc.span("works"):
            await works(0.25)
        tracesvc.counter("virtual", trio.current_time())

    trace = record(main)
    begins, ends = of(trace, "span_begin"), []
    trace.rewind()
    ends = of(trace, "span_end")
    assert [end.time - begin.time for begin, end in zip(begins, ends, strict=True)] == [
        pytest.approx(1.5e9, abs=10),
        pytest.approx(0.25e9, abs=10),
    ]
    trace.rewind()
    (counter,) = of(trace, "counter")
    assert counter.time == pytest.approx(counter.value * 1e9, abs=100)


def test_where_everybody_waits_the_run_loop_waits_too():
    async def main():
        await trio.sleep(3)
        await works(1)

    trace = record(main)
    loop = summarize(trace).loop
    assert loop.busy == pytest.approx(0.25, abs=1e-6)
    assert loop.io_wait == pytest.approx(3e9, abs=10)
    trace.rewind()
    (wait,) = of(trace, "io_wait_start")
    assert wait.timeout == 3 * 10**9


def test_what_the_machine_does_meanwhile_does_not_matter():
    """The first time it is slow, and collects garbage whenever it can."""

    def is_slow():
        time.sleep(random.random() / 500)
        gc.collect()

    def program(slow):
        async def child(i):
            for _ in range(5):
                if slow:
                    is_slow()
                await trio.sleep(i)

        async def main():
            async with trio.open_nursery() as nursery:
                for i in range(5):
                    nursery.start_soon(child, i)

        return main

    assert told(record(program(slow=True), seed=3)) == told(record(program(slow=False), seed=3))


def test_the_seed_decides_who_goes_first():
    async def child(name):
        tracesvc.log(name)

    async def main():
        async with trio.open_nursery() as nursery:
            for name in "abcdef":
                nursery.start_soon(child, name)

    def order(seed):
        return "".join(event.message for event in of(record(main, seed=seed), "log"))

    orders = [order(seed) for seed in range(5)]
    assert [order(seed) for seed in range(5)] == orders
    assert len(set(orders)) > 1
    before = trio._core._run._r.getstate()
    order(1)
    assert trio._core._run._r.getstate() == before
    assert len({order(None) for _ in range(20)}) > 1


def test_it_is_a_whole_and_valid_trace():
    async def main():
        done = trio.Event()

        async def child():
            await trio.to_thread.run_sync(sum, [1, 2])
            done.set()

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
                await done.wait()
                scope.cancel()
                await trio.sleep_forever()

    trace = record(main, stacks="all", groups=["+scopes"])
    types = {event.type for event in trace}
    assert {"thread_start", "cancel_request", "scope_open", "task_stack"} <= types
    assert not types & {"gc_start", "overhead"}
    trace.rewind()
    report = verify(trace)
    assert (report.ok, report.ended, report.violations) == (True, True, [])
    trace.rewind()
    assert summarize(trace).as_dict()["duration"] < 1000
    names = {getattr(event, "name", "") for event in trace}
    assert not any(name.startswith(("tracesvc ", "process.")) for name in names)


def test_more_events_than_are_written_together():
    async def main():
        for i in range(5000):
            tracesvc.counter("i", i)
            await trio.sleep(1)

    trace = record(main)
    counters = of(trace, "counter")
    assert [event.value for event in counters] == list(range(5000))
    times = [event.time for event in counters]
    assert all(0 <= b - a - 10**9 < 10 for a, b in pairwise(times))
    trace.rewind()
    assert verify(trace).ok


def test_questions_are_answered_by_the_virtual_clock():
    async def main():
        lock = trio.Lock()

        async def holder():
            async with lock:
                await trio.sleep(3600)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(holder)
            await wait_all_tasks_blocked()
            with tracesvc.span("work"):
                async with lock:
                    pass

    trace = record(main)
    assert why(trace, "work").text.startswith("span work (")
    assert "took 1:00:00 h: 1:00:00 h waiting for task holder (lock)" in why(trace, "work").text
    assert lint(trace).findings == []


def test_what_the_program_raises_comes_out_and_nothing_stays_behind():
    async def main(what):
        raise what

    with pytest.raises(ValueError, match="no") as caught:
        record(main, ValueError("no"))
    assert caught.value.__context__ is None
    assert current_tracer() is None
    assert list(record(trio.sleep, 1))


def test_it_can_be_kept(tmp_path):
    path = tmp_path / "a.trace"
    trace = record(trio.sleep, 1, path=path)
    with tracesvc.read(path) as kept:
        assert list(kept) == list(trace)
    with pytest.raises(FileNotFoundError):
        record(trio.sleep, 1, path=tmp_path / "none" / "a.trace")


def test_within_a_trace_there_is_none():
    async def main():
        record(trio.sleep, 1)

    with pytest.raises(TracerBusyError):
        record(main)


def test_events_for_which_there_is_no_room_are_an_error():
    async def main():
        for i in range(200):
            tracesvc.counter("i", i)

    with pytest.raises(tracesvc.TracerError, match="had no room"):
        record(main, buffer_events=16, queue_buffers=2)


def test_runs_of_other_threads_are_left_to_their_own_clock_and_stay_in_order():
    async def main():
        def other():
            trio.run(trio.sleep, 0)

        thread = threading.Thread(target=other)
        await trio.sleep(1)
        thread.start()
        await trio.to_thread.run_sync(thread.join)
        await trio.sleep(1)

    trace = record(main)
    report = verify(trace)
    assert report.ok, report.violations
    assert len([account for account in report.accounts if account.kind == "run"]) == 2
