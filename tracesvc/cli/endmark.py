"""Whether a trace that comes piece by piece has come to its end."""

from __future__ import annotations

from typing import Final

__all__ = ["EndMark"]

KEPT: Final = 4096
"""bytes; the last frame of a trace is far smaller"""


class EndMark:
    """Looks for the end mark, which is in the last frame."""

    def __init__(self) -> None:
        self._tail = b""
        self.bytes = 0

    def look(self, piece: bytes) -> None:
        """The next piece."""
        self.bytes += len(piece)
        self._tail = (self._tail + piece[-KEPT:])[-KEPT:]

    @property
    def seen(self) -> bool:
        """Whether the last frame so far is the end of a trace."""
        from tracesvc.format import Damage, End, StreamDecoder

        decoder = StreamDecoder()
        decoder.feed(self._tail)
        decoder.close()
        return any(
            not isinstance(item, Damage) and isinstance(item.record, End) for item in decoder
        )
