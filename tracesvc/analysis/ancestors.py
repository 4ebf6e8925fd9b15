"""`ancestors`: what a span is a part of, across tasks and across programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tracesvc.analysis.fleet import axis_of
from tracesvc.events import SpanEnd
from tracesvc.format.tracecontext import ATTRIBUTE, parse, span_number
from tracesvc.model.axis import Axis, Placed
from tracesvc.model.links import SpanAt, spans_of
from tracesvc.model.reader import Trace

__all__ = ["Ancestor", "Ancestry", "ancestors"]


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A span that another one is a part of."""

    session: str
    source: str
    """name of its program"""
    span: int
    name: str
    begin: int
    """ns by the clock of its session"""
    duration: int | None
    """ns; None: it had not ended"""
    elsewhere: bool
    """whether it is in another program than the span before it in the list"""
    before: int
    """ns that it began before the span that was asked for, on the common axis"""
    uncertainty: int | None
    """of that, ns either way; None: nothing bounds it"""


@dataclass(frozen=True, slots=True)
class Ancestry:
    """The spans around one, from the inside out."""

    ancestors: list[Ancestor]
    missing: str | None
    """the `traceparent` of the outermost, where none of the traces has its parent; None: it has none"""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = [{name: getattr(one, name) for name in one.__slots__} for one in self.ancestors]
        return {"ancestors": found, "missing": self.missing}


class _Spans:
    """Those of one trace, as far as it takes to climb from one to what is around it."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.within: dict[int, int] = {}
        """span -> its parent in the same session"""
        self.given: dict[int, str] = {}
        """span -> its `traceparent`"""
        self.session = ""
        for at, attributes in spans_of(trace):
            self.session = at.session
            self.within[at.span] = at.within
            text = (attributes or {}).get(ATTRIBUTE)
            if parse(text) is not None:
                self.given[at.span] = str(text)

    def find(self, wanted: bytes) -> int | None:
        """The span with this number."""
        return next((s for s in self.within if span_number(self.session, s) == wanted), None)

    def details(self, wanted: set[int]) -> dict[int, tuple[SpanAt, int | None]]:
        """Where spans began, and when they ended."""
        begun = {at.span: at for at, _ in spans_of(self.trace) if at.span in wanted}
        ended: dict[int, int] = {}
        self.trace.rewind()
        for batch in self.trace.batches() if begun else ():
            if SpanEnd.number in batch.groups:
                for number, time, fields in batch.records(self.trace.text, self.trace.stack):
                    if number == SpanEnd.number and fields[0] in begun:
                        ended[fields[0]] = time
        return {span: (at, ended.get(span)) for span, at in begun.items()}


def ancestors(trace: Trace, span: int, others: Sequence[Trace] = ()) -> Ancestry:
    """Follow a span's parents, into other programs too where ``others`` are traces of them.

    Every trace is read several times, from the front; memory goes with the number of spans.

    Raises:
      LookupError: the trace has no such span.
      FormatError: one is not a trace.
      OSError: one cannot be read, or cannot be read twice.
    """
    all_spans = [_Spans(one) for one in (trace, *others)]
    here, at = all_spans[0], span
    if span not in here.within:
        raise LookupError(f"the trace has no span {span}")
    chain = [(here, span)]
    missing: str | None = None
    while True:
        given = here.given.get(at)
        parent = parse(given)
        found: tuple[_Spans, int] | None = None
        if parent is not None:
            places = ((one, one.find(parent.span)) for one in all_spans)
            found = next(((one, number) for one, number in places if number is not None), None)
            missing = given if found is None else None
        if found is None and (outer := here.within.get(at, 0)) in here.within:
            found = here, outer
        if found is None or found in chain:
            break
        here, at = found
        chain.append(found)
    axis, _ = axis_of([trace, *others])
    return Ancestry(_told(chain, axis), missing)


def _told(chain: list[tuple[_Spans, int]], axis: Axis) -> list[Ancestor]:
    details: dict[str, dict[int, tuple[SpanAt, int | None]]] = {}
    for spans, _ in chain:
        if spans.session not in details:
            details[spans.session] = spans.details({n for s, n in chain if s is spans})
    first, number = chain[0]
    asked = details[first.session][number][0]
    told: list[Ancestor] = []
    previous = first
    for spans, number in chain[1:]:
        at, ended = details[spans.session][number]
        placed = axis.of_session(at.session)
        before, uncertainty = _apart(placed, at.begin, axis.of_session(asked.session), asked.begin)
        told.append(
            Ancestor(
                session=at.session,
                source=str(placed.base.source.get("name", "?")),
                span=number,
                name=at.name,
                begin=at.begin,
                duration=None if ended is None else ended - at.begin,
                elsewhere=spans is not previous,
                before=before,
                uncertainty=uncertainty,
            )
        )
        previous = spans
    return told


def _apart(a: Placed, begin: int, b: Placed, then: int) -> tuple[int, int | None]:
    """ns from one moment to another, and how uncertain that is: not at all, by one clock."""
    if a is b:
        return then - begin, 0
    one, other = a.at(begin), b.at(then)
    if a.base.clock == b.base.clock and a.method is b.method:
        return then - begin, 0
    if one.uncertainty is None or other.uncertainty is None:
        return other.time - one.time, None
    return other.time - one.time, one.uncertainty + other.uncertainty
