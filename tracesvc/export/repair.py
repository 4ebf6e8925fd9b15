"""Moves that cannot follow one another, because events between them are missing, made legal.

One by one, for it is rare.  What is put in happens at the time of the event that needs it and takes no time; what says
nothing new is left out.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.export.lives import (
    AFTER,
    BLOCK,
    CREATE,
    EXIT,
    INDEX,
    LEGAL,
    MOVE,
    PROC,
    RUNNABLE,
    START,
    TASK,
    TIME,
    WAIT,
    YIELD,
)
from tracesvc.model.states import State

__all__ = ["repair"]

Row: TypeAlias = list[int]
_ENDS: Final = (YIELD, BLOCK, EXIT)


def repair(
    raw: NDArray[np.int64], states: dict[int, int], running: dict[int, int]
) -> tuple[NDArray[np.int64], int]:
    """Legal moves instead of these, and how many were put in or left out.

    ``states`` (by task) and ``running`` (by proc) are what was before them.
    """
    work = _Repair(states, running)
    return work.run(raw.T.tolist()), work.changes


class _Repair:
    def __init__(self, states: dict[int, int], running: dict[int, int]) -> None:
        self._states, self._running = states, running
        self._done: list[Row] = []
        self.changes = 0

    def run(self, rows: list[Row]) -> NDArray[np.int64]:
        first: dict[int, Row] = {}
        begun = set(self._running)
        for row in rows:
            # A step whose start is missing began, at the latest, before the first event of its proc.
            first.setdefault(row[PROC], row)
            if row[PROC] not in begun and START <= row[MOVE] <= EXIT:
                begun.add(row[PROC])
                if row[MOVE] != START:
                    self._ahead(first[row[PROC]], row[TASK])
        for row in rows:
            self._take(row)
        return np.array(self._done, np.int64).reshape(-1, 9).T

    def _ahead(self, before: Row, task: int) -> None:
        if before[MOVE] != CREATE or before[TASK] != task:
            self._start(before, task)

    def _put(self, row: Row) -> None:
        task, move = row[TASK], row[MOVE]
        self._done.append(row)
        self._states[task] = int(AFTER[move])
        if move == START:
            self._running[row[PROC]] = task
        elif self._running.get(row[PROC]) == task:
            del self._running[row[PROC]]

    def _insert(self, like: Row, move: int, task: int) -> None:
        self.changes += 1
        self._put([like[INDEX], like[PROC], like[TIME], move, task, 0, 0, 0, 0])

    def _stop(self, like: Row) -> None:
        """No step runs any more."""
        task = self._running.get(like[PROC])
        if task is not None:
            self._insert(like, YIELD, task)

    def _start(self, like: Row, task: int) -> None:
        """A step of the task begins here, though the trace does not say so."""
        self._ready(like, task)
        if LEGAL[self._states[task], START]:
            self._insert(like, START, task)

    def _ready(self, like: Row, task: int) -> None:
        """The task may begin a step."""
        state = self._states.get(task, int(State.ABSENT))
        if state == State.ABSENT:
            self._insert(like, CREATE, task)
        elif state == State.WAITING:
            self._insert(like, RUNNABLE, task)

    def _take(self, row: Row) -> None:
        move, task = row[MOVE], row[TASK]
        state = self._states.get(task, int(State.ABSENT))
        if move == START:
            if self._running.get(row[PROC]) == task:
                self.changes += 1
                return
            self._stop(row)
            self._ready(row, task)
        elif move in _ENDS:
            if self._running.get(row[PROC]) != task:
                self._stop(row)
                self._start(row, task)
        elif move in (RUNNABLE, WAIT) and state == State.ABSENT:
            self._insert(row, CREATE, task)
        if LEGAL[self._states.get(task, int(State.ABSENT)), move]:
            self._put(row)
        else:
            self.changes += 1
