"""`Intervals`: spans, calls, collections, waits for I/O, by the row that they are drawn on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.analysis.timeline.lanes import cumulated

__all__ = ["Intervals", "Rows"]

Integers: TypeAlias = NDArray[np.int64]

SMALL: Final = 1 << 18


@dataclass(slots=True)
class Rows:
    """Intervals, in arrays of equal length."""

    row: Integers
    begin: Integers
    """ns"""
    end: Integers
    """ns"""
    id: Integers
    task: Integers
    name: Integers
    """index of a text"""
    parent: Integers
    open: NDArray[np.bool_]
    """whether it has not ended"""

    def __len__(self) -> int:
        return len(self.row)

    def take(self, where: Any) -> Rows:
        """Those that an index or mask chooses."""
        return Rows(*(getattr(self, f.name)[where] for f in fields(self)))

    @staticmethod
    def join(parts: list[Rows]) -> Rows:
        """All of them, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return Rows(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Rows)))


class _Segment:
    """Intervals in order of row and begin."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows.take(np.lexsort((rows.begin, rows.row)))
        edges = np.flatnonzero(np.concatenate(([True], self.rows.row[1:] != self.rows.row[:-1])))
        self.keys: Integers = self.rows.row[edges]
        self.at: Integers = np.append(edges, len(rows))
        self.before = cumulated(self.rows.end - self.rows.begin)
        # Within a row intervals may overlap (an overflow row): up to where anything reaches, so far.
        self.reach = _reach(self.rows.end, edges)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        return 80 * len(self)

    def slice(self, row: int, start: int, end: int) -> tuple[int, int]:
        """Where the intervals of a row are that may touch a window."""
        i = int(np.searchsorted(self.keys, row))
        if i == len(self.keys) or self.keys[i] != row:
            return 0, 0
        low, high = int(self.at[i]), int(self.at[i + 1])
        first = low + int(np.searchsorted(self.reach[low:high], start, "left"))
        past = low + int(np.searchsorted(self.rows.begin[low:high], end, "right"))
        return first, max(first, past)

    def covered(self, low: int, high: int, edges: Integers) -> Integers:
        """ns covered by the intervals from ``low`` to ``high``, up to each of ``edges``."""
        if high <= low:
            return np.zeros(len(edges), np.int64)
        begin = self.rows.begin[low:high]
        place = np.searchsorted(begin, edges, "right") - 1
        at = low + np.maximum(place, 0)
        into = np.clip(edges - self.rows.begin[at], 0, self.rows.end[at] - self.rows.begin[at])
        covered: Integers = self.before[at] - self.before[low] + into
        return np.where(place < 0, 0, covered)


def _reach(ends: Integers, edges: NDArray[Any]) -> Integers:
    reach = np.maximum.accumulate(ends) if len(edges) < 2 else ends.copy()
    if len(edges) > 1:
        for low, high in zip(edges.tolist(), [*edges[1:].tolist(), len(ends)], strict=True):
            np.maximum.accumulate(reach[low:high], out=reach[low:high])
    return reach


class Intervals:
    """Intervals of a kind, as far as they have been added."""

    def __init__(self) -> None:
        self._fresh: list[Rows] = []
        self._settled: list[_Segment] = []
        self._tail: _Segment | None = None

    @property
    def nbytes(self) -> int:
        return sum(segment.nbytes for segment in self._segments())

    def __len__(self) -> int:
        return sum(map(len, self._segments()))

    def _segments(self) -> Iterator[_Segment]:
        yield from self._settled
        if self._tail is not None:
            yield self._tail

    def add(self, rows: Rows) -> None:
        """Some that have ended."""
        if len(rows):
            self._fresh.append(rows)

    def show(self, open_: Rows) -> None:
        """Make all that was added visible, and what is ``open_`` as well."""
        if self._fresh:
            rows = Rows.join(self._fresh)
            self._fresh = []
            while self._settled and len(self._settled[-1]) < min(SMALL, 2 * len(rows)):
                rows = Rows.join([self._settled.pop().rows, rows])
            self._settled.append(_Segment(rows))
        self._tail = _Segment(open_) if len(open_) else None

    def forget(self, time: int) -> None:
        """Let go of segments that end before."""
        self._settled[:] = [s for s in self._settled if int(s.rows.end.max()) >= time]

    def count(self, row: int, start: int, end: int) -> int:
        """How many of a row touch a window, at most."""
        return sum(high - low for _, low, high in self._slices(row, start, end))

    def _slices(self, row: int, start: int, end: int) -> Iterator[tuple[_Segment, int, int]]:
        for segment in self._segments():
            low, high = segment.slice(row, start, end)
            if high > low:
                yield segment, low, high

    def within(self, row: int, start: int, end: int) -> Rows | None:
        """Those of a row that touch a window, in order of begin."""
        found = [s.rows.take(slice(low, high)) for s, low, high in self._slices(row, start, end)]
        if not found:
            return None
        rows = Rows.join(found)
        rows = rows.take(rows.end >= start)
        return rows.take(np.argsort(rows.begin, kind="stable")) if len(found) > 1 else rows

    def covered(self, row: int, edges: Integers) -> Integers:
        """ns covered between each two of ``edges``; overlapping ones count as often as they are."""
        total = np.zeros(len(edges), np.int64)
        for segment, low, high in self._slices(row, int(edges[0]), int(edges[-1])):
            total += segment.covered(low, high, edges)
        return np.diff(total)

    def rows(self) -> list[int]:
        """Rows that there are."""
        keys = [segment.keys for segment in self._segments()]
        return np.unique(np.concatenate(keys)).tolist() if keys else []

    def find(self, number: int) -> Rows | None:
        """Those with this id."""
        found = [s.rows.take(s.rows.id == number) for s in self._segments()]
        found = [rows for rows in found if len(rows)]
        return Rows.join(found) if found else None

    def children(self, parent: int) -> Rows | None:
        """Those with this parent, in order of begin."""
        return self._chosen(lambda rows: rows.parent == parent)

    def named(self, names: Sequence[int], most: int) -> Rows | None:
        """The first ``most`` with one of these names, in order of begin."""
        if not names:
            return None
        found = self._chosen(lambda rows: np.isin(rows.name, names))
        return None if found is None else found.take(slice(0, most))

    def _chosen(self, which: Callable[[Rows], NDArray[np.bool_]]) -> Rows | None:
        found = [s.rows.take(which(s.rows)) for s in self._segments()]
        rows = Rows.join(found) if found else None
        if rows is None or not len(rows):
            return None
        return rows.take(np.argsort(rows.begin, kind="stable"))
