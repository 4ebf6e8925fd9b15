"""What happens now and then and has no form of its own in other formats: told as text, at its time, of its task."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from tracesvc.events import (
    CancelRequest,
    CancelSource,
    Event,
    ObjectName,
    Overhead,
    StepStack,
    TaskError,
)
from tracesvc.export.nests import DRAWN
from tracesvc.export.report import Exported
from tracesvc.model.columns import Columns, Table

__all__ = ["NOTED", "Notes", "leave_out", "notes_in"]


@dataclass(frozen=True, slots=True)
class Notes:
    """All notes of one kind in a chunk."""

    kind: str
    """``stall``, ``cancel``, ``error`` or ``overhead``"""
    table: Table
    texts: list[str]
    details: list[dict[str, Any]]
    """for formats that have room for more than a text"""

    @property
    def tasks(self) -> Any:
        """Whose they are, an array; 0: no task's."""
        return self.table.time * 0 if self.kind == "overhead" else self.table.task


def notes_in(columns: Columns) -> list[Notes]:
    """The notes of a chunk; kinds of which there are none are left out."""
    return [notes for make in _MAKERS.values() if (notes := make(columns)) is not None]


def _stalls(columns: Columns) -> Notes | None:
    table = columns.of(StepStack)
    if not len(table):
        return None
    stacks = [columns.stacks[i] for i in table.stack.tolist()]
    details = [
        {"lasted_ns": lasted, "stack": [f"{f} ({file}:{line})" for f, file, line in stack]}
        for lasted, stack in zip(table.lasted.tolist(), stacks, strict=True)
    ]
    texts = [
        f"a step runs for {lasted / 1e6:.0f} ms"
        + (f": {stack[0][0]} ({stack[0][1]}:{stack[0][2]})" if stack else "")
        for lasted, stack in zip(table.lasted.tolist(), stacks, strict=True)
    ]
    return Notes("stall", table, texts, details)


def _cancels(columns: Columns) -> Notes | None:
    table = columns.of(CancelRequest)
    if not len(table):
        return None
    sources = {int(source): source.name.lower() for source in CancelSource}
    details = [
        {"scope": scope, "nursery": nursery, "requester": by, "source": sources.get(source, source)}
        | ({"why": why} if why else {})
        for scope, nursery, by, source, why in zip(
            *(
                getattr(table, name).tolist()
                for name in ("scope", "nursery", "requester", "source")
            ),
            table.names("why"),
            strict=True,
        )
    ]
    # Without numbers: other tools add up what has the same name. They are in the details.
    texts = [
        f"cancelled: {one['source']}" + (f", {one['why']}" if "why" in one else "")
        for one in details
    ]
    return Notes("cancel", table, texts, details)


def _errors(columns: Columns) -> Notes | None:
    table = columns.of(TaskError)
    if not len(table):
        return None
    pairs = list(zip(table.names("exception"), table.names("message"), strict=True))
    texts = [f"{exception}: {message}" if message else exception for exception, message in pairs]
    return Notes("error", table, texts, [{"nursery": n} for n in table.nursery.tolist()])


def _overhead(columns: Columns) -> Notes | None:
    table = columns.of(Overhead)
    if not len(table):
        return None
    rows = list(
        zip(table.level.tolist(), table.share.tolist(), table.names("left_out"), strict=True)
    )
    texts = [
        f"the tracer leaves out {left_out}" if level else "the tracer leaves out nothing"
        for level, _, left_out in rows
    ]
    return Notes("overhead", table, texts, [{"level": n, "share": share} for n, share, _ in rows])


_MAKERS: Final = {
    StepStack: _stalls,
    CancelRequest: _cancels,
    TaskError: _errors,
    Overhead: _overhead,
}
NOTED: Final = tuple(_MAKERS)
"""types of event that become notes"""
_LEFT_OUT: Final = (*DRAWN, ObjectName)
"""types of event that not every format which draws tasks tells of"""


def leave_out(columns: Columns, report: Exported, drawn: Collection[type[Event]] = ()) -> None:
    """Count what is not told of a chunk; ``drawn`` are told."""
    for event in _LEFT_OUT:
        if event in drawn:
            continue
        count = int((columns.type == event.number).sum())
        if count:
            report.left_out[event.type] += count
