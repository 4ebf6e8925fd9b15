"""What a trace says of its clock: whose it is, the time of day by it, and exchanges with services."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from tracesvc.events import FrameKind
from tracesvc.format import Batch, Clocks, End, Exchange, FormatError, Frame, Generation, Header
from tracesvc.model.reader import Trace

__all__ = ["Timebase", "timebase_of"]

_UNPACK: Final[dict[int, Callable[[object], object]]] = {
    FrameKind.HEADER: Header.unpack,
    FrameKind.GENERATION: Generation.unpack,
    FrameKind.CLOCKS: Clocks.unpack,
    FrameKind.END: End.unpack,
}
"""what tells of clocks; of the others nobody needs to look at more than the last batch"""


@dataclass(slots=True)
class Timebase:
    """Of one session.  Times are ns by its clock."""

    session: str = ""
    source: dict[str, Any] = field(default_factory=dict)
    """of the header"""
    pairs: list[tuple[int, int]] = field(default_factory=list)
    """(time, ns since the epoch by the machine's clock of the time of day at that moment), in order"""
    exchanges: set[Exchange] = field(default_factory=set)
    begin: int = 0
    end: int = 0
    """of what the trace holds; where it has no end mark, the begin of its last batch or generation"""

    @property
    def clock(self) -> str:
        """Name of the clock; where the trace does not say it, a name that no other has."""
        said = self.source.get("clock")
        return said if isinstance(said, str) and said else f"session {self.session}"

    @property
    def wall(self) -> int:
        """ns to add to a time of the trace, to come to the time of day that the machine believed in at its start."""
        return self.pairs[0][1] - self.pairs[0][0] if self.pairs else 0

    @property
    def stepped(self) -> int:
        """ns by which the machine's time of day was set forward while the trace was made; negative: back."""
        return self.pairs[-1][1] - self.pairs[-1][0] - self.wall if self.pairs else 0

    def note(self, record: object) -> None:
        """Take in what a frame says."""
        match record:
            case Header():
                self.session, self.source = record.session, record.source
                self._pair(record.monotonic, record.wall)
            case Generation():
                if len(self.pairs) < 2 and record.number > 0:  # of what was before nothing is here
                    self.begin = record.monotonic
                self.session = self.session or record.session
                self._pair(record.monotonic, record.wall)
            case Clocks(rows):
                self.exchanges.update(rows)
            case Batch():
                self.end = max(self.end, record.t0)
            case End():
                self._pair(record.monotonic, record.wall)

    def _pair(self, time: int, wall: int) -> None:
        if not self.pairs:
            self.begin = time
        self.pairs.append((time, wall))
        self.end = max(self.end, time)


def timebase_of(trace: Trace) -> Timebase:
    """Look through a trace for it, from the front; ``trace`` can be read again then.

    Raises:
      OSError: it cannot be read, or cannot be read twice.
      AttributeError: its source has no ``seek``.
    """
    found = Timebase()
    last: Frame | None = None
    for frame in trace.frames():
        if frame.kind in _UNPACK:
            _note(found, frame)
        elif frame.kind == FrameKind.EVENTS:
            last = frame
    if last is not None:
        _note(found, last)
    trace.rewind()
    return found


def _note(found: Timebase, frame: Frame) -> None:
    with suppress(FormatError):  # whoever reads the trace tells of that
        record = _UNPACK.get(frame.kind, Batch)(frame.body())
        session = getattr(record, "session", found.session)
        if session == found.session or not found.session:
            found.note(record)
