"""Points in time and durations as people write them, and times of a trace as people read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from tracesvc.model.words import clock, duration

if TYPE_CHECKING:
    from tracesvc.model.reader import Trace

__all__ = ["HELP", "Clock", "parse_duration"]

HELP: Final = (
    "12.5s or 300ms after the beginning, 23:28:14.03 of the day, or @NS of the trace's clock"
)

_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "min": 60 * 10**9,
}
_LENGTH: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*(ns|us|µs|ms|s|min)?")
_OF_DAY: Final = re.compile(r"([0-9]{1,2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?")
_OF_CLOCK: Final = re.compile(r"@([0-9]{1,18})")


def parse_duration(text: str) -> int:
    """ns of ``10ms`` or ``1.5s``; without a unit seconds.

    Raises:
      ValueError: It is no duration.
    """
    match = _LENGTH.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration like 10ms or 1.5s")
    whole, _, part = match[1].partition(".")
    unit = _UNITS[match[2] or "s"]
    # In whole numbers: a double does not hold a ns of a day.
    return int(whole) * unit + (int(part) * unit // 10 ** len(part) if part else 0)


class Clock:
    """Turns times of a trace into those of the day and back."""

    def __init__(self, trace: Trace) -> None:
        header = trace.header
        self.begin = 0 if header is None else header.monotonic
        """ns of the beginning, by the clock of the trace"""
        self._wall = None if header is None else header.wall - header.monotonic

    def text(self, time: int) -> str:
        """Time of day; where the trace does not tell, the time since its beginning."""
        if self._wall is None:
            return duration(time - self.begin)
        return clock(self._wall + time)

    def parse(self, text: str) -> int:
        """ns by the clock of the trace, of what `HELP` tells.

        Raises:
          ValueError: The text is no point in time.
        """
        absolute = _OF_CLOCK.fullmatch(text)
        if absolute is not None:
            return int(absolute[1])
        if _LENGTH.fullmatch(text.removeprefix("+").strip()) is not None:
            return self.begin + parse_duration(text.removeprefix("+"))
        match = _OF_DAY.fullmatch(text.strip())
        if match is None or self._wall is None:
            raise ValueError(f"{text!r} is no point in time: {HELP}")
        began = datetime.fromtimestamp((self._wall + self.begin) // 10**9, UTC).astimezone()
        hour, minute, second = int(match[1]), int(match[2]), int(match[3])
        if hour > 23 or minute > 59 or second > 59:
            raise ValueError(f"{text!r} is no time of day")
        then = began.replace(hour=hour, minute=minute, second=second)
        if then < began.replace(microsecond=0) - timedelta(hours=12):
            then += timedelta(days=1)  # a trace that goes past midnight
        part = int((match[4] or "0").ljust(9, "0"))
        return int(then.timestamp()) * 10**9 + part - self._wall
