"""Why a task is blocked, on what, and who wakes it: a small program for each reason, compared event by event."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from functools import partial

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.recorder.recording import trace
from tracesvc.events import Reason


def waits(program, *args, **options):
    """Record a program with one task, ``waiter``, that blocks once and is woken once; (recording, object, waker)."""
    recording = trace(program, *args, **options)
    (block,) = recording.of("step_block", task="waiter")
    (wake,) = recording.of("task_runnable", task="waiter")
    return recording, Reason(block.reason), block.object, recording.names.get(wake.waker)


def test_sleep():
    async def main() -> None:
        await trio.sleep(1)

    assert trace(main, run={"clock": MockClock(autojump_threshold=0)}).story("main") == [
        "main is created by <init>",
        "main runs",
        "main blocks: SLEEP",
        "main is woken by nobody",
        "main runs",
        "main exits",
    ]


@pytest.mark.parametrize(
    "sleep",
    [
        partial(trio.sleep_until, 5),
        partial(trio.sleep, 5),
        partial(trio.sleep_forever),
    ],
)
def test_all_kinds_of_sleep(sleep):
    async def waiter() -> None:
        with trio.move_on_after(10):
            await sleep()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter)

    _, reason, thing, waker = waits(main, run={"clock": MockClock(autojump_threshold=0)})
    assert (reason, thing, waker) == (Reason.SLEEP, 0, None)


def test_a_sleep_of_no_time_is_a_checkpoint():
    async def main() -> None:
        await trio.lowlevel.checkpoint()

    assert trace(main).story("main")[1:] == [
        "main runs",
        "main yields",
        "main runs",
        "main exits",
    ]


def test_memory_channel_send():
    async def waiter(channel: trio.MemorySendChannel[None]) -> None:
        await channel.send(None)

    async def main() -> None:
        send, receive = trio.open_memory_channel[None](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter, send)
            await wait_all_tasks_blocked()
            receive.receive_nowait()

    recording, reason, thing, waker = waits(main)
    assert (reason, waker) == (Reason.CHANNEL_SEND, "main")
    assert thing > 0
    assert recording.story("waiter") == [
        "waiter is created by main",
        "waiter runs",
        "waiter blocks: CHANNEL_SEND",
        "waiter is woken by main",
        "waiter runs",
        "waiter exits",
    ]


def test_memory_channel_receive_and_that_all_ends_of_a_channel_are_one_object():
    async def waiter(channel: trio.MemoryReceiveChannel[None]) -> None:
        await channel.receive()

    async def sender(channel: trio.MemorySendChannel[None]) -> None:
        await channel.send(None)

    async def main() -> None:
        send, receive = trio.open_memory_channel[None](0)
        other, _ = trio.open_memory_channel[None](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter, receive.clone())
            await wait_all_tasks_blocked()
            send.clone().send_nowait(None)
            nursery.start_soon(sender, send)
            nursery.start_soon(sender, other, name="sender elsewhere")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    recording, reason, thing, waker = waits(main)
    assert (reason, waker) == (Reason.CHANNEL_RECEIVE, "main")
    assert recording.blocks("sender") == [(Reason.CHANNEL_SEND, thing)]
    ((elsewhere, other),) = recording.blocks("sender elsewhere")
    assert elsewhere is Reason.CHANNEL_SEND
    assert other not in (0, thing)


LOCKS = [
    (trio.Lock, Reason.LOCK),
    (trio.StrictFIFOLock, Reason.LOCK),
    (partial(trio.Semaphore, 1), Reason.SEMAPHORE),
    (partial(trio.CapacityLimiter, 1), Reason.LIMITER),
]


@pytest.mark.parametrize("make, expected", LOCKS)
def test_locks_semaphores_and_limiters(make, expected):
    lock = make()

    async def waiter() -> None:
        async with lock:
            pass

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            async with lock:
                nursery.start_soon(waiter)
                await wait_all_tasks_blocked()
            await wait_all_tasks_blocked()

    recording, reason, thing, waker = waits(main)
    assert (reason, waker) == (expected, "main")
    assert thing > 0
    assert recording.story("waiter")[1:5] == [
        "waiter runs",
        f"waiter blocks: {expected.name}",
        "waiter is woken by main",
        "waiter runs",
    ]


@pytest.mark.parametrize("make, expected", LOCKS)
def test_two_that_wait_for_one_lock_wait_for_one_object(make, expected):
    locks = [make(), make()]

    async def holder(lock) -> None:
        async with lock:
            await trio.sleep_forever()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for lock in locks:
                nursery.start_soon(holder, lock)
            await wait_all_tasks_blocked()
            for i, lock in enumerate(locks):
                nursery.start_soon(holder, lock, name=f"{i} first")
                nursery.start_soon(holder, lock, name=f"{i} second")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    recording = trace(main)
    objects = []
    for i in range(2):
        first, second = recording.blocks(f"{i} first"), recording.blocks(f"{i} second")
        assert first == second
        assert first[0][0] is expected
        objects.append(first[0][1])
    assert objects[0] != objects[1]


def test_a_lock_is_a_lock_however_it_is_awaited():
    """In an asynchronous generator, through ``__await__``, through both: the stack is not one of plain coroutines."""
    lock = trio.Lock()

    async def generator():
        await lock.acquire()
        yield lock.release()

    class Awaitable:
        def __init__(self, numbers):
            self.numbers = numbers

        def __await__(self):
            return anext(self.numbers, None).__await__()

    async def waiter() -> None:
        async with contextlib.aclosing(generator()) as numbers:
            await Awaitable(numbers)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            async with lock:
                nursery.start_soon(waiter)
                await wait_all_tasks_blocked()

    _, reason, thing, waker = waits(main)
    assert (reason, waker) == (Reason.LOCK, "main")
    assert thing > 0


def test_condition_first_its_notification_then_its_lock():
    condition = trio.Condition()

    async def waiter() -> None:
        async with condition:
            await condition.wait()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter)
            await wait_all_tasks_blocked()
            async with condition:
                condition.notify()

    recording = trace(main)
    (wait, condition_number), *rest = recording.blocks("waiter")
    assert wait is Reason.CONDITION
    assert condition_number > 0
    assert [waker for waker in recording.story("waiter") if "woken" in waker][0] == (
        "waiter is woken by main"
    )
    assert {reason for reason, _ in rest} <= {Reason.LOCK}


def test_event():
    event = trio.Event()

    async def waiter() -> None:
        await event.wait()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter)
            nursery.start_soon(waiter, name="another")
            await wait_all_tasks_blocked()
            event.set()

    recording, reason, thing, waker = waits(main)
    assert (reason, waker) == (Reason.EVENT, "main")
    assert thing > 0
    assert recording.blocks("another") == [(Reason.EVENT, thing)]


def test_the_children_of_a_nursery():
    async def child() -> None:
        await trio.lowlevel.checkpoint()

    async def waiter() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter)

    recording, reason, thing, waker = waits(main)
    (create,) = (e for e in recording.of("task_create") if recording.names[e.task] == "child")
    assert (reason, thing, waker) == (Reason.NURSERY, create.nursery, "child")
    assert recording.story("waiter", "child") == [
        "waiter is created by main",
        "waiter runs",
        "child is created by waiter",
        "waiter blocks: NURSERY",
        "child runs",
        "child yields",
        "child runs",
        "waiter is woken by child",
        "child exits",
        "waiter runs",
        "waiter exits",
    ]


@pytest.mark.parametrize("direction", ["readable", "writable"])
@pytest.mark.parametrize("as_number", [True, False])
def test_sockets(direction, as_number):
    a, b = socket.socketpair()
    for end in (a, b):
        end.setblocking(False)

    async def waiter() -> None:
        wait = getattr(trio.lowlevel, f"wait_{direction}")
        await wait(a.fileno() if as_number else a)

    async def main() -> None:
        if direction == "writable":
            with contextlib.suppress(BlockingIOError):
                while True:
                    a.send(bytes(65_536))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter)
            await wait_all_tasks_blocked()
            if direction == "readable":
                b.send(b"x")
            else:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        b.recv(65_536)

    with a, b:
        recording, reason, thing, waker = waits(main)
        assert (reason, thing, waker) == (Reason[direction.upper()], a.fileno(), None)
    assert "waiter is woken by nobody" in recording.story("waiter")


def test_a_thread():
    async def waiter() -> None:
        await trio.to_thread.run_sync(os.getpid)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter)

    _, reason, thing, waker = waits(main)
    assert (reason, thing, waker) == (Reason.THREAD, 0, "run_sync_soon task>")


def test_a_process():
    async def waiter(process: trio.Process) -> None:
        await process.wait()

    async def main() -> None:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter, process)
            await wait_all_tasks_blocked()
            await process.stdin.send_all(b"\n")
            await process.stdin.aclose()

    recording = trace(main)
    reasons = {reason for reason, _ in recording.blocks("waiter")}
    assert reasons == {Reason.PROCESS}


def test_a_signal():
    async def waiter(task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGUSR1) as signals:
            task_status.started()
            async for _ in signals:
                break

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(waiter)
            await wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGUSR1)

    _, reason, thing, waker = waits(main)
    assert (reason, thing, waker) == (Reason.SIGNAL, 0, "run_sync_soon task>")


def test_parked_otherwise_in_a_parking_lot():
    lot = trio.lowlevel.ParkingLot()

    async def waiter() -> None:
        await lot.park()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter)
            await wait_all_tasks_blocked()
            lot.unpark()

    _, reason, thing, waker = waits(main)
    assert (reason, waker) == (Reason.PARKED, "main")
    assert thing > 0


def test_parked_otherwise_in_a_wait_of_the_programs_own():
    async def waiter(tasks: list[trio.lowlevel.Task]) -> None:
        tasks.append(trio.lowlevel.current_task())
        await trio.lowlevel.wait_task_rescheduled(lambda raise_cancel: trio.lowlevel.Abort.FAILED)

    async def main() -> None:
        tasks: list[trio.lowlevel.Task] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter, tasks)
            await wait_all_tasks_blocked()
            trio.lowlevel.reschedule(tasks[0])

    _, reason, thing, waker = waits(main)
    assert (reason, thing, waker) == (Reason.PARKED, 0, "main")
