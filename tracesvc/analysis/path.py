"""The critical path: what the time between two moments was spent on, followed back across tasks and wake-ups.

Theory of operation
===================

Begin at the end and ask: what was this task in just now?

* It **ran**: then this stretch was spent on running it; go on at the beginning of the step.
* It was **runnable**: its run was busy with others; the stretch is divided among their steps, and what is between
  them is the loop's own.  Go on when it became runnable.
* It **waited** and a task woke it: then what that task did *during the wait* is what the wait was spent on.  Ask the
same about the waker from the wake-up back to the beginning of the wait; then go on before the wait, in the first task.
* It waited and no task woke it: for I/O, a timer, a thread.  Calls in threads are known, so a wait for one is divided:
  before the call began, the call, until the task was woken.
* It had just been **created**: go on in the task that created it.

Every answer divides a stretch into stretches that touch and do not overlap, so all of them add up to the time asked
about, to the nanosecond.  That is the method of "critical path of a parallel program" (Yang and Miller, 1988), walked
back from the end, with the waiter's interval kept around that of its waker.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from tracesvc.analysis.stacks import place
from tracesvc.analysis.window import Phase, Window
from tracesvc.events import Reason, WakeCause
from tracesvc.model.phases import UNKNOWN
from tracesvc.model.states import State
from tracesvc.model.wakes import cause_name

__all__ = ["Kind", "Stretch", "critical_path", "leaves"]

MAX_DEPTH: Final = 64
"""waits within waits that are followed"""
OUTSIDE: Final = "run_sync_soon"
"""in the name of trio's system task through which other threads wake tasks"""


class Kind(StrEnum):
    """What a stretch of time was spent on."""

    RUNNING = "running"
    """a step of the task"""
    RUNNABLE = "runnable"
    """ready, while its run did something else: divided into BEHIND and LOOP"""
    BEHIND = "behind"
    """the step of another task that a runnable one had to wait for"""
    LOOP = "loop"
    """between the steps: trio itself, polls for I/O, instruments"""
    WAITING = "waiting"
    """blocked; divided by what its waker did, where a task woke it"""
    THREAD = "thread"
    """a call in a worker thread"""
    HANDOVER = "handover"
    """a wait for a thread before its call began, or after it ended"""
    OUTSIDE = "outside"
    """another thread had to wake it"""
    UNKNOWN = "unknown"
    """events were lost, or the task is not in the trace"""


@dataclass(slots=True)
class Stretch:
    """A part of the path."""

    kind: Kind
    task: int
    """whose time it is; of BEHIND: whose step it was"""
    name: str
    """of the task, of THREAD: of the function"""
    start: int
    """ns"""
    end: int
    """ns"""
    reason: str = ""
    """of a wait: as in the events"""
    object: int = 0
    waker: int = 0
    """task that ended a wait"""
    waker_name: str = ""
    cause: str = ""
    """why a wait ended: as in the events; empty: the trace does not say"""
    place: str = ""
    """of a long wait: where the task was suspended"""
    parts: list[Stretch] = field(default_factory=list)
    """what it was spent on in turn; they add up to it; empty: nothing more is known"""

    @property
    def duration(self) -> int:
        """ns."""
        return self.end - self.start

    def as_dict(self) -> dict[str, Any]:
        """For JSON; what does not apply is left out."""
        made: dict[str, Any] = {"kind": str(self.kind), "start": self.start, "end": self.end}
        made.update(duration=self.duration, task=self.task, name=self.name)
        if self.kind in (Kind.WAITING, Kind.OUTSIDE, Kind.HANDOVER):
            made.update(reason=self.reason, object=self.object)
            made.update(waker=self.waker, waker_name=self.waker_name)
            made.update(cause=self.cause, place=self.place)
        if self.parts:
            made["parts"] = [part.as_dict() for part in self.parts]
        return made


def leaves(path: list[Stretch]) -> Iterator[Stretch]:
    """The finest parts, in order of time."""
    for stretch in path:
        if stretch.parts:
            yield from leaves(stretch.parts)
        else:
            yield stretch


def critical_path(window: Window, task: int, start: int, end: int) -> list[Stretch]:
    """What the time from ``start`` to ``end`` (ns) was spent on, if ``task`` is where it ended; in order of time."""
    return _Path(window).walk(task, start, end, 0)


class _Path:
    def __init__(self, window: Window) -> None:
        self._window = window

    def walk(self, task: int, start: int, end: int, depth: int) -> list[Stretch]:
        window, found, now = self._window, [], end
        while now > start:
            phase = window.phase(task, now)
            if phase is None:
                found.append(self._unknown(task, start, now))
                break
            begin = max(start, phase.start)
            if phase.state == State.RUNNING:
                found.append(Stretch(Kind.RUNNING, task, window.name(task), begin, now))
            elif phase.state == State.WAITING:
                found.append(self._waiting(phase, begin, now, depth))
            elif phase.state == UNKNOWN:
                found.append(self._unknown(task, begin, now))
            else:
                found.append(self._runnable(phase, begin, now))
            now = begin
            if now == window.born(task) and now > start:
                creator = window.running(phase.proc, now)
                if creator in (0, task):
                    found.append(self._unknown(task, start, now))
                    break
                task = creator
        return found[::-1]

    def _unknown(self, task: int, start: int, end: int) -> Stretch:
        return Stretch(Kind.UNKNOWN, task, self._window.name(task), start, end)

    def _runnable(self, phase: Phase, start: int, end: int) -> Stretch:
        task, name = phase.task, self._window.name(phase.task)
        made = Stretch(Kind.RUNNABLE, task, name, start, end)
        now = start
        for other, begin, stop in self._window.steps(phase.proc, start, end):
            if begin > now:
                made.parts.append(Stretch(Kind.LOOP, task, name, now, begin))
            made.parts.append(Stretch(Kind.BEHIND, other, self._window.name(other), begin, stop))
            now = stop
        if now < end:
            made.parts.append(Stretch(Kind.LOOP, task, name, now, end))
        return made

    def _waiting(self, phase: Phase, start: int, end: int, depth: int) -> Stretch:
        window, reason = self._window, _reason(phase.reason)
        # The wake-up that ended the wait is no news while the wait goes on.
        woken = end == phase.end
        waker = phase.waker if woken else 0
        made = Stretch(
            Kind.WAITING,
            phase.task,
            window.name(phase.task),
            start,
            end,
            reason,
            phase.object,
            waker,
            window.name(waker) if waker else "",
            cause_name(phase.cause) if woken else "",
            place(window.stacks.of(phase.task, phase.start, phase.end)),
        )
        if phase.reason == Reason.THREAD:
            made.parts = self._thread(phase, start, end, reason)
        elif waker and waker != phase.task and phase.reason != Reason.SLEEP:
            if phase.cause == WakeCause.THREAD or OUTSIDE in made.waker_name:
                made.kind = Kind.OUTSIDE
            elif depth < MAX_DEPTH:
                made.parts = self.walk(waker, start, end, depth + 1)
        return made

    def _thread(self, phase: Phase, start: int, end: int, reason: str) -> list[Stretch]:
        task, name = phase.task, self._window.name(phase.task)
        parts, now = [], start
        for function, begin, stop in self._window.calls(task, start, end):
            if begin > now:
                parts.append(Stretch(Kind.HANDOVER, task, name, now, begin, reason))
            parts.append(Stretch(Kind.THREAD, task, function, begin, stop))
            now = stop
        if parts and now < end:
            parts.append(Stretch(Kind.HANDOVER, task, name, now, end, reason))
        return parts


def _reason(number: int) -> str:
    return Reason(number).name.lower() if number in set(Reason) else str(number)
