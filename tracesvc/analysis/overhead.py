"""What the tracer said of itself: when it was over its budget, and what it left out then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracesvc.events import Overhead
from tracesvc.model.columns import Columns

__all__ = ["Change", "Changes"]

LISTED = 100
"""changes that are kept, the first"""


@dataclass(frozen=True, slots=True)
class Change:
    """The tracer leaves out more, or less, from here on."""

    time: int
    """ns, by the clock of the trace"""
    level: int
    """0: nothing is left out"""
    share: float
    """of its budget that it used just before"""
    left_out: str


class Changes:
    """Collects them."""

    def __init__(self) -> None:
        self._found: list[Change] = []

    def add(self, columns: Columns) -> None:
        """Those of a chunk."""
        table = columns.of(Overhead)
        if not len(table) or len(self._found) >= LISTED:
            return
        names = table.names("left_out")
        for i in np.argsort(table.time, kind="stable").tolist():
            row = int(table.time[i]), int(table.level[i]), float(table.share[i]), names[i]
            self._found.append(Change(*row))

    def result(self) -> list[Change]:
        """In order of time."""
        return sorted(self._found, key=lambda change: change.time)[:LISTED]
