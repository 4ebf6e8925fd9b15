"""What is not in a trace: losses that it tells of, and damage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tracesvc.events import LossCause
from tracesvc.format import Damage, LossRow, ProcRow

__all__ = ["Books", "Broken", "Interval", "Lost"]

LISTED: Final = 100
"""intervals that are listed per cause, the first; the same for damages"""


@dataclass(frozen=True, slots=True)
class Interval:
    """A loss: events of one proc, all from ``start`` to ``end`` (ns, by the clock of the trace)."""

    proc: int
    start: int
    end: int
    events: int


@dataclass(slots=True)
class Lost:
    """Everything that was lost for one cause."""

    events: int = 0
    count: int = 0
    """intervals"""
    intervals: list[Interval] = field(default_factory=list)
    """the first 100"""


@dataclass(frozen=True, slots=True)
class Broken:
    """Bytes ``start`` to ``end`` of the stream that could not be read."""

    start: int
    end: int
    reason: str


@dataclass(slots=True)
class _Book:
    next: int = 0
    explained: int = 0
    """events stored, lost, or from before the trace began"""


class Books:
    """Keeps the sequence number that is due for each proc, and finds the gaps by it."""

    def __init__(self) -> None:
        self._books: dict[int, _Book] = {}
        self._missing: dict[int, int] = {}
        """of procs that have had their last account"""
        self._late: bool | None = None
        self.lost: dict[str, Lost] = {}
        self.damage: list[Broken] = []
        self.damaged_bytes = 0

    def _book(self, proc: int) -> _Book:
        book = self._books.get(proc)
        if book is None:
            book = self._books[proc] = _Book()
        return book

    @property
    def missing(self) -> int:
        """Events that are neither stored nor said to be lost."""
        return sum(self.missing_of().values())

    def missing_of(self) -> dict[int, int]:
        """proc -> how many of its events are `missing`."""
        found = dict(self._missing)
        for proc, book in self._books.items():
            found[proc] = found.get(proc, 0) + max(0, book.next - book.explained)
        return {proc: count for proc, count in found.items() if count}

    def generation(self, number: int) -> None:
        """One begins; if the first is not that of the tracer's start, the sink has joined late."""
        self._late = number > 0 and self._late is None

    def events(self, proc: int, first: int, count: int) -> bool:
        """A batch; returns whether something is missing before it."""
        book = self._book(proc)
        gap = first > book.next
        book.next = max(book.next, first + count)
        book.explained += count
        return gap

    def loss(self, row: LossRow) -> bool:
        """What the trace says is lost; returns whether it comes next in its proc."""
        cause = LossCause(row.cause).name.lower() if row.cause in set(LossCause) else str(row.cause)
        events = max(0, row.last - row.first + 1)
        lost = self.lost.setdefault(cause, Lost())
        lost.events += events
        lost.count += 1
        if len(lost.intervals) < LISTED:
            lost.intervals.append(Interval(row.proc, row.start, row.end, events))
        book = self._book(row.proc)
        book.explained += events
        here = row.first <= book.next <= row.last
        if here:
            book.next = row.last + 1
        return here

    def accounted(self, row: ProcRow) -> bool:
        """An account; returns whether it speaks of events that have not come by."""
        book = self._book(row.proc)
        gap = row.emitted > book.next
        if self._late:
            book.explained = row.emitted
        book.next = max(book.next, row.emitted)
        if not row.live:
            gone = max(0, book.next - book.explained)
            self._missing[row.proc] = self._missing.get(row.proc, 0) + gone
            del self._books[row.proc]
        return gap

    def accounts_over(self) -> None:
        """The accounts of this place have all come by."""
        self._late = False

    def damaged(self, damage: Damage) -> None:
        """A range of bytes that is no good frame."""
        self.damaged_bytes += damage.end - damage.start
        if len(self.damage) < LISTED:
            self.damage.append(Broken(damage.start, damage.end, damage.reason))
