"""Waits that have not ended, or that only the program's shutdown ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tracesvc.events import TaskExit, TaskRunnable
from tracesvc.model.phases import BY_LOSS, Phases
from tracesvc.model.replay import Part
from tracesvc.model.states import State
from tracesvc.model.wakes import GIVEN_UP

__all__ = ["EndlessWaits", "Wait"]

MOST: Final = 10_000
"""waits that are kept, the first"""


@dataclass(frozen=True, slots=True)
class Wait:
    """One of them."""

    task: int
    name: str
    proc: int
    start: int
    """ns"""
    end: int
    """ns of the shutdown, or of the end of the trace"""
    reason: int
    object: int


class EndlessWaits:
    """Finds waits of at least some length that were not ended by what was waited for.

    Where the trace says why a task was woken, it was cancelled.  Where it does not, it is taken for cancelled if it
    ends in the very next step.
    """

    def __init__(self, patience: int, names: list[str]) -> None:
        self._patience = patience
        self._names = names
        self._pending: dict[int, Wait] = {}
        self.found: Final[list[Wait]] = []

    def add(self, part: Part) -> None:
        """The next part."""
        p = part.phases
        if self._pending:
            self._settle(p)
        # How a wait ended from which on events are missing is not known; one that goes on the next snapshot tells.
        long = p.take(
            (p.state == State.WAITING) & (p.end - p.since >= self._patience) & (p.closed != BY_LOSS)
        )
        for i in range(len(long)):
            wait = Wait(
                *(int(long.task[i]), self._names[int(long.name[i])], int(long.proc[i])),
                *(int(long.since[i]), int(long.end[i])),
                *(int(long.reason[i]), int(long.object[i])),
            )
            if long.closed[i] != TaskRunnable.number:
                self._keep(wait)
            elif long.cause[i]:
                if long.cause[i] in GIVEN_UP:
                    self._keep(wait)
            elif len(self._pending) < MOST:
                self._pending[wait.task] = wait
        if len(long):
            self._settle(p)

    def _keep(self, wait: Wait) -> None:
        if len(self.found) < MOST:
            self.found.append(wait)

    def _settle(self, phases: Phases) -> None:
        """Did the next step of a task end it?"""
        tasks = np.array(list(self._pending), np.int64)
        steps = phases.take((phases.state == State.RUNNING) & np.isin(phases.task, tasks))
        for i in np.argsort(steps.start, kind="stable").tolist():
            wait = self._pending.get(int(steps.task[i]))
            if wait is not None and steps.start[i] >= wait.end:
                del self._pending[wait.task]
                if steps.closed[i] == TaskExit.number:
                    self._keep(wait)
