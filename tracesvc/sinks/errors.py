"""What goes wrong with a sink."""

from __future__ import annotations

from tracesvc.events import LossCause

__all__ = ["SinkError"]


class SinkError(Exception):
    """A sink cannot go on; the message says why, and what to do about it.

    ``cause`` is that of what is lost by it.
    """

    def __init__(self, message: str, cause: LossCause = LossCause.SINK_FAILED) -> None:
        super().__init__(message)
        self.cause = cause
