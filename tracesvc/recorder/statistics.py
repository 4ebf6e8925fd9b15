"""What a tracer says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tracesvc.frozen import Frozen, frozen

if TYPE_CHECKING:
    from tracesvc.recorder.proc import Proc
    from tracesvc.recorder.regulator import OverheadStatistics

__all__ = ["ProcStatistics", "TracerStatistics"]


@frozen
class ProcStatistics(Frozen):
    """One writer."""

    number: int
    kind: str
    name: str
    events: int
    """emitted so far, lost ones included"""
    lost: Mapping[str, int]
    """events by cause"""
    live: bool

    @classmethod
    def of(cls, proc: Proc) -> ProcStatistics:
        """Of a proc as it is now."""
        lost = {cause.name.lower(): n for cause, n in proc.lost.items()}
        kind = proc.kind.name.lower()
        return cls(proc.number, kind, proc.name, proc.emitted, lost, proc.live)


@frozen
class TracerStatistics(Frozen):
    """A tracer at one moment. Counts are of the current session, or of the last one while OFF."""

    state: str
    """OFF, ON or DRAINING"""
    session: str | None
    way: str
    """which way into trio: "direct" or "public" """
    native: bool
    """whether the native recorder records"""
    missing: tuple[str, ...]
    """parts of trio that this version does not have, and so are not traced"""
    events: int
    """emitted by all procs, lost ones included"""
    stored: int
    """of them, handed out in frames"""
    lost: Mapping[str, int]
    """of them, lost before any sink, by cause; ``events = stored + sum(lost)`` once the session is over"""
    late: int
    """emitted after the stop, and dropped: they belong to no session"""
    moved: int
    """events whose time was moved up to keep the order of their proc: something interrupted their emission"""
    repairs: Mapping[str, int]
    """misuse of spans and regions that was put right, by kind"""
    buffers: int
    """buffers handed to the reader"""
    frames: int
    bytes: int
    """of frames"""
    procs: tuple[ProcStatistics, ...]
    sinks: tuple[Any, ...] = ()
    """what each sink says of itself, see `tracesvc.sinks.base.SinkStatistics`"""
    overhead: OverheadStatistics | None = None
    """what it costs, where it has a budget"""
