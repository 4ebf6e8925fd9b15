"""What woke a task: one small program per cause."""

import contextlib
import functools
import os
import signal
import socket
import threading

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.recorder.recording import trace
from tracesvc.events import WakeCause


def wake_of(program, task="waiter", **options):
    """(cause, name of the waker) of the one wake-up of a task."""
    recording = trace(program, **options)
    (wake,) = recording.of("task_runnable", task=task)
    return WakeCause(wake.cause), recording.names.get(wake.waker)


def beside(waits, acts):
    """A program in which ``waiter`` waits, and then the main task acts."""

    async def waiter() -> None:
        await waits()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiter)
            await wait_all_tasks_blocked()
            await acts(nursery)

    return main


def test_a_task_that_sets_an_event():
    event = trio.Event()

    async def acts(_) -> None:
        event.set()

    assert wake_of(beside(event.wait, acts)) == (WakeCause.TASK, "main")


def test_a_file_descriptor():
    ours, theirs = socket.socketpair()

    async def acts(_) -> None:
        theirs.send(b"x")

    with ours, theirs:
        ours.setblocking(False)
        program = beside(functools.partial(trio.lowlevel.wait_readable, ours), acts)
        assert wake_of(program) == (WakeCause.IO, None)


@pytest.mark.parametrize("timeout", [True, False])
def test_a_timer(timeout):
    async def waits() -> None:
        if timeout:
            with trio.move_on_after(5):
                await trio.Event().wait()
        else:
            await trio.sleep(5)

    async def acts(_) -> None:
        pass

    clock = MockClock(autojump_threshold=0.01)
    assert wake_of(beside(waits, acts), run={"clock": clock}) == (WakeCause.TIMER, None)


def test_a_worker_thread():
    async def waits() -> None:
        await trio.to_thread.run_sync(os.getpid)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits, name="waiter")

    assert wake_of(main) == (WakeCause.THREAD, "run_sync_soon task>")


def test_what_a_thread_asked_for():
    event = trio.Event()

    async def acts(_) -> None:
        token = trio.lowlevel.current_trio_token()
        threading.Thread(target=token.run_sync_soon, args=(event.set,)).start()

    cause, _ = wake_of(beside(event.wait, acts))
    assert cause is WakeCause.THREAD


def test_a_cancellation():
    async def acts(nursery) -> None:
        nursery.cancel_scope.cancel()

    assert wake_of(beside(trio.sleep_forever, acts)) == (WakeCause.CANCEL, "main")


def test_a_signal():
    async def waits() -> None:
        with trio.open_signal_receiver(signal.SIGUSR1) as signals:
            async for _ in signals:
                return

    async def acts(_) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    assert wake_of(beside(waits, acts))[0] is WakeCause.SIGNAL


def test_ctrl_c():
    async def main() -> None:
        trio.lowlevel.current_trio_token().run_sync_soon(signal.raise_signal, signal.SIGINT)
        with contextlib.suppress(KeyboardInterrupt):
            await trio.sleep_forever()

    assert wake_of(main, task="main")[0] is WakeCause.SIGNAL


def test_the_run_loop_itself():
    async def main() -> None:
        await wait_all_tasks_blocked()

    assert wake_of(main, task="main") == (WakeCause.UNKNOWN, None)
