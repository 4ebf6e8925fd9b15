"""`fleet`: several sessions on one axis of time, with what is uncertain, and the spans that link them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tracesvc.model.axis import Axis, Moment, Placed
from tracesvc.model.links import Link, SpanAt, find_links
from tracesvc.model.reader import Trace
from tracesvc.model.timebase import timebase_of

__all__ = ["Fleet", "Member", "axis_of", "fleet"]


@dataclass(frozen=True, slots=True)
class Member:
    """One session."""

    session: str
    name: str
    """of its source"""
    host: str
    pid: int
    clock: str
    by: str
    """how it came to the axis, see `tracesvc.model.axis.Method`"""
    offset: int
    """ns to add to the time of day of its machine, at the end"""
    uncertainty: int | None
    """ns, at the end; None: nothing bounds it"""
    begin: Moment
    end: Moment
    stepped: int
    """ns by which its machine's time of day was set meanwhile"""
    steps: int
    """how often a clock on its way to the axis was stepped"""
    parents: int
    """spans here that are the parents of spans in other sessions"""
    children: int
    """spans here whose parents are in other sessions"""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return fields | {name: getattr(self, name)._asdict() for name in ("begin", "end")}


@dataclass(frozen=True, slots=True)
class Fleet:
    """Sessions on one axis, the one that began first before the others."""

    clock: str
    """name of the clock that the axis is"""
    members: list[Member]
    links: list[Link]
    axis: Axis

    def as_dict(self) -> dict[str, Any]:
        """For JSON; of the links only how many there are, and those that cannot be."""
        return {
            "clock": self.clock,
            "sessions": [member.as_dict() for member in self.members],
            "links": len(self.links),
            "contradictions": [
                {
                    "parent": _span(one.link.parent),
                    "child": _span(one.link.child),
                    "by": one.by,
                    "proven": one.proven,
                }
                for one in self.axis.contradictions
            ],
        }


def _span(at: SpanAt) -> dict[str, Any]:
    return {"session": at.session, "span": at.span, "name": at.name}


def axis_of(traces: Sequence[Trace]) -> tuple[Axis, list[Link]]:
    """The axis of some traces, and the links between them; each is read up to three times.

    Raises:
      FormatError: one is not a trace.
      OSError: one cannot be read, or cannot be read twice.
    """
    links = find_links(traces)
    return Axis.of([timebase_of(trace) for trace in traces], links), links


def fleet(traces: Sequence[Trace]) -> Fleet:
    """Put the sessions of some traces on one axis.

    Args:
      traces: From `tracesvc.read`, of things that can seek; each is read up to three times.

    Raises:
      ValueError: There is no trace, or a session comes twice.
      FormatError: One is not a trace.
      OSError: One cannot be read, or cannot be read twice.
    """
    if not traces:
        raise ValueError("traces must have at least one trace")
    axis, links = axis_of(traces)
    names = [placed.session for placed in axis.placed]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"traces has session {twice} more than once")
    members = [_member(placed, links) for placed in axis.placed]
    return Fleet(axis.clock, sorted(members, key=lambda one: one.begin.time), links, axis)


def _member(placed: Placed, links: Sequence[Link]) -> Member:
    base = placed.base
    source, end = base.source, placed.at(base.end)
    apart = [link for link in links if link.parent.session != link.child.session]
    return Member(
        session=base.session,
        name=str(source.get("name", "?")),
        host=str(source.get("host", "")),
        pid=int(source.get("pid") or 0),
        clock=base.clock,
        by=str(placed.method),
        offset=placed.offset(base.end),
        uncertainty=end.uncertainty,
        begin=placed.at(base.begin),
        end=end,
        stepped=base.stepped,
        steps=placed.steps,
        parents=sum(link.parent.session == base.session for link in apart),
        children=sum(link.child.session == base.session for link in apart),
    )
