"""Who cancelled whom, and why: a sentence for every cancellation that reached a task."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tracesvc.events import CancelRequest, CancelSource, TaskCancelled
from tracesvc.model.phases import NAMELESS
from tracesvc.model.replay import Part
from tracesvc.model.words import duration

__all__ = ["Cancellation", "Cancellations"]

MOST: Final = 100_000
"""requests, and tasks that one reached, that are remembered: the last ones"""
PER_TASK: Final = 1000
"""times that one reached a task, likewise"""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A cancel scope that was cancelled; times are ns by the clock of the trace."""

    time: int
    scope: int
    task: int
    """whose scope it is; 0: not known"""
    task_name: str
    requester: int
    """task that asked for it; 0: none"""
    requester_name: str
    source: int
    """a `CancelSource`"""
    nursery: int
    """whose scope it is; 0: of none"""
    timeout: int
    """ns; -1: none, or not known"""
    why: str

    @property
    def text(self) -> str:
        """What had it cancelled, as the end of a sentence."""
        who = f"task {self.requester_name} ({self.requester})" if self.requester else "nobody"
        where = f"in a scope of task {self.task_name} ({self.task})" if self.task else "in a scope"
        said = f": {self.why}" if self.why else ""
        match self.source:
            case CancelSource.DEADLINE:
                limit = f" of {duration(self.timeout)}" if self.timeout >= 0 else ""
                return f"a deadline{limit} passed, {where}"
            case CancelSource.ERROR if self.requester == self.task:
                return f"the body of nursery {self.nursery} of {who} raised {self.why}"
            case CancelSource.ERROR:
                return f"nursery {self.nursery} of task {self.task_name} ({self.task}): {who} raised {self.why}"
            case CancelSource.INTERRUPT:
                return f"Ctrl-C, {where}"
            case CancelSource.SHUTDOWN:
                return f"the run ends{said}"
            case CancelSource.ABANDONED:
                return f"{who} ended and left nursery {self.nursery} open"
        return f"by {who}, {where}{said}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "time": self.time,
            "scope": self.scope,
            "task": self.task,
            "task_name": self.task_name,
            "requester": self.requester,
            "requester_name": self.requester_name,
            "source": CancelSource(self.source).name.lower()
            if self.source in set(CancelSource)
            else str(self.source),
            "nursery": self.nursery,
            "timeout": None if self.timeout < 0 else self.timeout,
            "why": self.why,
            "text": self.text,
        }


class Cancellations:
    """Gathers them from the parts of a replay, up to a time."""

    def __init__(self, names: list[str], until: int | None = None, since: int = 0) -> None:
        """``names`` are those that `tracesvc.model.phases.Phases.name` indexes.

        What reached a task before ``since`` or after ``until`` (ns; None: the end) is not kept.
        """
        self._names: Final = names
        self._until: Final = until
        self._since: Final = since
        self._requests: Final[dict[int, Cancellation]] = {}
        self._reached: Final[dict[int, deque[tuple[int, int]]]] = {}

    def add(self, part: Part) -> None:
        """Take in what a part says."""
        if part.columns is None:
            return
        asked, reached = part.columns.of(CancelRequest), part.columns.of(TaskCancelled)
        if len(asked):
            names = self._names_of(part, {*asked.task.tolist(), *asked.requester.tolist()})
            fields = ("scope", "task", "requester", "source", "nursery", "timeout")
            columns = [asked.time.tolist(), *(getattr(asked, f).tolist() for f in fields)]
            for time, scope, task, who, source, nursery, timeout, why in zip(
                *columns, asked.names("why"), strict=True
            ):
                name, asker = (names.get(one, NAMELESS) if one else "" for one in (task, who))
                rest = source, nursery, timeout, why
                self._requests[scope] = Cancellation(time, scope, task, name, who, asker, *rest)
                if len(self._requests) > MOST:
                    del self._requests[next(iter(self._requests))]
        for time, task, scope in zip(
            reached.time.tolist(), reached.task.tolist(), reached.scope.tolist(), strict=True
        ):
            if self._since <= time and (self._until is None or time <= self._until):
                kept = self._reached.get(task)
                if kept is None:
                    kept = self._reached[task] = deque(maxlen=PER_TASK)
                kept.append((time, scope))
                if len(self._reached) > MOST:
                    del self._reached[next(iter(self._reached))]

    def _names_of(self, part: Part, tasks: set[int]) -> dict[int, str]:
        p = part.phases.take(np.isin(part.phases.task, list(tasks)))
        named = zip(p.task.tolist(), (self._names[i] for i in p.name.tolist()), strict=True)
        found = dict(named)
        lives = part.lives.take(np.isin(part.lives.task, list(tasks)))
        found.update(zip(lives.task.tolist(), lives.name.tolist(), strict=True))
        return found

    def of(self, task: int, start: int = 0) -> list[tuple[int, Cancellation]]:
        """(when it reached the task, what had it) of each since ``start`` (ns), in order of time."""
        return [
            (time, self._requests[scope])
            for time, scope in self._reached.get(task, ())
            if time >= start and scope in self._requests
        ]
