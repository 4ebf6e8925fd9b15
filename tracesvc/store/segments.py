"""The files of one session, each named by the offset of its first byte in the stream; for threads.

A file begins with the first byte of the stream or with a generation, so that each can be read on its own.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracesvc.store.disk import Disk, Write

__all__ = ["SEGMENT", "Segments", "found_in", "segment_name"]

SEGMENT: Final = 64 << 20
"""bytes; the first generation that begins behind so many goes to a new file"""

RESERVE: Final = 4 << 20
"""bytes of room that a file of more than a quarter of it is given at a time: a sync is quicker where no blocks are to
be found first (measured: a quarter, and the slowest of a hundred takes half as long)"""

_NAME: Final = re.compile(r"([0-9]{20})\.trace")


def segment_name(start: int) -> str:
    """Of the file whose first byte has this offset."""
    return f"{start:020}.trace"


def found_in(directory: Path) -> list[int]:
    """Where the segments in a directory begin, in order; none where there is no directory."""
    try:
        names = [_NAME.fullmatch(path.name) for path in directory.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(name[1]) for name in names if name is not None)


class Segments:
    """`read` may be called at any time; of the others one at a time."""

    def __init__(self, directory: Path, disk: Disk, starts: Sequence[int]) -> None:
        self.directory = directory
        self.starts = tuple(starts)
        """replaced as a whole: a reader may be looking at it"""
        self._disk = disk
        self._fd = -1
        self._room = 0
        """up to where in the last file there is room, as far as it was asked for"""
        self._full: list[int] = []
        """files before the last one that are being written still"""

    def path(self, start: int) -> Path:
        return self.directory / segment_name(start)

    def plan(
        self, start: int, parts: Sequence[memoryview], breaks: Sequence[int]
    ) -> tuple[list[Write], bool]:
        """How to write the bytes from offset ``start`` on: what goes where, and whether there are new files.

        ``breaks``: offsets where generations begin.

        Raises:
          OSError: a file cannot be opened.
        """
        before = self.starts
        fd = self._tail(start)
        writes = [Write(fd, start - self.starts[-1], [])]
        at = start
        waiting = list(breaks)
        for part in parts:
            rest = part
            while waiting and waiting[0] < at + len(rest):
                place = waiting.pop(0)
                if place - self.starts[-1] >= SEGMENT:
                    writes[-1].parts.append(rest[: place - at])
                    rest, at = rest[place - at :], place
                    writes.append(Write(self._begin(place), 0, []))
            writes[-1].parts.append(rest)
            at += len(rest)
        self._reserve(writes[-1], at - self.starts[-1])
        return [write for write in writes if write.parts], self.starts != before

    def _reserve(self, write: Write, end: int) -> None:
        """Have room made behind the last write, where the file grows; ``end``: how long it is then."""
        if end > RESERVE // 4 and end > self._room:
            self._room = end + RESERVE
            write.reserve = RESERVE

    def written(self) -> None:
        """What was planned is over, well or not: files that nothing more comes to are closed."""
        while self._full:
            self._release(self._full.pop())

    def read(self, offset: int, n: int) -> bytes:
        """Up to ``n`` bytes from ``offset`` on, all of one file; zeros in place of what is missing before a file.

        Raises:
          OSError: they cannot be read; FileNotFoundError where the session is gone.
        """
        starts = self.starts
        at = bisect_right(starts, offset) - 1
        if at + 1 < len(starts):
            n = min(n, starts[at + 1] - offset)
        if at < 0:
            return bytes(n) if starts else b""
        fd = self._disk.open(self.path(starts[at]))
        try:
            data = self._disk.read(fd, n, offset - starts[at])
            # A reader that got nothing would wait for what never comes.
            return data or (bytes(n) if at + 1 < len(starts) else b"")
        finally:
            self._disk.close(fd)

    def cut(self, size: int) -> None:
        """Take away what lies behind offset ``size``.

        Raises:
          OSError: not all of it is gone.
        """
        while len(self.starts) > 1 and self.starts[-1] >= size:
            self.close()
            self._disk.unlink(self.path(self.starts[-1]))
            self.starts = self.starts[:-1]
        if self.starts:
            self._disk.cut(self._tail(size), size - self.starts[-1])
            self._room = 0

    def close(self) -> None:
        self.written()
        fd, self._fd, self._room = self._fd, -1, 0
        if fd >= 0:
            self._release(fd)

    def _release(self, fd: int) -> None:
        """Close a file, with no more room than it needs."""
        try:
            with suppress(OSError):  # the next start of the service tries again
                self._disk.trim(fd)
        finally:
            self._disk.close(fd)

    def _tail(self, start: int) -> int:
        """The last file; ``start``: where the first one begins, where there is none yet."""
        if not self.starts:
            self._disk.make_directory(self.directory)
            return self._begin(start)
        if self._fd < 0:
            self._fd = self._disk.open(self.path(self.starts[-1]))
        return self._fd

    def _begin(self, start: int) -> int:
        fd = self._disk.open(self.path(start), create=True)
        if self._fd >= 0:
            self._full.append(self._fd)
        self._fd, self._room, self.starts = fd, 0, (*self.starts, start)
        return fd
