"""What goes wrong with a sink."""

from __future__ import annotations

__all__ = ["SinkError"]


class SinkError(Exception):
    """A sink cannot go on; the message says why, and what to do about it."""
