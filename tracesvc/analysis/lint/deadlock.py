"""Deadlocks: tasks that wait for each other.

Theory of operation
===================

Who could end a wait is told from what the trace says, at the instant just before a wait that took for ever was given
up:

* a wait for a nursery is ended by the last of its children, all of which live;
* a wait for a lock is ended by its holder, if the trace proves who that is (`tracesvc.analysis.holders`).  Else it is
  taken to be the task that the lock was handed over to last; or, if nothing in the run can run any more (no task is
  runnable, sleeps, or waits for I/O, a thread, a signal), one of those that wait, whoever it is;
* any other wait is ended by the tasks that have ended such waits before.

Then take away, again and again, the tasks whose wait could be ended by one that is not (or no longer) among them.  What
is left waits for itself: a deadlock.  Where nothing is known of who could end a wait, nothing is claimed.  Children of
nurseries and holders that are proved are facts; the rest is inferred, and the finding says from what.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tracesvc.analysis.holders import WANTED, Holders, handed_over
from tracesvc.analysis.lint.endless import EndlessWaits
from tracesvc.analysis.lint.finding import Finding, Limits, Lint, short
from tracesvc.analysis.lint.wakers import SHARED, Wakers, by_tasks
from tracesvc.events import Reason
from tracesvc.model.replay import Part
from tracesvc.model.states import State
from tracesvc.model.words import duration

__all__ = ["Deadlock"]

INSTANTS: Final = 16
"""per run, at which it is looked for"""
SYSTEM: Final = ("<", "trio.Runner.", "trio._core.", "tracesvc ")
"""beginnings of the names of tasks that are no part of the program"""
MANY: Final = 20


@dataclass(slots=True)
class _Now:
    """What a task was in at an instant."""

    name: str
    state: int
    reason: int
    object: int
    since: int


@dataclass(frozen=True, slots=True)
class _Ways:
    """Who could end a wait."""

    by: list[int]
    """tasks"""
    inferred: str = ""
    """from what; empty: it is a fact"""


@dataclass(slots=True)
class _Instant:
    proc: int
    time: int
    holders: Holders
    tasks: dict[int, _Now] = field(default_factory=dict)

    def holder(self, lock: int) -> int:
        """Who holds a lock that somebody waits for, as far as it is proved; else 0."""
        waits = (now for now in self.tasks.values() if now.reason == Reason.LOCK)
        return self.holders.of(lock, min(now.since for now in waits if now.object == lock))


class Deadlock(Lint):
    """See above.  It looks at the trace a second time, at the instants that the first time has found."""

    def __init__(self, limits: Limits, names: list[str]) -> None:
        super().__init__(limits, names)
        self._waits = EndlessWaits(limits.patience, names)
        self._wakers = Wakers()
        self._holders: dict[int, list[tuple[int, int]]] = {}
        """lock -> (ns, task) of its last hand-overs"""
        self._parents: dict[int, tuple[int, int]] = {}
        """task -> its nursery and the owner of that, of the tasks at the instants"""
        self.instants: list[_Instant] = []

    def add(self, part: Part) -> None:
        self._waits.add(part)
        self._wakers.add(part)
        p = part.phases
        handed = handed_over(p, Reason.LOCK)
        for lock, time, task in zip(
            handed.object.tolist(), handed.end.tolist(), handed.task.tolist(), strict=True
        ):
            holders = self._holders.setdefault(lock, [])
            holders.append((time, task))
            del holders[:-INSTANTS]
        while len(self._holders) > 50_000:
            del self._holders[next(iter(self._holders))]

    def choose(self) -> None:
        """After the first look: when to look closer."""
        chosen: dict[int, list[int]] = {}
        for wait in sorted(self._waits.found, key=lambda wait: wait.end):
            if wait.reason in SHARED:
                times = chosen.setdefault(wait.proc, [])
                # Many give up at about the same time, when the program ends; the first tells of all.
                if len(times) < INSTANTS and (not times or wait.start > times[-1]):
                    times.append(wait.end - 1)
        self.instants = [
            _Instant(proc, time, Holders(time)) for proc, times in chosen.items() for time in times
        ]

    def look(self, part: Part) -> None:
        """The second look."""
        p = part.phases
        handed = [handed_over(p, reason) for reason in WANTED]
        for instant in self.instants:
            instant.holders.take(part, *handed)
            here = np.flatnonzero(
                (p.proc == instant.proc) & (p.start <= instant.time) & (p.end > instant.time)
            )
            for i in here.tolist():
                instant.tasks[int(p.task[i])] = _Now(
                    self.names[int(p.name[i])],
                    *(int(p.state[i]), int(p.reason[i]), int(p.object[i]), int(p.since[i])),
                )
        lives = part.lives
        for task, nursery, parent in zip(
            lives.task.tolist(), lives.nursery.tolist(), lives.parent.tolist(), strict=True
        ):
            if any(task in instant.tasks for instant in self.instants):
                self._parents[task] = nursery, parent

    def findings(self, end: int) -> list[Finding]:
        found: list[Finding] = []
        seen: list[set[int]] = []
        for instant in self.instants:
            stuck = self._stuck(instant)
            members = {
                task
                for task, now in instant.tasks.items()
                if task in stuck and now.reason in SHARED
            }
            patient = all(
                instant.time + 1 - instant.tasks[task].since >= self.limits.patience
                for task in members
            )
            if members and patient and not any(members & before for before in seen):
                seen.append(members)
                found.append(self._finding(instant, stuck, members))
        return found

    def _stuck(self, instant: _Instant) -> dict[int, _Ways]:
        """Task -> who could end its wait, of those that wait for themselves."""
        tasks = {
            task: now
            for task, now in instant.tasks.items()
            if not now.name.startswith(SYSTEM) or now.reason == Reason.NURSERY
        }
        waiting = {
            task
            for task, now in tasks.items()
            if now.state == State.WAITING and by_tasks(now.reason)
        }
        nothing_runs = waiting == tasks.keys()
        ways: dict[int, _Ways] = {}
        for task in waiting:
            ways[task] = self._ways(task, instant, waiting, nothing_runs=nothing_runs)
        stuck = {task for task, way in ways.items() if way.by}
        while True:
            # A nursery needs all of its children, so one that is stuck is enough.
            free = {
                task
                for task in stuck
                if not (any if tasks[task].reason == Reason.NURSERY else all)(
                    by in stuck for by in ways[task].by
                )
            }
            if not free:
                break
            stuck -= free
        return {
            task: _Ways([by for by in ways[task].by if by in stuck], ways[task].inferred)
            for task in stuck
        }

    def _ways(
        self, task: int, instant: _Instant, waiting: set[int], *, nothing_runs: bool
    ) -> _Ways:
        now = instant.tasks[task]
        if now.reason == Reason.NURSERY:
            children = [
                other
                for other in instant.tasks
                if now.object and self._parents.get(other, (0, 0))[0] == now.object
            ]
            return _Ways(children)
        if now.reason == Reason.LOCK:
            holder = instant.holder(now.object) if now.object else 0
            if holder:  # one that has ended never gives it back
                return _Ways([holder] if holder in instant.tasks and holder != task else [])
            handed = [t for time, t in self._holders.get(now.object, ()) if time <= now.since]
            if handed and handed[-1] in instant.tasks and handed[-1] != task:
                return _Ways(handed[-1:], f"lock {now.object} was handed to task {handed[-1]} last")
            if nothing_runs:
                others = [
                    other
                    for other in waiting
                    if other != task and not self._cannot_hold(other, instant, now)
                ]
                return _Ways(
                    others,
                    f"who holds lock {now.object} is not known, but nothing can run any more",
                )
            return _Ways([])
        wakers = self._wakers.of(now.reason, now.object, instant.time)
        found = [t for t in wakers if t in instant.tasks and t != task]
        what = f"{_name(now.reason)} {now.object}"
        numbers = ", ".join(map(str, found[:5]))
        return _Ways(found, f"only tasks {numbers} have ended a wait for {what} so far")

    def _cannot_hold(self, other: int, instant: _Instant, now: _Now) -> bool:
        """Whether a task cannot hold the lock: it waits for it itself, or is none of the program's."""
        there = instant.tasks[other]
        if there.reason == now.reason and there.object == now.object:
            return True
        return there.name.startswith(SYSTEM)

    def _finding(self, instant: _Instant, stuck: dict[int, _Ways], members: set[int]) -> Finding:
        # Where the holder of a lock may be any of several, nobody knows the circle, but who is in it.
        guessed = any(
            len(stuck[task].by) > 1 and instant.tasks[task].reason == Reason.LOCK
            for task in members
        )
        cycle = sorted(members) if guessed and len(members) > 1 else _cycle(stuck, instant)
        first = min(instant.tasks[task].since for task in cycle)
        said = []
        for task in cycle:
            now = instant.tasks[task]
            holder = instant.holder(now.object) if now.reason == Reason.LOCK and now.object else 0
            held = (
                f", held by {short(instant.tasks[holder].name)} ({holder})"
                if holder in instant.tasks
                else ""
            )
            said.append(
                f"{short(now.name)} ({task}) waits for {_name(now.reason)} {now.object}{held}"
            )
        inferred = list(dict.fromkeys(i for task in cycle if (i := stuck[task].inferred)))
        latest = max(instant.tasks[task].since for task in cycle)
        return Finding(
            "deadlock",
            f"{len(cycle)} tasks wait for each other since {duration(instant.time + 1 - latest)}: "
            + "; ".join(said[:5])
            + (f". This is inferred: {'; '.join(inferred[:3])}" if inferred else ""),
            instant.proc,
            cycle[:MANY],
            list(dict.fromkeys(instant.tasks[task].name for task in cycle)),
            first,
            instant.time + 1,
            len(cycle),
            {"waits": said, "all": sorted(stuck), "exact": not inferred, "inferred": inferred},
        )


def _name(reason: int) -> str:
    return Reason(reason).name.lower().replace("_", " ")


def _cycle(stuck: dict[int, _Ways], instant: _Instant) -> list[int]:
    """A circle of tasks, each of which waits for the next."""
    # Through those first that wait for something of their own, not for children.
    start = min(stuck, key=lambda task: (instant.tasks[task].reason == Reason.NURSERY, task))
    path, place = [start], {start: 0}
    while True:
        ways = sorted(
            stuck[path[-1]].by,
            key=lambda task: (instant.tasks[task].reason == Reason.NURSERY, task),
        )
        if not ways:
            return path
        following = ways[0]
        if following in place:
            return path[place[following] :]
        place[following] = len(path)
        path.append(following)
