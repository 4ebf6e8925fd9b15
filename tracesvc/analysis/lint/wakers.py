"""Who wakes the tasks that wait for an object: what a trace tells of it, by what has happened so far."""

from __future__ import annotations

from typing import Final

import numpy as np

from tracesvc.events import Reason, TaskRunnable
from tracesvc.model.replay import Part
from tracesvc.model.states import State

__all__ = ["Wakers", "by_tasks"]

KEPT: Final = 50_000
"""objects that are remembered; the oldest are forgotten first"""
PER_OBJECT: Final = 8

SHARED: Final = (
    Reason.CHANNEL_SEND,
    Reason.CHANNEL_RECEIVE,
    Reason.LOCK,
    Reason.SEMAPHORE,
    Reason.LIMITER,
    Reason.CONDITION,
    Reason.EVENT,
)
"""what one task waits for and another one does"""
_SHARED: Final = np.array([int(reason) for reason in SHARED])


def by_tasks(reason: int) -> bool:
    """Whether only another task can end a wait for this reason (or a cancellation)."""
    return reason in SHARED or reason == Reason.NURSERY


class Wakers:
    """(reason, object) -> the tasks that have ended waits for it, the last eight, each with when it did last."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], dict[int, int]] = {}

    def add(self, part: Part) -> None:
        """The wake-ups of a part."""
        p = part.phases
        chosen = np.flatnonzero(
            (p.state == State.WAITING)
            & (p.closed == TaskRunnable.number)
            & (p.object > 0)
            & (p.waker > 0)
            & (p.waker != p.task)
            & np.isin(p.reason, _SHARED)
        )
        if not len(chosen):
            return
        # The last wake-up of each (reason, object, waker) tells it all.
        order = np.lexsort((p.end[chosen], p.waker[chosen], p.object[chosen], p.reason[chosen]))
        chosen = chosen[order]
        keys = np.stack((p.reason[chosen], p.object[chosen], p.waker[chosen]))
        last = np.flatnonzero(np.append((keys[:, 1:] != keys[:, :-1]).any(axis=0), True))
        for i in chosen[last].tolist():
            key = int(p.reason[i]), int(p.object[i])
            wakers = self._known.setdefault(key, {})
            wakers.pop(int(p.waker[i]), None)
            wakers[int(p.waker[i])] = int(p.end[i])
            if len(wakers) > PER_OBJECT:
                del wakers[next(iter(wakers))]
        while len(self._known) > KEPT:
            del self._known[next(iter(self._known))]

    def of(self, reason: int, object_: int, before: int) -> list[int]:
        """Tasks that had ended waits for an object before a time (ns)."""
        wakers = self._known.get((reason, object_), {})
        return [task for task, time in wakers.items() if time < before]
