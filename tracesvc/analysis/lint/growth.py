"""Tasks that pile up: nurseries that only grow, and tasks of which some never come to an end.

A trace often ends with the program, when everything is cancelled.  So what counts is how it stood when the last task of
the nursery, or of the name, was created; ends after that are the shutdown's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tracesvc.analysis.lint.finding import Finding, Limits, Lint, short
from tracesvc.events import StepStart, TaskCreate
from tracesvc.model.pieces import OPEN
from tracesvc.model.replay import Part
from tracesvc.model.states import State
from tracesvc.model.words import duration

__all__ = ["NurseryGrows", "TaskLeak"]

STEPS: Final = 10
"""different steps, at least, in which tasks were created: a pool that is started at once does not grow"""
SPREAD: Final = 0.5
"""share of the time, at least, in which it grew"""
KEPT: Final = 100_000
"""nurseries that are remembered; those without children are forgotten first"""
MANY: Final = 20


@dataclass(slots=True)
class _Growth:
    """Creations of one nursery or of one name."""

    name: str
    proc: int
    owner: int
    first: int
    """ns of the first creation"""
    last: int = 0
    created: int = 0
    steps: int = 0
    """different steps in which tasks were created"""
    at: tuple[int, int] = (-1, -1)
    ended: int = 0
    """before the last creation"""
    since: int = 0
    """ended after it"""
    first_end: int | None = None
    """ns of the first end after the last creation"""
    tasks: list[int] = field(default_factory=list)

    def create(self, time: int, at: tuple[int, int]) -> None:
        self.ended, self.since, self.first_end = self.ended + self.since, 0, None
        self.last, self.created = time, self.created + 1
        if at != self.at:
            self.at, self.steps = at, self.steps + 1

    def end(self, time: int) -> None:
        self.since += 1
        if self.first_end is None:
            self.first_end = time

    def grew(self, end: int, limits: Limits) -> bool:
        until = end if self.first_end is None else self.first_end
        lasted = self.last - self.first
        return (
            lasted >= limits.patience
            and self.steps >= STEPS
            and lasted >= SPREAD * (until - self.first)
        )


def _creations(
    part: Part, chunk: int
) -> list[tuple[int, int, int, int, int, int, tuple[int, int]]]:
    """(time, task, proc, parent, nursery, name, in which step) of each task that is created in a part."""
    columns = part.columns
    if columns is None or not len(table := columns.of(TaskCreate)):
        return []
    steps = np.searchsorted(columns.of(StepStart).index, table.index).tolist()
    lists = (table.time, table.task, table.proc, table.parent, table.nursery, table.name)
    rows = zip(*(a.tolist() for a in lists), strict=True)
    return [(*row, (chunk, step)) for row, step in zip(rows, steps, strict=True)]


class NurseryGrows(Lint):
    """A nursery that gets more and more children of which not one ends."""

    def __init__(self, limits: Limits, names: list[str]) -> None:
        super().__init__(limits, names)
        self._nurseries: dict[int, _Growth] = {}
        self._chunk = 0

    def add(self, part: Part) -> None:
        known = self._nurseries
        self._chunk += 1
        # Creations first: a task that is created and ends in one chunk has then ended after it.
        creations = _creations(part, self._chunk)
        lives = part.lives
        ends = sorted(
            (e, n)
            for e, n in zip(lives.end.tolist(), lives.nursery.tolist(), strict=True)
            if e != OPEN and n
        )
        at = 0
        for time, task, proc, parent, nursery, name, step in creations:
            while at < len(ends) and ends[at][0] <= time:
                self._end(*ends[at])
                at += 1
            if not nursery:
                continue
            growth = known.get(nursery)
            if growth is None:
                text = part.columns.strings[name] if part.columns is not None else ""
                growth = known[nursery] = _Growth(text, proc, parent, time)
            growth.create(time, step)
            if len(growth.tasks) < MANY:
                growth.tasks.append(task)
        for time, nursery in ends[at:]:
            self._end(time, nursery)
        for nursery in lives.nursery[lives.lost].tolist():
            if nursery in known:  # it ended in a gap, before the last creation or after
                known[nursery].ended += 1
        if len(known) > KEPT:
            self._nurseries = {n: g for n, g in known.items() if g.created > g.ended + g.since}

    def _end(self, time: int, nursery: int) -> None:
        growth = self._nurseries.get(nursery)
        if growth is not None:
            growth.end(time)

    def findings(self, end: int) -> list[Finding]:
        return [
            Finding(
                "nursery-grows",
                f"a nursery of task {one.owner} got {one.created:,} children ({short(one.name)}) within "
                f"{duration(one.last - one.first)}, and none of them ended",
                one.proc,
                one.tasks,
                [one.name],
                one.first,
                one.last,
                one.created,
                {"nursery": nursery, "owner": one.owner},
            )
            for nursery, one in self._nurseries.items()
            if not one.ended and one.created >= self.limits.tasks and one.grew(end, self.limits)
        ]


@dataclass(slots=True)
class _Task:
    created: int
    step: tuple[int, int]
    longest: int = 0
    """ns of its longest wait"""
    end: int | None = None


@dataclass(slots=True)
class _Name:
    live: dict[int, _Task] = field(default_factory=dict)
    recent: dict[int, _Task] = field(default_factory=dict)
    """ended after the last creation"""
    growth: _Growth | None = None


class TaskLeak(Lint):
    """Tasks of one name, of which most end and more and more do not: those wait for the same thing ever since."""

    def __init__(self, limits: Limits, names: list[str]) -> None:
        super().__init__(limits, names)
        self._names: dict[str, _Name] = {}
        self._of: dict[int, str] = {}
        self._chunk = 0

    def add(self, part: Part) -> None:
        self._chunk += 1
        lives = part.lives
        ends = sorted(
            (e, t)
            for e, t in zip(lives.end.tolist(), lives.task.tolist(), strict=True)
            if e != OPEN
        )
        at = 0
        ended: list[int] = []
        for time, task, proc, parent, _, name, step in _creations(part, self._chunk):
            while at < len(ends) and ends[at][0] <= time:
                ended += self._end(*ends[at])
                at += 1
            text = part.columns.strings[name] if part.columns is not None else ""
            of = self._names.get(text)
            if of is None:
                of = self._names[text] = _Name(growth=_Growth(text, proc, parent, time))
            assert of.growth is not None
            of.growth.create(time, step)
            of.recent.clear()
            of.live[task] = _Task(time, step)
            self._of[task] = text
        self._note_waits(part)
        for time, task in ends[at:]:
            ended += self._end(time, task)
        for task in lives.task[lives.lost].tolist():
            if task in self._of:  # whether it would have ended by itself is not known
                self._names[self._of[task]].live.pop(task, None)
                ended.append(task)
        for task in ended:
            self._of.pop(task, None)

    def _end(self, time: int, task: int) -> list[int]:
        name = self._of.get(task)
        if name is None:
            return []
        of = self._names[name]
        one = of.live.pop(task, None)
        if one is not None and of.growth is not None:
            of.growth.end(time)
            one.end = time
            of.recent[task] = one
        return [task]

    def _note_waits(self, part: Part) -> None:
        p = part.phases
        waits = p.take(p.state == State.WAITING)
        if not len(waits):
            return
        lengths = waits.end - waits.start
        order = np.lexsort((lengths, waits.task))
        last = np.flatnonzero(np.diff(waits.task[order], append=-1))
        for task, longest in zip(
            waits.task[order][last].tolist(), lengths[order][last].tolist(), strict=True
        ):
            name = self._of.get(task)
            if name is not None:
                of = self._names[name]
                one = of.live.get(task) or of.recent.get(task)
                if one is not None:
                    one.longest = max(one.longest, longest)

    def findings(self, end: int) -> list[Finding]:
        found = []
        for name, of in self._names.items():
            growth = of.growth
            left = {**of.recent, **of.live}
            if growth is None or not growth.ended or len(left) < self.limits.tasks:
                continue
            stuck = {
                task: one
                for task, one in left.items()
                # Most of its time in one wait, and a wait of some length.
                if one.longest * 2 >= ((one.end or end) - one.created)
                and one.longest >= min(self.limits.patience, (growth.last - growth.first) // 10)
            }
            if len(stuck) < max(self.limits.tasks, len(left) // 2):
                continue
            times = sorted(one.created for one in stuck.values())
            steps = len({one.step for one in stuck.values()})
            lasted = times[-1] - times[0]
            if (
                steps < STEPS
                or lasted < self.limits.patience
                or lasted < SPREAD * (growth.last - growth.first)
                or not growth.grew(end, self.limits)
            ):
                continue
            found.append(
                Finding(
                    "task-leak",
                    f"{len(stuck):,} of {growth.created:,} tasks {short(name)} do not end: each has "
                    "waited for one thing for most of its life, and they become more",
                    growth.proc,
                    list(stuck)[:MANY],
                    [name],
                    times[0],
                    times[-1],
                    len(stuck),
                    {"created": growth.created, "ended": growth.ended},
                )
            )
        return found
