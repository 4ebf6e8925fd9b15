"""The life of a task: one literal table that says what may happen in which state.

Theory of operation
===================

A task is always in exactly one state, and only seven event types move it.  All of them come from one writer, the proc
of the run the task lives in, in the order in which they happened; so its state follows from the stream alone, without
looking at clocks.  ``TABLE`` has a row per state and in it an entry per event that is legal there::

    TABLE[State.RUNNING]["step_block"] is State.WAITING

What is not in the table does not happen: `tracesvc.model.verify` reports it.

``ABSENT`` and ``NEW`` exist only here.  ABSENT is a task that has not been heard of.  NEW is a runnable task that has
had no step yet: only such a task can be said to have been waiting all along, which is how the tasks that were blocked
when tracing began enter the stream.  On the wire, in snapshots, NEW is RUNNABLE.

Three rules reach beyond a single task, and the table cannot say them:

* In a run at most one task is RUNNING.
* A waker is the RUNNING task of that run, or 0 where none is.
* The run loop waits for I/O only while every task of the run is WAITING.
"""

from __future__ import annotations

import enum
from typing import Final

from tracesvc.events import EVENTS, TaskState

__all__ = ["AFTER", "MEANING", "TABLE", "State"]


class State(enum.IntEnum):
    """`tracesvc.events.TaskState` and the two states that need no number on the wire."""

    ABSENT = 0
    RUNNABLE = TaskState.RUNNABLE
    RUNNING = TaskState.RUNNING
    WAITING = TaskState.WAITING
    DEAD = TaskState.DEAD
    NEW = 5

    @property
    def on_the_wire(self) -> int:
        """The number that a snapshot has for it."""
        return int(State.RUNNABLE if self is State.NEW else self)


TABLE: Final[dict[State, dict[str, State]]] = {
    State.ABSENT: {
        "task_create": State.NEW,
    },
    State.NEW: {
        "task_waiting": State.WAITING,
        "step_start": State.RUNNING,
    },
    State.RUNNABLE: {
        "step_start": State.RUNNING,
    },
    State.RUNNING: {
        "step_yield": State.RUNNABLE,
        "step_block": State.WAITING,
        "task_exit": State.DEAD,
    },
    State.WAITING: {
        "task_runnable": State.RUNNABLE,
    },
    State.DEAD: {},
}

AFTER: Final[dict[str, State]] = {
    event: state for row in TABLE.values() for event, state in row.items()
}
"""event -> the state that it leaves a task in, wherever it is legal; by it a check goes on after a violation"""

MEANING: Final = {
    State.ABSENT: "not heard of",
    State.NEW: "runnable, no step yet",
    State.RUNNABLE: "in the run queue",
    State.RUNNING: "its step is running",
    State.WAITING: "blocked, for the reason given",
    State.DEAD: "finished",
}

assert all(TABLE[a][e] is AFTER[e] for a in TABLE for e in TABLE[a])
assert {event.type for event in EVENTS.values()} >= AFTER.keys()
