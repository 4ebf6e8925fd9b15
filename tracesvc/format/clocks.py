"""The CLOCKS frame: messages that went back and forth with a service, by the clocks of both ends."""

from __future__ import annotations

from typing import ClassVar, Final, NamedTuple

from tracesvc.events import FrameKind
from tracesvc.format.errors import FormatError
from tracesvc.frozen import Frozen, frozen

__all__ = ["MAX_CLOCK_NAME", "RATE", "Clocks", "Exchange", "drift"]

MAX_CLOCK_NAME: Final = 128
"""characters"""
RATE: Final = 500
"""parts per million by which two clocks may differ in speed: what the kernel's NTP discipline may do (MAXFREQ)"""
_LIMIT: Final = 1 << 62


def drift(elapsed: int, rate: int = RATE) -> int:
    """ns that two clocks may have come apart at most in ``elapsed`` ns, forward or back."""
    return -(-abs(elapsed) * rate // 1_000_000)


class Exchange(NamedTuple):
    """A request to a service and its answer: the four times from which NTP takes an offset (RFC 5905, figure 2).

    ``sent`` and ``received`` are ns of the session's clock, ``arrived`` and ``answered`` of the service's
    ``CLOCK_MONOTONIC``.  What was sent before it arrived, and was answered before that was received, bounds the
    difference of the clocks from both sides, however long either way took.
    """

    sent: int
    arrived: int
    answered: int
    received: int
    wall: int
    """ns since the epoch by the service's clock when it answered"""
    clock: str
    """name of the service's clock: the same name, the same clock"""

    @property
    def low(self) -> int:
        """The service's clock minus the session's was at least this when the answer was received."""
        return self.answered - self.received

    @property
    def high(self) -> int:
        """It was at most this when the request was sent."""
        return self.arrived - self.sent

    @property
    def width(self) -> int:
        """ns that the two messages took together, give or take what the clocks drifted: what is not known."""
        return self.high - self.low

    def possible(self, rate: int = RATE) -> bool:
        """Whether there are clocks of which this can be true; else one of them was set in between."""
        elapsed = self.received - self.sent
        return (
            elapsed >= 0 and self.arrived <= self.answered and self.width >= -drift(elapsed, rate)
        )


def _is_exchange(row: object) -> bool:
    return (
        isinstance(row, list)
        and len(row) >= len(Exchange._fields)
        and all(type(item) is int and -_LIMIT < item < _LIMIT for item in row[:5])
        and isinstance(row[5], str)
        and len(row[5]) <= MAX_CLOCK_NAME
    )


@frozen
class Clocks(Frozen):
    """Exchanges that relate the session's clock to those of services; some may have stood in an earlier frame."""

    kind: ClassVar[FrameKind] = FrameKind.CLOCKS

    rows: list[Exchange]

    def pack(self) -> list[object]:
        return [list(row) for row in self.rows]

    @classmethod
    def unpack(cls, body: object) -> Clocks:
        if not isinstance(body, list) or not all(map(_is_exchange, body)):
            raise FormatError("clocks: a row is not an array of at least 6: five times and a name")
        return cls([Exchange(*row[:6]) for row in body])
