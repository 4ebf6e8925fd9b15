"""`Lanes`: the phases of all tasks, so laid out that a stretch of one task is found, or summed, at once.

Phases come in parts.  A part is put in order of task, with running sums of the time spent running and runnable; the
time between any two instants is then a difference, however many phases lie between.  Parts are put together when they
are small, as a log-structured store does it, so a trace that grows costs little per addition.  What is open at the
present end of the trace is a part of its own that is made anew each time.

About 40 bytes per phase.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.model.order import order_of
from tracesvc.model.phases import UNKNOWN, Phases
from tracesvc.model.states import State

__all__ = [
    "ABSENT",
    "BLOCKED",
    "READY",
    "RUNNING",
    "UNSURE",
    "Lanes",
    "Segment",
    "Slice",
    "cumulated",
]

Integers: TypeAlias = NDArray[np.int64]
Bytes: TypeAlias = NDArray[np.uint8]

ABSENT: Final = 0
"""codes of what a task is in: it does not live"""
READY: Final = 1
RUNNING: Final = 2
UNSURE: Final = 3
"""events were lost"""
BLOCKED: Final = 16
"""plus the `tracesvc.events.Reason`"""

SMALL: Final = 1 << 21
"""phases; parts below that are put together"""

_CODES: Final[Bytes] = np.zeros(UNKNOWN + 1, np.uint8)
_CODES[[State.RUNNABLE, State.NEW]] = READY
_CODES[State.RUNNING] = RUNNING
_CODES[UNKNOWN] = UNSURE
_CODES[State.WAITING] = BLOCKED


@dataclass(slots=True)
class _Rows:
    """Phases in few bytes each."""

    task: NDArray[Any]
    proc: NDArray[Any]
    start: Integers
    end: Integers
    code: Bytes
    waker: NDArray[Any]
    object: NDArray[Any]
    cause: Bytes
    opened: Bytes
    closed: Bytes
    seq: NDArray[Any]

    def take(self, where: Any) -> _Rows:
        return _Rows(*(getattr(self, f.name)[where] for f in fields(self)))

    @staticmethod
    def of(phases: Phases) -> _Rows:
        reason = np.clip(phases.reason, 0, 255 - BLOCKED)
        return _Rows(
            _narrow(phases.task),
            _narrow(phases.proc),
            phases.start,
            phases.end,
            (_CODES[phases.state] + reason).astype(np.uint8),
            _narrow(phases.waker),
            _narrow(phases.object),
            phases.cause.astype(np.uint8),
            np.maximum(phases.opened, 0).astype(np.uint8),
            np.maximum(phases.closed, 0).astype(np.uint8),
            _narrow(phases.seq),
        )

    @staticmethod
    def join(parts: list[_Rows]) -> _Rows:
        if len(parts) == 1:
            return parts[0]
        return _Rows(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(_Rows)))


def _narrow(values: Integers) -> NDArray[Any]:
    """Half as wide, where nothing is lost by it."""
    if not len(values) or (values.min() > -(1 << 31) and values.max() < 1 << 31):
        return values.astype(np.int32)
    return values


class Segment:
    """A part of the phases, in order of task and time."""

    def __init__(self, rows: _Rows) -> None:
        rows = rows.take(order_of(rows.task.astype(np.int64)))
        count = len(rows.task)
        edges = np.flatnonzero(np.concatenate(([True], rows.task[1:] != rows.task[:-1])))
        self.tasks: Integers = rows.task[edges].astype(np.int64)
        """those with phases in it, ascending"""
        self.at: Integers = np.append(edges, count)
        """where the phases of each begin"""
        self.stop: Integers = rows.end[self.at[1:] - 1]
        """ns: where the last phase of each ends"""
        self.rows = rows
        spent = rows.end - rows.start
        self.running = cumulated(np.where(rows.code == RUNNING, spent, 0))
        """ns run before each phase, in all phases before it"""
        self.ready = cumulated(np.where(rows.code == READY, spent, 0))
        self.first = int(rows.start.min())
        self.last = int(rows.end.max())
        steps = np.flatnonzero(rows.code == RUNNING).astype(np.int32)
        procs = rows.proc[steps]
        self.steps: dict[int, NDArray[np.int32]] = {}
        """run -> where its steps are, in order of time"""
        for proc in np.unique(procs).tolist():
            mine = steps[procs == proc]
            self.steps[proc] = mine[np.argsort(rows.start[mine], kind="stable")]

    def __len__(self) -> int:
        return len(self.rows.task)

    @property
    def nbytes(self) -> int:
        rows = sum(getattr(self.rows, f.name).nbytes for f in fields(self.rows))
        return int(rows) + 16 * len(self) + 4 * sum(map(len, self.steps.values()))

    def find(self, task: int) -> int:
        """Place of a task in ``tasks``; -1: it is not there."""
        i = int(np.searchsorted(self.tasks, task))
        return i if i < len(self.tasks) and self.tasks[i] == task else -1

    def spent(self, which: int, edges: Integers) -> tuple[Integers, Integers, Integers]:
        """(running, ready, place of the phase) at each of ``edges``, of the task at place ``which``."""
        low, high = int(self.at[which]), int(self.at[which + 1])
        start = self.rows.start[low:high]
        edges = np.clip(edges, start[0], self.stop[which])
        place = low + np.maximum(np.searchsorted(start, edges, "right") - 1, 0)
        into = np.minimum(edges, self.rows.end[place]) - self.rows.start[place]
        code = self.rows.code[place]
        running = self.running[place] + np.where(code == RUNNING, into, 0)
        ready = self.ready[place] + np.where(code == READY, into, 0)
        return running, ready, place

    def at_time(self, time: int) -> tuple[Integers, Integers]:
        """(places in ``tasks``, places of phases): of every task, the last phase that began at ``time`` or before."""
        low, high = self.at[:-1].copy(), self.at[1:].copy()
        start = self.rows.start
        while (open_ := high > low).any():
            middle = (low + high) >> 1
            before = open_ & (start[np.minimum(middle, len(start) - 1)] <= time)
            low = np.where(before, middle + 1, low)
            high = np.where(open_ & ~before, middle, high)
        known = np.flatnonzero(low > self.at[:-1])
        return known, low[known] - 1


@dataclass(frozen=True, slots=True)
class Slice:
    """Phases of one task that touch a window, in one segment."""

    segment: Segment
    which: int
    low: int
    high: int


def cumulated(values: Integers) -> Integers:
    """Sums of all values before each."""
    sums = np.cumsum(values)
    sums -= values
    return sums


class Lanes:
    """All phases of a trace, as far as they have been added."""

    def __init__(self) -> None:
        self._fresh: list[_Rows] = []
        self._held = 0
        self._settled: list[Segment] = []
        self._tail: Segment | None = None
        self.dropped = 0
        """phases that were let go of, the oldest"""

    @property
    def nbytes(self) -> int:
        return sum(segment.nbytes for segment in self.segments()) + 50 * self._held

    def segments(self) -> Iterator[Segment]:
        """In order of time, for any one task."""
        yield from self._settled
        if self._tail is not None:
            yield self._tail

    def add(self, phases: Phases) -> None:
        """Phases that have ended, of each task in order of time."""
        if len(phases):
            self._fresh.append(_Rows.of(phases))
            self._held += len(phases)
            if self._held >= SMALL:
                self._settle()

    def show(self, open_: Phases, *, merge: bool = True) -> None:
        """Make all that was added visible, and what is ``open_`` as well.

        Without ``merge`` it is done sooner, and more parts have to be looked through: for when more comes at once.
        """
        self._settle(merge=merge)
        self._tail = Segment(_Rows.of(open_)) if len(open_) else None

    def drop(self, segments: int = 1) -> int:
        """Let go of the oldest; ns up to which there is nothing now."""
        gone = self._settled[:segments]
        self._settled[:segments] = []
        self.dropped += sum(map(len, gone))
        return max((segment.last for segment in gone), default=0)

    def droppable(self) -> bool:
        return len(self._settled) > 1

    def _settle(self, *, merge: bool = True) -> None:
        if not self._fresh:
            return
        parts, count = self._fresh, self._held
        self._fresh, self._held = [], 0
        while merge and self._settled and len(self._settled[-1]) < min(SMALL, 2 * count):
            last = self._settled.pop()
            parts = [last.rows, *parts]
            count += len(last)
        self._settled.append(Segment(_Rows.join(parts)))

    def of(self, task: int, start: int, end: int) -> list[Slice]:
        """The phases of a task that touch a window."""
        found = []
        for segment in self.segments():
            if segment.first > end or segment.last < start:
                continue
            which = segment.find(task)
            if which < 0 or segment.stop[which] < start:
                continue
            low, high = int(segment.at[which]), int(segment.at[which + 1])
            starts = segment.rows.start[low:high]
            first = max(0, int(np.searchsorted(starts, start, "right")) - 1)
            past = int(np.searchsorted(starts, end, "right"))
            if past > first:
                found.append(Slice(segment, which, low + first, low + past))
        return found
