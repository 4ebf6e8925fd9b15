"""The tasks of one run, replayed event by event and checked against `tracesvc.model.states`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from tracesvc.events import Reason, WakeCause
from tracesvc.format.records import TaskRow
from tracesvc.model.states import AFTER, TABLE, State
from tracesvc.model.structure import Structure

__all__ = ["Nurseries", "Run", "Task"]

_READY: Final = (State.NEW, State.RUNNABLE)
_WITHOUT_OBJECT: Final = {int(r) for r in Reason if not r.identity}
_NOT_NUMBERED: Final = {int(Reason.READABLE), int(Reason.WRITABLE)}
"""their objects are file descriptors; all others are numbers that a process gives out once"""


@dataclass(slots=True)
class Task:
    """One live task."""

    id: int
    parent: int
    nursery: int
    name: str
    entry: str
    state: State
    since: int
    reason: int = 0
    object: int = 0


class Nurseries:
    """Which task owns which nursery, of all runs."""

    def __init__(self) -> None:
        self.owner: dict[int, int] = {}
        self._of: dict[int, list[int]] = {}

    def add(self, nursery: int, owner: int) -> None:
        self.owner[nursery] = owner
        self._of.setdefault(owner, []).append(nursery)

    def forget(self, owner: int) -> None:
        """The task ended, and with it its nurseries."""
        for nursery in self._of.pop(owner, ()):
            self.owner.pop(nursery, None)


_NEEDS_A_WAKER: Final = {WakeCause.TASK, WakeCause.THREAD, WakeCause.CANCEL}
_NEEDS_NO_WAKER: Final = {WakeCause.IO, WakeCause.TIMER}


class Run:
    """State of one run; tells ``complain(code, text)`` what cannot be.

    While the state is not `known` (after a gap, or where the stream begins in the middle) nothing is held against it.
    """

    def __init__(self, nurseries: Nurseries, complain: Callable[[str, str], None]) -> None:
        self.tasks: dict[int, Task] = {}
        self.running: Task | None = None
        self.last = 0
        """the task whose step was the last to end"""
        self.early = 0
        """an annotation named this task between steps: the next step must be its"""
        self.waits: bool | None = False
        """whether it waits for I/O; None: not known"""
        self.known = True
        self.begun = False
        """its ProcStart has come by"""
        self.ready = 0
        """tasks in the run queue"""
        self.partial = False
        """only some tasks are recorded: parents and wakers may be others"""
        self._nurseries = nurseries
        self._complain = complain
        self._structure: Final = Structure(complain)

    def some_tasks(self) -> None:
        """Not all are recorded."""
        self.partial, self._structure.whole = True, False

    # --- gaps ------------------------------------------------------------------------------------

    def lose_track(self) -> None:
        """Events are missing."""
        self.known = False
        self.running, self.waits, self.early = None, None, 0
        self._structure.lose_track()

    def adopt(self, tasks: Iterable[Task]) -> None:
        """A snapshot says how it is."""
        for owner in self.tasks:
            self._nurseries.forget(owner)
        self.tasks = {task.id: task for task in tasks}
        running = [task for task in self.tasks.values() if task.state is State.RUNNING]
        self.running = running[0] if running else None
        self.waits = False if running else None
        self.ready = sum(task.state in _READY for task in self.tasks.values())
        self.known = self.begun = True
        for task in self.tasks.values():
            if task.nursery and task.parent in self.tasks:
                self._nurseries.add(task.nursery, task.parent)

    # --- events ----------------------------------------------------------------------------------

    def _step(self, event: str, task: int, time: int) -> Task | None:
        """Move a task along the table."""
        found = self.tasks.get(task)
        after = AFTER[event]
        if found is None:
            if not self.known:
                return None
            self._complain("task", f"{event} of task {task}, which does not live in this run")
            return None
        if TABLE[found.state].get(event) is None and self.known:
            self._complain("state", f"{event} of task {task}, which is {found.state.name}")
        self.ready += (after in _READY) - (found.state in _READY)
        found.state, found.since, found.reason, found.object = after, time, 0, 0
        return found

    def task_create(
        self, time: int, task: int, parent: int, nursery: int, name: str, entry: str
    ) -> None:
        if task in self.tasks and self.known:
            self._complain("task", f"task {task} is created again")
        if self.known and parent and parent not in self.tasks and not self.partial:
            self._complain("parent", f"parent {parent} of task {task} does not live in this run")
        if parent < 0 or nursery < 0 or bool(parent) != bool(nursery):
            self._complain("nursery", f"task {task} with parent {parent} and nursery {nursery}")
        elif nursery and (parent in self.tasks or self.known):
            owner = self._nurseries.owner.get(nursery)
            if owner is None:
                self._nurseries.add(nursery, parent)
            elif owner != parent and self.known:
                self._complain(
                    "nursery", f"nursery {nursery} of task {parent} is one of task {owner}"
                )
        if self.waits and self.known:
            self._complain("io", "a task is created while the run waits for I/O")
        self.tasks[task] = Task(task, parent, nursery, name, entry, State.NEW, time)
        self.ready += 1
        self._structure.child(nursery)

    def task_waiting(self, time: int, task: int, reason: int, object_: int) -> None:
        if self.begun:
            self._complain("state", f"task_waiting of task {task} after the run's proc_start")
        self._block("task_waiting", time, task, reason, object_)

    def task_runnable(self, time: int, task: int, waker: int, cause: int = 0) -> None:
        if self.known:
            running = self.running.id if self.running else 0
            other = self.partial and not running and waker not in self.tasks
            if waker != running and not other:
                what = f"task {running} runs" if running else "no task runs"
                self._complain("waker", f"task {task} is woken by task {waker} while {what}")
        if cause in (_NEEDS_NO_WAKER if waker else _NEEDS_A_WAKER):
            who = f"task {waker}" if waker else "no task"
            self._complain("cause", f"task {task} is woken by {who}, of cause {cause}")
        self._step("task_runnable", task, time)

    def task_stack(self, time: int, task: int, *stack: object) -> None:
        """It is looked at while it waits, by another thread maybe: only that there is such a task can be said."""
        if self.known and task not in self.tasks:
            self._complain("task", f"a stack of task {task}, which there is not")

    step_stack = task_stack
    """the same: it comes from another thread"""

    def step_start(self, time: int, task: int) -> None:
        if not self.begun and self.known:
            self._complain("proc", f"a step of task {task} before the run's proc_start")
        if self.running is not None:
            self._complain(
                "running", f"a step of task {task} starts within one of task {self.running.id}"
            )
        if self.waits and self.known:
            self._complain("io", f"a step of task {task} starts while the run waits for I/O")
        if self.early not in (0, task) and self.known:
            self._complain("running", f"task {self.early} emitted something outside its steps")
        self.waits, self.early = False, 0
        self.running = self._step("step_start", task, time)

    def _end_step(self, event: str, task: int) -> None:
        if self.known and (self.running is None or self.running.id != task):
            self._complain("running", f"{event} of task {task}, which does not run")
        self.running, self.last = None, task

    def step_yield(self, time: int, task: int) -> None:
        self._end_step("step_yield", task)
        self._step("step_yield", task, time)

    def step_block(self, time: int, task: int, reason: int, object_: int) -> None:
        self._end_step("step_block", task)
        self._block("step_block", time, task, reason, object_)

    def _block(self, event: str, time: int, task: int, reason: int, object_: int) -> None:
        if reason not in _REASONS:
            self._complain("reason", f"task {task} is blocked for reason {reason}")
        if object_ < 0 or (object_ and reason in _WITHOUT_OBJECT):
            self._complain("object", f"task {task} waits for object {object_} with reason {reason}")
        owner = self._nurseries.owner.get(object_)
        if reason == Reason.NURSERY:
            if owner is not None and owner != task:
                self._complain(
                    "object", f"task {task} waits for the children of nursery {object_} of {owner}"
                )
        elif owner is not None and reason not in _NOT_NUMBERED:
            self._complain("object", f"task {task} waits for nursery {object_}: reason {reason}")
        found = self._step(event, task, time)
        if found is not None:
            found.reason, found.object = reason, object_

    def task_exit(self, time: int, task: int, outcome: int = 0) -> None:
        self._structure.task_exit(task, outcome)
        self._end_step("task_exit", task)
        self._step("task_exit", task, time)
        self.tasks.pop(task, None)
        self._nurseries.forget(task)

    # --- structured concurrency ------------------------------------------------------------------

    def _in_step(self, event: str, task: int) -> None:
        """Only the task that runs can have done it; before the run's ProcStart, any that lives."""
        if not self.known or (self.partial and task not in self.tasks):
            return
        if self.running.id != task if self.running else self.begun or task not in self.tasks:
            self._complain("running", f"{event} of task {task}, which does not run")

    def nursery_open(self, time: int, task: int, nursery: int) -> None:
        del time
        self._in_step("nursery_open", task)
        owner = self._nurseries.owner.get(nursery)
        if owner not in (None, task):
            self._complain("nursery", f"nursery {nursery} of task {owner} is opened by task {task}")
        self._structure.nursery_open(task, nursery)

    def nursery_close(self, time: int, task: int, nursery: int, children: int, errors: int) -> None:
        del time
        self._in_step("nursery_close", task)
        self._structure.nursery_close(task, nursery, children, errors)

    def task_error(self, time: int, task: int, nursery: int, exception: str, message: str) -> None:
        del time, exception, message
        self._lives("an exception", task)
        self._structure.task_error(task, nursery)

    def _lives(self, what: str, task: int) -> None:
        if self.known and task not in self.tasks and not self.partial:
            self._complain("task", f"{what} of task {task}, which there is not")

    def cancel_request(
        self,
        time: int,
        scope: int,
        task: int,
        requester: int,
        source: int,
        nursery: int,
        timeout: int,
        why: str,
    ) -> None:
        del time, why
        running = self.running.id if self.running else 0
        other = self.partial and not running and requester not in self.tasks
        if self.known and self.begun and requester != running and not other:
            what = f"task {running} runs" if running else "no task runs"
            self._complain("requester", f"scope {scope} is cancelled by {requester} while {what}")
        if timeout < -1:
            self._complain("scope", f"scope {scope} has a timeout of {timeout} ns")
        self._structure.cancel_request(scope, task, source, nursery)

    def task_cancelled(self, time: int, task: int, scope: int) -> None:
        del time
        found = self.tasks.get(task)
        if self.known and (found is None or found.state not in (State.RUNNABLE, State.RUNNING)):
            state = "which there is not" if found is None else f"which is {found.state.name}"
            self._complain("task", f"task {task} is to be resumed with Cancelled, {state}")
        self._structure.task_cancelled(task, scope)

    def scope_open(self, time: int, task: int, scope: int, timeout: int, shield: int) -> None:
        del time
        self._in_step("scope_open", task)
        self._structure.scope_open(task, scope, timeout, shield)

    def scope_close(self, time: int, task: int, scope: int, caught: int) -> None:
        del time
        self._in_step("scope_close", task)
        self._structure.scope_close(task, scope, caught)

    # --- the loop --------------------------------------------------------------------------------

    def io_wait_start(self, time: int, timeout: int) -> None:
        if timeout <= 0:
            self._complain("io", f"the run waits for I/O for {timeout} ns")
        if self.known:
            if self.waits:
                self._complain("io", "the run waits for I/O twice")
            if self.running is not None:
                self._complain("io", f"the run waits for I/O in a step of task {self.running.id}")
            elif self.ready:
                self._complain("io", f"the run waits for I/O while {self.ready} tasks are runnable")
        self.waits = True

    def io_wait_end(self, time: int) -> None:
        if self.waits is False and self.known:
            self._complain("io", "a wait for I/O ends that has not begun")
        self.waits = False

    def annotated(self, task: int) -> None:
        """Something was emitted in the name of a task."""
        if not self.known or not task:
            return
        if not self.begun:
            if task not in self.tasks:
                self._complain("annotation", f"task {task} does not live in this run")
        elif self.running is not None:
            if task != self.running.id:
                self._complain("annotation", f"by task {task} while task {self.running.id} runs")
        elif task != self.last and not (self.partial and task not in self.tasks):
            # The garbage collector or a signal handler may speak up just before the step is recorded.
            self.early = task

    # --- snapshots -------------------------------------------------------------------------------

    def rows(self) -> dict[int, tuple[int | str, ...]]:
        """What a snapshot of the present state says."""
        return {task.id: _row(task) for task in self.tasks.values()}


def task_of(row: TaskRow, text: Callable[[int], str]) -> Task:
    """A row of a snapshot."""
    state = State(row.state) if row.state in (1, 2, 3) else State.DEAD
    name, entry = text(row.name), text(row.entry)
    return Task(row[0], row[1], row[2], name, entry, state, row.since, row.reason, row.object)


def _row(task: Task) -> tuple[int | str, ...]:
    state = task.state.on_the_wire
    fields = (task.parent, task.nursery, task.name, task.entry)
    return (*fields, state, task.since, task.reason, task.object)


_REASONS: Final = {int(reason) for reason in Reason if reason}
