"""Regions for Go, which wants them strictly nested and begun and ended only while their task runs.

What does not fit is put right: a region that ends before one inside it ends that one too, and one that begins or ends
while its task does not run does so when the task runs next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import ProcKind, RegionBegin, RegionEnd
from tracesvc.export.lives import EXIT, GONE, START, Moves
from tracesvc.export.replay import Chunk, ProcInfo

__all__ = ["Mark", "Regions", "running_at"]

Integers: TypeAlias = NDArray[np.int64]
Waiting: TypeAlias = tuple[int, bool, str]
"""region, whether it begins, its name"""


@dataclass(frozen=True, slots=True)
class Mark:
    """A region begins or ends."""

    index: int
    """of the event beside which it stands; of a move where ``after``"""
    proc: int
    time: int
    task: int
    begins: bool
    name: str
    after: bool
    """it stands behind the move, not in the place of the event"""


def running_at(
    moves: Moves, procs: Integers, indexes: Integers, running: dict[int, int]
) -> list[int]:
    """The task whose step runs in a proc at an event of it, 0 if none; ``running`` is what ran before the chunk."""
    steps = np.flatnonzero(
        ((moves.move >= START) & (moves.move <= EXIT)) | (moves.move == GONE) & (moves.before == 2)
    )
    found = np.zeros(len(indexes), np.int64)
    for proc in np.unique(procs).tolist():
        mine = np.flatnonzero(procs == proc)
        of_proc = steps[moves.proc[steps] == proc]
        at = np.searchsorted(moves.index[of_proc], indexes[mine])
        tasks = np.where(moves.move[of_proc] == START, moves.task[of_proc], 0)
        found[mine] = np.concatenate(([running.get(proc, 0)], tasks))[at]
    return found.tolist()


@dataclass(slots=True)
class _Task:
    open: list[tuple[int, str]] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)
    known: set[int] = field(default_factory=set)
    since: int = -1
    """index in the chunk of the last event that waits"""


class Regions:
    """Fed with chunks; memory goes with the tasks that have regions open."""

    def __init__(self) -> None:
        self._tasks: Final[dict[int, _Task]] = {}
        self.left_out = 0
        """events of regions that have no place: begun in a thread, or ended without having begun"""

    def marks(
        self, chunk: Chunk, running: dict[int, int], procs: dict[int, ProcInfo]
    ) -> list[Mark]:
        """What to write for the regions of a chunk; ``running`` is what ran before it."""
        for opened in chunk.opened:
            if opened.kind == "region":
                self._wait(opened.task, (opened.id, True, opened.name))
        begin, end = chunk.columns.of(RegionBegin), chunk.columns.of(RegionEnd)
        marks: list[Mark] = []
        if len(begin) or len(end):
            marks += self._events(chunk, running, procs)
        pending = {task: one for task, one in self._tasks.items() if one.waiting}
        if pending:
            marks += self._late(chunk.moves, pending)
        return marks

    def _events(
        self, chunk: Chunk, running: dict[int, int], procs: dict[int, ProcInfo]
    ) -> Iterator[Mark]:
        begin, end = chunk.columns.of(RegionBegin), chunk.columns.of(RegionEnd)
        index = np.concatenate((begin.index, end.index))
        proc = np.concatenate((begin.proc, end.proc))
        ran = running_at(chunk.moves, proc, index, running)
        rows = zip(
            index.tolist(),
            proc.tolist(),
            [*begin.time.tolist(), *end.time.tolist()],
            [*begin.task.tolist(), *end.task.tolist()],
            [*begin.region.tolist(), *end.region.tolist()],
            [*begin.names("name"), *[""] * len(end)],
            [*[True] * len(begin), *[False] * len(end)],
            ran,
            strict=True,
        )
        for at, writer, time, task, region, name, begins, runs in sorted(rows):
            info = procs.get(writer)
            if not task or (begins and info is not None and info.kind == ProcKind.THREAD):
                self.left_out += 1
            elif task == runs:
                for opens, text in self._settle(task, (region, begins, name)):
                    yield Mark(at, writer, time, task, opens, text, after=False)
            else:
                self._wait(task, (region, begins, name), at)

    def _wait(self, task: int, what: Waiting, index: int = -1) -> None:
        one = self._tasks.setdefault(task, _Task())
        region, begins, _ = what
        if begins and region in one.known:
            return
        if begins:
            one.known.add(region)
        elif region not in one.known:
            self.left_out += 1
            return
        one.waiting.append(what)
        one.since = index

    def _settle(self, task: int, *more: Waiting) -> Iterator[tuple[bool, str]]:
        """What is to be written now that the task runs."""
        one = self._tasks.setdefault(task, _Task())
        waiting, one.waiting = one.waiting, []
        for region, begins, name in (*waiting, *more):
            if begins:
                one.known.add(region)
                one.open.append((region, name))
                yield True, name
            elif region not in one.known:
                self.left_out += 1
            else:
                while region in one.known:
                    inner, text = one.open.pop()
                    one.known.discard(inner)
                    yield False, text
        if not one.open:
            del self._tasks[task]

    def _late(self, moves: Moves, pending: dict[int, _Task]) -> Iterator[Mark]:
        starts = np.flatnonzero((moves.move == START) & np.isin(moves.task, list(pending)))
        columns = (starts, moves.index[starts], moves.task[starts])
        for move, index, task in zip(*(column.tolist() for column in columns), strict=True):
            if task in pending and index > pending[task].since:
                del pending[task]
                time, proc = int(moves.time[move]), int(moves.proc[move])
                for opens, text in self._settle(task):
                    yield Mark(move, proc, time, task, opens, text, after=True)
        for one in pending.values():
            one.since = -1
