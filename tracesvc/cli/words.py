"""Numbers as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

from tracesvc.model.words import duration

__all__ = ["amount", "clock", "duration", "moment", "size"]


def size(count: int) -> str:
    """Bytes: ``178 KiB``."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return (
                f"{value:,.0f} {unit}" if unit == "bytes" or value >= 10 else f"{value:.1f} {unit}"
            )
        value /= 1024
    return f"{value:,.1f} TiB"


def amount(value: float) -> str:
    """A counter's value: ``36,653`` or ``0.125``."""
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:,.6g}"


def moment(ns: int | None) -> str:
    """Date and time of day, local: ``2026-11-22 23:28:14``; ns since the epoch."""
    if ns is None:
        return "?"
    return f"{datetime.fromtimestamp(ns // 1_000_000_000, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def clock(ns: int | None) -> str:
    """Time of day to the microsecond, local: ``23:28:14.031264``; ns since the epoch."""
    if ns is None:
        return "?"
    time = datetime.fromtimestamp(ns // 1_000_000_000, UTC).astimezone()
    return f"{time:%H:%M:%S}.{ns % 1_000_000_000 // 1000:06}"
