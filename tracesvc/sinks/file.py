"""A sink that writes a trace file."""

from __future__ import annotations

import contextlib
import os
import threading
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Final, Literal

from tracesvc.format import Frame, compress, zstd
from tracesvc.sinks.base import Sink
from tracesvc.sinks.errors import SinkError
from tracesvc.sinks.queue import FrameQueue
from tracesvc.sinks.threads import in_thread, start_thread_soon

__all__ = ["FileSink", "wants_compression"]

BATCH: Final = 64 << 10
"""bytes that a write is worth waiting for; the tracer's tick bounds the wait"""
THREAD: Final = "tracesvc file"

Compression = Literal["zstd", "auto"] | None


def wants_compression(compression: Compression) -> bool:
    """Whether to compress here.

    Raises:
      ValueError: there is no such compression, or zstd was demanded and is not installed.
    """
    if compression not in (None, "zstd", "auto"):
        raise ValueError(f'compression must be "zstd", "auto" or None, not {compression!r}')
    if compression == "zstd" and not zstd.available():
        raise ValueError(
            "compression=\"zstd\" needs zstd: pip install 'tracesvc[push]', or Python 3.14"
        )
    return compression is not None and zstd.available()


class FileSink(Sink):
    """Write the session to a file, which is created or emptied when the sink starts.

    A program that is killed leaves a file that is readable up to the last frame that was written.  All work on the file
    is done in a thread.

    Args:
      path: where to.
      compression: "zstd" compresses every frame; "auto" does so where zstd is installed; None never does.

    Raises:
      ValueError: there is no such compression, or zstd is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, compression: Compression = None) -> None:
        self.path = Path(path)
        super().__init__(f"file {self.path}")
        self._compress = wants_compression(compression)

    async def run(self, frames: FrameQueue) -> None:
        """Take frames until the queue ends.  Cancelling this leaves a write that hangs behind, in its thread.

        Raises:
          SinkError: the file cannot be opened or written.
        """
        self._begin(frames)
        file = _File(self.path, compressed=self._compress)
        call = partial(in_thread, name=THREAD)
        try:
            await call(file.open)
            while batch := await frames.get(BATCH):
                before = file.size
                try:
                    await call(file.write, batch)
                finally:
                    events = sum(frame.count for frame in batch[: file.whole])
                    self._stored(file.whole, events, file.size - before)
            await call(file.close)
        except OSError as exc:
            raise SinkError(
                f"cannot write the trace to {self.path}: {exc.strerror or exc}; "
                "make room there, or choose another path"
            ) from exc
        finally:
            self._end()
            if not file.closed:
                with contextlib.suppress(RuntimeError):  # the program ends, and closes it
                    start_thread_soon(file.close, lambda _: None, THREAD)


class _File:
    """The file, for use in threads; one call at a time, `close` waits for the one that runs."""

    def __init__(self, path: Path, *, compressed: bool) -> None:
        self.size = 0
        """bytes of whole frames in the file"""
        self.whole = 0
        """frames of the last `write` that are in the file"""
        self.closed = False
        self._path = path
        self._compressed = compressed
        self._fd = -1
        self._lock = threading.Lock()

    def open(self) -> None:
        with self._lock:
            if not self.closed:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                self._fd = os.open(self._path, flags, 0o666)

    def write(self, frames: Sequence[Frame]) -> None:
        """Append whole frames; what a failing write left of a frame is cut off again."""
        with self._lock:
            self.whole = 0
            if self.closed:
                return
            parts = [frame.data for frame in frames]
            if self._compressed:
                parts = [compress(data) for data in parts]
            ends = list(accumulate(map(len, parts)))
            data = memoryview(b"".join(parts))
            written = 0
            try:
                while written < len(data):
                    written += os.write(self._fd, data[written:])
            except OSError:
                written = ends[at - 1] if (at := bisect_right(ends, written)) else 0
                with contextlib.suppress(OSError):  # not every file can be cut, a pipe cannot
                    os.ftruncate(self._fd, self.size + written)
                raise
            finally:
                self.whole = bisect_right(ends, written)
                self.size += written

    def close(self) -> None:
        with self._lock:
            self.closed = True
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)
