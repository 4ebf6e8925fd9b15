"""Where tasks are suspended, and what runs for long."""

import ctypes
import functools
import sys
import threading
import time
import types

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import tracesvc
from tests.recorder.recording import Memory, Recording, finish, short, trace
from tracesvc import Tracer


def functions(event) -> list[str]:
    return [function for function, _, _ in event.stack]


def stacks(program, task="main", **options):
    recording = trace(program, **options)
    return [functions(event) for event in recording.of("task_stack", task=task)]


async def sleeps(seconds: float) -> None:
    await trio.sleep(seconds)


def test_a_wait_that_lasts_long_has_its_stack_innermost_first():
    async def main() -> None:
        await sleeps(0.005)

    recording = trace(main)
    (event,) = recording.of("task_stack", task="main")
    names = functions(event)
    assert names.index("sleep") < names.index("sleeps") < names.index(main.__qualname__)
    function, file, line = event.stack[names.index("sleeps")]
    assert (function, file) == ("sleeps", __file__)
    assert line == sleeps.__code__.co_firstlineno + 1
    (wake,) = recording.of("task_runnable", task="main")
    assert wake.seq == event.seq + 1, "it is told right before the wake-up"


def test_a_wait_that_is_short_has_none():
    async def main() -> None:
        await sleeps(0.001)

    assert stacks(main, slow_block_s=10) == []


def test_all_of_them():
    async def main() -> None:
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.checkpoint)

    found = stacks(main, stacks="all")
    assert len(found) == 3
    assert all("NurseryManager.__aexit__" in names for names in found)


def test_none_at_all():
    async def main() -> None:
        await sleeps(0.005)

    assert stacks(main, stacks="off") == []


def test_a_deep_stack_keeps_its_innermost_64_frames():
    async def down(n: int) -> None:
        if n:
            await down(n - 1)
        else:
            await trio.sleep(0.001)

    async def main() -> None:
        await down(200)

    (names,) = stacks(main, stacks="all")
    assert len(names) == 64
    assert "sleep" in names
    assert main.__qualname__ not in names


def test_strange_awaitables_are_seen_through_or_end_the_stack():
    class Awaitable:
        def __await__(self):
            return trio.sleep(0.001).__await__()  # noqa: ASYNC105

    class Opaque:
        """Drives what it wraps, and does not say so."""

        def __init__(self, coroutine) -> None:
            self.coroutine = coroutine

        def __await__(self):
            return self

        def __iter__(self):
            return self

        def __next__(self):
            return self.send(None)

        def send(self, value):
            return self.coroutine.send(value)

        def throw(self, *exc):
            return self.coroutine.throw(*exc)

    @types.coroutine
    def generator():
        yield from trio.sleep(0.001).__await__()  # noqa: ASYNC105

    async def numbers():
        await trio.sleep(0.001)
        yield 1

    async def main() -> None:
        await Awaitable()
        await generator()
        async for _ in numbers():
            pass

    async def opaque() -> None:
        await Opaque(trio.sleep_forever())  # noqa: ASYNC105

    found = stacks(main, stacks="all")
    assert len(found) == 3
    assert all("sleep" in names and names[-1].endswith("main") for names in found), found
    assert any("generator" in name for name in found[1])
    assert any("numbers" in name for name in found[2])

    async def with_opaque() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opaque, name="opaque")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    assert stacks(with_opaque, "opaque", stacks="all") in ([], [[opaque.__qualname__]])


async def test_a_task_that_still_waits_is_told_of_and_stands_in_the_next_snapshot(monkeypatch):
    """By the pacer, after a second: made a thousandth of that."""
    monkeypatch.setattr("tracesvc.recorder.hooks.LONG", 1_000_000)
    memory = Memory()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(sleeps, 1000), name="patient")
        await wait_all_tasks_blocked()
        async with tracesvc.open_tracer(memory) as tracer:
            (run,) = tracer._runs
            spins(0.002)
            for _ in range(2):  # once is enough
                await trio.to_thread.run_sync(run.tell_stacks)
            told = tracer.seal_all()
            while not tracer.has_read(told):
                await trio.lowlevel.checkpoint()
            tracer.new_generation()
            tracesvc.log("in the next generation")
        nursery.cancel_scope.cancel()
    recording = Recording(memory.data, statistics=tracer.statistics())
    (event,) = recording.of("task_stack", task="patient")
    assert "sleeps" in functions(event)
    rows = [row for snapshot, _ in recording.snapshots for row in snapshot.tasks]
    found = [row.stack for row in rows if recording.names[row.task] == "patient"]
    assert found[-1] > 0


# --- steps that run for long ---------------------------------------------------------------------


def spins(seconds: float) -> None:
    """Of the processor, so that who watches has its turns on a busy machine, too."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_step_that_runs_for_long_tells_what_runs():
    async def main() -> None:
        spins(0.3)
        await trio.lowlevel.checkpoint()

    found = trace(main, stall_s=0.02).of("step_stack", task="main")
    due = [event.lasted - event.late for event in found]
    assert due == [20_000_000 << n for n in range(len(found))]
    assert len(found) >= 2
    for event in found:
        assert event.late >= 0
    # Where the machine is busy one may be looked at just before or behind it.
    assert ["spins", main.__qualname__] in [functions(event)[:2] for event in found]


def test_a_call_into_c_that_holds_the_interpreter_lock_is_told_of_when_it_ends(way):
    if sys.platform == "win32":
        pytest.skip("needs usleep")
    usleep = ctypes.PyDLL(None).usleep

    async def main() -> None:
        usleep(400_000)
        await trio.lowlevel.checkpoint()

    found = trace(main, stall_s=0.02).of("step_stack", task="main")
    if way[1] == "1":  # the twin may come too late
        assert found
    for event in found:
        assert short(functions(event)[0]) == "main"
        assert event.late >= 100_000_000


def test_a_stall_in_another_thread():
    async def main() -> None:
        spins(0.3)

    tracer = Tracer(stall_s=0.02)
    tracer.start()
    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    thread.join()
    recording = Recording(trio.run(finish, tracer), statistics=tracer.statistics())
    found = recording.of("step_stack", task="main")
    assert "spins" in [function for event in found for function in functions(event)]


def test_nobody_watches_where_nobody_asked():
    async def main() -> None:
        spins(0.05)

    before = threading.active_count()
    assert trace(main, stall_s=0).of("step_stack") == []
    assert threading.active_count() <= before


def test_virtual_time_has_no_stalls():
    async def main() -> None:
        await trio.sleep(1000)

    clock = MockClock(autojump_threshold=0)
    assert trace(main, run={"clock": clock}, stall_s=0.5).of("step_stack") == []
