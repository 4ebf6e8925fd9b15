"""One trio run that is recorded: from its begin, or that of the session, to its end, or that of the session.

The recording itself is in `tracesvc.recorder.recording`; here are the two ways into trio.  The public one is an
instrument, `PublicRunHooks`; the direct one puts an object of ours in the place of the run's instrument table, see
`tracesvc.recorder.direct`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from time import thread_time_ns
from typing import TYPE_CHECKING, Any, Final

import trio

from tracesvc.events import ProcKind
from tracesvc.recorder.clock import now
from tracesvc.recorder.recording import HOOKS, Recording, new_recording
from tracesvc.recorder.session import local
from tracesvc.recorder.structure import enter_run, leave_run
from tracesvc.recorder.tree import GONE, TaskTree, in_run, read_tree

if TYPE_CHECKING:
    from tracesvc.recorder.proc import Proc
    from tracesvc.recorder.session import Session

__all__ = ["PublicRunHooks", "RunHooks"]

PIECE: Final = 64
"""stacks that are looked at in one go: a tenth of a millisecond"""
LONG: Final = 1_000_000_000
"""ns after which the stack of a wait is told while it lasts"""


class RunHooks(trio.abc.Instrument):
    """Records one trio run into one proc. ``proc`` is None until the run has begun; the subclasses are the ways in."""

    def __init__(self, session: Session, ended: Callable[[RunHooks], None]) -> None:
        """``ended`` is called when the run is over."""
        self._session: Final = session
        self._ended: Final = ended
        self._token: trio.lowlevel.TrioToken | None = None
        self._before: Proc | None = None
        self.proc: Proc | None = None
        self.recording: Any = None
        """what the hooks call, see `new_recording`"""
        self.thread = 0
        """ident of the thread it runs in"""
        self._told = 0
        """when `tell_stacks` looked last: it looks at every task that waits"""
        self.dark = False
        """nothing of it is recorded now, for the sake of the budget"""
        self.asked = 0
        """when its tasks were last asked for"""
        self._runner: Any = None

    def before_run(self) -> None:
        """A run begins that the tracer was there before; it is not yet "in" trio."""
        if self._session.open:
            proc = self.enter()
            self._open(self.recording)
            proc.start()

    def after_run(self) -> None:
        """The run is over, and with it the proc."""
        self._close()
        if self.proc is not None:
            self.proc.stop()
        if local.proc is self.proc:
            local.proc = self._before
        self._ended(self)

    def enter(self) -> Proc:
        """In the run: make its proc that of the thread. Nothing is recorded by hooks yet."""
        proc = self.proc = self._session.new_proc(ProcKind.RUN, threading.current_thread().name)
        self._token = trio.lowlevel.current_trio_token()
        self._before, local.proc = local.proc, proc
        self.thread = threading.get_ident()
        session, measured = self._session, self._session.meter is not None
        self.recording = new_recording(proc, session.slow, session.choice, measured=measured)
        if measured:
            proc.dark = self.recording
        self._runner = trio._core._run.GLOBAL_RUN_CONTEXT.runner
        enter_run(self._runner, self.recording, self._session.structure)
        if self.thread == threading.main_thread().ident and not isinstance(
            self.recording, Recording
        ):
            self.recording.in_main()
        return proc

    def _open(self, recording: Any) -> None:
        """Have trio call it; in the run."""
        raise NotImplementedError

    def _close(self) -> None:
        """Have trio call it no more; in the run."""
        if self.proc is not None:
            self.proc.let_go()
        if self._runner is not None:
            leave_run(self._runner, self.recording)
            self._runner = None
        if isinstance(self.recording, Recording):
            self.recording.let_go()
        elif self.recording is not None:
            self.recording.recording = False

    def add(self) -> None:
        """In a run that has begun before: record by hooks from here on."""
        self._open(self.recording)
        trio.lowlevel.add_instrument(self)

    def tell_stacks(self) -> None:
        """Have it recorded where tasks are suspended that wait for long already; any thread."""
        recording, time = self.recording, now()
        if recording is not None and recording.recording and time >= self._told + LONG:
            self._told = time
            before = time - max(recording.slow, LONG)
            while recording.tell_stacks(before, PIECE) == PIECE:  # the lock is free in between
                pass

    @property
    def is_current(self) -> bool:
        """Whether the caller is in the run that these are for."""
        return self._token is not None and in_run(self._token)

    def leave(self) -> None:
        """Take the hooks out of the run again; from any thread."""
        if self._token is None:
            return
        if self.is_current:
            self._remove()
        else:
            with contextlib.suppress(*GONE):
                self._token.run_sync_soon(self._remove)

    def _remove(self) -> None:
        self._close()
        with contextlib.suppress(KeyError):  # trio removed it, or the run is over
            trio.lowlevel.remove_instrument(self)
        if local.proc is self.proc:
            local.proc = self._before

    def darken(self) -> None:
        """Record nothing of this run until `read_tasks` is told to; any thread."""
        self.dark = True
        self.recording.darken()
        if self.proc is not None:
            self.proc.seal(everything=True)

    def read_tasks(self, answer: Callable[[TaskTree], None], *, light: bool = False) -> None:
        """Have the state of the run's tasks read, in that run, and given to ``answer`` there.

        ``light``: from there on it is recorded again.
        """
        proc, token = self.proc, self._token
        if proc is None or token is None:
            return
        self.asked = now()
        self.dark = self.dark and not light

        def read() -> None:
            if proc.live and proc.session.open:
                began, choice, meter = thread_time_ns(), proc.session.choice, proc.session.meter
                waits = None
                if light and not self.dark:
                    self.recording.lighten()
                    waits = self.recording.waits
                tree = read_tree(None if choice is None else choice.chosen, waits)
                answer(
                    tree.__replace__(seq=proc.emitted)
                )  # first: its last event may come by at once
                proc.seal(everything=True)
                if meter is not None:
                    meter.add(thread_time_ns() - began)

        with contextlib.suppress(*GONE):
            token.run_sync_soon(read)


class PublicRunHooks(RunHooks):
    """By trio's public interface: an instrument."""

    def _open(self, recording: Any) -> None:
        for hook in HOOKS[:-1]:
            setattr(self, hook, getattr(recording, hook))

    def _close(self) -> None:
        super()._close()
        for hook in HOOKS:  # a guest run that its host has let crash may wake tasks still
            self.__dict__.pop(hook, None)

    # Overridden per instance by `_open`. They stand here because trio asks, when an instrument is added, which hooks it
    # has, and that may be before the run (and so the proc) exists; then `before_run` comes first.  There is no
    # ``after_io_wait``: that trio calls a hook costs more than what the hook does, it would be called in every pass of
    # the loop, and almost every pass only polls.  The next hook that is called after a wait notes that it is over.

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `tracesvc.recorder.recording`."""

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `tracesvc.recorder.recording`."""

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        """See `tracesvc.recorder.recording`."""

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """See `tracesvc.recorder.recording`."""

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """See `tracesvc.recorder.recording`."""

    def before_io_wait(self, timeout: float) -> None:
        """See `tracesvc.recorder.recording`."""
