"""The lives of tasks as phases: from when to when a task was in which state, why, and what ended it.

The events of a chunk are put in order of task; then every event begins a phase that lasts until the next one of the
same task.  What the live tasks are in at the end of a chunk is carried over to the next as if it were its first
event, so memory goes with the chunk and the live tasks, and nothing is done per event in Python.

The phases of a task follow each other without a gap and without overlap from its creation (or the beginning of the
trace) to its end: their durations add up to its life, to the nanosecond.  Steps are the phases that are RUNNING, waits
those that are WAITING.  After events were lost, a task is in `UNKNOWN` until its own events or a snapshot tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import (
    EVENTS,
    StepBlock,
    StepStart,
    StepYield,
    TaskCreate,
    TaskExit,
    TaskRunnable,
    TaskState,
    TaskWaiting,
)
from tracesvc.model.columns import Columns, Table
from tracesvc.model.order import order_of
from tracesvc.model.states import AFTER, TABLE, State
from tracesvc.model.walk import Healed

__all__ = ["BY_LOSS", "BY_SNAPSHOT", "NAMELESS", "UNKNOWN", "Illegal", "PhaseMaker", "Phases"]

Integers: TypeAlias = NDArray[np.int64]

NAMELESS: Final = "(name lost)"
"""stands for the name of a task whose creation is not in the trace"""
UNKNOWN: Final = max(State) + 1
"""state after a loss; never in a stream"""
BY_SNAPSHOT: Final = 0
"""where an event type is expected: a snapshot began the phase, or the end of the trace or of its run ended it"""
BY_LOSS: Final = -1
"""where an event type is expected: events were lost"""
MAX_LISTED: Final = 1000

_MOVES: Final = {n: int(AFTER[e.type]) for n, e in EVENTS.items() if e.type in AFTER}
"""event type -> the state that it leaves its task in"""
_AFTER: Final[Integers] = np.zeros(256, np.int64)
_IS_MOVE: Final[NDArray[np.bool_]] = np.zeros(256, np.bool_)
_LEGAL: Final[NDArray[np.bool_]] = np.zeros((UNKNOWN + 1, 256), np.bool_)
"""[state, event type]: what `tracesvc.model.states.TABLE` allows"""
for _number, _state in _MOVES.items():
    _AFTER[_number], _IS_MOVE[_number], _LEGAL[UNKNOWN, _number] = _state, True, True
    for _before, _row in TABLE.items():
        _LEGAL[_before, _number] = EVENTS[_number].type in _row

# rows of the arrays that are carried from chunk to chunk
_TASK, _PROC, _SEQ, _TIME, _SINCE, _KIND, _STATE, _A, _B, _NAME = range(10)
_ROWS: Final = 10
_ENDS: Final = (_TIME, _KIND, _A, _B)
"""of an event that ends a phase, what the phase keeps"""


@dataclass(slots=True)
class Phases:
    """Phases of tasks, in arrays of equal length; those of one task are in order."""

    task: Integers
    proc: Integers
    start: Integers
    """ns"""
    end: Integers
    """ns; the phase does not include it"""
    since: Integers
    """ns: since when the state lasts, where a snapshot told that it began earlier than ``start``"""
    state: Integers
    """`tracesvc.model.states.State`, or `UNKNOWN`"""
    reason: Integers
    """`tracesvc.events.Reason` of a wait, else 0"""
    object: Integers
    """what a wait is for, else 0"""
    waker: Integers
    """who ended a wait; of a RUNNABLE phase: who made it so; 0: no task"""
    cause: Integers
    """`tracesvc.events.WakeCause`: why a wait ended, or a task became runnable; 0: the trace does not say"""
    opened: Integers
    """type of the event that began it, `BY_SNAPSHOT` or `BY_LOSS`"""
    closed: Integers
    """type of the event that ended it; `BY_SNAPSHOT`: nothing did, as far as the trace goes; or `BY_LOSS`"""
    seq: Integers
    """sequence number of the event that began it"""
    name: Integers
    """of the task: index into `PhaseMaker.names`"""

    def __len__(self) -> int:
        return len(self.task)

    def take(self, where: Any) -> Phases:
        """Those that an index or mask chooses."""
        return Phases(*(getattr(self, f.name)[where] for f in fields(self)))

    @staticmethod
    def join(parts: Sequence[Phases]) -> Phases:
        """All of them, one after the other."""
        if len(parts) == 1:
            return parts[0]
        empty = [np.zeros(0, np.int64)]
        return Phases(
            *(np.concatenate([getattr(p, f.name) for p in parts] or empty) for f in fields(Phases))
        )

    def sorted(self) -> Phases:
        """In order of task and time."""
        return self.take(np.lexsort((self.start, self.task)))


@dataclass(frozen=True, slots=True)
class Illegal:
    """An event that `tracesvc.model.states` does not allow where it is."""

    proc: int
    seq: int
    time: int
    """ns"""
    task: int
    event: str
    state: str

    def __str__(self) -> str:
        return f"proc {self.proc}, event {self.seq}: {self.event} of task {self.task}, which is {self.state}"


class PhaseMaker:
    """Turns the events of a `tracesvc.model.walk.Walk` into phases."""

    def __init__(self) -> None:
        self.names: Final[list[str]] = [NAMELESS]
        """of tasks; only grows"""
        self.illegal: Final[list[Illegal]] = []
        """the first 1,000"""
        self.illegal_count = 0
        self._ids: dict[str, int] = {NAMELESS: 0}
        self._live: Integers = np.zeros((_ROWS, 0), np.int64)
        self._blind: set[int] = set()
        """procs that have had a gap: their tasks may appear out of nowhere"""

    def name_id(self, name: str) -> int:
        """Index of a name."""
        number = self._ids.get(name)
        if number is None:
            number = self._ids[name] = len(self.names)
            self.names.append(name)
        return number

    # --- events ----------------------------------------------------------------------------------

    def add(self, columns: Columns) -> Phases:
        """The phases that end in a chunk."""
        index = np.flatnonzero(_IS_MOVE[columns.type])
        rows = np.empty((_ROWS, len(index)), np.int64)
        rows[_PROC], rows[_SEQ] = columns.proc[index], columns.seq[index]
        rows[_TIME] = rows[_SINCE] = columns.time[index]
        kinds = columns.type[index]
        rows[_KIND], rows[_STATE], rows[_NAME] = kinds, _AFTER[kinds], -1
        self._fill(rows, kinds, columns)
        return self._play(rows)

    def _fill(self, rows: Integers, kinds: Any, columns: Columns) -> None:
        rows[_A] = rows[_B] = 0
        for event, fields_ in _FIELDS:
            table = columns.of(event)
            if not len(table):
                continue
            at = np.flatnonzero(kinds == event.number)
            for row, field in fields_:
                rows[row, at] = getattr(table, field)
            if event is TaskCreate:
                rows[_NAME, at] = self._names_of(table, columns)

    def _names_of(self, created: Table, columns: Columns) -> Integers:
        used, places = np.unique(created.name, return_inverse=True)
        ids = np.array([self.name_id(columns.strings[i]) for i in used.tolist()], np.int64)
        return ids[places]

    def _play(self, news: Integers) -> Phases:
        """Rows in order of time for every task; those carried over come first."""
        rows = np.hstack((self._live, news))
        if not rows.shape[1]:
            return _none()
        order = order_of(rows[_TASK])
        rows = rows.take(order, axis=1)  # in memory row by row, which indexing would not leave it
        task = rows[_TASK]
        same = task[1:] == task[:-1]
        first = np.concatenate(([True], ~same))
        named = rows[_NAME] >= 0
        # A name holds from where it was given: task numbers are not used again.
        given = np.maximum.accumulate(np.where(named | first, np.arange(len(task)), 0))
        rows[_NAME] = np.maximum(rows[_NAME][given], 0)
        self._judge(rows, same, first, order >= self._live.shape[1])
        over = np.flatnonzero(same & (rows[_STATE, :-1] != State.DEAD))
        last = np.concatenate((~same, [True]))
        self._live = rows[:, last & (rows[_STATE] != State.DEAD)]
        ends = np.zeros((_ROWS, len(over)), np.int64)
        for row in _ENDS:
            rows[row, 1:].take(over, out=ends[row])
        return _phases(rows.take(over, axis=1), ends)

    def _judge(self, rows: Integers, same: Any, first: Any, news: Any) -> None:
        """Hold every event against the table of states."""
        before = np.concatenate(([0], np.where(same, rows[_STATE, :-1], State.ABSENT)))
        illegal = ~_LEGAL[before, np.maximum(rows[_KIND], 0)] & news
        for i in np.flatnonzero(illegal).tolist():
            if first[i] and int(rows[_PROC, i]) in self._blind:
                continue
            self.illegal_count += 1
            if len(self.illegal) < MAX_LISTED:
                proc, seq, time, task = (int(rows[r, i]) for r in (_PROC, _SEQ, _TIME, _TASK))
                state = int(before[i])
                event = EVENTS[int(rows[_KIND, i])].type
                name = State(state).name if state != UNKNOWN else "UNKNOWN"
                self.illegal.append(Illegal(proc, seq, time, task, event, name))

    # --- gaps and ends ---------------------------------------------------------------------------

    def gap(self, proc: int, time: int) -> Phases:
        """Events of a run are missing from ``time`` on: nobody knows what its tasks are in."""
        self._blind.add(proc)
        mine = self._live[_PROC] == proc
        before = self._live[:, mine]
        after = before.copy()
        after[_TIME] = after[_SINCE] = np.maximum(before[_TIME], time)
        after[_KIND], after[_STATE], after[_A], after[_B] = BY_LOSS, UNKNOWN, 0, 0
        self._live[:, mine] = after
        return _phases(before, after)

    def adopt(self, piece: Healed) -> Phases:
        """A snapshot of a run tells what its tasks are in."""
        mine = self._live[_PROC] == piece.proc
        live = self._live[:, mine]
        known = {task: i for i, task in enumerate(live[_TASK].tolist())}
        kept: list[Any] = []
        ended: list[tuple[Any, Any]] = []
        for said in piece.rows:
            name = self.name_id(piece.text(said.name))
            start = max(said.since, piece.begin)
            i = known.pop(said.task, None)
            if i is not None:
                before = live[:, i]
                before[_NAME] = before[_NAME] or name
                if before[_STATE] != UNKNOWN:
                    kept.append(before)  # its own events have told by now
                    continue
                start = max(int(before[_TIME]), said.since)
            waits = said.state == TaskState.WAITING
            state = said.state if said.state in _ON_THE_WIRE else UNKNOWN
            a, b = (said.reason, said.object) if waits else (0, 0)
            row = np.array(
                [said.task, piece.proc, -1, start, said.since, BY_SNAPSHOT, state, a, b, name],
                np.int64,
            )
            if i is not None:
                ended.append((live[:, i], row))
            kept.append(row)
        for i in known.values():  # it is gone, nobody knows since when
            row = live[:, i].copy()
            row[_TIME], row[_KIND] = max(piece.time, int(row[_TIME])), BY_LOSS
            ended.append((live[:, i], row))
        rows = np.array(kept, np.int64).reshape(-1, _ROWS).T
        self._live = np.hstack((self._live[:, ~mine], rows))
        if not ended:
            return _none()
        return _phases(*(np.array(side, np.int64).T for side in zip(*ended, strict=True)))

    def end(self, proc: int, time: int) -> Phases:
        """A run is over, or the trace of it is: what its tasks were in lasts until ``time``."""
        mine = self._live[_PROC] == proc
        before = self._live[:, mine]
        after = before.copy()
        after[_TIME], after[_KIND] = np.maximum(before[_TIME], time), BY_SNAPSHOT
        self._live = self._live[:, ~mine]
        return _phases(before, after)

    def open(self, time: int) -> Phases:
        """What the live tasks are in at ``time`` (ns), as if it ended there; a look that changes nothing."""
        after = self._live.copy()
        after[_TIME], after[_KIND] = np.maximum(after[_TIME], time), BY_SNAPSHOT
        return _phases(self._live, after)

    def so_far(self, ends: Mapping[int, int]) -> Phases:
        """What the live tasks are in, up to the ``ends`` of their runs; nothing is ended by it."""
        before = self._live
        after = before.copy()
        until = np.array([ends[proc] for proc in before[_PROC].tolist()], np.int64)
        after[_TIME], after[_KIND] = np.maximum(before[_TIME], until), BY_SNAPSHOT
        return _phases(before, after)

    def procs(self) -> list[int]:
        """Runs with live tasks."""
        return [int(proc) for proc in np.unique(self._live[_PROC])]


_FIELDS: Final[tuple[tuple[Any, tuple[tuple[int, str], ...]], ...]] = (
    (TaskCreate, ((_TASK, "task"),)),
    (TaskWaiting, ((_TASK, "task"), (_A, "reason"), (_B, "object"))),
    (TaskRunnable, ((_TASK, "task"), (_A, "waker"), (_B, "cause"))),
    (StepStart, ((_TASK, "task"),)),
    (StepYield, ((_TASK, "task"),)),
    (StepBlock, ((_TASK, "task"), (_A, "reason"), (_B, "object"))),
    (TaskExit, ((_TASK, "task"),)),
)
_ON_THE_WIRE: Final = {int(TaskState.RUNNABLE), int(TaskState.RUNNING), int(TaskState.WAITING)}


def _none() -> Phases:
    return Phases(*(np.zeros(0, np.int64) for _ in fields(Phases)))


def _phases(begin: Integers, end: Integers) -> Phases:
    """From the rows that begin phases, and those that end them."""
    waiting = begin[_STATE] == State.WAITING
    woken = begin[_KIND] == TaskRunnable.number
    wakes = end[_KIND] == TaskRunnable.number
    nothing = np.zeros(begin.shape[1], np.int64)
    return Phases(
        task=begin[_TASK],
        proc=begin[_PROC],
        start=begin[_TIME],
        end=np.maximum(end[_TIME], begin[_TIME]),
        since=begin[_SINCE],
        state=begin[_STATE],
        reason=np.where(waiting, begin[_A], nothing),
        object=np.where(waiting, begin[_B], nothing),
        waker=np.where(wakes, end[_A], np.where(woken, begin[_A], nothing)),
        cause=np.where(wakes, end[_B], np.where(woken, begin[_B], nothing)),
        opened=begin[_KIND],
        closed=end[_KIND],
        seq=begin[_SEQ],
        name=begin[_NAME],
    )
