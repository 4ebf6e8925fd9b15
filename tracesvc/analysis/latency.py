"""`latencies`: how durations are distributed by name: of spans, regions, and tasks (life, steps, queueing, waits)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import Reason
from tracesvc.model.phases import Phases
from tracesvc.model.pieces import OPEN
from tracesvc.model.reader import Trace
from tracesvc.model.replay import Part, Replay
from tracesvc.model.states import State

__all__ = ["Bucket", "Histogram", "Latencies", "Of", "latencies"]

Integers: TypeAlias = NDArray[np.int64]

SUB: Final = 4
"""bits of a duration that its bucket keeps below the highest: 16 buckets per power of two, none wider than 6.3 %"""
BUCKETS: Final = 64 << SUB


class Of(StrEnum):
    """What a histogram is of."""

    SPAN = "span"
    REGION = "region"
    TASK = "task"
    """from a task's creation to its end"""
    STEP = "step"
    """steps, by name of task"""
    QUEUE = "queue"
    """from when a task was ready until it ran, by name of task"""
    WAIT = "wait"
    """waits, by reason"""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Durations from ``low`` to below ``high``, in ns."""

    low: int
    high: int
    count: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations of one name, in ns.  Count, total, min and max are exact, quantiles to the width of a bucket (6 %)."""

    count: int
    total: int
    min: int
    max: int
    p50: int
    p90: int
    p99: int
    buckets: list[Bucket]
    """those that are not empty, 16 per power of two"""

    def coarse(self) -> list[Bucket]:
        """One bucket per power of two, empty ones between them included."""
        counts: dict[int, int] = {}
        for bucket in self.buckets:
            power = max(0, bucket.low.bit_length() - 1)
            counts[power] = counts.get(power, 0) + bucket.count
        powers = range(min(counts), max(counts) + 1) if counts else ()
        return [Bucket(1 << p if p else 0, 2 << p, counts.get(p, 0)) for p in powers]


@dataclass(frozen=True, slots=True)
class Latencies:
    """Histograms by what they are of, then by name, the most time first."""

    histograms: dict[str, dict[str, Histogram]]
    gaps: int
    """places where events are missing: what began or ended there is in no histogram"""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        from dataclasses import asdict

        return asdict(self)


def latencies(trace: Trace, *of: Of) -> Latencies:
    """Histograms of what has ended in the trace.

    Memory goes with the names, not with the length of the trace.

    Args:
        trace: From `tracesvc.read`; read from where it stands to its present end.
        of: What of; nothing: all.

    Raises:
        FormatError: It is not a trace.
        OSError: It cannot be read.
    """
    wanted = set(of or Of)
    replay = Replay(trace)
    tallies = {kind: _Tally() for kind in Of if kind in wanted}
    for part in replay.parts():
        _add(tallies, part, replay.names)
    found = {str(kind): tally.result() for kind, tally in tallies.items()}
    return Latencies(found, replay.walk.gaps)


def _add(tallies: dict[Of, _Tally], part: Part, names: list[str]) -> None:
    for of, pieces in ((Of.SPAN, part.spans), (Of.REGION, part.regions)):
        if of in tallies and len(pieces):
            ended = pieces.take(pieces.end != OPEN)
            tallies[of].add_texts(ended.name, ended.end - ended.begin)
    lives = part.lives
    if Of.TASK in tallies and len(lives):
        whole = lives.take((lives.begin != OPEN) & (lives.end != OPEN))
        tallies[Of.TASK].add_texts(whole.name, whole.end - whole.begin)
    phases: Phases = part.phases
    if not len(phases):
        return
    state, closed = phases.state, phases.closed > 0
    if Of.STEP in tallies:
        steps = phases.take(closed & (state == State.RUNNING))
        tallies[Of.STEP].add(steps.name, steps.end - steps.start, names)
    if Of.QUEUE in tallies:
        queued = phases.take(closed & ((state == State.RUNNABLE) | (state == State.NEW)))
        tallies[Of.QUEUE].add(queued.name, queued.end - queued.start, names)
    if Of.WAIT in tallies:
        waits = phases.take(closed & (state == State.WAITING))
        strange = (waits.reason < 0) | (waits.reason >= len(_REASONS))
        reasons = np.where(strange, int(Reason.PARKED), waits.reason)
        tallies[Of.WAIT].add(reasons, waits.end - waits.start, _REASONS)


_REASONS: Final = [reason.name.lower() for reason in Reason]


class _Tally:
    """Histograms by name."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[Integers, list[int]]] = {}

    def add_texts(self, names: NDArray[np.object_], durations: Integers) -> None:
        if len(names):
            texts = list(dict.fromkeys(names.tolist()))
            row = {text: i for i, text in enumerate(texts)}
            ids = np.array([row[name] for name in names.tolist()], np.int64)
            self.add(ids, durations, texts)

    def add(self, ids: Integers, durations: Integers, names: list[str]) -> None:
        if not len(ids):
            return
        order = np.argsort(ids, kind="stable")
        ids, durations = ids[order], np.maximum(durations[order], 0)
        buckets = _bucket(durations)
        starts = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1])))
        sums = np.add.reduceat(durations, starts)
        lows, highs = np.minimum.reduceat(durations, starts), np.maximum.reduceat(durations, starts)
        ends = [*starts[1:].tolist(), len(ids)]
        for i, (start, end) in enumerate(zip(starts.tolist(), ends, strict=True)):
            name = names[int(ids[start])]
            known = self._rows.get(name)
            if known is None:
                known = self._rows[name] = np.zeros(BUCKETS, np.int64), [0, 1 << 62, 0]
            known[0][:] += np.bincount(buckets[start:end], minlength=BUCKETS)
            figures = known[1]
            figures[0] += int(sums[i])
            figures[1] = min(figures[1], int(lows[i]))
            figures[2] = max(figures[2], int(highs[i]))

    def result(self) -> dict[str, Histogram]:
        found = {name: _histogram(*row) for name, row in self._rows.items()}
        return dict(sorted(found.items(), key=lambda item: -item[1].total))


def _bucket(durations: Integers) -> Integers:
    """Number of the bucket of each: the power of two, and the next four bits."""
    _, exponents = np.frexp(durations.astype(np.float64))
    shift = np.maximum(exponents.astype(np.int64) - 1 - SUB, 0)
    top = durations >> shift
    # Rounding to a double may lift a number to the next power of two: its bucket is then the first there.
    return np.where(shift == 0, durations, (shift << SUB) + np.maximum(top, 0))


def _bounds(bucket: int) -> tuple[int, int]:
    if bucket < 2 << SUB:
        return bucket, bucket + 1
    shift = (bucket >> SUB) - 1
    top = bucket - (shift << SUB)
    return top << shift, (top + 1) << shift


def _histogram(counts: Integers, figures: list[int]) -> Histogram:
    total, low, high = figures
    used = np.flatnonzero(counts)
    until = np.cumsum(counts[used])
    count = int(until[-1])
    ranks = [-(-count * percent // 100) for percent in (50, 90, 99)]
    middles = []
    for place in np.searchsorted(until, ranks).tolist():
        start, end = _bounds(int(used[place]))
        middles.append(min(max((start + end - 1) // 2, low), high))
    buckets = [Bucket(*_bounds(b), int(counts[b])) for b in used.tolist()]
    p50, p90, p99 = middles
    return Histogram(count, total, low, high, p50, p90, p99, buckets)
