"""How far a session's time of day is from the clock of the service that it comes to, as its stream tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tracesvc.format import Exchange
from tracesvc.model.axis import Axis
from tracesvc.model.timebase import Timebase

__all__ = ["ClockOffset", "offset_of"]


class ClockOffset(NamedTuple):
    """At the last exchange with a service."""

    clock: str
    """name of the service's clock"""
    offset: int
    """ns to add to times of day that the session's machine told, to come to those of the service"""
    uncertainty: int | None
    """ns by which that may be wrong, either way; None: nothing bounds it"""
    at: int
    """when that was, ns since the epoch by the service"""


def offset_of(
    source: Mapping[str, Any], monotonic: int, wall: int, exchanges: Sequence[Exchange]
) -> ClockOffset | None:
    """Of a session that began at ``monotonic``, ``wall`` by its time of day; None: nothing tells."""
    if not exchanges:
        return None
    base = Timebase("", dict(source), [(monotonic, wall)], set(exchanges))
    axis = Axis.of([base])
    last = max(one.received for one in exchanges)
    placed, moment = axis.placed[0], axis.placed[0].at(last)
    return ClockOffset(axis.clock, placed.offset(last), moment.uncertainty, moment.time)
