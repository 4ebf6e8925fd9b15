"""Lock convoys: a lock that is handed from one waiting task to the next, and never gets free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tracesvc.analysis.holders import handed_over
from tracesvc.analysis.lint.finding import Finding, Limits, Lint, short
from tracesvc.events import Reason
from tracesvc.model.phases import Phases
from tracesvc.model.replay import Part
from tracesvc.model.words import duration

__all__ = ["LockConvoy"]

KEPT: Final = 50_000
"""locks that are remembered at a time; those with the fewest waits are forgotten first"""
TASKS: Final = 3
"""different tasks that a convoy consists of, at least"""
MANY: Final = 20


@dataclass(slots=True)
class _Lock:
    proc: int
    first: int
    last: int
    waits: int = 0
    waited: int = 0
    """ns, the sum of all waits"""
    best: tuple[int, int, int, int] = (0, 0, 0, 0)
    """the longest convoy: waits, ns waited, begin, end"""
    tasks: dict[int, str] = field(default_factory=dict)


class LockConvoy(Lint):
    """Hand-overs in a row, each to a task that has been waiting, with others waiting behind it all the time.

    A lock that is short of supply for a moment is none: the row must be long, and the queue.  After the "convoy
    phenomenon" (Blasgen, Gray, Mitoma, Price, 1979).
    """

    def __init__(self, limits: Limits, names: list[str]) -> None:
        super().__init__(limits, names)
        self._locks: dict[int, _Lock] = {}

    def add(self, part: Part) -> None:
        waits = handed_over(part.phases, Reason.LOCK)
        if not len(waits):
            return
        order = np.lexsort((waits.end, waits.object))
        waits = waits.take(order)
        bounds = np.flatnonzero(np.diff(waits.object, prepend=-1, append=-1))
        for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            self._add_lock(waits, low, high)
        if len(self._locks) > KEPT:
            best = sorted(self._locks.items(), key=lambda item: -item[1].best[0])
            self._locks = dict(best[: KEPT // 2])

    def _add_lock(self, waits: Phases, low: int, high: int) -> None:
        number = int(waits.object[low])
        lock = self._locks.get(number)
        if lock is None:
            lock = _Lock(int(waits.proc[low]), int(waits.start[low]), int(waits.end[low]))
            self._locks[number] = lock
        for i in range(low, high):
            start, end = int(waits.start[i]), int(waits.end[i])
            # It had been waiting when the lock was handed over last: the lock was not free in between.
            if lock.waits and start > lock.last:
                lock.waits = lock.waited = 0
                lock.first = start
                lock.tasks = {} if not lock.best[0] else lock.tasks
            lock.waits += 1
            lock.waited += end - start
            lock.last = end
            if len(lock.tasks) < MANY:
                lock.tasks[int(waits.task[i])] = self.names[int(waits.name[i])]
            if lock.waits > lock.best[0]:
                lock.best = lock.waits, lock.waited, lock.first, end

    def findings(self, end: int) -> list[Finding]:
        found = []
        for number, lock in self._locks.items():
            waits, waited, first, last = lock.best
            queue = waited / max(1, last - first)
            if waits < self.limits.handovers or queue < self.limits.queue:
                continue
            if len(lock.tasks) < TASKS or waited < self.limits.convoy:
                continue
            names = list(dict.fromkeys(lock.tasks.values()))
            found.append(
                Finding(
                    "lock-convoy",
                    f"lock {number} was handed over {waits:,} times in a row within {duration(last - first)}, "
                    f"with {queue:.1f} tasks waiting on average: {', '.join(map(short, names[:3]))}",
                    lock.proc,
                    list(lock.tasks),
                    names,
                    first,
                    last,
                    waits,
                    {"object": number, "queue": round(queue, 3), "waited": waited},
                )
            )
        return sorted(found, key=lambda finding: -int(finding.details["waited"]))
