"""What became of tasks, and what their objects are called: outcomes, errors, cancellations, names."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final, TypeAlias

from tracesvc.events import (
    CancelRequest,
    CancelSource,
    ObjectName,
    Outcome,
    TaskCancelled,
    TaskError,
    TaskExit,
)
from tracesvc.model.columns import Columns

__all__ = ["Fates"]

Cancel: TypeAlias = tuple[int, int, int, str]
"""when a scope was cancelled, by which task, for which reason (a `CancelSource`), in whose words"""

KEPT: Final = 500_000
"""of each kind, the latest"""


class Fates:
    """The latest of each."""

    def __init__(self) -> None:
        self.outcomes: Final[dict[int, int]] = {}
        """task -> `Outcome`, where it is known"""
        self._errors: dict[int, tuple[str, str]] = {}
        self._requests: dict[int, Cancel] = {}
        self._owners: dict[int, int] = {}
        """scope -> the task whose it is"""
        self._cancelled: dict[int, list[tuple[int, int]]] = {}
        self._names: dict[tuple[int, int], str] = {}
        self._reached: list[tuple[int, int, int]] = []
        """when a task was resumed with `Cancelled`, which, by which scope"""
        self._sorted = True

    def add(self, columns: Columns) -> None:
        """Those of a chunk."""
        exits = columns.of(TaskExit)
        for task, outcome in zip(exits.task.tolist(), exits.outcome.tolist(), strict=True):
            if outcome > Outcome.RETURNED:
                self.outcomes[task] = outcome
        text = columns.strings
        errors = columns.of(TaskError)
        rows = zip(errors.task.tolist(), errors.exception, errors.message, strict=True)
        for task, exception, message in rows:
            self._errors[task] = text[exception], text[message]
        table = columns.of(CancelRequest)
        fields = (table.scope, table.time, table.requester, table.source, table.why)
        for scope, time, requester, source, why in zip(*(f.tolist() for f in fields), strict=True):
            self._requests.setdefault(scope, (time, requester, source, text[why]))
        self._owners.update(zip(table.scope.tolist(), table.task.tolist(), strict=True))
        told = columns.of(TaskCancelled)
        for row in zip(told.task.tolist(), told.time.tolist(), told.scope.tolist(), strict=True):
            self._cancelled.setdefault(row[0], []).append((row[1], row[2]))
            self._reached.append((row[1], row[0], row[2]))
            self._sorted = False
        named = columns.of(ObjectName)
        for kind, number, name in zip(
            named.kind.tolist(), named.object.tolist(), named.name.tolist(), strict=True
        ):
            self._names[kind, number] = text[name]
        kinds: tuple[dict[Any, Any], ...] = (
            self.outcomes,
            self._errors,
            self._requests,
            self._owners,
            self._cancelled,
            self._names,
        )
        for kept in kinds:
            while len(kept) > KEPT:
                del kept[next(iter(kept))]

    def reached(self, start: int, end: int, most: int) -> list[tuple[int, int, int, int]]:
        """The first in a window: when a task was resumed with `Cancelled`, which, when that was asked for, by whom."""
        if not self._sorted:
            self._reached.sort()
            del self._reached[:-KEPT]
            self._sorted = True
        low, high = (bisect_left(self._reached, (time,)) for time in (start, end + 1))
        found = []
        for time, task, scope in self._reached[low : min(high, low + most)]:
            asked, requester, _, _ = self._requests.get(scope, (time, 0, 0, ""))
            found.append((time, task, min(asked, time), requester or self._owners.get(scope, 0)))
        return found

    def end(self, task: int) -> dict[str, Any]:
        """How a task ended, as far as it did not just return."""
        outcome = self.outcomes.get(task, 0)
        exception, message = self._errors.get(task, ("", ""))
        return {
            "outcome": Outcome(outcome).name.lower() if outcome in set(Outcome) else "unknown",
            "exception": exception,
            "message": message,
        }

    def cancelled(self, task: int, start: int, end: int) -> dict[str, Any] | None:
        """By whom and why a task was cancelled between two times, ends included; None: it was not."""
        for time, scope in self._cancelled.get(task, ()):
            if start <= time <= end:
                asked, requester, source, why = self._requests.get(scope, (time, 0, 0, ""))
                known = CancelSource(source) if source in set(CancelSource) else None
                return {
                    "scope": scope,
                    "asked": asked,
                    "requester": requester,
                    "source": known.name.lower() if known is not None else str(source),
                    "meaning": known.meaning if known is not None else "",
                    "why": why,
                }
        return None

    def name(self, kind: int, number: int) -> str:
        """What the program calls an object; empty where it does not."""
        return self._names.get((kind, number), "")
