"""`timeline`: what the tasks of each row of a picture were in, added up column by column.

A row is one task, or tasks of one name that do not live at the same time; where there are too many for that, it is a
crowd: all tasks of a name, one upon the other.  Time is divided into columns.  So a picture has the same size whatever
the trace, and below the width of a column nothing is left out; only the order is no longer told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import LossCause, TaskRunnable
from tracesvc.format import LossRow
from tracesvc.model.phases import Phases
from tracesvc.model.pieces import OPEN, Pieces
from tracesvc.model.reader import Trace
from tracesvc.model.replay import Replay
from tracesvc.plot.kinds import Kind, kinds_of
from tracesvc.plot.rows import Shared, Tasks, arrange

__all__ = ["COLUMNS", "ROWS", "Row", "Run", "Timeline", "Wake", "timeline"]

Integers: TypeAlias = NDArray[np.int64]

COLUMNS: Final = 1000
ROWS: Final = 40
"""rows that a person reads, about"""
WAKES: Final = 200
"""arrows that a person follows"""


@dataclass(frozen=True, slots=True)
class Row:
    """One row."""

    tasks: Shared
    time: Integers
    """``time[column, kind]``: ns that the tasks spent so"""

    @property
    def crowd(self) -> bool:
        """Whether tasks lie one upon the other."""
        return self.tasks.most > 1


@dataclass(frozen=True, slots=True)
class Wake:
    """A task of one row woke one of another row of the same run."""

    time: int
    """ns"""
    waker: int
    """index into `Run.rows`"""
    woken: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run loop and its tasks."""

    proc: int
    name: str
    idle: Integers
    """``idle[column]``: ns that it waited for I/O"""
    rows: list[Row] = field(default_factory=list)
    losses: list[LossRow] = field(default_factory=list)
    """after which it is not known what its tasks were in"""
    wakes: list[Wake] = field(default_factory=list)
    """empty where there are too many to follow"""


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a picture shows.  Times are ns by the clock of the trace."""

    start: int
    end: int
    edges: Integers
    """where the columns begin, and where the last one ends"""
    runs: list[Run]
    tasks: int
    lost: int
    """events that are missing in the whole trace, as far as it tells"""
    damaged: int
    """bytes of the whole trace that cannot be read"""


def timeline(
    trace: Trace,
    start: int | None = None,
    end: int | None = None,
    *,
    columns: int = COLUMNS,
    rows: int = ROWS,
    own: bool = False,
) -> Timeline:
    """Add up what the tasks were in.

    The trace is read twice: for the rows, and for what is in them.  Memory goes with the tasks of that stretch of time.

    Args:
        trace: From `tracesvc.read`, of something that can seek; it is read from the front.
        start: ns by the clock of the trace; None: its beginning.
        end: ns; None: its end.
        columns: How many parts the time is divided into.
        rows: As many there are, about.
        own: Whether the tracer's own tasks are among them.

    Raises:
        ValueError: ``end`` is not after ``start``.
        FormatError: It is not a trace.
        OSError: It cannot be read.
    """
    trace.rewind()
    replay = Replay(trace)
    found = Tasks(start, end)
    losses: list[LossRow] = []
    for part in replay.parts():
        found.add(part.phases)
        losses += part.losses
    walk = replay.walk
    low = (walk.began or 0) if start is None else start
    high = max(walk.ended, low + 1) if end is None else end
    if high <= low:
        raise ValueError("end must be after start")
    # In whole numbers: times do not fit a double.
    edges = low + np.arange(columns + 1, dtype=np.int64) * (high - low) // columns
    shared = arrange(found.result(replay.names, own=own), rows)
    sums = _Sums(shared, edges)
    trace.rewind()
    replay = Replay(trace)
    for part in replay.parts():
        sums.add(part.phases)
        sums.wait(part.io_waits)
    books = walk.books
    return Timeline(
        start=low,
        end=high,
        edges=edges,
        runs=sums.result(walk.runs(), losses),
        tasks=sum(len(one.tasks) for one in shared),
        lost=books.missing + sum(one.events for one in books.lost.values()),
        damaged=books.damaged_bytes,
    )


class _Grid:
    """Time by column, in as many cells as there are."""

    def __init__(self, edges: Integers, cells: int) -> None:
        self._edges = edges
        self._part = np.zeros((cells, len(edges) - 1), np.int64)
        self._whole = np.zeros((cells, len(edges)), np.int64)
        """differences, from column to column, of how many intervals cover a column from edge to edge"""

    def add(self, cell: Integers, start: Integers, end: Integers) -> None:
        """Intervals; what lies outside of the columns is passed over."""
        start, end = np.maximum(start, self._edges[0]), np.minimum(end, self._edges[-1])
        here = end > start
        cell, start, end = cell[here], start[here], end[here]
        first = np.searchsorted(self._edges, start, "right") - 1
        last = np.searchsorted(self._edges, end, "left") - 1
        within = first == last
        np.add.at(self._part, (cell[within], first[within]), (end - start)[within])
        across = ~within
        cell, start, end = cell[across], start[across], end[across]
        first, last = first[across], last[across]
        np.add.at(self._part, (cell, first), self._edges[first + 1] - start)
        np.add.at(self._part, (cell, last), end - self._edges[last])
        np.add.at(self._whole, (cell, first + 1), 1)
        np.add.at(self._whole, (cell, last), -1)

    def result(self) -> Integers:
        """``[cell, column]``: ns."""
        covers = np.cumsum(self._whole, axis=1)[:, :-1]
        found: Integers = self._part + covers * np.diff(self._edges)
        return found


class _Sums:
    """Adds up what the rows were in."""

    def __init__(self, shared: Sequence[Shared], edges: Integers) -> None:
        self._shared = shared
        self._edges = edges
        rows = [(task, i) for i, one in enumerate(shared) for task in one.tasks]
        by_task = np.array(sorted(rows), np.int64).reshape(-1, 2)
        self._task, self._row = by_task[:, 0], by_task[:, 1]
        self._time = _Grid(edges, len(shared) * len(Kind))
        self._procs = np.array(sorted({one.proc for one in shared}), np.int64)
        self._idle = _Grid(edges, len(self._procs))
        self._wakes: list[tuple[int, int, int]] | None = []

    def _rows_of(self, tasks: Integers) -> Integers:
        """Index of the row of each task, or -1."""
        return _look_up(self._task, self._row, tasks)

    def add(self, phases: Phases) -> None:
        """The phases of a part."""
        rows = self._rows_of(phases.task)
        here = (rows >= 0) & (phases.end > self._edges[0]) & (phases.start < self._edges[-1])
        p, rows = phases.take(here), rows[here]
        self._time.add(rows * len(Kind) + kinds_of(p.state, p.reason), p.start, p.end)
        if self._wakes is None:
            return
        woken = np.flatnonzero(
            (p.closed == TaskRunnable.number) & (p.waker > 0) & (p.end < self._edges[-1])
        )
        wakers = self._rows_of(p.waker[woken])
        woken, wakers = woken[wakers >= 0], wakers[wakers >= 0]
        self._wakes += zip(
            p.end[woken].tolist(), wakers.tolist(), rows[woken].tolist(), strict=True
        )
        if len(self._wakes) > WAKES:
            self._wakes = None

    def wait(self, waits: Pieces) -> None:
        """The run loops' waits for I/O that end in a part."""
        runs = _look_up(self._procs, np.arange(len(self._procs)), waits.proc)
        ends = np.where(waits.end == OPEN, self._edges[-1], waits.end)
        mine = runs >= 0
        self._idle.add(runs[mine], waits.begin[mine], ends[mine])

    def result(self, names: dict[int, str], losses: Sequence[LossRow]) -> list[Run]:
        """The runs that have tasks, in order."""
        idle = self._idle.result()
        runs = {
            proc: Run(proc, names.get(proc, ""), idle[i])
            for i, proc in enumerate(self._procs.tolist())
        }
        time = self._time.result().reshape(len(self._shared), len(Kind), len(self._edges) - 1)
        places: list[int] = []
        for one, values in zip(self._shared, time, strict=True):
            run = runs[one.proc]
            places.append(len(run.rows))
            run.rows.append(Row(one, values.T))
        for loss in losses:
            here = loss.end >= self._edges[0] and loss.start <= self._edges[-1]
            if loss.proc in runs and here and LossCause.loses_track(loss.cause):
                runs[loss.proc].losses.append(loss)
        for at, waker, woken in self._wakes or ():
            one, other = self._shared[waker], self._shared[woken]
            if one.proc == other.proc and waker != woken and one.most == other.most == 1:
                runs[one.proc].wakes.append(Wake(at, places[waker], places[woken]))
        return list(runs.values())


def _look_up(keys: Integers, values: Integers, wanted: Integers) -> Integers:
    """The value of each wanted key, or -1; the keys are in order."""
    if not len(keys):
        return np.full(len(wanted), -1, np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found: Integers = np.where(keys[at] == wanted, values[at], -1)
    return found
