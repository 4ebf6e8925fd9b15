"""Structured concurrency in numbers: nurseries, cancel scopes, cancellations and exceptions."""

from __future__ import annotations

from collections import Counter as Tally
from dataclasses import dataclass
from typing import Final

import numpy as np

from tracesvc.events import (
    CancelRequest,
    CancelSource,
    NurseryClose,
    NurseryOpen,
    ScopeClose,
    ScopeOpen,
    TaskCancelled,
    TaskError,
)
from tracesvc.model.columns import Columns

__all__ = ["Cancelled", "Nurseries", "Scopes", "Structure", "Structures"]

MOST: Final = 100_000
"""cancellations that are remembered, the last ones, to know whose it was that reached a task"""
NAMES: Final = 1000
"""types of exception that are counted by name; the others together"""
OTHERS: Final = "(others)"


@dataclass(slots=True)
class Cancelled:
    """Cancel scopes that were cancelled for one cause."""

    scopes: int = 0
    reached: int = 0
    """times that a task was resumed with ``Cancelled`` because of them"""


@dataclass(slots=True)
class Nurseries:
    """All nurseries."""

    opened: int = 0
    """in the trace, or open already when it begins"""
    closed: int = 0
    failed: int = 0
    """of the closed: those that an exception has reached"""
    children: int = 0
    """most children of one that has closed"""


@dataclass(slots=True)
class Scopes:
    """All cancel scopes, those of nurseries too; only where the group ``scopes`` is recorded."""

    entered: int = 0
    caught: int = 0
    """those that a cancellation ended"""


@dataclass(frozen=True, slots=True)
class Structure:
    """What the trace says of structured concurrency; the tracer's own tasks are among it."""

    nurseries: Nurseries
    scopes: Scopes
    cancelled: dict[str, Cancelled]
    """by `CancelSource`: ``deadline`` for those whose deadline has passed"""
    errors: dict[str, int]
    """exceptions that reached a nursery, or left a run, by type, the most first"""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not (self.nurseries.opened or self.scopes.entered or self.cancelled or self.errors)


class Structures:
    """Counts as the chunks go by."""

    def __init__(self) -> None:
        self._nurseries: Final = Nurseries()
        self._scopes: Final = Scopes()
        self._cancelled: Final[dict[int, Cancelled]] = {}
        self._sources: Final[dict[int, int]] = {}
        """scope -> why it was cancelled"""
        self._errors: Final[Tally[str]] = Tally()

    def add(self, columns: Columns) -> None:
        """The events of a chunk."""
        self._nurseries.opened += len(columns.of(NurseryOpen))
        closed = columns.of(NurseryClose)
        if len(closed):
            self._nurseries.closed += len(closed)
            self._nurseries.failed += int((closed.errors > 0).sum())
            most = int(closed.children.max())
            self._nurseries.children = max(self._nurseries.children, most)
        self._scopes.entered += len(columns.of(ScopeOpen))
        self._scopes.caught += int((columns.of(ScopeClose).caught > 0).sum())
        self._add_cancelled(columns)
        errors = columns.of(TaskError)
        names, counts = np.unique(errors.exception, return_counts=True)
        for name, count in zip(names.tolist(), counts.tolist(), strict=True):
            text = columns.strings[name]
            known = text in self._errors or len(self._errors) < NAMES
            self._errors[text if known else OTHERS] += count

    def _add_cancelled(self, columns: Columns) -> None:
        asked = columns.of(CancelRequest)
        for scope, source in zip(asked.scope.tolist(), asked.source.tolist(), strict=True):
            self._cancelled.setdefault(source, Cancelled()).scopes += 1
            self._sources[scope] = source
            if len(self._sources) > MOST:
                del self._sources[next(iter(self._sources))]
        for scope in columns.of(TaskCancelled).scope.tolist():
            source = self._sources.get(scope, int(CancelSource.UNKNOWN))
            self._cancelled.setdefault(source, Cancelled()).reached += 1

    def result(self) -> Structure:
        """What was counted so far."""
        names = {int(source): source.name.lower() for source in CancelSource}
        most = sorted(self._cancelled.items(), key=lambda item: -item[1].reached)
        cancelled = {names.get(source, str(source)): one for source, one in most}
        return Structure(self._nurseries, self._scopes, cancelled, dict(self._errors.most_common()))
