"""`stalls`: steps that ran for long, and the tasks that were ready meanwhile and had to wait: which, and how long."""

from __future__ import annotations

import heapq
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from tracesvc.analysis.stacks import Stacks, place
from tracesvc.model.phases import BY_LOSS, BY_SNAPSHOT, Phases
from tracesvc.model.pieces import OPEN, Pieces
from tracesvc.model.reader import Trace
from tracesvc.model.replay import Replay
from tracesvc.model.states import State

__all__ = ["Delayed", "Stall", "Stalls", "stalls"]

THRESHOLD: Final = 10_000_000
"""ns; what is longer is a stall"""
MOST: Final = 100
"""stalls that are told of, the longest"""
DELAYED: Final = 50
"""tasks that are named per stall, those delayed the longest"""


@dataclass(frozen=True, slots=True)
class Delayed:
    """A task that was runnable during a stall."""

    task: int
    name: str
    delay: int
    """ns of the stall during which it was runnable"""
    total: int
    """ns that it was runnable in all, that time"""


@dataclass(slots=True)
class Stall:
    """A long step."""

    task: int
    name: str
    proc: int
    """the run"""
    start: int
    """ns by the clock of the trace"""
    duration: int
    """ns"""
    open: bool
    """whether it had not ended when the trace did"""
    cut: bool
    """whether events are missing from there on: it may have run for longer"""
    collections: int = 0
    """ns of it in which garbage was collected"""
    place: str = ""
    """what ran, where the trace has a stack of it"""
    count: int = 0
    """tasks that it delayed"""
    delay: int = 0
    """ns, the sum of all their delays"""
    delayed: list[Delayed] = field(default_factory=list)
    """the first 50, the longest delay first"""


@dataclass(frozen=True, slots=True)
class Stalls:
    """The longest steps of a trace."""

    threshold: int
    """ns"""
    count: int
    """steps of at least the threshold, all of them"""
    total: int
    """ns that they took together"""
    stalls: list[Stall]
    """the longest 100 at most, the longest first"""
    gaps: int
    """places where events are missing: steps there are not known"""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def stalls(trace: Trace, threshold: int = THRESHOLD, most: int = MOST) -> Stalls:
    """Find the long steps and what they delayed.

    The trace is read twice: for the steps, and for who was runnable meanwhile.

    Args:
        trace: From `tracesvc.read`, of something that can seek; it is read from the front.
        threshold: ns; a step of that length is a stall.
        most: As many are told of at most, the longest ones.

    Raises:
        FormatError: It is not a trace.
        OSError: It cannot be read.
    """
    trace.rewind()
    replay = Replay(trace)
    best: list[tuple[int, int, int, Stall]] = []
    count = total = number = 0
    for part in replay.parts():
        p = part.phases
        long = p.take((p.state == State.RUNNING) & (p.end - p.start >= threshold))
        lengths = long.end - long.start
        count += len(long)
        total += int(lengths.sum())
        for i in np.argsort(-lengths, kind="stable")[:most].tolist():
            number += 1
            stall = _stall(long, i, replay.names)
            heapq.heappush(best, (stall.duration, -stall.start, number, stall))
            if len(best) > most:
                heapq.heappop(best)
    found = [entry[3] for entry in sorted(best, reverse=True)]
    gaps = replay.walk.gaps
    if found:
        trace.rewind()
        _delays(trace, found)
    return Stalls(threshold, count, total, found, gaps)


def _stall(phases: Phases, i: int, names: list[str]) -> Stall:
    start, end = int(phases.start[i]), int(phases.end[i])
    name = names[int(phases.name[i])]
    closed = int(phases.closed[i])
    is_open, cut = closed == BY_SNAPSHOT, closed == BY_LOSS
    return Stall(int(phases.task[i]), name, int(phases.proc[i]), start, end - start, is_open, cut)


def _delays(trace: Trace, found: list[Stall]) -> None:
    """Enter what each of them delayed.  Steps of one run do not overlap, so they are found by their ends."""
    replay = Replay(trace)
    runs: dict[int, list[Stall]] = {}
    for stall in sorted(found, key=lambda stall: stall.start):
        runs.setdefault(stall.proc, []).append(stall)
    bounds = {
        proc: (
            np.array([stall.start for stall in one], np.int64),
            np.array([stall.start + stall.duration for stall in one], np.int64),
        )
        for proc, one in runs.items()
    }
    stacks = Stacks({stall.task for stall in found})
    for part in replay.parts():
        stacks.add(part)
        p = part.phases
        for proc, (starts, ends) in bounds.items():
            ready = np.flatnonzero(
                (p.proc == proc) & ((p.state == State.RUNNABLE) | (p.state == State.NEW))
            )
            first = np.searchsorted(ends, p.start[ready], "right")
            until = np.searchsorted(starts, p.end[ready], "left")
            for at in np.flatnonzero(until > first).tolist():
                i = int(ready[at])
                for k in range(int(first[at]), int(until[at])):
                    _enter(runs[proc][k], p, i, replay.names)
        _collected(part.collections, found)
    for stall in found:
        stall.place = place(stacks.of(stall.task, stall.start, stall.start + stall.duration))
        stall.delayed.sort(key=lambda delayed: -delayed.delay)
        del stall.delayed[DELAYED:]


def _enter(stall: Stall, phases: Phases, i: int, names: list[str]) -> None:
    start, end = int(phases.start[i]), int(phases.end[i])
    delay = min(end, stall.start + stall.duration) - max(start, stall.start)
    if delay <= 0 or int(phases.task[i]) == stall.task:
        return
    stall.count += 1
    stall.delay += delay
    if len(stall.delayed) >= 4 * DELAYED:
        stall.delayed.sort(key=lambda delayed: -delayed.delay)
        del stall.delayed[DELAYED:]
    name = names[int(phases.name[i])]
    stall.delayed.append(Delayed(int(phases.task[i]), name, delay, end - start))


def _collected(collections: Pieces, found: list[Stall]) -> None:
    ended = collections.take(collections.end != OPEN)
    if not len(ended):
        return
    for stall in found:
        low = np.maximum(ended.begin, stall.start)
        high = np.minimum(ended.end, stall.start + stall.duration)
        stall.collections += int(np.maximum(high - low, 0)[ended.proc == stall.proc].sum())
