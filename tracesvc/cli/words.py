"""Numbers as people read them."""

from __future__ import annotations

from tracesvc.model.words import clock, duration, moment

__all__ = ["amount", "clock", "duration", "moment", "size", "within"]


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


def within(ns: int | None) -> str:
    """How uncertain something is: ``± 120 µs``; ``?`` where nothing bounds it."""
    return "?" if ns is None else f"± {duration(ns)}"


def amount(value: float) -> str:
    """A counter's value: ``36,653`` or ``0.125``."""
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:,.6g}"
