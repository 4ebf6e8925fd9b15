"""The tables about structured concurrency: nurseries, errors, cancellations and whom they reached, cancel scopes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

from tracesvc.events import (
    CancelRequest,
    CancelSource,
    NurseryClose,
    NurseryOpen,
    ObjectName,
    Reason,
    ScopeClose,
    ScopeOpen,
    TaskCancelled,
    TaskError,
)
from tracesvc.model.columns import Columns, Table

__all__ = ["STRUCTURE", "StructureRows", "source_name"]

Row = tuple[Any, ...]


def source_name(number: int) -> str:
    """Of a `CancelSource`."""
    return CancelSource(number).name.lower() if number in set(CancelSource) else str(number)


def _reason(number: int) -> str:
    return Reason(number).name.lower() if number in set(Reason) else str(number)


def _rows(table: Table, *fields: str) -> list[Row]:
    """(time, proc, fields...) of each event; names as texts."""
    texts = {field.name for field in table.event.fields if field.storage.value == "string"}
    columns: Iterator[Sequence[Any]] = (
        table.names(field) if field in texts else getattr(table, field).tolist() for field in fields
    )
    return list(zip(table.time.tolist(), table.proc.tolist(), *columns, strict=True))


class StructureRows:
    """Rows of these tables, as the events of a trace go by; memory goes with what live tasks have open."""

    def __init__(self) -> None:
        self._nurseries: dict[int, Row] = {}
        self._scopes: dict[int, Row] = {}

    def of(
        self, name: str, columns: Columns | None, over: Collection[int], *, last: bool
    ) -> list[Row]:
        """The rows of a table that a stretch of events completes; ``last``: and those that it leaves open.

        Tasks that are ``over`` have nothing open any more, whether the trace has the end of it or not.
        """
        rows = [] if columns is None else _MAKERS[name](self, columns)
        kept = {"nurseries": self._nurseries, "scopes": self._scopes}.get(name)
        if kept and (over or last):
            done = [number for number, row in kept.items() if last or row[1] in over]
            rows += [kept.pop(number) for number in done]
        return rows

    def _of_nurseries(self, columns: Columns) -> list[Row]:
        opened, closed = columns.of(NurseryOpen), columns.of(NurseryClose)
        for time, proc, task, nursery in _rows(opened, "task", "nursery"):
            self._nurseries[nursery] = nursery, task, proc, time, None, None, None, None
        done = []
        for time, proc, *rest in _rows(closed, "task", "nursery", "children", "errors"):
            task, nursery, children, errors = rest
            since = self._nurseries.pop(nursery, (0, 0, 0, None))[3]
            lasted = None if since is None else time - since
            done.append((nursery, task, proc, since, time, lasted, children, errors))
        return done

    def _of_scopes(self, columns: Columns) -> list[Row]:
        opened, closed = columns.of(ScopeOpen), columns.of(ScopeClose)
        for time, proc, *rest in _rows(opened, "task", "scope", "timeout", "shield"):
            task, scope, timeout, shield = rest
            known = None if timeout < 0 else timeout
            self._scopes[scope] = scope, task, proc, time, None, None, known, bool(shield), None
        done = []
        for time, proc, task, scope, caught in _rows(closed, "task", "scope", "caught"):
            row = self._scopes.pop(scope, (scope, task, proc, None, None, None, None, None, None))
            lasted = None if row[3] is None else time - row[3]
            done.append((*row[:4], time, lasted, *row[6:8], bool(caught)))
        return done

    def _of_cancels(self, columns: Columns) -> list[Row]:
        fields = "scope", "task", "requester", "source", "nursery", "timeout", "why"
        return [
            (*row[:5], source_name(row[5]), row[6], None if row[7] < 0 else row[7], row[8])
            for row in _rows(columns.of(CancelRequest), *fields)
        ]

    def _of_cancelled(self, columns: Columns) -> list[Row]:
        return _rows(columns.of(TaskCancelled), "task", "scope")

    def _of_errors(self, columns: Columns) -> list[Row]:
        return _rows(columns.of(TaskError), "task", "nursery", "exception", "message")

    def _of_objects(self, columns: Columns) -> list[Row]:
        rows = _rows(columns.of(ObjectName), "object", "kind", "name")
        return [(*row[:3], _reason(row[3]), row[4]) for row in rows]


_MAKERS: Final[dict[str, Callable[[StructureRows, Columns], list[Row]]]] = {
    "nurseries": StructureRows._of_nurseries,
    "scopes": StructureRows._of_scopes,
    "cancels": StructureRows._of_cancels,
    "cancelled": StructureRows._of_cancelled,
    "errors": StructureRows._of_errors,
    "objects": StructureRows._of_objects,
}
STRUCTURE: Final = frozenset(_MAKERS)
"""names of these tables"""
