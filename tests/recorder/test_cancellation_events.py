"""What a cancellation looks like in a trace."""

import threading

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.recorder.recording import Recording, finish, trace
from tracesvc import Tracer
from tracesvc.events import Reason


async def sleep() -> None:
    await trio.sleep_forever()


async def receive() -> None:
    _, channel = trio.open_memory_channel[None](0)
    async with channel:
        await channel.receive()


async def wait_for_event() -> None:
    await trio.Event().wait()


async def lock() -> None:
    lock = trio.Semaphore(0)
    await lock.acquire()


async def read() -> None:
    a, b = trio.socket.socketpair()
    with a, b:
        await a.recv(1)


WAITS = [
    (sleep, Reason.SLEEP),
    (wait_for_event, Reason.EVENT),
    (lock, Reason.SEMAPHORE),
    (read, Reason.READABLE),
]


@pytest.mark.parametrize("wait, reason", WAITS)
def test_cancelled_while_it_waits(wait, reason):
    """The task that cancels is the waker."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, name="victim")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    assert trace(main).story("victim") == [
        "victim is created by main",
        "victim runs",
        f"victim blocks: {reason.name}",
        "victim is woken by main",
        "victim runs",
        "victim exits",
    ]


@pytest.mark.parametrize("wait, reason", WAITS)
def test_cancelled_by_a_deadline(wait, reason):
    """Nobody's step: the waker is the timer."""

    async def main() -> None:
        with trio.move_on_after(5):
            await wait()

    recording = trace(main, run={"clock": MockClock(autojump_threshold=0.001)})
    assert recording.story("main")[1:] == [
        "main runs",
        f"main blocks: {reason.name}",
        "main is woken by nobody",
        "main runs",
        "main exits",
    ]


@pytest.mark.parametrize("wait, reason", WAITS)
def test_cancelled_before_it_waits(wait, reason):
    """trio aborts the wait in the same step: the task was never blocked, and nobody woke it."""

    async def main() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await wait()

    story = trace(main).story("main")
    assert not any("blocks" in line or "woken" in line for line in story)
    assert story[-1] == "main exits"


def test_a_wait_that_cannot_be_aborted_goes_on():
    release = threading.Event()

    async def victim() -> None:
        await trio.to_thread.run_sync(release.wait)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(victim)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            await trio.lowlevel.cancel_shielded_checkpoint()
            release.set()

    blocks_and_wakes = [
        line for line in trace(main).story("victim") if "THREAD" in line or "woken" in line
    ]
    assert blocks_and_wakes == ["victim blocks: THREAD", "victim is woken by run_sync_soon task>"]


async def test_a_wait_that_could_not_be_aborted_is_told_by_its_place_in_a_snapshot():
    """trio has dropped the abort function by then; the stack is still there."""
    release, tracer = threading.Event(), Tracer()

    async def in_thread() -> None:
        await trio.to_thread.run_sync(release.wait)

    async def in_nursery() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_thread)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(in_thread)
        nursery.start_soon(in_nursery)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        await trio.lowlevel.cancel_shielded_checkpoint()
        tracer.start()
        release.set()
    recording = Recording(await finish(tracer), statistics=tracer.statistics())
    waits = {recording.names[event.task]: event for event in recording.of("task_waiting")}
    assert (waits["in_thread"].reason, waits["in_thread"].object) == (Reason.THREAD, 0)
    assert waits["in_nursery"].reason == Reason.NURSERY
    nurseries = {event.nursery for event in recording.of("task_create", task="in_thread")}
    assert waits["in_nursery"].object in nurseries


def test_a_wait_that_cannot_be_aborted_is_told_by_its_place_nursery():
    async def stubborn(event: trio.Event) -> None:
        with trio.CancelScope(shield=True):
            await event.wait()

    async def victim(event: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stubborn, event)
            nursery.cancel_scope.cancel()

    async def main() -> None:
        event = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(victim, event)
            await wait_all_tasks_blocked()
            event.set()

    recording = trace(main)
    ((reason, thing),) = recording.blocks("victim")
    (child,) = (e for e in recording.of("task_create") if recording.names[e.task] == "stubborn")
    assert (reason, thing) == (Reason.NURSERY, child.nursery)
    assert "victim is woken by stubborn" in recording.story("victim")


def test_the_wait_for_a_process():
    async def main() -> None:
        process = await trio.lowlevel.open_process(["sleep", "1000"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.wait, name="victim")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        process.kill()
        await process.wait()

    story = trace(main).story("victim")
    assert [line for line in story if "blocks" in line or "woken" in line] == [
        "victim blocks: PROCESS",
        "victim is woken by main",
    ]


def test_a_nursery_that_fails_cancels_its_other_children():
    async def fails() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError

    async def main() -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sleep, name="victim")
                await wait_all_tasks_blocked()
                nursery.start_soon(fails)
        except* ValueError:
            pass

    recording = trace(main)
    assert recording.story("victim")[2:] == [
        "victim blocks: SLEEP",
        "victim is woken by fails",
        "victim runs",
        "victim exits",
    ]
    assert "main is woken by victim" in recording.story("main")
