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
from tracesvc.store.intake import Tail, check, passed_over
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

    __slots__ = ("appends", "end", "parts", "records", "start")

    def __init__(self, appends: list[Append], start: int) -> None:
        self.appends = appends
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
        found = Round(appends, self._size)
        tail = Tail(self.ledger)
        for append in appends:
            data = memoryview(append.data)
            append.durable = found.end
            skipped = self._skip(append, data, found.end)
            if skipped is None:
                continue
            piece = check(data[skipped:], self.session, tail, light=light)
            if piece is None:
                return None
            end = skipped + piece.size
            found.end += piece.size
            found.parts.append(data[skipped:end])
            found.records += piece.records
            append.durable, append.rest, append.problem = found.end, len(data) - end, piece.problem
        return found

    def commit(self, found: Round) -> None:
        """Write and sync what `examine` found, all or nothing."""
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
            for append in found.appends:
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

    def _skip(self, append: Append, data: memoryview, size: int) -> int | None:
        """How many bytes of ``data`` are stored already; None, with the problem noted, where that cannot be said."""
        if append.offset > size:
            append.problem = OffsetError(
                size, f"the stream ends at {size}, this begins at {append.offset}"
            )
            return None
        overlap = size - append.offset
        skipped = passed_over(data, overlap) if overlap else 0
        if skipped is None:
            append.problem = OffsetError(
                size,
                f"the stream ends at {size}; no frame of what was sent from {append.offset} on ends there",
            )
        elif overlap >= len(data):
            append.rest = len(data) - skipped
            return None
        elif skipped < overlap:
            append.problem = OffsetError(
                size, f"a frame sent from {append.offset} on reaches beyond {size}"
            )
            return None
        return skipped

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
