"""The lives of the tasks, replayed: moves that are legal one after the other, whatever is missing in between.

A *move* is an event that changes the state of a task.  Moves come in tables, one row of numbers per field, so there is
no Python per event.  `Lives.play` checks them against the state table of `tracesvc.model.states`, and where events
are missing puts in, or leaves out, what makes them legal (`tracesvc.export.repair`); then it tells for each move
what the task was in before, and since when.  So whoever draws the states of tasks need not care for gaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import (
    StepBlock,
    StepStart,
    StepYield,
    TaskCreate,
    TaskExit,
    TaskRunnable,
    TaskWaiting,
)
from tracesvc.format.records import TaskRow
from tracesvc.model.columns import Columns
from tracesvc.model.states import TABLE, State

__all__ = [
    "BLOCK",
    "CREATE",
    "EXIT",
    "GONE",
    "LOST",
    "RUNNABLE",
    "START",
    "UNKNOWN",
    "WAIT",
    "YIELD",
    "Lives",
    "Moves",
    "raw_moves",
]

Integers: TypeAlias = NDArray[np.int64]
Row: TypeAlias = tuple[int, ...]

CREATE: Final = TaskCreate.number
WAIT: Final = TaskWaiting.number
RUNNABLE: Final = TaskRunnable.number
START: Final = StepStart.number
YIELD: Final = StepYield.number
BLOCK: Final = StepBlock.number
EXIT: Final = TaskExit.number
LOST: Final = 10
"""a move that no event stands for: from here on nobody knows what the task is in"""
GONE: Final = 11
"""likewise: the task is not heard of any more; it ended in a gap, or the trace ends"""
MOVES: Final = 12

UNKNOWN: Final = 6
"""a state beside those of `tracesvc.model.states.State`: events of its run are missing"""
STATES: Final = 7

INDEX, PROC, TIME, MOVE, TASK, X, Y, NAME, ENTRY = range(9)
"""rows of a table of raw moves: X is the parent, reason or waker, Y the nursery, object or cause"""
FIELDS: Final = 9

_EVENTS: Final = (
    TaskCreate,
    TaskWaiting,
    TaskRunnable,
    StepStart,
    StepYield,
    StepBlock,
    TaskExit,
)


def _tables() -> tuple[NDArray[np.bool_], Integers]:
    legal, after = np.zeros((STATES, MOVES), np.bool_), np.zeros(MOVES, np.int64)
    numbers = {event.type: event.number for event in _EVENTS}
    for state, row in TABLE.items():
        for event, then in row.items():
            legal[state, numbers[event]] = True
            after[numbers[event]] = then
    # Of a task whose state is not known, whatever comes next is believed; what ends a step needs one.
    legal[UNKNOWN, [START, RUNNABLE, WAIT]] = True
    legal[[State.NEW, State.RUNNABLE, State.WAITING], LOST] = True
    alive = [State.NEW, State.RUNNABLE, State.RUNNING, State.WAITING, UNKNOWN]
    legal[alive, GONE] = True
    after[LOST], after[GONE] = UNKNOWN, State.DEAD
    legal[State.ABSENT, 0] = True  # what is carried over is no move
    return legal, after


LEGAL, AFTER = _tables()
"""state x move -> whether it may be; move -> the state after it"""


class Moves:
    """Legal moves, in stored order; every attribute is an array with a value per move.

    What was before a move is looked up when it is asked for: few formats need all of it.
    """

    def __init__(self, raw: Integers, table: Integers, before: Integers, first: Integers) -> None:
        self.index: Integers = raw[INDEX]
        """where in the `Columns` of the chunk; of a move that was put in, the event that it comes before; -1: any"""
        self.proc: Integers = raw[PROC]
        self.time: Integers = raw[TIME]
        self.move: Integers = raw[MOVE]
        self.task: Integers = raw[TASK]
        self.x: Integers = raw[X]
        """CREATE: parent; WAIT, BLOCK: reason; RUNNABLE: waker"""
        self.y: Integers = raw[Y]
        """CREATE: nursery; WAIT, BLOCK: object; RUNNABLE: cause"""
        self._table, self._before, self._first = table, before, first

    def __len__(self) -> int:
        return len(self.task)

    def _was(self, field: int, nothing: int = 0) -> Integers:
        values: Integers = self._table[field][self._before]
        values[self._before < 0] = nothing
        return values

    def _of_first(self, field: int) -> Integers:
        values: Integers = self._table[field][self._first]
        return values

    @cached_property
    def before(self) -> Integers:
        """The state that the move ends."""
        return self._was(_STATE, int(State.ABSENT))

    @cached_property
    def since(self) -> Integers:
        """ns: when that state began; of a task that was not there, now."""
        return np.where(self._before < 0, self.time, self._table[_TIME][self._before])

    @cached_property
    def reason(self) -> Integers:
        """What the task waited for in that state, if it did."""
        return self._was(_REASON)

    @cached_property
    def object(self) -> Integers:
        """What exactly, as a number."""
        return self._was(_OBJECT)

    @cached_property
    def held(self) -> Integers:
        """If the state before is UNKNOWN: the one before that."""
        return self._was(_HELD)

    @cached_property
    def waker(self) -> Integers:
        """Who had made it runnable, if the state before is RUNNABLE."""
        return self._was(_WAKER)

    @cached_property
    def cause(self) -> Integers:
        """What had made it runnable, if the state before is RUNNABLE: a `WakeCause`; 0: not known."""
        return self._was(_CAUSE)

    @cached_property
    def name(self) -> Integers:
        """Of the task, as an index into the strings of the `Columns`."""
        return self._of_first(_NAME)

    @cached_property
    def entry(self) -> Integers:
        """Of the task, likewise."""
        return self._of_first(_ENTRY)

    @cached_property
    def parent(self) -> Integers:
        """The task it is a child of."""
        return self._of_first(_PARENT)


def raw_moves(columns: Columns, synthetic: Sequence[Row] = ()) -> Integers:
    """The moves among the events of a chunk, behind those that were put in before it."""
    types = columns.type
    index = np.flatnonzero((types >= CREATE) & (types <= EXIT))
    ahead = len(synthetic)
    raw = np.zeros((FIELDS, ahead + len(index)), np.int64)
    if ahead:
        raw[:, :ahead] = np.array(synthetic, np.int64).T
    raw[INDEX, ahead:] = index
    raw[PROC, ahead:] = columns.proc[index]
    raw[TIME, ahead:] = columns.time[index]
    raw[MOVE, ahead:] = types[index]
    place = np.empty(len(types), np.int64)
    place[index] = np.arange(ahead, ahead + len(index))
    for event in _EVENTS:
        table = columns.of(event)
        if not len(table):
            continue
        at = place[table.index]
        raw[TASK, at] = table.task
        if event is TaskCreate:
            raw[X, at], raw[Y, at] = table.parent, table.nursery
            raw[NAME, at], raw[ENTRY, at] = table.name, table.entry
        elif event is TaskRunnable:
            raw[X, at], raw[Y, at] = table.waker, table.cause
        elif event in (TaskWaiting, StepBlock):
            raw[X, at], raw[Y, at] = table.reason, table.object
    return raw


# rows of the table of live tasks
_TASK, _PROC, _STATE, _TIME, _REASON, _OBJECT, _HELD, _NAME, _ENTRY, _PARENT, _WAKER, _CAUSE = (
    range(12)
)
_FIELDS: Final = 12


class Lives:
    """What every live task is in; memory goes with them."""

    def __init__(self) -> None:
        self._live: Integers = np.zeros((_FIELDS, 0), np.int64)
        self.repaired = 0
        """moves that were put in or left out"""

    def running(self) -> dict[int, int]:
        """proc -> the task whose step runs there."""
        now = self._live[_STATE] == State.RUNNING
        return dict(
            zip(self._live[_PROC, now].tolist(), self._live[_TASK, now].tolist(), strict=True)
        )

    def states(self) -> dict[int, int]:
        """task -> its state."""
        return dict(zip(self._live[_TASK].tolist(), self._live[_STATE].tolist(), strict=True))

    def play(self, raw: Integers) -> Moves:
        """Moves, each proc's in order of time; made legal where they are not."""
        order, same, legal = self._sorted(raw)
        if not (legal and self._in_turn(raw)):
            from tracesvc.export.repair import repair

            raw, changes = repair(raw, self.states(), self.running())
            self.repaired += changes
            order, same, _ = self._sorted(raw)
        return self._advance(raw, order, same)

    def _sorted(self, raw: Integers) -> tuple[Any, Any, bool]:
        """Order by task, whether each is of the same task as the one before, and whether all moves are legal."""
        carried = self._live.shape[1]
        tasks = np.concatenate((self._live[_TASK], raw[TASK]))
        if tasks.min(initial=0) >= 0 and tasks.max(initial=0) < 1 << 32:
            tasks = tasks.astype(np.uint32)
        order = np.argsort(tasks, kind="stable")
        tasks = tasks[order]
        same = np.zeros(len(tasks), np.bool_)
        same[1:] = tasks[1:] == tasks[:-1]
        after = np.concatenate((self._live[_STATE], AFTER[raw[MOVE]]))[order]
        before = np.zeros(len(tasks), np.int64)
        before[1:] = after[:-1] * same[1:]
        moves = np.concatenate((np.zeros(carried, np.int64), raw[MOVE]))[order]
        return order, same, bool(LEGAL[before, moves].all())

    def _in_turn(self, raw: Integers) -> bool:
        """Whether in each proc steps begin and end in turn."""
        steps = np.flatnonzero((raw[MOVE] >= START) & (raw[MOVE] <= EXIT))
        if not len(steps):
            return True
        procs = raw[PROC, steps]
        if (procs != procs[0]).any():
            order = np.argsort(procs, kind="stable")
            steps, procs = steps[order], procs[order]
        begins = raw[MOVE, steps] == START
        same = procs[1:] == procs[:-1]
        if (same & (begins[1:] == begins[:-1])).any():
            return False
        first = np.flatnonzero(np.concatenate(([True], ~same)))
        running = self.running()
        return all(
            (proc in running) != begin
            for proc, begin in zip(procs[first].tolist(), begins[first].tolist(), strict=True)
        )

    def _advance(self, raw: Integers, order: Any, same: Any) -> Moves:
        carried, n = self._live.shape[1], raw.shape[1]
        move = raw[MOVE]
        rows = np.zeros((_FIELDS, carried + n), np.int64)
        rows[:, :carried] = self._live
        new = rows[:, carried:]
        new[_TASK], new[_PROC], new[_TIME] = raw[TASK], raw[PROC], raw[TIME]
        new[_STATE] = AFTER[move]
        waits = (move == WAIT) | (move == BLOCK)
        np.multiply(raw[X], waits, out=new[_REASON])
        np.multiply(raw[Y], waits, out=new[_OBJECT])
        new[_NAME], new[_ENTRY] = raw[NAME], raw[ENTRY]
        np.multiply(raw[X], move == CREATE, out=new[_PARENT])
        np.multiply(raw[X], move == RUNNABLE, out=new[_WAKER])
        np.multiply(raw[Y], move == RUNNABLE, out=new[_CAUSE])
        # For each row, where the one before of the same task is, and the first one.
        earlier = np.full(carried + n, -1, np.int64)
        earlier[order[1:]] = np.where(same[1:], order[:-1], -1)
        starts = np.flatnonzero(~same)
        lengths = np.diff(np.append(starts, carried + n))
        first = np.empty(carried + n, np.int64)
        first[order] = np.repeat(order[starts], lengths)
        lost = np.flatnonzero(move == LOST) + carried
        if len(lost):
            for field, of in ((_HELD, _STATE), (_REASON, _REASON), (_OBJECT, _OBJECT)):
                rows[field, lost] = rows[of, earlier[lost]]
        last = order[np.append(starts[1:], carried + n) - 1] if len(starts) else starts
        last = last[rows[_STATE, last] != State.DEAD]
        self._live = rows[:, last]
        # A task's name is told once, by the first of its rows.
        for field in (_NAME, _ENTRY, _PARENT):
            self._live[field] = rows[field, first[last]]
        return Moves(raw, rows, earlier[carried:], first[carried:])

    # --- moves that no event stands for ----------------------------------------------------------

    def lose(self, proc: int, time: int) -> list[Row]:
        """Events of a run are missing from ``time`` on."""
        rows: list[Row] = []
        live = self._live[:, self._live[_PROC] == proc]
        for task, state, since in live[[_TASK, _STATE, _TIME]].T.tolist():
            at = max(time, since)
            if state == State.RUNNING:
                rows.append(_synthetic(proc, at, YIELD, task))
            if state != UNKNOWN:
                rows.append(_synthetic(proc, at, LOST, task))
        return rows

    def adopt(self, proc: int, tasks: Iterable[tuple[TaskRow, int, int]], time: int) -> list[Row]:
        """A snapshot of a run tells what its tasks are in; each comes with its name and entry.

        Believed of the tasks whose state is not known; for the others their own events have spoken.
        """
        live = self._live[:, self._live[_PROC] == proc]
        states = dict(zip(live[_TASK].tolist(), live[_STATE].tolist(), strict=True))
        time = max(time, int(live[_TIME].max(initial=0)))
        elsewhere = self.states()
        ran = next((task for task, state in states.items() if state == State.RUNNING), 0)
        rows = [_synthetic(proc, time, YIELD, ran)] if ran else []
        runs = ran
        seen = set()
        for row, name, entry in tasks:
            seen.add(row.task)
            state = states.get(row.task, State.ABSENT)
            if state == State.ABSENT:
                if row.task in elsewhere:
                    continue
                create = _synthetic(proc, time, CREATE, row.task, row.parent, row.nursery)
                rows.append((*create[:NAME], name, entry))
            if state in (State.ABSENT, UNKNOWN):
                if row.state == State.WAITING:
                    rows.append(_synthetic(proc, time, WAIT, row.task, row.reason, row.object))
                elif state == UNKNOWN:
                    rows.append(_synthetic(proc, time, RUNNABLE, row.task))
                if row.state == State.RUNNING:
                    runs = row.task
        for task in states.keys() - seen:
            runs = 0 if task == runs else runs
            rows.append(_synthetic(proc, time, GONE, task))
        if runs:
            rows.append(_synthetic(proc, time, START, runs))
        return rows if rows != [_synthetic(proc, time, m, ran) for m in (YIELD, START)] else []

    def rename(self, names: dict[int, tuple[int, int]]) -> None:
        """Give tasks whose creation is missing their name and entry."""
        nameless = np.flatnonzero(self._live[_NAME] == 0)
        for i in nameless.tolist():
            name, entry = names.get(int(self._live[_TASK, i]), (0, 0))
            self._live[_NAME, i], self._live[_ENTRY, i] = name, entry

    def finish(self, times: dict[int, int], end: int, index: int) -> list[Row]:
        """The trace ends here; ``times``: proc -> ns of the last that is known of it, where that is not ``end``."""
        return [
            (index, proc, max(since, times.get(proc, end)), GONE, task, 0, 0, 0, 0)
            for task, proc, since in self._live[[_TASK, _PROC, _TIME]].T.tolist()
        ]


def _synthetic(proc: int, time: int, move: int, task: int, x: int = 0, y: int = 0) -> Row:
    return -1, proc, time, move, task, x, y, 0, 0
