"""How long the tasks were in which state, with no Python per event.

The events of a chunk are put in order of task; then every event says what state its task is in until the next one.
What a task is in at the end of a chunk is carried over to the next as if it were its first event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import (
    Outcome,
    Reason,
    StepBlock,
    StepStart,
    StepYield,
    TaskCreate,
    TaskExit,
    TaskRunnable,
    TaskState,
    TaskWaiting,
)
from tracesvc.format.records import TaskRow
from tracesvc.model.columns import Columns
from tracesvc.model.order import order_of

__all__ = ["NAMELESS", "Step", "TaskTime", "TaskTimes"]

Integers: TypeAlias = NDArray[np.int64]

NAMELESS: Final = "(name lost)"
"""stands for the name of a task whose creation is not in the trace"""

RUNNABLE, RUNNING, UNKNOWN, BLOCKED = 0, 1, 2, 3
"""states; a blocked task is in state BLOCKED + its reason"""
STATES: Final = BLOCKED + len(Reason)
DEAD: Final = -1
NO_EVENT: Final = -2
_AFTER: Final = (
    (TaskCreate, RUNNABLE),
    (TaskRunnable, RUNNABLE),
    (StepStart, RUNNING),
    (StepYield, RUNNABLE),
    (TaskExit, DEAD),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a task: as long nothing else ran in its run."""

    duration: int
    """ns"""
    time: int
    """ns of its beginning, by the clock of the trace"""
    task: int
    name: str
    """of the task"""
    proc: int
    """the run"""


@dataclass(frozen=True, slots=True)
class TaskTime:
    """All tasks of one name; times in ns, summed over the tasks."""

    count: int
    """tasks that were created, or that lived already when tracing began"""
    live: int
    """of them, those alive at the end of the trace"""
    running: int
    runnable: int
    """ready to run, and waiting for other tasks to let them"""
    blocked: dict[str, int]
    """by reason"""
    unknown: int
    """after a loss, until an event or a snapshot tells the state again"""
    steps: int
    longest: Step | None
    outcomes: dict[str, int]
    """how many of them ended how: `tracesvc.events.Outcome`"""


@dataclass(slots=True)
class _Carried:
    """What the live tasks are in: arrays of equal length."""

    task: Integers
    proc: Integers
    time: Integers
    state: NDArray[Any]
    name: Integers

    def take(self, where: Any) -> _Carried:
        return _Carried(
            self.task[where],
            self.proc[where],
            self.time[where],
            self.state[where],
            self.name[where],
        )

    def with_(self, other: _Carried) -> _Carried:
        return _Carried(
            np.concatenate((self.task, other.task)),
            np.concatenate((self.proc, other.proc)),
            np.concatenate((self.time, other.time)),
            np.concatenate((self.state, other.state)),
            np.concatenate((self.name, other.name)),
        )


def _rows(rows: Iterable[tuple[int, int, int, int, int]]) -> _Carried:
    columns = np.array(list(rows), np.int64).reshape(-1, 5)
    return _Carried(*columns.T)


class TaskTimes:
    """Adds up the lives of all tasks, by name; memory goes with the live tasks and the names."""

    def __init__(self, stalls: int) -> None:
        """``stalls`` is how many of the longest steps are kept, whatever their task."""
        self._live = _rows(())
        self._names: list[str] = [NAMELESS]
        self._ids: dict[str, int] = {NAMELESS: 0}
        self._time = np.zeros((1, STATES), np.int64)
        self._count = np.zeros(1, np.int64)
        self._steps = np.zeros(1, np.int64)
        self._ended = np.zeros((1, len(Outcome)), np.int64)
        self._longest: dict[int, Step] = {}
        self._records: Integers = np.zeros(0, np.int64)
        """by name: how long the longest step was"""
        self._keep = stalls
        self.stalls: list[Step] = []
        """the longest steps, the longest first"""
        self.longest: dict[int, Step] = {}
        """proc -> its longest step"""

    # --- names -----------------------------------------------------------------------------------

    def _id(self, name: str) -> int:
        number = self._ids.get(name)
        if number is None:
            number = self._ids[name] = len(self._names)
            self._names.append(name)
        return number

    def _grow(self) -> None:
        more = len(self._names) - len(self._count)
        if more > 0:
            more = max(more, len(self._count))
            self._time = np.vstack((self._time, np.zeros((more, STATES), np.int64)))
            self._count = np.concatenate((self._count, np.zeros(more, np.int64)))
            self._steps = np.concatenate((self._steps, np.zeros(more, np.int64)))
            self._ended = np.vstack((self._ended, np.zeros((more, len(Outcome)), np.int64)))

    # --- events ----------------------------------------------------------------------------------

    def add(self, columns: Columns) -> None:
        """The events of a chunk."""
        n = len(columns)
        task, state = np.empty(n, np.int64), np.full(n, NO_EVENT, np.int8)
        for event, after in _AFTER:
            table = columns.of(event)
            state[table.index] = after
            task[table.index] = table.task
        for table in (columns.of(TaskWaiting), columns.of(StepBlock)):
            reason = table.reason
            strange = (reason < 0) | (reason >= len(Reason))
            state[table.index] = BLOCKED + np.where(strange, int(Reason.PARKED), reason)
            task[table.index] = table.task
        index = np.flatnonzero(state != NO_EVENT)
        if not len(index):
            return
        name = np.full(len(index), -1, np.int64)
        created = columns.of(TaskCreate)
        if len(created):
            used, places = np.unique(created.name, return_inverse=True)
            ids = np.array([self._id(columns.strings[i]) for i in used.tolist()], np.int64)
            name[np.searchsorted(index, created.index)] = ids[places.reshape(-1)]
            self._grow()
            np.add.at(self._count, ids[places.reshape(-1)], 1)
        procs = {batch.proc for batch in columns.batches}
        proc = columns.proc[index] if len(procs) > 1 else np.full(len(index), min(procs))
        news = _Carried(task[index], proc, columns.time[index], state[index], name)
        exits = columns.of(TaskExit)
        ends = np.searchsorted(index, exits.index), exits.outcome
        self._play(self._live.with_(news), len(self._live.task), procs, ends)

    def _play(
        self, rows: _Carried, carried: int, procs: set[int], ends: tuple[Integers, Integers]
    ) -> None:
        """Rows in order of time for every task; the first ``carried`` of them are known already.

        ``ends``: which of the others are ends of tasks, and the outcomes.
        """
        order = order_of(rows.task)
        task, time, state = (values[order] for values in (rows.task, rows.time, rows.state))
        same = task[1:] == task[:-1]
        first = np.flatnonzero(np.concatenate(([True], ~same)))
        names = rows.name[order[first]]
        # No creation and not carried over: it happened in a gap.
        orphans = names < 0
        self._count[0] += int(orphans.sum())
        names = np.where(orphans, 0, names)
        name = np.repeat(names, np.diff(first, append=len(task)))
        runs = state == RUNNING
        begins = runs & (order >= carried)
        self._steps += np.bincount(name[begins], minlength=len(self._steps))
        if len(ends[0]):
            over = np.flatnonzero(state == DEAD)
            self._note_ends(name[over], order[over] - carried, *ends)
        spent = np.maximum(time[1:] - time[:-1], 0)
        over = np.flatnonzero(same & (state[:-1] >= 0))
        self._spend(name[over], state[over], spent[over])
        # What each row is of is looked up only where it is needed: these are all the events there are.
        steps = np.flatnonzero(same & runs[:-1])
        sorted_ = _Carried(task, rows.proc, time, state, name)
        self._note_steps(sorted_, order, steps, spent[steps], procs)
        last = np.flatnonzero(np.concatenate((~same, [True])) & (state != DEAD))
        self._live = _Carried(
            task[last], rows.proc[order[last]], time[last], state[last], name[last]
        )

    def _spend(self, names: Integers, states: Integers, spent: Integers) -> None:
        # Sums of doubles would not be exact.
        np.add.at(self._time.reshape(-1), names * STATES + states, spent)

    def _note_ends(self, names: Integers, index: Any, ends: Integers, outcome: Integers) -> None:
        """Ends of tasks with these names, at these places, among all of which the ``outcome`` is known."""
        strange = (outcome < 0) | (outcome >= len(Outcome))
        kinds = np.where(strange, int(Outcome.UNKNOWN), outcome)
        np.add.at(self._ended, (names, kinds[np.searchsorted(ends, index)]), 1)

    def _note_steps(
        self, rows: _Carried, order: Any, steps: Any, spent: Integers, runs: set[int]
    ) -> None:
        """Keep the longest; of nearly all steps it is seen at once that they are none of them."""
        if not len(steps):
            return
        names = rows.name[steps]
        if len(self._records) < len(self._names):
            more = np.full(2 * len(self._names) - len(self._records), -1, np.int64)
            self._records = np.concatenate((self._records, more))
        top = self.stalls[-1].duration if len(self.stalls) >= self._keep else -1
        known_runs = [self.longest[proc].duration for proc in runs if proc in self.longest]
        least = min(known_runs) if len(known_runs) == len(runs) else -1
        news = (spent > self._records[names]) | (spent > min(top, least))
        chosen = np.flatnonzero(news)
        if not len(chosen):
            return
        chosen = chosen[np.argsort(-spent[chosen], kind="stable")]

        def step(i: int) -> Step:
            at, place = int(steps[i]), int(order[steps[i]])
            name = self._names[int(rows.name[at])]
            return Step(
                int(spent[i]), int(rows.time[at]), int(rows.task[at]), name, int(rows.proc[place])
            )

        first = [step(i) for i in chosen[: self._keep].tolist()]
        self.stalls = sorted(self.stalls + first, key=lambda s: (-s.duration, s.time))[: self._keep]
        procs = rows.proc[order[steps[chosen]]]
        for keys, known in ((names[chosen], self._longest), (procs, self.longest)):
            found, where = np.unique(keys, return_index=True)
            for key, i in zip(found.tolist(), chosen[where].tolist(), strict=True):
                if key not in known or known[key].duration < int(spent[i]):
                    known[key] = step(i)
        for key, longest in self._longest.items():
            self._records[key] = longest.duration

    # --- gaps ------------------------------------------------------------------------------------

    def gap(self, proc: int, time: int) -> None:
        """Events of a run are missing from ``time`` on: nobody knows what its tasks are in."""
        self._leave(self._live.proc == proc, time)
        mine = self._live.proc == proc
        self._live.state[mine] = UNKNOWN
        self._live.time[mine] = np.maximum(self._live.time[mine], time)

    def adopt(
        self, proc: int, rows: Sequence[TaskRow], text: Callable[[int], str], time: int, begin: int
    ) -> None:
        """A snapshot of a run, as of ``time``, tells what its tasks are in; ``begin``: ns of the trace's beginning."""
        mine = self._live.proc == proc
        live = self._live.take(mine)
        known = {int(task): i for i, task in enumerate(live.task)}
        said = []
        for row in rows:
            name, state = self._id(text(row.name)), _state(row)
            self._grow()
            i = known.get(row.task)
            since = max(row.since, begin)
            if i is None:
                self._count[name] += 1
            elif live.state[i] != UNKNOWN:
                # Its own events have told by now; at most its name is missing.
                state, since = int(live.state[i]), int(live.time[i])
            else:
                since = max(int(live.time[i]), row.since)
                self._time[live.name[i], UNKNOWN] += since - int(live.time[i])
            if i is not None and live.name[i] == 0:
                self._count[0] -= 1
                self._count[name] += 1
            said.append((row.task, proc, since, state, name))
        gone = ~np.isin(live.task, [row.task for row in rows])
        self._close(live.take(gone), time)
        self._live = self._live.take(~mine).with_(_rows(said))

    def end(self, proc: int, time: int) -> None:
        """A run is over, or the trace of it is."""
        mine = self._live.proc == proc
        self._close(self._live.take(mine), time)
        self._live = self._live.take(~mine)

    def _leave(self, which: NDArray[np.bool_], time: int) -> None:
        self._close(self._live.take(which), time)

    def _close(self, live: _Carried, time: int) -> None:
        self._spend(live.name, live.state, np.maximum(time - live.time, 0))

    # --- the result ------------------------------------------------------------------------------

    def procs(self) -> list[int]:
        """Runs with live tasks."""
        return [int(proc) for proc in np.unique(self._live.proc)]

    def result(self, ends: dict[int, int], *, own: Callable[[str], bool]) -> dict[str, TaskTime]:
        """By name, the most running time first; ``ends`` says when each run that goes on was heard of last.

        Tasks that are ``own`` are left out.
        """
        for proc in self.procs():
            self._leave(self._live.proc == proc, ends[proc])
        live = np.bincount(self._live.name, minlength=len(self._count))
        order = sorted(range(len(self._names)), key=lambda i: -int(self._time[i, RUNNING]))
        return {
            self._names[i]: self._one(i, int(live[i]))
            for i in order
            if (self._count[i] or self._time[i].any()) and not own(self._names[i])
        }

    def _one(self, i: int, live: int) -> TaskTime:
        time = [int(ns) for ns in self._time[i]]
        blocked = {reason.name.lower(): time[BLOCKED + reason] for reason in Reason}
        return TaskTime(
            count=int(self._count[i]),
            live=live,
            running=time[RUNNING],
            runnable=time[RUNNABLE],
            blocked={reason: ns for reason, ns in blocked.items() if ns},
            unknown=time[UNKNOWN],
            steps=int(self._steps[i]),
            longest=self._longest.get(i),
            outcomes={
                outcome.name.lower(): int(self._ended[i, outcome])
                for outcome in Outcome
                if self._ended[i, outcome]
            },
        )


def _state(row: TaskRow) -> int:
    match row.state:
        case TaskState.RUNNABLE:
            return RUNNABLE
        case TaskState.RUNNING:
            return RUNNING
        case TaskState.WAITING:
            return BLOCKED + (row.reason if 0 <= row.reason < len(Reason) else int(Reason.PARKED))
    return UNKNOWN
