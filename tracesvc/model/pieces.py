"""What begins and ends: spans, regions, calls in threads, collections, waits for I/O; all in arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import (
    Event,
    GcEnd,
    GcStart,
    IoWaitEnd,
    IoWaitStart,
    RegionBegin,
    RegionEnd,
    SpanBegin,
    SpanEnd,
    ThreadEnd,
    ThreadStart,
)
from tracesvc.model.columns import Columns

__all__ = ["OPEN", "ById", "InTurn", "Pieces", "make_pieces"]

Integers: TypeAlias = NDArray[np.int64]

OPEN: Final = -1
"""end of what has not ended"""
MAX_EARLY: Final = 10_000
"""ends that came by before their begin, kept at most: procs hand over their buffers one by one"""


@dataclass(slots=True)
class Pieces:
    """Pieces of one kind, in arrays of equal length."""

    id: Integers
    """of a span or region; generation of a collection; else 0"""
    parent: Integers
    """of a span"""
    task: Integers
    """in which it began; 0: none"""
    end_task: Integers
    """in which it ended"""
    begin: Integers
    """ns"""
    end: Integers
    """ns, or `OPEN`"""
    proc: Integers
    """where it began; -1: only a snapshot told of it"""
    name: NDArray[np.object_]
    """texts"""
    attributes: NDArray[np.object_]
    """dicts and None"""

    def __len__(self) -> int:
        return len(self.id)

    def take(self, where: Any) -> Pieces:
        """Those that an index or mask chooses."""
        return Pieces(*(getattr(self, f.name)[where] for f in fields(self)))

    @staticmethod
    def join(parts: Sequence[Pieces]) -> Pieces:
        """All of them, one after the other."""
        parts = [_none(), *parts]
        return Pieces(
            *(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Pieces))
        )


def make_pieces(rows: Sequence[tuple[Any, ...]]) -> Pieces:
    """From tuples with all the fields, in their order."""
    columns = list(zip(*rows, strict=True)) or [()] * len(fields(Pieces))
    arrays: list[Any] = [np.array(column, np.int64) for column in columns[:7]]
    return Pieces(*arrays, *(_objects(list(column)) for column in columns[7:]))


def _objects(values: list[Any]) -> NDArray[np.object_]:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _none() -> Pieces:
    return make_pieces([])


class ById:
    """Spans or regions: begin and end have one number, and may be of different procs."""

    def __init__(self, begin: type[Event], end: type[Event]) -> None:
        self._types = begin, end
        self._id = begin.fields[0].name
        self._open = _none()
        self._early: dict[int, tuple[int, int]] = {}

    def add(self, columns: Columns) -> Pieces:
        """Those that end in a chunk."""
        begin, end = (columns.of(event) for event in self._types)
        if not len(begin) and not len(end):
            return _none()
        parent = begin.parent if self._id == "span" else np.zeros(len(begin), np.int64)
        names = np.array(columns.strings, object)[begin.name] if len(begin) else _objects([])
        news = Pieces(
            getattr(begin, self._id),
            parent,
            begin.task,
            np.zeros(len(begin), np.int64),
            begin.time,
            np.full(len(begin), OPEN, np.int64),
            begin.proc,
            names,
            _objects(list(begin.attributes)),
        )
        known = Pieces.join([self._open, news])
        ids, times, tasks = getattr(end, self._id), end.time, end.task
        if self._early:
            early = np.array(list(self._early.items()), object)
            ids = np.concatenate((ids, early[:, 0].astype(np.int64)))
            more = list(self._early.values())
            times = np.concatenate((times, np.array([time for time, _ in more], np.int64)))
            tasks = np.concatenate((tasks, np.array([task for _, task in more], np.int64)))
        _, at, ended = np.intersect1d(known.id, ids, return_indices=True)
        unmatched = np.ones(len(ids), np.bool_)
        unmatched[ended] = False
        self._early = {
            int(ids[i]): (int(times[i]), int(tasks[i]))
            for i in np.flatnonzero(unmatched)[:MAX_EARLY].tolist()
        }
        known.end[at] = np.maximum(times[ended], known.begin[at])
        known.end_task[at] = tasks[ended]
        self._open = known.take(known.end == OPEN)
        return known.take(at)

    def adopt(self, rows: Sequence[tuple[int, int, int, int, str, Any]]) -> Pieces:
        """What is open, by a snapshot: (id, parent, task, since, name, attributes); gives those that are not.

        Those have ended in a gap, nobody knows when: their end stays `OPEN`.
        """
        said = np.array([row[0] for row in rows], np.int64)
        here = np.isin(self._open.id, said)
        gone = self._open.take(~here)
        known = set(self._open.id.tolist())
        news = [(i, p, t, 0, s, OPEN, -1, n, a) for i, p, t, s, n, a in rows if i not in known]
        self._open = Pieces.join([self._open.take(here), make_pieces(news)])
        self._early.clear()
        return gone

    def rest(self) -> Pieces:
        """Those that are open."""
        return self._open


class InTurn:
    """What begins and ends in one proc, one after the other."""

    def __init__(self, begin: type[Event], end: type[Event]) -> None:
        self._begin, self._end = begin, end
        self._open: dict[int, tuple[Any, ...]] = {}

    def add(self, columns: Columns) -> Pieces:
        """Those that end in a chunk."""
        begin, end = columns.of(self._begin), columns.of(self._end)
        count = len(begin)
        if not count and not len(end):
            return _none()
        none = np.zeros(count, np.int64)
        tasks = begin.task if self._begin is ThreadStart else none
        ids = begin.generation if self._begin is GcStart else none
        # In order of proc, then of place: a begin is followed by its end.
        index = np.concatenate((begin.index, end.index))
        procs = np.concatenate((begin.proc, end.proc))
        times = np.concatenate((begin.time, end.time))
        order = np.lexsort((index, procs))
        begins = order < count
        paired = np.flatnonzero(begins[:-1] & ~begins[1:] & np.equal(*_neighbours(procs[order])))
        at, until = order[paired], order[paired + 1]
        names = self._names(columns)
        ended = Pieces(
            ids[at],
            none[at],
            tasks[at],
            tasks[at],
            times[at],
            np.maximum(times[until], times[at]),
            procs[at],
            names[at],
            _objects([None] * len(at)),
        )
        across: list[tuple[Any, ...]] = []
        bounds = np.flatnonzero(np.diff(procs[order], prepend=-1, append=-1))
        for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            proc, first, last = int(procs[order[low]]), int(order[low]), int(order[high - 1])
            before = self._open.pop(proc, None)
            if before is not None and first >= count:
                time = max(int(times[first]), before[4])
                across.append((*before[:5], time, *before[6:]))
            if last < count:
                row = (int(ids[last]), 0, int(tasks[last]), int(tasks[last]), int(times[last]))
                self._open[proc] = (*row, OPEN, proc, names[last], None)
        return Pieces.join([ended, make_pieces(across)])

    def _names(self, columns: Columns) -> NDArray[np.object_]:
        table = columns.of(self._begin)
        if self._begin is ThreadStart and len(table):
            found: NDArray[np.object_] = np.array(columns.strings, object)[table.function]
            return found
        return _objects([""] * len(table))

    def gap(self, proc: int) -> Pieces:
        """Events of a proc are missing: when what was open ended is not known."""
        row = self._open.pop(proc, None)
        return make_pieces([] if row is None else [row])

    def rest(self) -> Pieces:
        """Those that are open."""
        return make_pieces(list(self._open.values()))


def _neighbours(values: Integers) -> tuple[Integers, Integers]:
    return values[:-1], values[1:]


SPANS: Final = (SpanBegin, SpanEnd)
REGIONS: Final = (RegionBegin, RegionEnd)
CALLS: Final = (ThreadStart, ThreadEnd)
COLLECTIONS: Final = (GcStart, GcEnd)
IO_WAITS: Final = (IoWaitStart, IoWaitEnd)
