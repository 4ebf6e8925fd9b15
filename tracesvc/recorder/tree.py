"""The live tasks of a run, read from trio itself: at the start of a recording, and to heal its state after a loss."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from typing import Any, Final

import trio

from tracesvc.events import Reason, TaskState
from tracesvc.frozen import Frozen, frozen
from tracesvc.recorder.clock import now
from tracesvc.recorder.identity import entry_of, number_of
from tracesvc.recorder.reasons import reason_of
from tracesvc.recorder.texts import cut_name

__all__ = [
    "GONE",
    "TaskTree",
    "in_any_run",
    "in_any_task",
    "in_run",
    "is_suspended",
    "live_tasks",
    "open_scopes",
    "origin_of",
    "read_tree",
    "task_id",
]


GONE: Final = (trio.RunFinishedError, OSError)
"""what a `trio.lowlevel.TrioToken` raises whose run is over, or is a guest run that its host abandoned"""


def task_id(task: trio.lowlevel.Task) -> int:
    """Number of a task; from 1, never used twice in a process."""
    counter: int = task._counter
    return counter + 1


def origin_of(task: trio.lowlevel.Task) -> tuple[int, tuple[int, str, str]]:
    """(parent, (nursery, name, entry function)): the fields of the event that a task came to be."""
    nursery = task.parent_nursery
    if nursery is None:
        parent = number = 0
    else:
        parent, number = task_id(nursery.parent_task), number_of(nursery)
    return parent, (number, cut_name(task.name), entry_of(task.coro))


def in_run(token: trio.lowlevel.TrioToken) -> bool:
    """Whether the caller is inside the run that ``token`` stands for."""
    try:
        return trio.lowlevel.current_trio_token() is token
    except RuntimeError:
        return False


def in_any_run() -> bool:
    """Whether the caller is inside a trio run; `trio.lowlevel.in_trio_run` came with trio 0.29."""
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        return False
    return True


def in_any_task() -> bool:
    """Whether the caller is inside a step of a task; a guest run's host, for one, is not."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def live_tasks() -> Iterator[trio.lowlevel.Task]:
    """Every task of the current run, parents before children."""
    root = trio.lowlevel.current_root_task()
    pending = [] if root is None else [root]
    while pending:
        task = pending.pop()
        yield task
        for nursery in task.child_nurseries:
            pending.extend(nursery.child_tasks)


def open_scopes(task: trio.lowlevel.Task) -> list[trio.CancelScope]:
    """The cancel scopes that a task has entered and not left, outermost first."""
    nursery = task.parent_nursery
    birth = None if nursery is None else nursery._cancel_status
    status: Any = task._cancel_status
    found: list[trio.CancelScope] = []
    while status is not None and status is not birth:
        found.append(status._scope)
        status = status._parent
    return found[::-1]


def is_suspended(task: trio.lowlevel.Task) -> bool:
    """Whether a task that does not run now waits for something (and is not merely runnable)."""
    return task._next_send_fn is None  # trio keeps there how to resume a task that is to be resumed


@frozen
class TaskTree(Frozen):
    """State of all tasks of a run after its proc's event ``seq - 1``."""

    tasks: dict[int, tuple[int, int, str, str]]
    """task -> (parent, nursery, name, entry)"""
    states: dict[int, tuple[int, int, int]]
    """task -> (state, reason, object)"""
    seq: int = 0


def read_tree(
    chosen: Container[int] | None = None,
    waits: Callable[[trio.lowlevel.Task, int, int], None] | None = None,
) -> TaskTree:
    """Read the current run's tasks, the ``chosen`` ones (None: all); to be called inside a step of one of its tasks.

    ``waits(task, time, reason)`` is called of each that waits.
    """
    running = trio.lowlevel.current_task()
    tasks, states = {}, {}
    for task in live_tasks():
        number = task_id(task)
        if chosen is not None and number not in chosen:
            continue
        parent, (nursery, name, entry) = origin_of(task)
        tasks[number] = parent, nursery, name, entry
        if task is running:
            states[number] = int(TaskState.RUNNING), int(Reason.NONE), 0
        elif is_suspended(task):
            reason, thing = reason_of(task)
            states[number] = int(TaskState.WAITING), reason, thing
            if waits is not None:
                waits(task, now(), reason)
        else:
            states[number] = int(TaskState.RUNNABLE), int(Reason.NONE), 0
    return TaskTree(tasks, states)
