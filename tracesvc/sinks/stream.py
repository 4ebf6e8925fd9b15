"""A sink that sends a trace down a trio stream."""

from __future__ import annotations

from typing import Final

import trio

from tracesvc.sinks.base import Sink
from tracesvc.sinks.errors import SinkError
from tracesvc.sinks.queue import FrameQueue

__all__ = ["StreamSink"]

BATCH: Final = 64 << 10
"""bytes that a write is worth waiting for; the tracer's tick bounds the wait"""


class StreamSink(Sink):
    """Send the session down ``stream``, which stays open: it is the caller's.

    Where the other side does not keep up, what finds no room in the sink's queue is dropped and counted; nobody waits.

    Args:
      stream: where to.
      name: what it is called in logs and statistics.
      preamble: bytes to send before the first frame.
    """

    def __init__(
        self, stream: trio.abc.SendStream, name: str = "stream", preamble: bytes = b""
    ) -> None:
        super().__init__(name)
        self._stream: Final = stream
        self._preamble: Final = preamble

    async def run(self, frames: FrameQueue) -> None:
        """Take frames until the queue ends.  Cancelled in the middle of a frame, it leaves half of one in the stream.

        Raises:
          SinkError: the other side is gone.
        """
        self._begin(frames)
        try:
            await self._stream.send_all(self._preamble)
            while batch := await frames.get(BATCH):
                data = b"".join(frame.data for frame in batch)
                await self._stream.send_all(data)
                self._stored(len(batch), sum(frame.count for frame in batch), len(data))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise SinkError("the other side is gone") from exc
        finally:
            self._end()
