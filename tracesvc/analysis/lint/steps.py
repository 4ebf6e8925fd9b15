"""Steps: those that never yield, and tasks that do nothing but yield."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tracesvc.analysis.lint.finding import Finding, Limits, Lint, short
from tracesvc.events import StepYield
from tracesvc.model.phases import BY_LOSS, BY_SNAPSHOT, Phases
from tracesvc.model.replay import Part
from tracesvc.model.states import State
from tracesvc.model.words import duration

__all__ = ["BusySelfWake", "NeverYields"]

MOST: Final = 10_000
"""collections that are remembered"""


@dataclass(slots=True)
class _Long:
    count: int
    total: int
    longest: int
    start: int
    task: int
    proc: int
    closed: int
    """`BY_SNAPSHOT`: it has not ended; `BY_LOSS`: events are missing from there on"""

    @property
    def ending(self) -> str:
        """How it ended, if it did not as steps do."""
        if self.closed == BY_LOSS:
            return ", at least: events are missing from there on"
        return " and has not come to its end" if self.closed == BY_SNAPSHOT else ""


class NeverYields(Lint):
    """A step that kept everything else in its run from running for as long."""

    def __init__(self, limits: Limits, names: list[str]) -> None:
        super().__init__(limits, names)
        self._found: dict[str, _Long] = {}
        self._collections: list[tuple[int, int]] = []

    def add(self, part: Part) -> None:
        p = part.phases
        ended = part.collections
        for i in np.flatnonzero(ended.end - ended.begin >= self.limits.step // 10).tolist():
            if len(self._collections) < MOST:
                self._collections.append((int(ended.begin[i]), int(ended.end[i])))
        long = p.take((p.state == State.RUNNING) & (p.end - p.start >= self.limits.step))
        for i in range(len(long)):
            name, length = self.names[int(long.name[i])], int(long.end[i] - long.start[i])
            task, proc, start = int(long.task[i]), int(long.proc[i]), int(long.start[i])
            closed = int(long.closed[i])
            known = self._found.get(name)
            if known is None:
                self._found[name] = _Long(1, length, length, start, task, proc, closed)
                continue
            known.count += 1
            known.total += length
            if length > known.longest:
                known.longest, known.start, known.task, known.proc = length, start, task, proc
                known.closed = closed

    def _collected(self, one: _Long) -> int:
        """ns of the longest step in which garbage was collected."""
        until = one.start + one.longest
        overlaps = (min(e, until) - max(b, one.start) for b, e in self._collections)
        return sum(overlap for overlap in overlaps if overlap > 0)

    def _gc(self, one: _Long) -> str:
        collected = self._collected(one)
        return f", {duration(collected)} of it collecting garbage" if collected else ""

    def findings(self, end: int) -> list[Finding]:
        return [
            Finding(
                "never-yields",
                f"task {short(name)} ran {duration(one.longest)} without a checkpoint"
                + self._gc(one)
                + one.ending
                + (f"; {one.count:,} such steps" if one.count > 1 else ""),
                one.proc,
                [one.task],
                [name],
                one.start,
                one.start + one.longest,
                one.count,
                {
                    "longest": one.longest,
                    "total": one.total,
                    "open": one.closed == BY_SNAPSHOT,
                    "cut": one.closed == BY_LOSS,
                    "collections": self._collected(one),
                },
            )
            for name, one in sorted(self._found.items(), key=lambda item: -item[1].longest)
        ]


ROW: Final = 8
"""steps in a row, each of which yields, that are looked at at all"""


@dataclass(slots=True)
class _Streak:
    task: int
    name: int
    proc: int
    start: int
    end: int
    steps: int
    ran: int
    """ns"""
    others: int
    """steps of other tasks in the meantime"""


class BusySelfWake(Lint):
    """A task that spins: checkpoint after checkpoint, without doing anything, while nothing else goes on in its run.

    After tokio-console's "self-wakes": there the wakers tell; in trio, a task that yields wakes itself.  A task that
    gets through real work between checkpoints is none, hence the bound on its steps; nor is one of many that take
    turns.
    """

    def __init__(self, limits: Limits, names: list[str]) -> None:
        super().__init__(limits, names)
        self._going: dict[int, _Streak] = {}
        self._others: dict[int, int] = {}
        """steps of a run since the last stretch"""
        self._best: dict[int, _Streak] = {}

    def add(self, part: Part) -> None:
        p = part.phases
        steps = p.take(p.state == State.RUNNING)
        if not len(steps):
            return
        for proc in np.unique(steps.proc).tolist():
            self._add_run(steps.take(steps.proc == proc), proc)

    def _add_run(self, steps: Phases, proc: int) -> None:
        """Stretches of a run in which one task has nearly all the steps, each of which ends with a yield."""
        steps = steps.take(np.argsort(steps.start, kind="stable"))
        yields = steps.closed == StepYield.number
        same = (steps.task[1:] == steps.task[:-1]) & yields[:-1] & yields[1:]
        bounds = np.flatnonzero(np.concatenate(([True], ~same, [True])))
        ran = np.concatenate(([0], np.cumsum(steps.end - steps.start)))
        others = self._others.get(proc, 0)
        done = 0
        for i in np.flatnonzero(np.diff(bounds) >= ROW).tolist():
            low, high = int(bounds[i]), int(bounds[i + 1])
            here = _Streak(
                *(int(steps.task[low]), int(steps.name[low]), proc),
                *(int(steps.start[low]), int(steps.end[high - 1])),
                *(high - low, int(ran[high] - ran[low]), 0),
            )
            self._enter(here, others + low - done)
            others, done = 0, high
        self._others[proc] = others + len(steps) - done

    def _enter(self, here: _Streak, others: int) -> None:
        """The next stretch, after so many steps that are none."""
        going = self._going.get(here.proc)
        # Now and then something else runs, the tracer's own tasks at least.
        if going is not None and here.task == going.task and others <= here.steps // 4:
            going.end, going.steps = here.end, going.steps + here.steps
            going.ran, going.others = going.ran + here.ran, going.others + others
            return
        if going is not None:
            self._close(going)
        self._going[here.proc] = here

    def _close(self, streak: _Streak) -> None:
        if streak.steps < self.limits.self_wakes:
            return
        if streak.ran > streak.steps * self.limits.self_wake_step:
            return
        best = self._best.get(streak.name)
        if best is None or best.steps < streak.steps:
            self._best[streak.name] = streak

    def findings(self, end: int) -> list[Finding]:
        for going in self._going.values():
            self._close(going)
        return [
            Finding(
                "busy-self-wake",
                f"task {short(self.names[one.name])} spun: {one.steps:,} checkpoints in "
                f"{duration(one.end - one.start)} with nothing else going on",
                one.proc,
                [one.task],
                [self.names[one.name]],
                one.start,
                one.end,
                one.steps,
                {"ran": one.ran, "others": one.others},
            )
            for one in sorted(self._best.values(), key=lambda one: -one.steps)
        ]
