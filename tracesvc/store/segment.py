"""One session of a `FileStore` while it is in use: its file, its ledger, and who waits for it."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path
from typing import Final

import trio

from tracesvc.store.base import Appended, OffsetError, StoreBrokenError, StoreError, StoreFullError
from tracesvc.store.catalogue import Entry
from tracesvc.store.disk import Disk
from tracesvc.store.intake import Tail, check
from tracesvc.store.ledger import Ledger

__all__ = ["FIRST_SEGMENT", "Append", "Segment", "disk_error"]

FIRST_SEGMENT: Final = f"{0:020}.trace"
"""segments are named by the offset of their first byte"""

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def disk_error(exc: OSError, path: Path) -> StoreError:
    """What an error of the disk means to a store."""
    if exc.errno in _FULL:
        return StoreFullError(f"no room for {path}: {exc.strerror}; free some space")
    return StoreBrokenError(f"cannot write {path}: {exc.strerror or exc}")


class Append:
    """Bytes that wait to be appended, and then what became of them."""

    __slots__ = ("data", "done", "durable", "offset", "problem", "rest")

    def __init__(self, offset: int, data: bytes | bytearray) -> None:
        self.offset = offset
        self.data = data
        self.done = trio.Event()
        self.durable = self.rest = 0
        self.problem: StoreError | None = None

    def result(self) -> Appended:
        return Appended(self.durable, self.rest, self.problem)


class Round:
    """What one sync makes durable."""

    __slots__ = ("end", "parts", "records", "start")

    def __init__(self, start: int) -> None:
        self.start = self.end = start
        self.parts: list[memoryview] = []
        self.records: list[tuple[int, object]] = []


class Segment:
    """A session and the file that it lies in.

    `commit`, `read` and `entry` are for threads, all else belongs to the run loop; from `examine` to `publish` nobody
    else may append.
    """

    def __init__(self, directory: Path, disk: Disk, entry: Entry | None) -> None:
        self.session = directory.name
        self.path = directory / FIRST_SEGMENT
        self.ledger = Ledger() if entry is None else entry.ledger
        self.durable = 0 if entry is None else entry.size
        """bytes that are safe, as those who wait have been told"""
        self.ended = self.ledger.ended
        """whether the end mark is among them"""
        self.updated = 0 if entry is None else entry.updated
        self.pending: list[Append] = []
        self.writing = False
        self.users = 0
        """tasks in the middle of something here"""
        self.last_used = 0.0
        self.moved = trio.lowlevel.ParkingLot()
        """those who wait for more bytes"""
        self.lock = threading.Lock()
        """held where the ledger changes, and where all of it is read"""
        self._disk = disk
        self._size = self.durable
        self._fd = -1
        self._torn = False

    @property
    def known(self) -> bool:
        """Whether anything of it is stored."""
        return self.durable > 0

    def entry(self) -> Entry:
        """For the catalogue; call with ``lock`` held."""
        return Entry(self.ledger, self._size, self.updated)

    def examine(self, appends: list[Append], *, light: bool) -> Round | None:
        """What of them can be written.  ``light``: None where that takes long; call it again in a thread."""
        found = Round(self._size)
        tail = Tail(self.session, self.ledger)
        for append in appends:
            data = memoryview(append.data)
            append.durable, append.rest, append.problem = found.end, 0, None
            overlap = min(found.end - append.offset, len(data))
            if overlap < 0:
                why = f"the stream ends at {found.end}, this begins at {append.offset}"
                append.problem = OffsetError(found.end, why)
                continue
            if overlap:
                if light:
                    return None
                if self._written(found, append.offset, overlap) != data[:overlap]:
                    why = f"what is stored from {append.offset} on is not what was sent"
                    append.problem = OffsetError(found.end, why)
                    continue
            piece = check(data[overlap:], tail, light=light)
            if piece is None:
                return None
            end = overlap + piece.size
            found.end += piece.size
            found.parts.append(data[overlap:end])
            found.records += piece.records
            append.durable, append.rest, append.problem = found.end, len(data) - end, piece.problem
        return found

    def commit(self, appends: list[Append], found: Round | None) -> None:
        """Write and sync what `examine` found, or is to find here, all or nothing."""
        if found is None:
            found = self.examine(appends, light=False)
            if found is None or found.end == found.start:
                return
        try:
            fd, at = self._open(), found.start
            if self._torn:
                self._disk.cut(fd, at)
                self._torn = False
            for part in found.parts:
                self._disk.write(fd, part, at)
                at += len(part)
            self._disk.sync(fd)
            if not found.start:
                self._disk.sync_directory(self.path.parent)
        except OSError as exc:
            # What reached the disk is unknown, so nothing of this round is acknowledged.
            failure = disk_error(exc, self.path)
            for append in appends:
                append.durable, append.problem = found.start, failure
            self._cut(found.start)
            return
        with self.lock:
            for number, record in found.records:
                self.ledger.note(number, record)
            self._size, self.updated = found.end, time.time_ns()

    def publish(self, appends: list[Append]) -> None:
        """Tell everyone what has become durable."""
        self.durable, self.ended = self._size, self.ledger.ended
        for append in appends:
            append.done.set()
        self.moved.unpark_all()

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Durable bytes; for threads."""
        n = min(max_bytes, self.durable - offset)
        return self._disk.read(self._open(), n, offset) if n > 0 else b""

    def close(self) -> None:
        """Nobody may be using it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._disk.close(fd)

    def _written(self, found: Round, offset: int, n: int) -> bytes:
        """``n`` bytes of the stream, in the file or about to be; for threads."""
        data, end = b"", offset + n
        while offset + len(data) < min(end, found.start):
            at = offset + len(data)
            part = self._disk.read(self._open(), min(end, found.start) - at, at)
            if not part:
                return b""
            data += part
        if end > found.start:
            coming = b"".join(found.parts)
            data += coming[max(0, offset - found.start) : end - found.start]
        return data

    def _open(self) -> int:
        with self.lock:
            if self._fd < 0:
                if not self._size:
                    self._disk.make_directory(self.path.parent)
                self._fd = self._disk.open(self.path, create=not self._size)
            return self._fd

    def _cut(self, size: int) -> None:
        """Give up what lies behind ``size``, after a failure."""
        self._torn = True
        try:
            if self._fd >= 0:
                self._disk.cut(self._fd, size)
                self._torn = False
        except OSError:
            pass  # the next append tries again, or the next start of the service
