"""A Ctrl-C that comes up while the recorder is at work reaches the program, and only when trio can bear it."""

import _thread
import operator
import signal
from functools import partial

import pytest
import trio

from tests.recorder.recording import finish, trace
from tracesvc import Tracer
from tracesvc.recorder import identity
from tracesvc.recorder.native import native
from tracesvc.recorder.texts import cut_name


@pytest.fixture(autouse=True)
def ctrl_c():
    """As Python starts with: trio takes the place of this handler, and of no other."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(native is None, reason="about the native hooks: there is no compiler")
def test_within_a_hook_that_nothing_protects_it_is_put_off():
    """What spawns a task is not protected: one that came up there would leave a nursery that waits for ever."""
    came = []

    async def main() -> None:
        table = trio._core._run.GLOBAL_RUN_CONTEXT.runner.instruments
        spawned = partial(table.call, "task_spawned", trio.lowlevel.current_task())
        # All of it in C: the signal is there before the hook, and Python has no moment to look for it.
        list(map(operator.call, (_thread.interrupt_main, spawned)))
        came.append("the hook is over")
        try:
            await trio.lowlevel.checkpoint()
        except KeyboardInterrupt:
            came.append("Ctrl-C")

    tracer = Tracer(way="direct", native=True)
    tracer.start()
    try:
        trio.run(main)
    finally:
        trio.run(finish, tracer)  # not judged: it tells twice of a task that it came to be
    assert came == ["the hook is over", "Ctrl-C"]


def test_within_what_a_hook_asks_python_it_is_not_swallowed(monkeypatch):
    """The name of a task that is no plain text is asked of Python."""
    came = []

    async def main() -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever, name="kein schlichter Näme")
        except* KeyboardInterrupt:
            came.append("Ctrl-C")

    def interrupted(name: str) -> str:
        if "schlicht" in name and not came:
            signal.raise_signal(signal.SIGINT)
        return cut_name(name)

    protected = trio.lowlevel.enable_ki_protection(interrupted)
    monkeypatch.setattr("tracesvc.recorder.tree.cut_name", protected)
    if native is not None:
        native.texts(identity.entry_of, protected)
    try:
        trace(main)
    finally:
        if native is not None:
            native.texts(identity.entry_of, cut_name)
    assert came == ["Ctrl-C"]
