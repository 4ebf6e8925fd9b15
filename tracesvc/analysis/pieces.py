"""Pieces of work that begin and end: spans and regions, calls in threads, garbage collections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.analysis.quantiles import Durations, Quantiles
from tracesvc.events import (
    GcEnd,
    GcStart,
    RegionBegin,
    RegionEnd,
    SpanBegin,
    SpanEnd,
    ThreadEnd,
    ThreadStart,
)
from tracesvc.model.columns import Columns, Table
from tracesvc.model.order import order_of

Integers: TypeAlias = NDArray[np.int64]

__all__ = ["Annotated", "Annotations", "Calls", "Collections", "Gc", "GcGeneration", "ThreadCalls"]

MAX_EARLY: Final = 10_000
"""ends that came by before their begin, kept at most: procs hand over their buffers one by one"""


@dataclass(frozen=True, slots=True)
class Annotated:
    """All spans, or all regions, of one name; durations in ns are those of the ones that have ended."""

    count: int
    open: int
    """not ended at the end of the trace"""
    durations: Quantiles


@dataclass(slots=True)
class _Name:
    place: int
    count: int = 0
    open: int = 0
    durations: Durations = field(default_factory=Durations)


class Annotations:
    """Spans, or regions: memory goes with the open ones and the names."""

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}
        self._list: list[_Name] = []
        self._open: Integers = np.zeros((3, 0), np.int64)
        """id, begin and place in the list of names"""
        self._early: Integers = np.zeros((2, 0), np.int64)
        """id and time of ends that came before their begin"""

    def add_spans(self, columns: Columns) -> None:
        """The spans of a chunk."""
        begin, end = columns.of(SpanBegin), columns.of(SpanEnd)
        self._add(columns, begin, begin.span, end, end.span)

    def add_regions(self, columns: Columns) -> None:
        """The regions of a chunk."""
        begin, end = columns.of(RegionBegin), columns.of(RegionEnd)
        self._add(columns, begin, begin.region, end, end.region)

    def _place(self, name: str) -> int:
        known = self._names.get(name)
        if known is None:
            known = self._names[name] = _Name(len(self._list))
            self._list.append(known)
        return known.place

    def _add(self, columns: Columns, begin: Table, begun: Any, end: Table, ended: Any) -> None:
        if not len(begin) and not len(end):
            return
        counts = np.bincount(begin.name)
        places = np.zeros(len(counts), np.int64)
        for i in np.flatnonzero(counts).tolist():
            places[i] = self._place(columns.strings[i])
            self._list[places[i]].count += int(counts[i])
        names = places[begin.name]
        opens = np.hstack((self._open, np.stack((begun, begin.time, names))))
        ends = np.hstack((self._early, np.stack((ended, end.time))))
        _, at, until = np.intersect1d(opens[0], ends[0], return_indices=True)
        durations, names = np.maximum(ends[1, until] - opens[1, at], 0), opens[2, at]
        order = order_of(names)
        durations, names = durations[order], names[order]
        bounds = np.flatnonzero(np.diff(names, prepend=-1, append=-1)).tolist()
        for low, high in pairwise(bounds):
            self._list[int(names[low])].durations.extend(durations[low:high])
        self._open = np.delete(opens, at, axis=1)
        self._early = np.delete(ends, until, axis=1)[:, -MAX_EARLY:]

    def adopt(self, rows: Sequence[tuple[int, int, str]]) -> None:
        """What is open, by a snapshot: (id, ns of its begin, name).

        What had begun and is not in it has ended in a gap, nobody knows when: it counts, and has no duration.
        """
        before, known = set(self._open[0].tolist()), []
        for number, since, text in rows:
            place = self._place(text)
            if number not in before:
                self._list[place].count += 1
            known.append((number, since, place))
        self._open = np.array(known, np.int64).reshape(-1, 3).T
        self._early = self._early[:, :0]

    def result(self) -> dict[str, Annotated]:
        """By name, the most time first."""
        for place, count in enumerate(np.bincount(self._open[2]).tolist()):
            self._list[place].open += count
        found = {
            text: Annotated(name.count, name.open, name.durations.quantiles())
            for text, name in self._names.items()
        }
        return dict(sorted(found.items(), key=lambda item: -item[1].durations.total))


@dataclass(frozen=True, slots=True)
class ThreadCalls:
    """Calls of one function in worker threads, in ns."""

    count: int
    open: int
    """not ended at the end of the trace"""
    total: int
    max: int


class Calls:
    """`trio.to_thread` calls: memory goes with those under way and the functions."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, int], tuple[int, str]] = {}
        self._functions: dict[str, list[int]] = {}

    def add(self, columns: Columns) -> None:
        """The calls of a chunk; a thread's start and end are in its own proc, in order."""
        start, end = columns.of(ThreadStart), columns.of(ThreadEnd)
        if not len(start) and not len(end):
            return
        rows = [
            *zip(
                start.index.tolist(),
                start.proc,
                start.task,
                start.time,
                start.names("function"),
                strict=True,
            ),
            *(
                (i, *row, None)
                for i, row in zip(
                    end.index.tolist(), zip(end.proc, end.task, end.time, strict=True), strict=True
                )
            ),
        ]
        for _, proc, task, time, function in sorted(rows):
            key = int(proc), int(task)
            if function is not None:
                self._open[key] = int(time), function
                self._functions.setdefault(function, [0, 0, 0])[0] += 1
                continue
            since, name = self._open.pop(key, (0, None))
            if name is not None:
                entry = self._functions[name]
                entry[1] += int(time) - since
                entry[2] = max(entry[2], int(time) - since)

    def gap(self, proc: int) -> None:
        """Events of a thread are missing: how long its calls took is not known."""
        for key in [key for key in self._open if key[0] == proc]:
            del self._open[key]

    def result(self) -> dict[str, ThreadCalls]:
        """By function, the most time first."""
        going = [function for _, function in self._open.values()]
        found = {
            function: ThreadCalls(count, going.count(function), total, longest)
            for function, (count, total, longest) in self._functions.items()
        }
        return dict(sorted(found.items(), key=lambda item: -item[1].total))


@dataclass(slots=True)
class GcGeneration:
    """Collections of one generation of objects."""

    count: int = 0
    total: int = 0
    """ns"""
    max: int = 0
    """ns"""
    collected: int = 0
    """objects"""


@dataclass(frozen=True, slots=True)
class Gc:
    """Garbage collections; all of the program stood still meanwhile."""

    count: int
    total: int
    """ns"""
    max: int
    """ns"""
    generations: dict[int, GcGeneration]


class Collections:
    """Adds up the garbage collections."""

    def __init__(self) -> None:
        self._since: dict[int, int] = {}
        self._generations: dict[int, GcGeneration] = {}

    def add(self, columns: Columns) -> None:
        """The collections of a chunk; begin and end are in one proc."""
        start, end = columns.of(GcStart), columns.of(GcEnd)
        if not len(start) and not len(end):
            return
        rows = [
            (i, p, t, None, 0)
            for i, p, t in zip(*_lists(start.index, start.proc, start.time), strict=True)
        ]
        ends = _lists(end.index, end.proc, end.time, end.generation, end.collected)
        for _, proc, time, generation, collected in sorted([*rows, *zip(*ends, strict=True)]):
            if generation is None:
                self._since[proc] = time
                continue
            since = self._since.pop(proc, None)
            if since is not None:
                entry = self._generations.setdefault(generation, GcGeneration())
                entry.count += 1
                entry.total += time - since
                entry.max = max(entry.max, time - since)
                entry.collected += collected

    def gap(self, proc: int) -> None:
        """Events of a proc are missing."""
        self._since.pop(proc, None)

    def result(self) -> Gc:
        generations = dict(sorted(self._generations.items()))
        entries = generations.values()
        return Gc(
            sum(entry.count for entry in entries),
            sum(entry.total for entry in entries),
            max((entry.max for entry in entries), default=0),
            generations,
        )


def _lists(*arrays: Any) -> list[list[Any]]:
    return [a.tolist() for a in arrays]
