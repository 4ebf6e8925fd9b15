"""Nurseries, cancel scopes and cancellations, for formats that draw tasks.

What a task opens it closes in turn, so nurseries and scopes lie within each other as slices do.  Where an end is
missing (its task has ended, or events are lost from there on) what is open ends there; where a beginning is missing
there is nothing to draw.  A cancellation is an arrow: from where it was asked for to each task that it reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from tracesvc.events import (
    CancelRequest,
    CancelSource,
    NurseryClose,
    NurseryOpen,
    ScopeClose,
    ScopeOpen,
    TaskCancelled,
)
from tracesvc.export.lives import EXIT, GONE, LOST, Moves
from tracesvc.export.report import Exported
from tracesvc.model.columns import Columns, Table

__all__ = ["DRAWN", "Arrow", "Edge", "Nests"]

DRAWN: Final = (NurseryOpen, NurseryClose, TaskCancelled, ScopeOpen, ScopeClose)
"""types of event that are told by this"""
NURSERY, SCOPE = "nursery", "cancel scope"
"""without numbers: other tools add up what has the same name"""
MOST: Final = 10_000
"""cancellations that are remembered, the last ones"""


class Edge(NamedTuple):
    """A nursery or scope begins or ends."""

    time: int
    """ns"""
    task: int
    kind: str
    """``nursery`` or ``cancel scope``"""
    id: int
    begins: bool
    details: dict[str, Any]


class Arrow(NamedTuple):
    """A cancellation has reached a task."""

    time: int
    """ns"""
    task: int
    asked: int
    """ns, when it was asked for; -1: not in the trace"""
    by: int
    """task that asked for it, else the one whose scope it is; 0: neither is known"""
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Request:
    time: int
    by: int
    details: dict[str, Any]


class Nests:
    """Follows the chunks of a replay; memory goes with what is open."""

    def __init__(self, report: Exported) -> None:
        self._report: Final = report
        self._open: dict[int, list[tuple[str, int]]] = {}
        """task -> what it has open, outermost first"""
        self._requests: dict[int, _Request] = {}

    def edges(self, columns: Columns, moves: Moves) -> list[Edge]:
        """What begins and ends in a chunk; of each task, as slices that lie within each other."""
        told = [one for told in _TOLD for one in told(columns)]
        tasks = {edge.task for _, edge in told} | self._open.keys()
        if not tasks:
            return []
        over = np.flatnonzero(
            np.isin(moves.move, (EXIT, LOST, GONE)) & np.isin(moves.task, list(tasks))
        )
        for place, time, task, move in zip(
            *(
                values[over].tolist()
                for values in (moves.index, moves.time, moves.task, moves.move)
            ),
            strict=True,
        ):
            # A move that no event stands for comes before those that are there.
            details = {"lost": True} if move == LOST else {}
            told.append((place, Edge(time, task, "", 0, False, details)))
        told.sort(key=lambda one: one[0])
        return [edge for _, one in told for edge in self._play(one)]

    def _play(self, edge: Edge) -> Iterator[Edge]:
        stack = self._open.get(edge.task, [])
        if edge.begins:
            self._open.setdefault(edge.task, []).append((edge.kind, edge.id))
            yield edge
            return
        if edge.kind and (edge.kind, edge.id) not in stack:
            self._report.left_out[_CLOSES[edge.kind]] += 1
            return
        while stack:
            kind, number = stack.pop()
            if (kind, number) == edge[2:4]:
                yield edge
                break
            yield edge._replace(kind=kind, id=number, details={} if edge.kind else edge.details)
        if not stack:
            self._open.pop(edge.task, None)

    def arrows(self, columns: Columns) -> list[Arrow]:
        """Each time that a cancellation reaches a task in a chunk."""
        asked = columns.of(CancelRequest)
        names = "scope", "time", "requester", "task", "source"
        for scope, time, requester, owner, source, why in zip(
            *(getattr(asked, name).tolist() for name in names), asked.names("why"), strict=True
        ):
            details = {"source": _SOURCES.get(source, str(source))} | ({"why": why} if why else {})
            self._requests[scope] = _Request(time, requester or owner, details)
            if len(self._requests) > MOST:
                del self._requests[next(iter(self._requests))]
        reached = columns.of(TaskCancelled)
        found = []
        for time, task, scope in zip(
            reached.time.tolist(), reached.task.tolist(), reached.scope.tolist(), strict=True
        ):
            request = self._requests.get(scope, _UNKNOWN)
            details = {"scope": scope, **request.details}
            found.append(Arrow(time, task, request.time, request.by, details))
        return found


_Told: TypeAlias = Iterator[tuple[int, Edge]]
"""(place in the columns, edge) of each event"""


def _nurseries_open(columns: Columns) -> _Told:
    table = columns.of(NurseryOpen)
    for index, time, task, nursery in _rows(table, "task", "nursery"):
        yield index, Edge(time, task, NURSERY, nursery, True, {"nursery": nursery})


def _nurseries_close(columns: Columns) -> _Told:
    table = columns.of(NurseryClose)
    for index, time, task, nursery, *counts in _rows(
        table, "task", "nursery", "children", "errors"
    ):
        details = dict(zip(("children", "errors"), counts, strict=True))
        yield index, Edge(time, task, NURSERY, nursery, False, details)


def _scopes_open(columns: Columns) -> _Told:
    table = columns.of(ScopeOpen)
    for index, time, task, scope, timeout, shield in _rows(
        table, "task", "scope", "timeout", "shield"
    ):
        details: dict[str, Any] = {"scope": scope}
        if timeout >= 0:
            details["timeout_ns"] = timeout
        if shield:
            details["shield"] = True
        yield index, Edge(time, task, SCOPE, scope, True, details)


def _scopes_close(columns: Columns) -> _Told:
    table = columns.of(ScopeClose)
    for index, time, task, scope, caught in _rows(table, "task", "scope", "caught"):
        yield index, Edge(time, task, SCOPE, scope, False, {"caught": True} if caught else {})


def _rows(table: Table, *fields: str) -> Iterator[tuple[int, ...]]:
    """(place, time, fields...) of each event."""
    columns = (getattr(table, name).tolist() for name in ("index", "time", *fields))
    return zip(*columns, strict=True)


_TOLD: Final = _nurseries_open, _nurseries_close, _scopes_open, _scopes_close
_CLOSES: Final = {NURSERY: NurseryClose.type, SCOPE: ScopeClose.type}
_SOURCES: Final = {int(source): source.name.lower() for source in CancelSource}
_UNKNOWN: Final = _Request(-1, 0, {})
