"""Where tasks were: the stacks that a trace has of long waits and long steps."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from typing import Final

import numpy as np

from tracesvc.events import Frames, StepStack, TaskStack
from tracesvc.model.replay import Part

__all__ = ["Stacks", "StacksAround", "lines", "place"]

TRIO: Final = ("/trio/", "/outcome/")
"""in the files whose frames say how a task waits, and not where"""


class Stacks:
    """Keeps the stacks of some tasks, or of an interval; memory goes with them."""

    def __init__(
        self, tasks: Collection[int] | None = None, start: int = 0, end: int | None = None
    ) -> None:
        """Of these ``tasks`` (None: of all), from ``start`` to ``end`` (ns; None: the end)."""
        self._tasks = None if tasks is None else np.array(sorted(tasks), np.int64)
        self._start, self._end = start, end
        self._found: dict[int, list[tuple[int, Frames]]] = {}

    def add(self, part: Part) -> None:
        """The next part."""
        if part.columns is None:
            return
        rows: list[tuple[int, int, Frames]] = []
        for event in (TaskStack, StepStack):
            table = part.columns.of(event)
            if not len(table):
                continue
            chosen = table.time >= self._start
            if self._end is not None:
                chosen &= table.time <= self._end
            if self._tasks is not None:
                chosen &= np.isin(table.task, self._tasks)
            for i in np.flatnonzero(chosen).tolist():
                frames = part.columns.stacks[int(table.stack[i])]
                if frames:
                    rows.append((int(table.time[i]), int(table.task[i]), frames))
        for time, task, frames in sorted(rows):
            self._keep(self._found.setdefault(task, []), (time, frames))

    def _keep(self, known: list[tuple[int, Frames]], row: tuple[int, Frames]) -> None:
        known.append(row)

    def forget(self, tasks: Collection[int]) -> None:
        """They are asked for no more."""
        for task in tasks:
            self._found.pop(task, None)

    def of(self, task: int, start: int, end: int) -> Frames:
        """The last stack of a task that was taken in an interval, its ends included; () where there is none."""
        known = self._found.get(task)
        if not known:
            return ()
        i = bisect_left(known, end + 1, key=lambda row: row[0]) - 1
        return known[i][1] if i >= 0 and known[i][0] >= start else ()


class StacksAround(Stacks):
    """Keeps of each task the last stack up to a time, and the first after it."""

    def __init__(self, at: int | None) -> None:
        """``at``: ns; None: the end of the trace."""
        super().__init__()
        self._at = at

    def _keep(self, known: list[tuple[int, Frames]], row: tuple[int, Frames]) -> None:
        if self._at is None or row[0] <= self._at:
            known[:] = [row]
        elif not known or known[-1][0] <= self._at:
            known.append(row)


def place(frames: Frames) -> str:
    """The innermost frame of the program's own: ``query (db.py:42)``; empty where there is none."""
    for function, file, line in frames:
        if not any(part in file for part in TRIO):
            return f"{function} ({file.rsplit('/', 1)[-1]}:{line})"
    return ""


def lines(frames: Frames) -> list[str]:
    """A line per frame, innermost first."""
    return [f"{function} ({file}:{line})" for function, file, line in frames]
