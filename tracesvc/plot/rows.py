"""Which tasks live in a stretch of time, and which of them share a row of a picture."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.model.phases import Phases

__all__ = ["Shared", "Tasks", "arrange"]

Integers: TypeAlias = NDArray[np.int64]

OWN: Final = "tracesvc "
"""what the names of the tracer's own tasks begin with"""
GATHERED: Final = 1 << 20
"""phases after which what is known of their tasks is put together"""


@dataclass(frozen=True, slots=True)
class _Task:
    task: int
    proc: int
    name: str
    first: int
    """ns"""
    last: int


@dataclass(frozen=True, slots=True)
class Shared:
    """Tasks of one run that share a row."""

    proc: int
    name: str
    """empty: they have several"""
    names: int
    tasks: list[int]
    most: int
    """of them that live at once, at most"""


class Tasks:
    """Takes the phases of a trace, part by part; memory goes with the tasks, not with the phases."""

    def __init__(self, start: int | None, end: int | None) -> None:
        """``start`` and ``end`` in ns; None: wherever the trace begins and ends."""
        self._start, self._end = start, end
        self._parts: list[Integers] = []
        self._size = 0

    def add(self, phases: Phases) -> None:
        """The phases of a part."""
        here = np.ones(len(phases), np.bool_)
        if self._start is not None:
            here &= phases.end > self._start
        if self._end is not None:
            here &= phases.start < self._end
        if here.any():
            columns = (phases.task, phases.proc, phases.name, phases.start, phases.end)
            self._parts.append(np.vstack([column[here] for column in columns]))
            self._size += int(here.sum())
            if self._size > GATHERED:
                self._merge()
                self._size = 0

    def _merge(self) -> None:
        rows = np.hstack(self._parts)
        rows = rows[:, np.lexsort((rows[3], rows[0]))]
        first = np.flatnonzero(np.diff(rows[0], prepend=-1))
        merged = rows[:, first]
        merged[2] = np.maximum.reduceat(rows[2], first)  # 0 stands for a name that is not known
        merged[4] = np.maximum.reduceat(rows[4], first)
        self._parts = [merged]

    def result(self, names: Sequence[str], *, own: bool) -> list[_Task]:
        """The tasks in order of run and beginning; ``own``: the tracer's own as well."""
        if not self._parts:
            return []
        self._merge()
        found = [
            _Task(task, proc, names[name], first, last)
            for task, proc, name, first, last in self._parts[0].T.tolist()
            if own or not names[name].startswith(OWN)
        ]
        return sorted(found, key=lambda task: (task.proc, task.first, task.task))


def arrange(tasks: Sequence[_Task], rows: int) -> list[Shared]:
    """Give each task a row; there are about ``rows`` of them, however many tasks there are.

    Tasks of one name share a row when they do not live at the same time.  If that is not enough, the names with the
    most tasks at once get one row for all of those; and if there are too many names, so do those that live shortest.
    """
    groups: dict[tuple[int, str], list[_Task]] = {}
    for task in tasks:
        groups.setdefault((task.proc, task.name), []).append(task)
    lanes = {key: _lanes(some) for key, some in groups.items()}
    by_life = sorted(groups, key=lambda key: -sum(t.last - t.first for t in groups[key]))
    left = set(by_life[rows:])
    count = sum(len(lanes[key]) for key in groups if key not in left)
    crowds: set[tuple[int, str]] = set()
    for key in sorted(groups.keys() - left, key=lambda key: (-len(lanes[key]), key)):
        if count <= rows or len(lanes[key]) < 2:
            break
        crowds.add(key)
        count -= len(lanes[key]) - 1
    found: list[Shared] = []
    for key, some in groups.items():
        if key in crowds:
            found.append(_shared(key, some, len(lanes[key])))
        elif key not in left:
            found += [_shared(key, lane, 1) for lane in lanes[key]]
    for proc in sorted({proc for proc, _ in left}):
        keys = [key for key in groups if key in left and key[0] == proc]
        together = sorted((t for key in keys for t in groups[key]), key=lambda task: task.first)
        numbers = [task.task for task in together]
        found.append(Shared(proc, "", len(keys), numbers, len(_lanes(together))))
    return found


def _shared(key: tuple[int, str], tasks: Sequence[_Task], most: int) -> Shared:
    return Shared(*key, 1, [task.task for task in tasks], most)


def _lanes(tasks: Sequence[_Task]) -> list[list[_Task]]:
    """Tasks in as few lanes as there are alive at once; they come in order of their beginning."""
    lanes: list[list[_Task]] = []
    free: list[tuple[int, int]] = []
    for task in tasks:
        if free and free[0][0] <= task.first:
            lane = heapq.heappop(free)[1]
            lanes[lane].append(task)
        else:
            lane = len(lanes)
            lanes.append([task])
        heapq.heappush(free, (task.last, lane))
    return lanes
