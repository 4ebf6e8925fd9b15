"""Where trio offers no hook: two of its module globals, replaced at start and put back at stop.

`setup_runner` is what ``trio.run`` and ``start_guest_run`` call by that name, under whatever import path they
themselves were called: wrapping it lets a tracer see runs that begin later, in any thread.  `start_thread_soon` is what
``trio.to_thread.run_sync`` calls.  Where a trio has no such global, that part is left out and `missing` says so.

Runs and threads of the tracer's own, told by their threads' names, are left alone.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from tracesvc.events import ProcKind, ThreadEnd, ThreadStart
from tracesvc.recorder.clock import now
from tracesvc.recorder.session import local
from tracesvc.recorder.texts import cut_name
from tracesvc.recorder.tree import task_id

if TYPE_CHECKING:
    from tracesvc.recorder.session import Session

__all__ = ["OWN", "SEAMS", "Seams", "in_own_thread"]

SEAMS: Final = ((trio._core._run, "setup_runner"), (trio._threads, "start_thread_soon"))
"""module globals of trio's that are wrapped"""
OWN: Final = "tracesvc "
"""names of the tracer's own threads and tasks begin with this"""


def in_own_thread() -> bool:
    """Whether this thread is the tracer's: what runs here is not recorded."""
    return threading.current_thread().name.startswith(OWN)


class Seams:
    """Wraps both globals for one session."""

    def __init__(self, session: Session, instrument: Callable[[], trio.abc.Instrument]) -> None:
        """``instrument`` makes the one that a new run is given."""
        self._session: Final = session
        self._instrument: Final = instrument
        self._originals: Final[list[tuple[Any, str, Any, Any]]] = []
        self.missing: Final[list[str]] = []

    def open(self) -> None:
        for (module, name), make in zip(
            SEAMS, (self._setup_runner, self._start_thread_soon), strict=True
        ):
            self._wrap(module, name, make)

    def close(self) -> None:
        """Put the originals back; where somebody else has wrapped ours since then, theirs stays and ours is idle."""
        for module, name, original, ours in self._originals:
            if getattr(module, name) is ours:
                setattr(module, name, original)
        self._originals.clear()

    def _wrap(self, module: Any, name: str, make: Callable[[Any], Any]) -> None:
        original = getattr(module, name, None)
        if original is None:
            self.missing.append(f"{module.__name__}.{name}")
            return
        ours = make(original)
        self._originals.append((module, name, original, ours))
        setattr(module, name, ours)

    def _setup_runner(self, original: Any) -> Any:
        @functools.wraps(original)
        def setup_runner(clock: Any, instruments: Any, *args: Any, **kwargs: Any) -> Any:
            if self._session.open and not in_own_thread():
                instruments = [*instruments, self._instrument()]
            return original(clock, instruments, *args, **kwargs)

        return setup_runner

    def _start_thread_soon(self, original: Any) -> Any:
        @functools.wraps(original)
        def start_thread_soon(fn: Any, deliver: Any, name: str | None = None) -> Any:
            # A run that began before the session, in another thread, is not recorded: nor are its calls.
            proc = local.proc
            recorded = (
                proc is not None and proc.session is self._session and proc.kind is ProcKind.RUN
            )
            if self._session.open and recorded and not (name or "").startswith(OWN):
                fn = self._recorded_call(fn)
            return original(fn, deliver, name)

        return start_thread_soon

    def _recorded_call(self, fn: Any) -> Any:
        """``fn`` is trio's worker function, a closure over the function that the program wants called."""
        task, function, session = task_id(trio.lowlevel.current_task()), _called(fn), self._session

        def recorded() -> Any:
            if not session.open:
                return fn()
            proc, choice = session.proc_of_thread(), session.choice
            told = choice is None or ("threads" in choice and choice.told(task))
            if told:
                proc.extend((ThreadStart.number, now(), task, function, 0))
            proc.records.running = task
            try:
                return fn()
            finally:
                proc.records.running = 0
                if told:
                    proc.extend((ThreadEnd.number, now(), task, 0, 0))
                if len(proc.records) >= proc.capacity:
                    proc.seal()

        return recorded


def _called(worker: Any) -> str:
    """Name of the function that a ``to_thread`` call is about."""
    try:
        cell = worker.__code__.co_freevars.index("sync_fn")
        function = worker.__closure__[cell].cell_contents
        while isinstance(function, functools.partial):
            function = function.func
        named = function if hasattr(function, "__qualname__") else type(function)
        return cut_name(f"{named.__module__}.{named.__qualname__}")
    except Exception:  # a name that cannot be told is no reason to raise into the program
        return "?"
