"""One session of a `FileStore` while it is in use: its files, its ledger, and who waits for it."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

from tracesvc.store.base import Appended, OffsetError, StoreBrokenError, StoreError, StoreFullError
from tracesvc.store.catalogue import Entry
from tracesvc.store.disk import Disk, SyncError, Write
from tracesvc.store.intake import Tail, check
from tracesvc.store.ledger import Ledger
from tracesvc.store.segments import Segments

__all__ = ["Append", "Round", "StoredSession", "disk_error"]

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
    """What of one session is made durable together. `prepare` and `settle` are for the thread that writes."""

    __slots__ = (
        "_files",
        "appends",
        "breaks",
        "done",
        "end",
        "failure",
        "kept",
        "parts",
        "records",
        "session",
        "start",
        "unsafe",
        "writes",
    )

    def __init__(self, session: StoredSession, appends: Sequence[Append], start: int) -> None:
        self.session, self.appends = session, appends
        self.start = self.end = start
        self.parts: list[memoryview] = []
        self.records: list[tuple[int, object]] = []
        self.breaks: list[int] = []
        """offsets where generations begin"""
        self.writes: list[Write] = []
        self.failure: OSError | None = None
        self.kept = False
        """it is durable"""
        self.unsafe = False
        """a sync failed, and not for want of room: what the disk holds is unknown"""
        self.done = trio.Event()
        self._files = False

    def prepare(self) -> list[Write]:
        """Open what is to be written; what `settle` is to be told of."""
        try:
            self.writes, self._files = self.session.plan(self)
        except OSError as exc:
            self.failure = exc
            self.writes = []
        return self.writes

    def settle(self, failures: Sequence[OSError | None], disk: Disk) -> None:
        """All or nothing: every write of the round is durable, or none is acknowledged."""
        self.session.files.written()
        for failure in failures:
            self.failure = self.failure or failure
        if self.failure is None and self._files:
            try:
                disk.sync_directory(self.session.files.directory)
            except OSError as exc:
                self.failure = SyncError(exc.errno, exc.strerror)
        if self.failure is None:
            self.session.keep(self)
            self.kept = True
            return
        self.unsafe = isinstance(self.failure, SyncError) and self.failure.errno not in _FULL
        self.session.give_up(self, self.failure)


class StoredSession:
    """A session and the files that it lies in.

    `plan`, `keep`, `give_up`, `read` and `entry` are for threads, all else belongs to the run loop; from `examine` to
    `publish` nobody else may append.
    """

    def __init__(
        self, directory: Path, disk: Disk, entry: Entry | None, starts: Sequence[int]
    ) -> None:
        self.name = directory.name
        self.files = Segments(directory, disk, starts)
        self.ledger = Ledger() if entry is None else entry.ledger
        self.durable = 0 if entry is None else entry.size
        """bytes that are safe, as those who wait have been told"""
        self.ended = self.ledger.ended
        """whether the end mark is among them"""
        self.gone = False
        """it has been deleted"""
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
        self._size = self.durable
        self._torn = False

    @property
    def known(self) -> bool:
        """Whether anything of it is stored."""
        return self.durable > 0

    def entry(self) -> Entry:
        """For the catalogue; call with ``lock`` held."""
        return Entry(self.ledger, self._size, self.updated)

    def examine(self, appends: Sequence[Append], *, light: bool) -> Round | None:
        """What of them can be written.  ``light``: None where that takes long; call it again in a thread."""
        found = Round(self, appends, self._size)
        tail = Tail(self.name, self.ledger)
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
            found.breaks += [found.end + at for at in piece.breaks]
            found.end += piece.size
            if piece.size:
                found.parts.append(data[overlap:end])
            found.records += piece.records
            append.durable, append.rest, append.problem = found.end, len(data) - end, piece.problem
        return found

    def plan(self, found: Round) -> tuple[list[Write], bool]:
        """See `Segments.plan`."""
        if self._torn:
            self.files.cut(found.start)
            self._torn = False
        return self.files.plan(found.start, found.parts, found.breaks)

    def keep(self, found: Round) -> None:
        """It is durable."""
        with self.lock:
            for number, record in found.records:
                self.ledger.note(number, record)
            self._size, self.updated = found.end, time.time_ns()

    def give_up(self, found: Round, failure: OSError) -> None:
        """What reached the disk is unknown, so nothing of this round is acknowledged, and it is cut off again."""
        problem = disk_error(failure, self.files.directory)
        for append in found.appends:
            append.durable, append.problem = found.start, problem
        self._torn = True
        try:
            self.files.cut(found.start)
            self._torn = False
        except OSError:
            pass  # the next append tries again, or the next start of the service

    def publish(self, appends: Sequence[Append]) -> None:
        """Tell everyone what has become durable."""
        self.durable, self.ended = self._size, self.ledger.ended
        for append in appends:
            append.done.set()
        self.moved.unpark_all()

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Durable bytes; for threads."""
        n = min(max_bytes, self.durable - offset)
        return self.files.read(offset, n) if n > 0 else b""

    def _written(self, found: Round, offset: int, n: int) -> bytes:
        """``n`` bytes of the stream, in the files or about to be; for threads."""
        data, end = b"", offset + n
        while offset + len(data) < min(end, found.start):
            at = offset + len(data)
            part = self.files.read(at, min(end, found.start) - at)
            if not part:
                return b""
            data += part
        if end > found.start:
            coming = b"".join(found.parts)
            data += coming[max(0, offset - found.start) : end - found.start]
        return data
