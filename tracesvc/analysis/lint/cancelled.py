"""Cancelled, and still running: tasks that do not end when they are told to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tracesvc.analysis.cancellation import Cancellations
from tracesvc.analysis.lint.finding import Finding, Limits, Lint, short
from tracesvc.events import TaskRunnable, WakeCause
from tracesvc.model.pieces import OPEN
from tracesvc.model.replay import Part
from tracesvc.model.states import State
from tracesvc.model.words import duration

__all__ = ["CancelledStillRunning"]

MOST: Final = 10_000
"""cancellations that are remembered, the last ones"""
MANY: Final = 20
TOGETHER: Final = 10_000_000
"""ns between what one task cancels in one go"""
AT_ONCE: Final = 10
"""how many times sooner the others must have ended"""


@dataclass(slots=True)
class _Cancellation:
    """What a task cancelled in one go."""

    waker: int
    proc: int
    time: int
    last: int
    tasks: dict[int, str] = field(default_factory=dict)
    times: dict[int, int] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)


class CancelledStillRunning(Lint):
    """A task that another task cancelled along with more of them, and that lives on for long after the others ended.

    It has a handler that does not come to its end, or is shielded.  Only what another task did counts: a deadline
    that passes in the task's own scope is how timeouts are made.  And only several tasks at once: where one scope
    within one task is cancelled from outside, that task may well go on.
    """

    def __init__(self, limits: Limits, names: list[str]) -> None:
        super().__init__(limits, names)
        self._cancellations: list[_Cancellation] = []
        self._of: dict[int, _Cancellation] = {}
        self._causes = Cancellations(names)

    def add(self, part: Part) -> None:
        self._causes.add(part)
        p = part.phases
        hit = p.take(
            (p.state == State.WAITING)
            & (p.closed == TaskRunnable.number)
            & (p.cause == WakeCause.CANCEL)
            & (p.waker != p.task)
            & (p.waker > 0)
        )
        for i in np.argsort(hit.end, kind="stable").tolist():
            task, time, waker = int(hit.task[i]), int(hit.end[i]), int(hit.waker[i])
            last = self._cancellations[-1] if self._cancellations else None
            if last is None or last.waker != waker or time - last.last > TOGETHER:
                last = _Cancellation(waker, int(hit.proc[i]), time, time)
                self._cancellations.append(last)
            last.last = time
            last.tasks[task] = self.names[int(hit.name[i])]
            last.times[task] = time
            self._of[task] = last
        lives = part.lives
        for task, end in zip(lives.task.tolist(), lives.end.tolist(), strict=True):
            cancellation = self._of.pop(task, None) if end != OPEN else None
            if cancellation is not None:
                cancellation.ends[task] = end
        for task in lives.task[lives.lost].tolist():
            cancellation = self._of.pop(task, None)
            if cancellation is not None:  # it ended in a gap: nobody knows how soon
                cancellation.times.pop(task, None)
        if len(self._cancellations) > MOST:
            # Those of which nobody is left, and nobody was late, first.
            self._cancellations = [c for c in self._cancellations if self._late(c, c.last)][-MOST:]

    def _late(self, one: _Cancellation, end: int) -> dict[int, int]:
        """Task -> ns that it lived on, of those that did for long."""
        lived = {task: one.ends.get(task, end) - time for task, time in one.times.items()}
        late = {t: ns for t, ns in lived.items() if ns >= self.limits.cancelled}
        others = [ns for t, ns in lived.items() if t in one.ends and t not in late]
        if not late or not others:
            return {}
        return {t: ns for t, ns in late.items() if ns >= AT_ONCE * max(others)}

    def _why(self, task: int, one: _Cancellation) -> str:
        reached = self._causes.of(task, one.times[task])
        return f" ({reached[0][1].text})" if reached else ""

    def findings(self, end: int) -> list[Finding]:
        found: dict[str, Finding] = {}
        for one in self._cancellations:
            for task, lived in self._late(one, end).items():
                name = one.tasks[task]
                known = found.get(name)
                if known is not None:
                    if len(known.tasks) < MANY:
                        known.tasks.append(task)
                    continue
                what = "ended" if task in one.ends else "has not ended"
                found[name] = Finding(
                    "cancelled-still-running",
                    f"task {short(name)} {what} {duration(lived)} after it was cancelled "
                    f"by task {one.waker}, with {len(one.tasks) - 1} more{self._why(task, one)}",
                    one.proc,
                    [task],
                    [name],
                    one.times[task],
                    one.times[task] + lived,
                    1,
                    {"by": one.waker, "with": len(one.tasks) - 1},
                )
        return list(found.values())
