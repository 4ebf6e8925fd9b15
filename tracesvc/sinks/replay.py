"""A queue of frames that are all there already: to give a sink a whole trace."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import trio

from tracesvc.format import Frame
from tracesvc.sinks.queue import FrameQueue

__all__ = ["Replay"]

PIECE: Final = 64 << 10
"""bytes that are handed over at a time, at least"""


class Replay(FrameQueue):
    """Gives its frames, and then the end."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        super().__init__()
        self._left: Final = deque(frames)

    async def get(self, min_bytes: int = 1) -> list[Frame]:
        """The next of them, at least so many bytes."""
        await trio.lowlevel.checkpoint()
        piece: list[Frame] = []
        size = 0
        while self._left and size < max(min_bytes, PIECE):
            frame = self._left.popleft()
            piece.append(frame)
            size += len(frame.data)
            self.taken_events += frame.count
        return piece
