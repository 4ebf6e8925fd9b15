"""Lost wake-ups: a task waits for what nobody is left to do."""

from __future__ import annotations

from typing import Final

import numpy as np

from tracesvc.analysis.holders import handed_over
from tracesvc.analysis.lint.endless import EndlessWaits
from tracesvc.analysis.lint.finding import Finding, Limits, Lint, short
from tracesvc.analysis.lint.wakers import KEPT, PER_OBJECT, SHARED, Wakers
from tracesvc.events import Reason
from tracesvc.model.pieces import OPEN
from tracesvc.model.replay import Part
from tracesvc.model.words import duration

__all__ = ["LostWakeup"]

MANY = 20
GIVEN_BACK: Final = (Reason.SEMAPHORE, Reason.LIMITER)


class LostWakeup(Lint):
    """A task waits for ever for an object, and every task that has ended such a wait before has come to its end.

    Like tokio-console's "lost waker".  A channel whose senders are gone without closing it is the usual case.  Of an
    object that nobody has ever waited for successfully nothing can be said.  What is taken and given back, a semaphore,
    a limiter, may be given back by those who got it, too.  A lock is none of these: trio breaks the one whose holder
    ends, so whoever waits for one for ever waits for a task that lives.
    """

    def __init__(self, limits: Limits, names: list[str]) -> None:
        super().__init__(limits, names)
        self._waits = EndlessWaits(limits.patience, names)
        self._wakers = Wakers()
        self._ends: dict[int, int] = {}
        """task -> ns of its end, of the tasks that have woken others"""
        self._names: dict[int, str] = {}
        self._got: dict[tuple[int, int], dict[int, None]] = {}
        """(reason, object) -> the tasks that got what they waited for and can give it back, the last eight"""

    def add(self, part: Part) -> None:
        self._waits.add(part)
        self._wakers.add(part)
        self._woke(np.unique(part.phases.waker).tolist())
        for reason in GIVEN_BACK:
            self._note_takers(reason, part)
        lives = part.lives
        for task, end, lost, name in zip(
            lives.task.tolist(),
            lives.end.tolist(),
            lives.lost.tolist(),
            lives.name.tolist(),
            strict=True,
        ):
            if task in self._ends and end != OPEN and not lost:
                self._ends[task] = end
                self._names[task] = str(name)

    def _note_takers(self, reason: Reason, part: Part) -> None:
        got = handed_over(part.phases, reason)
        for object_, task in zip(got.object.tolist(), got.task.tolist(), strict=True):
            tasks = self._got.setdefault((reason, object_), {})
            tasks[task] = tasks.pop(task, None)
            if len(tasks) > PER_OBJECT:
                del tasks[next(iter(tasks))]
        self._woke(got.task.tolist())
        while len(self._got) > KEPT:
            del self._got[next(iter(self._got))]

    def _woke(self, wakers: list[int]) -> None:
        for task in wakers:
            self._ends.setdefault(task, OPEN)
        while len(self._ends) > 200_000:
            gone = next(iter(self._ends))
            del self._ends[gone]
            self._names.pop(gone, None)

    def findings(self, end: int) -> list[Finding]:
        groups: dict[tuple[int, int], Finding] = {}
        for wait in self._waits.found:
            if wait.reason not in SHARED or wait.reason == Reason.LOCK or not wait.object:
                continue
            wakers = self._wakers.of(wait.reason, wait.object, wait.end)
            takers = self._got.get((wait.reason, wait.object), {})
            wakers += [task for task in takers if task != wait.task and task not in wakers]
            ends = [self._ends.get(task, OPEN) for task in wakers]
            if not wakers or OPEN in ends or max(ends) > wait.end - self.limits.patience:
                continue
            known = groups.get((wait.reason, wait.object))
            if known is not None:
                if len(known.tasks) < MANY:
                    known.tasks.append(wait.task)
                continue
            what = Reason(wait.reason).name.lower().replace("_", " ")
            by = [self._names.get(task, "") for task in wakers]
            groups[wait.reason, wait.object] = Finding(
                "lost-wakeup",
                f"task {short(wait.name)} has waited {duration(wait.end - wait.start)} ({what} {wait.object}): "
                f"all that ever ended such a wait have ended: {', '.join(sorted(set(map(short, by))))}",
                wait.proc,
                [wait.task],
                [wait.name],
                wait.start,
                wait.end,
                1,
                {"object": wait.object, "reason": what, "wakers": wakers},
            )
        return list(groups.values())
