"""A trace as relational tables, part by part: what queries and columnar exports are made of.

The schema is in `tracesvc.model.schema`.  A value that an event does not have is NULL.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import (
    EVENTS,
    Counter,
    Log,
    LossCause,
    Outcome,
    Reason,
    StepStack,
    TaskStack,
    WakeCause,
)
from tracesvc.format import LossRow
from tracesvc.model.columns import Columns
from tracesvc.model.lives import Lives
from tracesvc.model.phases import UNKNOWN, Phases
from tracesvc.model.pieces import OPEN, Pieces
from tracesvc.model.reader import Trace
from tracesvc.model.replay import Part, Replay
from tracesvc.model.schema import TABLES
from tracesvc.model.states import State
from tracesvc.model.structure_tables import STRUCTURE, StructureRows

__all__ = ["Data", "Tables"]

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Data:
    """The values of one column."""

    values: Array
    """numbers, texts; or indexes into ``texts``"""
    null: NDArray[np.bool_] | None = None
    """where there is no value"""
    texts: Sequence[str] | None = None


_TYPES: Final = ["", *(EVENTS[n].type if n in EVENTS else f"type {n}" for n in range(1, 256))]
_CAUSES: Final = [cause.name.lower() for cause in WakeCause]
_OUTCOMES: Final = [outcome.name.lower() for outcome in Outcome]
_REASONS: Final = [reason.name.lower() for reason in Reason]
_EVENT_FIELDS: Final[dict[str, dict[int, str]]] = {
    column: {
        n: f.name
        for n, event in EVENTS.items()
        for f in event.fields
        if f.name == column or (column == "name" and f.name == "function")
    }
    for column in (column.name for column in TABLES["events"][4:])
}
"""column -> event type -> the field that it holds"""


class Tables:
    """Makes the tables of a trace in one pass; memory goes with one chunk, the live tasks and the open spans."""

    def __init__(self, trace: Trace, wanted: Sequence[str] = tuple(TABLES)) -> None:
        """Only the tables ``wanted`` are made.

        Raises:
          ValueError: there is no such table.
        """
        unknown = set(wanted) - TABLES.keys()
        if unknown:
            raise ValueError(f"no such table: {', '.join(sorted(unknown))}")
        self.replay: Final = Replay(trace)
        self._wanted = tuple(wanted)
        self._nests: Final = StructureRows()

    def parts(self) -> Iterator[tuple[str, dict[str, Data]]]:
        """(table, its columns) for each stretch of the trace; stretches with no rows are left out."""
        for part in self.replay.parts():
            for name in self._wanted:
                made = _MAKERS[name](self, part)
                if made is not None:
                    yield name, made
        if "losses" in self._wanted and (made := self._missing()) is not None:
            yield "losses", made

    def events(self, part: Part) -> dict[str, Data] | None:
        """The events, in stored order."""
        columns = part.columns
        if columns is None:
            return None
        data = {
            "time": Data(columns.time),
            "proc": Data(columns.proc),
            "seq": Data(columns.seq),
            "type": Data(columns.type.astype(np.int32), None, _TYPES),
        }
        data.update((name, _gathered(columns, name)) for name in _EVENT_FIELDS)
        return data

    def tasks(self, part: Part) -> dict[str, Data] | None:
        """Tasks that have ended, and at the end those that live."""
        lives: Lives = part.lives
        if not len(lives):
            return None
        outcome = lives.outcome
        known = (outcome > 0) & (outcome < len(_OUTCOMES))
        return {
            "task": Data(lives.task),
            "name": Data(lives.name),
            "entry": Data(lives.entry),
            "proc": Data(lives.proc),
            "parent": Data(lives.parent),
            "nursery": Data(lives.nursery),
            "created": Data(lives.begin, lives.begin == OPEN),
            "ended": Data(lives.end, lives.end == OPEN),
            "lost": Data(lives.lost),
            "outcome": Data(np.maximum(outcome, 0), ~known, _OUTCOMES),
        }

    def _structure(self, name: str, part: Part) -> dict[str, Data] | None:
        """A table about structured concurrency."""
        lives = part.lives
        over = set(lives.task[(lives.end != OPEN) | lives.lost].tolist())
        rows = self._nests.of(name, part.columns, over, last=part.last)
        if not rows:
            return None
        return {
            column.name: _column(values, column.type)
            for column, values in zip(TABLES[name], zip(*rows, strict=True), strict=True)
        }

    def _phases(self, part: Part, chosen: Array) -> tuple[Phases, dict[str, Data]] | None:
        phases = part.phases.take(chosen)
        if not len(phases):
            return None
        return phases, {
            "task": Data(phases.task),
            "task_name": Data(phases.name, None, self.replay.names),
            "proc": Data(phases.proc),
            "start": Data(phases.start),
            "end": Data(phases.end),
            "duration": Data(phases.end - phases.start),
        }

    def steps(self, part: Part) -> dict[str, Data] | None:
        """Steps."""
        made = self._phases(part, part.phases.state == State.RUNNING)
        if made is None:
            return None
        closed = made[0].closed
        return {**made[1], "ended_by": Data(np.maximum(closed, 0), closed <= 0, _TYPES)}

    def waits(self, part: Part) -> dict[str, Data] | None:
        """Waits."""
        made = self._phases(part, part.phases.state == State.WAITING)
        if made is None:
            return None
        phases, data = made
        ended, strange = phases.closed > 0, (phases.reason < 0) | (phases.reason >= len(_REASONS))
        reason = np.where(strange, int(Reason.PARKED), phases.reason)
        return {
            **data,
            "reason": Data(reason, None, _REASONS),
            "object": Data(phases.object),
            "waker": Data(phases.waker, ~ended),
            "cause": _causes(phases.cause, ~ended),
            "ended": Data(ended),
        }

    def runnable(self, part: Part) -> dict[str, Data] | None:
        """Times in the run queue."""
        state = part.phases.state
        made = self._phases(part, (state == State.RUNNABLE) | (state == State.NEW))
        return None if made is None else {**made[1], "waker": Data(made[0].waker)}

    def spans(self, part: Part) -> dict[str, Data] | None:
        """Spans."""
        found = part.spans
        if not len(found):
            return None
        return {
            "span": Data(found.id),
            "parent": Data(found.parent),
            "name": Data(found.name),
            "task": Data(found.task),
            "end_task": Data(found.end_task, found.end == OPEN),
            **_pieces(found),
        }

    def regions(self, part: Part) -> dict[str, Data] | None:
        """Regions."""
        found = part.regions
        if not len(found):
            return None
        return {
            "region": Data(found.id),
            "name": Data(found.name),
            "task": Data(found.task),
            **_pieces(found),
        }

    def logs(self, part: Part) -> dict[str, Data] | None:
        """Messages."""
        if part.columns is None or not len(table := part.columns.of(Log)):
            return None
        texts = [text if isinstance(text, str) else repr(text) for text in table.message]
        return {
            "time": Data(table.time),
            "proc": Data(table.proc),
            "seq": Data(table.seq),
            "task": Data(table.task),
            "span": Data(table.span),
            "level": Data(table.level),
            "message": Data(np.array(texts, object)),
            "cut": Data(table.cut),
            "attributes": _json(table.attributes),
        }

    def counters(self, part: Part) -> dict[str, Data] | None:
        """Values of counters."""
        if part.columns is None or not len(table := part.columns.of(Counter)):
            return None
        return {
            "time": Data(table.time),
            "proc": Data(table.proc),
            "seq": Data(table.seq),
            "name": Data(table.name, None, part.columns.strings),
            "value": Data(table.value),
            "task": Data(table.task),
        }

    def stacks(self, part: Part) -> dict[str, Data] | None:
        """Stacks of long waits and long steps."""
        if part.columns is None:
            return None
        rows = []
        for event, kind in ((TaskStack, "wait"), (StepStack, "step")):
            table = part.columns.of(event)
            for time, proc, task, i in zip(
                *(a.tolist() for a in (table.time, table.proc, table.task, table.stack)),
                strict=True,
            ):
                said = [f"{f} ({file}:{line})" for f, file, line in part.columns.stacks[i]]
                rows.append((time, proc, task, kind, said[0] if said else "", "\n".join(said)))
        if not rows:
            return None
        columns = list(zip(*rows, strict=True))
        made = [np.array(column, np.int64) for column in columns[:3]]
        texts = [np.array(column, object) for column in columns[3:]]
        names = [column.name for column in TABLES["stacks"]]
        return dict(zip(names, map(Data, [*made, *texts]), strict=True))

    def losses(self, part: Part) -> dict[str, Data] | None:
        """What the trace says is not in it."""
        if not part.losses:
            return None
        columns = [np.array(column, np.int64) for column in zip(*part.losses, strict=True)]
        data = dict(zip(LossRow._fields, columns, strict=True))
        causes = np.array([_cause(number) for number in data["cause"].tolist()], object)
        return {
            "proc": Data(data["proc"]),
            "first": Data(data["first"]),
            "last": Data(data["last"]),
            "events": Data(data["last"] - data["first"] + 1),
            "cause": Data(causes),
            "start": Data(data["start"]),
            "end": Data(data["end"]),
        }

    def _missing(self) -> dict[str, Data] | None:
        """What is missing and nothing tells of: how much of each proc, but not which or when."""
        missing = self.replay.walk.books.missing_of()
        if not missing:
            return None
        count = len(missing)
        nothing = Data(np.zeros(count, np.int64), np.ones(count, np.bool_))
        return {
            "proc": Data(np.array(list(missing), np.int64)),
            "first": nothing,
            "last": nothing,
            "events": Data(np.array(list(missing.values()), np.int64)),
            "cause": Data(np.full(count, _cause(LossCause.DAMAGE), object)),
            "start": nothing,
            "end": nothing,
        }


def _maker(name: str) -> Callable[[Tables, Part], dict[str, Data] | None]:
    if name in STRUCTURE:
        return lambda tables, part: tables._structure(name, part)
    made: Callable[[Tables, Part], dict[str, Data] | None] = getattr(Tables, name)
    return made


_MAKERS: Final = {name: _maker(name) for name in TABLES}


def _column(values: Sequence[Any], type_: str) -> Data:
    null = np.array([value is None for value in values], np.bool_)
    if type_ == "text":
        return Data(np.array(values, object))
    kind = np.bool_ if type_ == "bool" else np.int64
    return Data(np.array([value or 0 for value in values], kind), null if null.any() else None)


def _cause(number: int) -> str:
    return LossCause(number).name.lower() if number in set(LossCause) else str(number)


def _gathered(columns: Columns, name: str) -> Data:
    """One column of all events: the field of that name where an event has it."""
    number = np.float64 if name == "value" else np.int64
    values, null = np.zeros(len(columns), number), np.ones(len(columns), np.bool_)
    for type_, field in _EVENT_FIELDS[name].items():
        table = columns.of(EVENTS[type_])
        if len(table):
            values[table.index] = getattr(table, field)
            null[table.index] = False
    if name == "cause":
        return _causes(values, null)
    if name == "reason":
        strange = (values < 0) | (values >= len(_REASONS))
        return Data(np.where(strange, int(Reason.PARKED), values), null, _REASONS)
    return Data(values, null, columns.strings if name == "name" else None)


def _causes(values: Array, null: NDArray[np.bool_]) -> Data:
    known = (values > 0) & (values < len(_CAUSES))
    return Data(np.where(known, values, 0).astype(np.int64), null | ~known, _CAUSES)


def _pieces(found: Pieces) -> dict[str, Data]:
    is_open = found.end == OPEN
    return {
        "proc": Data(found.proc, found.proc < 0),
        "start": Data(found.begin),
        "end": Data(found.end, is_open),
        "duration": Data(found.end - found.begin, is_open),
        "attributes": _json(found.attributes),
    }


def _json(values: Any) -> Data:
    texts = np.array(
        [None if value is None else json.dumps(value, default=repr) for value in values], object
    )
    return Data(texts, np.array([text is None for text in texts], np.bool_))


assert len(_TYPES) == 256
assert UNKNOWN not in set(State)
