"""`WaitStacks`: which stack belongs to which wait.

A stack is told while its task waits, or when it is woken: so it belongs to the wait that the last move of its task
began, or has just ended.  Of a wait that began in a chunk before, only its end is at hand.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import TaskStack
from tracesvc.export.lives import BLOCK, RUNNABLE, WAIT, Moves
from tracesvc.export.replay import Chunk
from tracesvc.model.states import State

__all__ = ["WaitStacks"]

Integers: TypeAlias = NDArray[np.int64]

_PLACES: Final = 1 << 24
"""more than the events of a chunk"""


class WaitStacks:
    """Follows the chunks of a replay."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        """task -> the stack of the wait that it is in"""

    def of(self, chunk: Chunk) -> tuple[Integers, Integers]:
        """For every move of a chunk, the stack of the wait that it begins, and of the one that it ends.

        They are indexes into `Columns.stacks`; 0: none is known.
        """
        moves, table = chunk.moves, chunk.columns.of(TaskStack)
        begins, ends = np.zeros(len(moves), np.int64), np.zeros(len(moves), np.int64)
        if not len(moves) or not (len(table) or self._open):
            return begins, ends
        order = np.lexsort((np.arange(len(moves)), moves.task))
        task = moves.task[order]
        if self._open:
            self._end(task, order, ends)
        if not len(table):
            return begins, ends
        at = task * _PLACES + moves.index[order] + 1
        # A move that was put in has the place of the event that it comes before, or none.
        at = np.maximum.accumulate(np.maximum(at, task * _PLACES))
        wanted = table.task * _PLACES + table.index + 1
        found = np.searchsorted(at, wanted, "right") - 1
        for one, place, stack in zip(
            table.task.tolist(), found.tolist(), table.stack.tolist(), strict=True
        ):
            self._enter(moves, order, task, one, place, stack, begins, ends)
        return begins, ends

    def _end(self, task: Integers, order: Integers, ends: Integers) -> None:
        """The first move of a task ends the wait that it was in."""
        first = np.flatnonzero(np.diff(task, prepend=-1))
        for place in first.tolist():
            stack = self._open.pop(int(task[place]), 0)
            if stack:
                ends[order[place]] = stack

    def _enter(
        self,
        moves: Moves,
        order: Integers,
        tasks: Integers,
        task: int,
        place: int,
        stack: int,
        begins: Integers,
        ends: Integers,
    ) -> None:
        """A stack of ``task``, whose last move before that is at ``place`` in the order of tasks."""
        last = place if place >= 0 and tasks[place] == task else None
        if last is not None and moves.move[order[last]] == RUNNABLE:
            ends[order[last]] = stack
            last = last - 1 if last and tasks[last - 1] == task else None
            if last is not None and moves.move[order[last]] in (BLOCK, WAIT):
                begins[order[last]] = stack
            return
        if last is not None and moves.move[order[last]] not in (BLOCK, WAIT):
            return
        if last is not None:
            begins[order[last]] = stack
        after = place + 1 if last is None else last + 1
        if after < len(tasks) and tasks[after] == task:
            if moves.before[order[after]] == State.WAITING:
                ends[order[after]] = stack
        else:
            self._open[task] = stack
