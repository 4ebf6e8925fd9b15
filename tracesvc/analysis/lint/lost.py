"""Lost wake-ups: a task waits for what nobody is left to do."""

from __future__ import annotations

import numpy as np

from tracesvc.analysis.lint.endless import EndlessWaits
from tracesvc.analysis.lint.finding import Finding, Limits, Lint, short
from tracesvc.analysis.lint.wakers import SHARED, Wakers
from tracesvc.events import Reason
from tracesvc.model.pieces import OPEN
from tracesvc.model.replay import Part
from tracesvc.model.words import duration

__all__ = ["LostWakeup"]

MANY = 20


class LostWakeup(Lint):
    """A task waits for ever for an object, and every task that has ended such a wait before has come to its end.

    Like tokio-console's "lost waker".  A channel whose senders are gone without closing it is the usual case.  Of an
    object that nobody has ever waited for successfully nothing can be said.
    """

    def __init__(self, limits: Limits, names: list[str]) -> None:
        super().__init__(limits, names)
        self._waits = EndlessWaits(limits.patience, names)
        self._wakers = Wakers()
        self._ends: dict[int, int] = {}
        """task -> ns of its end, of the tasks that have woken others"""
        self._names: dict[int, str] = {}

    def add(self, part: Part) -> None:
        self._waits.add(part)
        self._wakers.add(part)
        self._woke(np.unique(part.phases.waker).tolist())
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
            if wait.reason not in SHARED or not wait.object:
                continue
            wakers = self._wakers.of(wait.reason, wait.object, wait.end)
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
