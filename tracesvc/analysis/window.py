"""All that happened between two times, ready to be asked by task or by run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.analysis.cancellation import Cancellations
from tracesvc.analysis.stacks import Stacks
from tracesvc.events import TaskCreate
from tracesvc.model.phases import NAMELESS, Phases
from tracesvc.model.pieces import OPEN, Pieces
from tracesvc.model.reader import Trace
from tracesvc.model.replay import Replay
from tracesvc.model.states import State

__all__ = ["Phase", "Window", "load"]

Integers: TypeAlias = NDArray[np.int64]

CREATED: Final = TaskCreate.number
"""`Phase.opened` of the first one of a task"""


class Phase(NamedTuple):
    """One phase of a task, as in `tracesvc.model.phases.Phases`."""

    task: int
    proc: int
    start: int
    end: int
    state: int
    reason: int
    object: int
    waker: int
    cause: int
    opened: int
    closed: int


@dataclass(slots=True)
class _Index:
    """Rows of a table in order of a key, then of time."""

    keys: Integers
    starts: Integers
    ends: Integers

    def slice(self, key: int) -> tuple[int, int]:
        low, high = np.searchsorted(self.keys, [key, key + 1])
        return int(low), int(high)


class Window:
    """Phases, calls in threads and collections that touch an interval.

    Memory goes with what is in the interval, not with the trace.
    """

    def __init__(
        self,
        phases: Phases,
        calls: Pieces,
        collections: Pieces,
        names: dict[int, str],
        stacks: Stacks,
        *,
        gaps: bool,
    ) -> None:
        self._phases = phases.sorted()
        self._by_task = _Index(self._phases.task, self._phases.start, self._phases.end)
        steps = phases.take(phases.state == State.RUNNING)
        self._steps = steps.take(np.lexsort((steps.start, steps.proc)))
        self._by_proc = _Index(self._steps.proc, self._steps.start, self._steps.end)
        order = np.lexsort((calls.begin, calls.task))
        self._calls = calls.take(order)
        self._calls_of = _Index(self._calls.task, self._calls.begin, self._calls.end)
        self._collections = collections.take(np.argsort(collections.begin, kind="stable"))
        self.names: Final = names
        """task -> name"""
        self.stacks: Final = stacks
        """of the waits that ended in the interval, and were long"""
        self.cancels: Cancellations | None = None
        """which cancellations reached whom, up to the end of the interval"""
        self.gaps: Final = gaps
        """whether events are missing in the interval"""

    def name(self, task: int) -> str:
        """Of a task."""
        return self.names.get(task, NAMELESS)

    def phase(self, task: int, before: int) -> Phase | None:
        """The phase of a task in the last nanosecond before a time; None where nothing is known of it."""
        low, high = self._by_task.slice(task)
        i = low + int(np.searchsorted(self._by_task.starts[low:high], before, "left")) - 1
        while i >= low and self._by_task.ends[i] <= self._by_task.starts[i]:
            i -= 1  # phases of no length explain nothing
        if i < low or self._by_task.ends[i] < before:
            return None
        return self._phase(i)

    def born(self, task: int) -> int | None:
        """When a task was created, if that was in the interval (ns)."""
        low, high = self._by_task.slice(task)
        if low < high and self._phases.opened[low] == CREATED:
            return int(self._phases.start[low])
        return None

    def proc(self, task: int) -> int | None:
        """The run of a task."""
        low, high = self._by_task.slice(task)
        return int(self._phases.proc[low]) if low < high else None

    def _phase(self, i: int) -> Phase:
        p = self._phases
        return Phase(*(int(getattr(p, field)[i]) for field in Phase._fields))

    def steps(self, proc: int, start: int, end: int) -> list[tuple[int, int, int]]:
        """Steps of a run that touch an interval: (task, start, end), cut to it, in order, without overlap."""
        low, high = self._by_proc.slice(proc)
        first = low + int(np.searchsorted(self._by_proc.ends[low:high], start, "right"))
        until = low + int(np.searchsorted(self._by_proc.starts[low:high], end, "left"))
        found, at = [], start
        tasks, starts, ends = self._steps.task, self._steps.start, self._steps.end
        for i in range(first, until):
            begin, stop = max(at, int(starts[i])), min(end, int(ends[i]))
            if stop > begin:
                found.append((int(tasks[i]), begin, stop))
                at = stop
        return found

    def running(self, proc: int, time: int) -> int:
        """The task whose step ran in a run at a time; 0: none."""
        low, high = self._by_proc.slice(proc)
        i = low + int(np.searchsorted(self._by_proc.starts[low:high], time, "right")) - 1
        while i >= low and self._by_proc.ends[i] >= time:
            if self._by_proc.starts[i] < time or self._by_proc.ends[i] > time:
                return int(self._steps.task[i])
            i -= 1
        return 0

    def calls(self, task: int, start: int, end: int) -> list[tuple[str, int, int]]:
        """Calls in worker threads for a task that touch an interval: (function, start, end), cut to it, in order."""
        low, high = self._calls_of.slice(task)
        found, at = [], start
        for i in range(low, high):
            begin, stop = int(self._calls.begin[i]), int(self._calls.end[i])
            begin, stop = max(at, begin), end if stop == OPEN else min(end, stop)
            if stop > begin:
                found.append((str(self._calls.name[i]), begin, stop))
                at = stop
        return found

    def collections(self, start: int, end: int) -> int:
        """ns of an interval in which garbage was collected."""
        begins = self._collections.begin
        first = max(0, int(np.searchsorted(begins, start, "left")) - 1)
        until = int(np.searchsorted(begins, end, "left"))
        total, at = 0, start
        for i in range(first, until):
            begin, stop = max(at, int(begins[i])), min(end, int(self._collections.end[i]))
            if stop > begin:
                total, at = total + stop - begin, stop
        return total

    def last_step(self, start: int, end: int) -> tuple[int, int] | None:
        """(task, end) of the step that ended, or was cut, last in an interval."""
        s = self._steps
        touching = np.flatnonzero((s.start < end) & (s.end > start))
        if not len(touching):
            return None
        i = touching[np.argmax(np.minimum(s.end[touching], end))]
        return int(s.task[i]), min(end, int(s.end[i]))


def load(trace: Trace, start: int, end: int) -> Window:
    """Read a trace from where it stands, and keep what touches an interval (ns).

    Raises:
      FormatError: it is not a trace.
      OSError: it cannot be read.
    """
    replay = Replay(trace)
    phases: list[Phases] = []
    calls: list[Pieces] = []
    collections: list[Pieces] = []
    names: dict[int, str] = {}
    gaps = False
    stacks = Stacks(None, start, end)
    cancels = Cancellations(replay.names, end, start)
    for part in replay.parts():
        stacks.add(part)
        cancels.add(part)
        p = part.phases
        kept = p.take((p.end >= start) & (p.start <= end))
        if len(kept):
            phases.append(kept)
            tasks, at = np.unique(kept.task, return_index=True)
            ids = kept.name[at].tolist()
            names.update(zip(tasks.tolist(), (replay.names[i] for i in ids), strict=True))
        for pieces, into in ((part.calls, calls), (part.collections, collections)):
            touches = ((pieces.end >= start) | (pieces.end == OPEN)) & (pieces.begin <= end)
            if touches.any():
                into.append(pieces.take(touches))
        gaps = gaps or any(start <= gap.time <= end for gap in part.gaps)
    ended = Pieces.join(collections)
    ended = ended.take(ended.end != OPEN)
    window = Window(Phases.join(phases), Pieces.join(calls), ended, names, stacks, gaps=gaps)
    window.cancels = cancels
    return window
