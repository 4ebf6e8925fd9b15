"""Steps that run for long: what was running, looked at while it runs.

A thread of its own looks at the run loops a few times per limit.  The native one waits and looks without the
interpreter lock; it needs the lock only to read the stack of a step that is overdue.  A call into C may hold that lock
for seconds: then the stack is read late, and the event says how late.  That of the main thread is read in there, as a
signal handler is called, so that it is the first thing that happens when the call returns.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Final

import trio

from tracesvc.events import StepStack
from tracesvc.recorder.clock import now
from tracesvc.recorder.native import native
from tracesvc.recorder.pacer import is_shutdown
from tracesvc.recorder.seams import OWN
from tracesvc.recorder.stacks import frames_of

if TYPE_CHECKING:
    from tracesvc.recorder.hooks import RunHooks

__all__ = ["Watchdog"]

LOOKS: Final = 4
"""per limit"""


class Watchdog:
    """Watches the runs of one session from `start` to `stop`."""

    def __init__(self, limit: int, runs: Callable[[], list[RunHooks]], natively: bool) -> None:
        """``limit`` is in ns, ``runs`` gives those that are recorded, ``natively`` says by what."""
        self._limit: Final = limit
        self._interval: Final = limit // LOOKS
        self._runs: Final = runs
        self._over: Final = threading.Event()
        self._watch = native.begin_watch(self._tell_here) if native is not None and natively else 0
        self._told: dict[int, tuple[int, int]] = {}
        """run -> (when the step began that was told of last, ns after which it is told again)"""

    def start(self) -> None:
        """Without a word it does not, where the program is about to end: there will be no more long steps."""
        try:
            threading.Thread(target=self._look, name=f"{OWN}watchdog", daemon=True).start()
        except RuntimeError as exc:
            if not is_shutdown(exc):
                raise

    def stop(self) -> None:
        """It ends by itself soon, whatever it does now."""
        self._over.set()
        if native is not None and self._watch:
            native.begin_watch(None)

    def _look(self) -> None:
        overdue = self._overdue if not self._watch else self._overdue_natively
        for run, began, due in overdue():
            self._tell(run, sys._current_frames().get(run.thread), began, due)

    def _overdue_natively(self) -> Iterator[tuple[RunHooks, int, int]]:
        assert native is not None
        while (found := native.overdue(self._watch, self._limit, self._interval)) is not None:
            cell, began, due = found
            for run in self._runs_of(cell):
                yield run, began, due

    def _runs_of(self, cell: int) -> list[RunHooks]:
        found = [run for run in self._runs() if run.recording is not None]
        return [run for run in found if run.recording.cell == cell]

    @trio.lowlevel.enable_ki_protection
    def _tell_here(self, cell: int, began: int, due: int) -> None:
        """In the main thread, whose step it is, as a signal handler would be."""
        for run in self._runs_of(cell):
            self._tell(run, sys._getframe(_CALLER), began, due)

    def _overdue(self) -> Iterator[tuple[RunHooks, int, int]]:
        while not self._over.wait(self._interval / 1e9):
            time = now()
            for run in self._runs():
                recording = run.recording
                began = recording.step_began if recording is not None and recording.recording else 0
                before, limit = self._told.get(id(run), (0, 0))
                if began != before:
                    limit = self._limit
                if began and time - began >= limit:
                    self._told[id(run)] = began, limit * 2
                    yield run, began, began + limit

    def _tell(self, run: RunHooks, frame: FrameType | None, began: int, due: int) -> None:
        proc, recording = run.proc, run.recording
        task = 0 if proc is None else proc.records.running
        if proc is None or not task or recording.step_began != began:  # it is over
            return
        time, stack = now(), frames_of(frame)
        rest = time - began, time - due
        proc.tell((StepStack.number, time, task, stack, rest))


_CALLER: Final = 2 if hasattr(Watchdog._tell_here, "__wrapped__") else 1
"""frames from `Watchdog._tell_here` to what it was called in: before trio 0.28 what protects it lies in between"""
