"""The public way into trio: an instrument whose hooks record.

trio calls, within one step of task T: ``before_task_step(T)``, then any ``task_spawned``/``task_scheduled``,
``task_exited(T)`` if it ended, ``after_task_step(T)`` last.  A step that ends in a checkpoint schedules T itself before
that; so how a step ended is known at ``after_task_step`` only, and a wake-up of the task that runs is no wake-up but a
yield.  While a hook for another task runs, the task whose step it is is the waker.

The hooks are closures over what they need: an attribute look-up less is worth it a million times a second.  There is no
``after_io_wait``: that trio calls a hook costs more than what the hook does, it would be called in every pass of the
loop, and almost every pass only polls.  The next hook that is called after a wait notes that it is over.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from tracesvc.events import (
    Counter,
    IoWaitEnd,
    IoWaitStart,
    ProcKind,
    StepBlock,
    StepStart,
    StepYield,
    TaskExit,
    TaskRunnable,
)
from tracesvc.recorder.clock import now
from tracesvc.recorder.reasons import reason_of
from tracesvc.recorder.session import local
from tracesvc.recorder.tree import GONE, TaskTree, create_record, in_run, read_tree

if TYPE_CHECKING:
    from tracesvc.recorder.proc import Proc
    from tracesvc.recorder.session import Session

__all__ = ["LOOP_LAG", "RUN_QUEUE", "RunHooks"]

SAMPLE_EVERY: Final = 250_000_000
"""ns between samples of the run loop's counters"""
RUN_QUEUE: Final = "trio.run_queue"
"""counter: tasks that are runnable at the beginning of a pass of the run loop"""
LOOP_LAG: Final = "trio.loop_lag"
"""counter: ns that the longest pass since the last sample took; as long may a ready task have waited"""


class RunHooks(trio.abc.Instrument):
    """Records one trio run into one proc. ``proc`` is None until the run has begun."""

    def __init__(self, session: Session, ended: Callable[[RunHooks], None]) -> None:
        """``ended`` is called when the run is over."""
        self._session: Final = session
        self._ended: Final = ended
        self._token: trio.lowlevel.TrioToken | None = None
        self._before: Proc | None = None
        self.proc: Proc | None = None
        self.asked = 0
        """when its tasks were last asked for"""

    def before_run(self) -> None:
        """A run begins that the tracer was there before; it is not yet "in" trio."""
        if self._session.open:
            self.enter().start()

    def after_run(self) -> None:
        """The run is over, and with it the proc."""
        if self.proc is not None:
            self.proc.stop()
        if local.proc is self.proc:
            local.proc = self._before
        self._ended(self)

    def enter(self) -> Proc:
        """In the run: make its proc that of the thread, and put the recording hooks in place."""
        proc = self.proc = self._session.new_proc(ProcKind.RUN, threading.current_thread().name)
        self._token = trio.lowlevel.current_trio_token()
        self._before, local.proc = local.proc, proc
        for hook, function in _recording_hooks(proc).items():
            setattr(self, hook, function)
        return proc

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
        with contextlib.suppress(KeyError):  # trio removed it, or the run is over
            trio.lowlevel.remove_instrument(self)
        if local.proc is self.proc:
            local.proc = self._before

    def read_tasks(self, answer: Callable[[TaskTree], None]) -> None:
        """Have the state of the run's tasks read, in that run, and given to ``answer`` there."""
        proc, token = self.proc, self._token
        if proc is None or token is None:
            return
        self.asked = now()

        def read() -> None:
            if proc.live and proc.session.open:
                tree = read_tree()
                answer(replace(tree, seq=proc.emitted))  # first: its last event may come by at once
                proc.seal(everything=True)

        with contextlib.suppress(*GONE):
            token.run_sync_soon(read)

    # Overridden per instance by `enter`. They stand here because trio asks, when an instrument is added, which hooks it
    # has, and that may be before the run (and so the proc) exists; then `before_run` comes first.

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `_recording_hooks`."""

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `_recording_hooks`."""

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        """See `_recording_hooks`."""

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """See `_recording_hooks`."""

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """See `_recording_hooks`."""

    def before_io_wait(self, timeout: float) -> None:
        """See `_recording_hooks`."""


def _recording_hooks(proc: Proc) -> dict[str, Callable[..., None]]:
    """The hooks of one run, by name."""
    extend, records, capacity = proc.extend, proc.records, proc.capacity
    step_start, step_yield, step_block = StepStart.number, StepYield.number, StepBlock.number
    task_runnable, task_exit = TaskRunnable.number, TaskExit.number
    io_wait_start, io_wait_end, counter = IoWaitStart.number, IoWaitEnd.number, Counter.number
    # Tasks that were just spawned: trio reports each as scheduled next, which says nothing new.  Usually one at most;
    # but a ``__del__`` that the garbage collector calls in between may spawn another.
    fresh: set[int] = set()
    yielded = exited = waiting = False
    pass_start = next_sample = now()
    worst_pass = 0

    def wait_is_over() -> None:
        nonlocal waiting, pass_start
        waiting = False
        pass_start = now()
        extend((io_wait_end, pass_start, 0, 0, 0))

    def before_task_step(task: trio.lowlevel.Task) -> None:
        if waiting:
            wait_is_over()
        number = proc.running = task._counter + 1
        extend((step_start, now(), number, 0, 0))

    def after_task_step(task: trio.lowlevel.Task) -> None:
        nonlocal yielded, exited
        if yielded:
            yielded = False
            extend((step_yield, now(), proc.running, 0, 0))
        elif exited:
            exited = False
        else:
            time = now()
            reason, thing = reason_of(task)
            extend((step_block, time, proc.running, reason, thing))
        proc.running = 0
        if len(records) >= capacity:
            proc.seal()

    def task_scheduled(task: trio.lowlevel.Task) -> None:
        nonlocal yielded
        number = task._counter + 1
        if number == proc.running:
            yielded = True
        elif number in fresh:
            fresh.discard(number)
        else:
            if waiting:
                wait_is_over()
            extend((task_runnable, now(), number, proc.running, 0))

    def task_spawned(task: trio.lowlevel.Task) -> None:
        fresh.add(task._counter + 1)
        extend(create_record(task, now()))
        if len(records) >= capacity:
            proc.seal()

    def task_exited(task: trio.lowlevel.Task) -> None:
        nonlocal exited, yielded
        number = task._counter + 1
        if number == proc.running:
            exited, yielded = True, False
        extend((task_exit, now(), number, 0, 0))

    def before_io_wait(timeout: float) -> None:
        nonlocal waiting, pass_start, worst_pass, next_sample
        if waiting:
            wait_is_over()
        time = now()
        if time - pass_start > worst_pass:
            worst_pass = time - pass_start
        pass_start = time
        if time >= next_sample:
            extend((counter, time, LOOP_LAG, worst_pass, 0))
            next_sample, worst_pass = time + SAMPLE_EVERY, 0
            extend((counter, time, RUN_QUEUE, _run_queue_length(), 0))
        if timeout > 0:
            waiting = True
            extend((io_wait_start, time, int(timeout * 1e9), 0, 0))

    # A Ctrl-C that came up in a hook would be swallowed: trio takes it for a fault of the instrument's.
    return {
        hook.__name__: trio.lowlevel.enable_ki_protection(hook)
        for hook in (
            before_task_step,
            after_task_step,
            task_scheduled,
            task_spawned,
            task_exited,
            before_io_wait,
        )
    }


def _run_queue_length() -> int:
    """Tasks that are runnable; called between steps."""
    root = trio.lowlevel.current_root_task()
    queue = getattr(getattr(root, "_runner", None), "runq", None)
    if queue is not None:
        return len(queue)
    # the public way; it looks at every file descriptor that is waited for
    return trio.lowlevel.current_statistics().tasks_runnable
