"""`Holders`: who holds a lock at an instant, where a trace proves it.

Theory of operation
===================

Of a lock that the program watches (`tracesvc.watch`) the trace has the owner from when somebody begins to wait.  Of any
other it does not say who takes it while it is free.  But as long as a task waits for a lock, it is never free: it goes
from task to task, to the one that has waited longest.  So the holder at an instant, while somebody waits, is

* the task that ends the first wait for it afterwards, for who gives it back had it all the time; or
* the task that it was handed to last, if one of those that wait did so then already.

Where neither is known, nothing is said.  A task that waits for a condition gets the lock back without having waited for
it by name; so where such a wait has ended in between, the proof does not hold.  Nor does it across a gap.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tracesvc.events import Counter, ObjectName, Reason, TaskRunnable
from tracesvc.model.columns import Columns
from tracesvc.model.phases import Phases
from tracesvc.model.replay import Part
from tracesvc.model.states import State
from tracesvc.model.wakes import GIVEN_UP

__all__ = ["WANTED", "Holders", "handed_over"]

_GIVEN_UP: Final = np.array(sorted(GIVEN_UP))
_NEVER: Final = 1 << 62
WANTED: Final = Reason.LOCK, Reason.CONDITION


def handed_over(phases: Phases, reason: Reason) -> Phases:
    """The waits of that reason, for an object that is known, which a task has ended by giving what was wanted."""
    return phases.take(
        (phases.state == State.WAITING)
        & (phases.reason == reason)
        & (phases.object > 0)
        & (phases.closed == TaskRunnable.number)
        & (phases.waker > 0)
        & ~np.isin(phases.cause, _GIVEN_UP)
    )


class Holders:
    """Takes the parts of a trace in order; memory goes with the locks, and the tasks that wait for conditions."""

    def __init__(self, time: int | None) -> None:
        """``time`` is the instant, in ns; None: the end of the trace."""
        self._time = _NEVER if time is None else time
        self._before: dict[int, tuple[int, int]] = {}
        """lock -> (ns, task) of the last time it was handed over up to the instant"""
        self._after: dict[int, tuple[int, int]] = {}
        """lock -> (ns, who gave it) of the first time after it, to a task that waited at the instant"""
        self._gave: dict[int, int] = {}
        """task -> ns when it last ended a wait for a condition, up to the instant"""
        self._got: dict[int, int] = {}
        """task -> ns of the first end of a wait of its for a condition after the instant"""
        self._watched: dict[str, int] = {}
        """name of the counter that has the owner of a lock -> the lock; two of one name are not told apart"""
        self._owner: dict[int, tuple[int, int]] = {}
        """watched lock -> (ns, task) of what the counter said last, up to the instant"""
        self._last_gap = self._next_gap = 0
        """ns where events are missing: the last time up to the instant, and the first one after it"""

    def add(self, part: Part) -> None:
        """The next part."""
        self.take(part, *(handed_over(part.phases, reason) for reason in WANTED))

    def take(self, part: Part, locks: Phases, conditions: Phases) -> None:
        """The same, where what was `handed_over` for the `WANTED` reasons is known already."""
        for gap in part.gaps:
            if gap.time <= self._time:
                self._last_gap = max(self._last_gap, gap.time)
            else:
                self._next_gap = min(self._next_gap or _NEVER, gap.time)
        if part.columns is not None:
            self._look(part.columns)
        if len(locks):
            p = locks.take(np.argsort(locks.end, kind="stable"))
            for lock, end, since, task, waker in zip(
                *(x.tolist() for x in (p.object, p.end, p.since, p.task, p.waker)), strict=True
            ):
                if end <= self._time:
                    self._before[lock] = max(self._before.get(lock, (0, 0)), (end, task))
                elif since <= self._time:
                    first = self._after.get(lock, (_NEVER, 0))
                    self._after[lock] = min(first, (end, waker))
        p = conditions
        for end, task, waker in zip(p.end.tolist(), p.task.tolist(), p.waker.tolist(), strict=True):
            if end <= self._time:
                self._gave[waker] = max(self._gave.get(waker, 0), end)
            else:
                self._got[task] = min(self._got.get(task, _NEVER), end)

    def _look(self, columns: Columns) -> None:
        """What the counters of watched locks say."""
        names = columns.of(ObjectName)
        for kind, number, name in zip(
            names.kind.tolist(), names.object.tolist(), names.names("name"), strict=True
        ):
            if kind == Reason.LOCK:
                known = self._watched.setdefault(f"{name}.owner", number)
                self._watched[f"{name}.owner"] = number if known == number else 0
        if not self._watched:
            return
        table = columns.of(Counter)
        wanted = [i for i in np.unique(table.name).tolist() if columns.strings[i] in self._watched]
        for i in np.flatnonzero(np.isin(table.name, wanted) & (table.time <= self._time)).tolist():
            lock = self._watched[columns.strings[table.name[i]]]
            said = int(table.time[i]), int(table.value[i])
            self._owner[lock] = max(self._owner.get(lock, (0, 0)), said)

    def of(self, lock: int, since: int) -> int:
        """The task that holds a lock; 0: not known.  ``since``: ns, when the one that waits longest for it began to."""
        end, giver = self._after.get(lock, (0, 0))
        gap = self._next_gap or _NEVER
        if giver and self._got.get(giver, _NEVER) > end and gap > end:
            return giver
        handed, task = self._before.get(lock, (0, 0))
        said, owner = self._owner.get(lock, (0, 0))
        if owner and max(handed, self._last_gap) <= said:
            return owner
        last = max(self._gave.get(task, 0), self._last_gap)
        if task and since <= handed and last <= handed:
            return task
        return 0
