"""Spans whose parents are in other sessions, found by what `traceparent` said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tracesvc.events import SpanBegin
from tracesvc.format import Batch, Damage, FormatError, Generation, Loss, Snapshot
from tracesvc.format.tracecontext import ATTRIBUTE, Parent, parse, span_number
from tracesvc.model.reader import Trace

__all__ = ["Link", "SpanAt", "find_links", "spans_of"]

MOST: Final = 1_000_000
"""spans with a parent elsewhere that are followed in one session"""


class SpanAt(NamedTuple):
    """Where a span began."""

    session: str
    span: int
    name: str
    begin: int
    """ns by the clock of the session"""
    within: int = 0
    """its parent in the same session; 0: none"""


class Link(NamedTuple):
    """A span and its parent in another session; that began before, whatever the clocks say."""

    parent: SpanAt
    child: SpanAt


def spans_of(trace: Trace) -> Iterator[tuple[SpanAt, Mapping[str, Any] | None]]:
    """The spans of a trace and their attributes; it is read from the front.

    Raises:
      FormatError: it is not a trace.
      OSError: it cannot be read, or cannot be read twice.
    """
    trace.rewind()
    session = "" if trace.session is None else trace.session.id
    missing = told = begun = (
        False  # told: by a snapshot, of what is open since something was missing
    )
    for item in trace.items():
        if isinstance(item, Damage):
            missing, told = True, False
            continue
        if isinstance(item.record, Batch) and told:
            missing = told = False
        match item.record:
            case Loss():
                missing, told = True, False
            case Generation(number) if not begun:
                missing, begun = number > 0, True
            case Batch() as batch if SpanBegin.number in batch.groups:
                try:
                    found = list(_begun(batch, trace, session))
                except FormatError:
                    continue
                yield from found
            case Snapshot(spans=rows, regions=regions) if missing and (rows or regions):
                told = True
                for row in rows:
                    at = SpanAt(session, row.span, trace.text(row.name), row.since, row.parent)
                    yield at, row.attributes


def _begun(
    batch: Batch, trace: Trace, session: str
) -> Iterator[tuple[SpanAt, Mapping[str, Any] | None]]:
    for number, time, fields in batch.records(trace.text, trace.stack):
        if number == SpanBegin.number:
            yield SpanAt(session, fields[0], fields[3], time, fields[1]), fields[4]


def find_links(traces: Sequence[Trace]) -> list[Link]:
    """The links between sessions, in order of the traces that their children are in.

    Each trace is read twice.

    Raises:
      FormatError: one is not a trace.
      OSError: one cannot be read, or cannot be read twice.
    """
    children: list[tuple[Parent, SpanAt]] = []
    for trace in traces:
        found = 0
        for at, attributes in spans_of(trace):
            parent = parse((attributes or {}).get(ATTRIBUTE))
            if parent is not None and found < MOST:
                children.append((parent, at))
                found += 1
    wanted = {parent.span for parent, _ in children}
    parents: dict[bytes, SpanAt] = {}
    for trace in traces if wanted else ():
        for at, _ in spans_of(trace):
            number = span_number(at.session, at.span)
            if number in wanted:
                parents.setdefault(number, at)
    return [
        Link(parents[parent.span], child)
        for parent, child in dict.fromkeys(children)
        if parent.span in parents
    ]
