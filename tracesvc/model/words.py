"""Times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["clock", "duration", "moment"]


def duration(ns: float) -> str:
    """Three digits and a unit: ``48.1 ms``; minutes and more by the clock: ``2:05:07``."""
    if ns >= 60_000_000_000:
        minutes, seconds = divmod(int(ns) // 1_000_000_000, 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02} h" if hours else f"{minutes}:{seconds:02} min"
    for unit, factor in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= factor * 0.9995:
            value = ns / factor
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    return f"{ns:.0f} ns"


def clock(ns: int | None) -> str:
    """Time of day to the microsecond, local: ``23:28:14.031264``; ns since the epoch."""
    if ns is None:
        return "?"
    time = datetime.fromtimestamp(ns // 1_000_000_000, UTC).astimezone()
    return f"{time:%H:%M:%S}.{ns % 1_000_000_000 // 1000:06}"


def moment(ns: int | None) -> str:
    """Date and time of day, local: ``2026-11-22 23:28:14``; ns since the epoch."""
    if ns is None:
        return "?"
    return f"{datetime.fromtimestamp(ns // 1_000_000_000, UTC).astimezone():%Y-%m-%d %H:%M:%S}"
