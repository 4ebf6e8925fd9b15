"""What `tracesvc.analysis.summary` adds up, chunk by chunk, each in arrays and with memory for what is live only."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tracesvc.analysis.durations import Durations, Integers
from tracesvc.events import (
    StepBlock,
    StepStart,
    StepYield,
    TaskCreate,
    TaskExit,
    TaskRunnable,
    TaskState,
    TaskWaiting,
)
from tracesvc.format import Snapshot
from tracesvc.model.columns import Columns

__all__ = ["Names", "Opens", "Pairs", "Tasks"]

RUNNING: Final = 0
RUNNABLE: Final = 1
BLOCKED: Final = 2
"""and the reason"""
KINDS: Final = BLOCKED + 256
DEAD: Final = -1
MAX_NAMES: Final = 4096
OTHERS: Final = "(other names)"


class Names:
    """Indexes into the strings of a trace -> a few dense places; names beyond `MAX_NAMES` share one."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._places: dict[str, int] = {}
        self._of: Integers = np.full(0, -1, np.int64)

    def __len__(self) -> int:
        return len(self.names)

    def place(self, name: str) -> int:
        place = self._places.get(name)
        if place is None:
            if len(self.names) >= MAX_NAMES and name != OTHERS:
                return self.place(OTHERS)
            place = self._places[name] = len(self.names)
            self.names.append(name)
        return place

    def places(self, indexes: Integers, strings: list[str]) -> Integers:
        if len(self._of) < len(strings):
            more = np.full(len(strings) - len(self._of), -1, np.int64)
            self._of = np.concatenate([self._of, more])
        places = self._of[indexes]
        if (places < 0).any():
            for index in np.unique(indexes[places < 0]):
                self._of[index] = self.place(strings[index])
            places = self._of[indexes]
        return places


def grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    """``array`` with at least so many rows; the new ones are 0."""
    if len(array) >= size:
        return array
    new = np.zeros((max(size, 2 * len(array)), *array.shape[1:]), array.dtype)
    new[: len(array)] = array
    return new


class _Live:
    """Rows of live tasks, as arrays of equal length."""

    def __init__(self, rows: Integers | None = None) -> None:
        self.rows: Integers = np.zeros((5, 0), np.int64) if rows is None else rows

    @property
    def task(self) -> Integers:
        return self.rows[0]

    @property
    def since(self) -> Integers:
        return self.rows[1]

    @property
    def kind(self) -> Integers:
        return self.rows[2]

    @property
    def name(self) -> Integers:
        return self.rows[3]

    @property
    def proc(self) -> Integers:
        return self.rows[4]


class Tasks:
    """Time that tasks spent running, runnable and blocked, by name and reason; the longest steps."""

    def __init__(self, top: int) -> None:
        self.names = Names()
        self.created: Integers = np.zeros(0, np.int64)
        self.steps: Integers = np.zeros(0, np.int64)
        self.time: NDArray[np.float64] = np.zeros((0, KINDS))
        self.longest: dict[int, tuple[int, int, int]] = {}
        """name -> (ns, when it began, task)"""
        self.stalls: list[tuple[int, int, int, int, int]] = []
        """(ns, when it began, task, name, proc), longest first"""
        self.of_procs: dict[int, list[int]] = {}
        """proc -> [steps, ns of them]"""
        self._top = top
        self._live = _Live()
        self._of_type = np.full(256, DEAD, np.int64)
        self._of_type[[TaskCreate.number, TaskRunnable.number, StepYield.number]] = RUNNABLE
        self._of_type[StepStart.number] = RUNNING
        self._of_type[[TaskWaiting.number, StepBlock.number]] = BLOCKED
        self._moves = np.zeros(256, bool)
        self._tables: Final = (
            *(TaskCreate, TaskWaiting, TaskRunnable, StepStart, StepYield, StepBlock, TaskExit),
        )
        self._moves[[event.number for event in self._tables]] = True

    def __len__(self) -> int:
        """Live tasks."""
        return len(self._live.task)

    def live(self) -> dict[int, int]:
        """Name -> live tasks."""
        return dict(zip(*(a.tolist() for a in np.unique(self._live.name, return_counts=True)), strict=True))

    def feed(self, columns: Columns) -> None:
        """The next events."""
        index = np.flatnonzero(self._moves[columns.type])
        if not len(index):
            return
        task = np.zeros(len(columns), np.int64)
        kind = self._of_type[columns.type]
        name = np.full(len(columns), -1, np.int64)
        for event in self._tables:
            table = columns.of(event)
            task[table.index] = table.task
            if event in (TaskWaiting, StepBlock):
                kind[table.index] += np.clip(table.reason, 0, 255)
            elif event is TaskCreate:
                places = self.names.places(table.name, columns.strings)
                name[table.index] = places
                self._make_room()
                self.created += np.bincount(places, minlength=len(self.created))
        rows = np.array([task[index], columns.time[index], kind[index], name[index], columns.proc[index]])
        self._advance(np.concatenate([self._live.rows, rows], axis=1))

    def _make_room(self) -> None:
        size = len(self.names)
        self.created, self.steps = grown(self.created, size), grown(self.steps, size)
        self.time = grown(self.time, size)

    def _advance(self, rows: Integers) -> None:
        """Live tasks and what happened to them since, in order of time for each task."""
        rows = rows[:, _order(rows[0])]
        task, since, kind, name, proc = rows
        first = np.ones(len(task), bool)
        first[1:] = task[1:] != task[:-1]
        starts = np.flatnonzero(first)
        sizes = np.diff(starts, append=len(task))
        # The first row of a task says its name, unless its beginning is missing.
        names = name[starts]
        if (names < 0).any():
            names = np.where(names < 0, self.names.place("?"), names)
            self._make_room()
        rows[3] = name = np.repeat(names, sizes)

        lasts = ~np.append(~first[1:], False)
        at = np.flatnonzero(~lasts)
        spent = since[at + 1] - since[at]
        alive = kind[at] >= 0
        at, spent = at[alive], spent[alive]
        self._spend(name[at], kind[at], spent)
        running = kind[at] == RUNNING
        self._note_steps(rows[:, at[running]], spent[running])
        self._live = _Live(rows[:, lasts & (kind >= 0)])

    def _spend(self, name: Integers, kind: Integers, spent: Integers) -> None:
        if len(spent):
            sums = np.bincount(name * KINDS + kind, spent, minlength=self.time.size)
            self.time += sums.reshape(self.time.shape)

    def _note_steps(self, rows: Integers, spent: Integers) -> None:
        if not len(spent):
            return
        task, since, _, name, proc = rows
        self.steps += np.bincount(name, minlength=len(self.steps))
        for number in np.unique(proc).tolist():
            here = proc == number
            sums = self.of_procs.setdefault(number, [0, 0])
            sums[0] += int(here.sum())
            sums[1] += int(spent[here].sum())
        longest = np.zeros(len(self.names), np.int64)
        np.maximum.at(longest, name, spent)
        for place in np.unique(name).tolist():
            if longest[place] > self.longest.get(place, (-1,))[0]:
                i = int(np.flatnonzero((name == place) & (spent == longest[place]))[0])
                self.longest[place] = int(spent[i]), int(since[i]), int(task[i])
        best = np.argsort(spent, kind="stable")[::-1][: 4 * self._top] if len(spent) < 64 else _top(spent, 4 * self._top)
        found = [tuple(int(x[i]) for x in (spent, since, task, name, proc)) for i in best]
        self.stalls = sorted([*self.stalls, *found], key=lambda row: (-row[0], row[1]))[: 4 * self._top]  # type: ignore[list-item]

    def lose(self, proc: int) -> None:
        """Events of a run are missing: the state of its tasks is not known."""
        self._live = _Live(self._live.rows[:, self._live.proc != proc])

    def adopt(self, snapshot: Snapshot, names: list[str], begin: int) -> None:
        """A snapshot says how the tasks of a run are; time before ``begin`` does not count."""
        self.lose(snapshot.proc)
        known = {TaskState.RUNNABLE: RUNNABLE, TaskState.RUNNING: RUNNING, TaskState.WAITING: BLOCKED}
        rows = []
        for row, name in zip(snapshot.tasks, names, strict=True):
            kind = known.get(TaskState(row.state), DEAD) if row.state in (1, 2, 3) else DEAD
            if kind == BLOCKED:
                kind += min(max(row.reason, 0), 255)
            if kind != DEAD:
                rows.append((row.task, max(row.since, begin), kind, self.names.place(name), snapshot.proc))
        self._make_room()
        if rows:
            self._live = _Live(np.concatenate([self._live.rows, np.array(rows, np.int64).T], axis=1))

    def count(self, names: list[str]) -> None:
        """Tasks that a snapshot brought in."""
        for name in names:
            place = self.names.place(name)
            self._make_room()
            self.created[place] += 1

    def finish(self, end: int, ended: dict[int, int]) -> None:
        """The trace ends here; some procs ended before."""
        live = self._live
        until = np.full(len(live.task), end, np.int64)
        for proc, time in ended.items():
            until[live.proc == proc] = time
        spent = np.maximum(until - live.since, 0)
        self._spend(live.name, live.kind, spent)
        running = live.kind == RUNNING
        self._note_steps(live.rows[:, running], spent[running])


def _order(ids: Integers) -> Integers:
    """Stable order by id."""
    low, high = int(ids.min()), int(ids.max())
    if high - low < 1 << 16:  # a radix sort, several times as fast
        return np.argsort((ids - low).astype(np.uint16), kind="stable")
    if high - low < 32 * len(ids):
        present = np.zeros(high - low + 1, bool)
        present[ids - low] = True
        dense = np.cumsum(present)
        if dense[-1] < 1 << 16:
            return np.argsort(dense.astype(np.uint16)[ids - low], kind="stable")
    return np.argsort(ids, kind="stable")


def _top(values: Integers, n: int) -> Integers:
    n = min(n, len(values))
    return np.argpartition(values, len(values) - n)[len(values) - n :]


class Pairs:
    """Things that begin and end in turn on one proc: I/O waits, collections, calls in threads."""

    def __init__(self) -> None:
        self._open: Integers = np.zeros((3, 0), np.int64)

    def feed(
        self, columns: Columns, start: Any, end: Any, labels: Integers | None = None
    ) -> tuple[Integers, Integers, Integers]:
        """(proc, label, duration) of each that ended; the label is that of its start."""
        starts, ends = columns.of(start), columns.of(end)
        if not len(starts) and not len(ends):
            return self._open[0, :0], self._open[0, :0], self._open[0, :0]
        label = np.zeros(len(starts), np.int64) if labels is None else labels
        index = np.concatenate([starts.index, ends.index])
        order = np.argsort(index, kind="stable")
        index = index[order]
        label = np.concatenate([label, np.full(len(ends), -1, np.int64)])[order]
        rows = np.array([columns.proc[index], columns.time[index], label])
        rows = np.concatenate([self._open, rows], axis=1)
        rows = rows[:, np.argsort(rows[0], kind="stable")]
        proc, time, label = rows
        begins = label >= 0
        following = proc[1:] == proc[:-1]
        whole = np.flatnonzero(begins[:-1] & ~begins[1:] & following)
        last = np.append(~following, True)
        self._open = rows[:, last & begins]
        return proc[whole], label[whole], time[whole + 1] - time[whole]

    def lose(self, proc: int) -> None:
        """Events of a proc are missing."""
        self._open = self._open[:, self._open[0] != proc]


class Opens:
    """Spans, or regions: they begin and end by id, on any proc, the end perhaps before the begin in the stream."""

    def __init__(self) -> None:
        self.names = Names()
        self.durations: list[Durations] = []
        self._begun: Integers = np.zeros((3, 0), np.int64)
        self._ended: Integers = np.zeros((2, 0), np.int64)

    def open(self) -> dict[int, int]:
        """Name -> how many are open."""
        return dict(zip(*(a.tolist() for a in np.unique(self._begun[2], return_counts=True)), strict=True))

    def feed(self, begins: Any, begin_ids: Integers, ends: Any, end_ids: Integers) -> None:
        """The next of them, as tables of events and their ids."""
        names = self.names.places(begins.name, begins.columns.strings)
        self._match(np.array([begin_ids, begins.time, names]), np.array([end_ids, ends.time]))

    def _match(self, begun: Integers, ended: Integers) -> None:
        if not begun.size and not ended.size:
            return
        begun = np.concatenate([self._begun, begun], axis=1)
        ended = np.concatenate([self._ended, ended], axis=1)
        _, at, of = np.intersect1d(begun[0], ended[0], return_indices=True)
        while len(self.durations) < len(self.names):
            self.durations.append(Durations())
        spent = ended[1, of] - begun[1, at]
        for name in np.unique(begun[2, at]).tolist():
            self.durations[name].add(spent[begun[2, at] == name])
        self._begun = np.delete(begun, at, axis=1)
        # An end whose begin is missing would be kept for ever.
        self._ended = np.delete(ended, of, axis=1)[:, -10_000:]

    def adopt(self, rows: list[tuple[int, int, str]]) -> None:
        """A snapshot says what is open: (id, since, name)."""
        places = [(number, since, self.names.place(name)) for number, since, name in rows]
        self._begun = np.array(places, np.int64).reshape(-1, 3).T
        while len(self.durations) < len(self.names):
            self.durations.append(Durations())
