"""How busy the run loops were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tracesvc.analysis.tasks import Step
from tracesvc.events import Counter, IoWaitEnd, IoWaitStart
from tracesvc.model.columns import Columns

__all__ = ["Loop", "LoopTimes", "together"]

LAG: Final = "trio.loop_lag"
QUEUE: Final = "trio.run_queue"


@dataclass(frozen=True, slots=True)
class Loop:
    """One run, or all of them together; times in ns."""

    name: str
    """of the thread"""
    wall: int
    """from its first event to its end, or that of the trace"""
    io_wait: int
    """with nothing to run"""
    unknown: int
    """after losses: nobody knows whether it was busy"""
    busy: float
    """share of the time that is known in which it did not wait for I/O, 0 to 1"""
    lag: int
    """the longest pass of the loop that a sample saw"""
    queue: int
    """the most runnable tasks that a sample saw"""
    longest: Step | None
    """the longest step of a task"""


@dataclass(slots=True)
class _Run:
    first: int
    last: int
    waits_since: int | None = None
    gap_since: int | None = None
    io_wait: int = 0
    unknown: int = 0
    lag: int = 0
    queue: int = 0

    def close(self, time: int) -> None:
        """Nothing more is heard of it after ``time``."""
        self.last = max(self.last, time)
        if self.waits_since is not None:
            self.io_wait += max(0, self.last - self.waits_since)
            self.waits_since = None
        if self.gap_since is not None:
            self.unknown += max(0, self.last - self.gap_since)
            self.gap_since = None


class LoopTimes:
    """Adds up the I/O waits of each run."""

    def __init__(self) -> None:
        self._runs: dict[int, _Run] = {}

    def last(self, proc: int) -> int:
        """ns of the last event of a proc; 0 where there is none."""
        run = self._runs.get(proc)
        return 0 if run is None else run.last

    def add(self, columns: Columns) -> None:
        """The events of a chunk."""
        at = 0
        for batch in columns.batches:
            first, last = int(columns.time[at]), int(columns.time[at + batch.count - 1])
            at += batch.count
            run = self._runs.get(batch.proc)
            if run is None:
                run = self._runs[batch.proc] = _Run(first, last)
            if run.gap_since is not None:
                run.unknown += max(0, first - run.gap_since)
                run.gap_since = None
            run.last = max(run.last, last)
        self._add_waits(columns)
        self._add_samples(columns)

    def _add_waits(self, columns: Columns) -> None:
        chosen = np.flatnonzero(
            (columns.type == IoWaitStart.number) | (columns.type == IoWaitEnd.number)
        )
        if not len(chosen):
            return
        order = chosen[np.argsort(columns.proc[chosen], kind="stable")]
        proc, time = columns.proc[order], columns.time[order]
        begins = columns.type[order] == IoWaitStart.number
        edges = np.flatnonzero(proc[1:] != proc[:-1]) + 1
        pairs = begins[:-1] & ~begins[1:] & (proc[1:] == proc[:-1])
        waited = np.concatenate((np.where(pairs, time[1:] - time[:-1], 0), [0]))
        starts = np.concatenate(([0], edges))
        sums = np.add.reduceat(waited, starts)
        for i, start in enumerate(starts.tolist()):
            end = (starts[i + 1] if i + 1 < len(starts) else len(order)) - 1
            run = self._runs[int(proc[start])]
            if run.waits_since is not None and not begins[start]:
                run.io_wait += max(0, int(time[start]) - run.waits_since)
            run.waits_since = int(time[end]) if begins[end] else None
            run.io_wait += int(sums[i])

    def _add_samples(self, columns: Columns) -> None:
        table = columns.of(Counter)
        samples = [i for i in np.unique(table.name).tolist() if columns.strings[i] in (LAG, QUEUE)]
        for i in samples:
            lag = columns.strings[i] == LAG
            of_name = table.name == i
            procs, values = table.proc[of_name], table.value[of_name]
            for proc in np.unique(procs).tolist():
                worst, run = int(values[procs == proc].max()), self._runs[proc]
                if lag:
                    run.lag = max(run.lag, worst)
                else:
                    run.queue = max(run.queue, worst)

    def gap(self, proc: int, time: int) -> None:
        """Events of a run are missing from ``time`` on."""
        run = self._runs.get(proc)
        if run is None:
            return
        if run.waits_since is not None:
            run.io_wait += max(0, time - run.waits_since)
            run.waits_since = None
        if run.gap_since is None:
            run.gap_since = max(time, run.last)

    def end(self, proc: int, time: int) -> None:
        """A run is over, or the trace of it is."""
        run = self._runs.get(proc)
        if run is not None:
            run.close(time)

    def result(self, names: dict[int, str], longest: dict[int, Step]) -> dict[int, Loop]:
        """By proc; ``names`` has the runs."""
        return {
            proc: _loop(names[proc], run, longest.get(proc))
            for proc, run in sorted(self._runs.items())
            if proc in names
        }


def _loop(name: str, run: _Run, longest: Step | None) -> Loop:
    wall = run.last - run.first
    return Loop(
        name,
        wall,
        run.io_wait,
        run.unknown,
        _busy(wall, run.io_wait, run.unknown),
        run.lag,
        run.queue,
        longest,
    )


def together(loops: list[Loop], longest: Step | None) -> Loop:
    """All runs as one; ``wall`` is the sum."""
    wall, io_wait, unknown = (
        sum(getattr(loop, f) for loop in loops) for f in ("wall", "io_wait", "unknown")
    )
    return Loop(
        "all",
        wall,
        io_wait,
        unknown,
        _busy(wall, io_wait, unknown),
        max((loop.lag for loop in loops), default=0),
        max((loop.queue for loop in loops), default=0),
        longest,
    )


def _busy(wall: int, io_wait: int, unknown: int) -> float:
    known = wall - unknown
    return (known - io_wait) / known if known > 0 else 0.0
