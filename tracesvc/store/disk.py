"""The system calls that a `FileStore` makes; for threads. Tests put a disk in its place that fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

__all__ = ["Disk", "NativeDisk", "SyncError", "Write", "best_disk", "has_room_behind"]

_commit: ModuleType | None
try:
    from tracesvc.store import _commit
except ImportError:
    _commit = None


class SyncError(OSError):
    """A sync failed: what the kernel holds of the file may never reach the disk, whatever a later sync says."""


def has_room_behind(found: os.stat_result) -> bool:
    """Whether blocks are reserved behind the end of a file; a few may be the file system's own."""
    return found.st_blocks * 512 > found.st_size + (256 << 10)


@dataclass(slots=True)
class Write:
    """Bytes for one place in one file."""

    fd: int
    offset: int
    parts: list[memoryview]
    reserve: int = 0
    """bytes behind it that the file is going to need, as it seems; room that no file system need give"""


class Disk:
    """The real one. Every method may raise `OSError`."""

    def open(self, path: Path, *, create: bool = False) -> int:
        """A file descriptor for reading and writing."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        return os.open(path, flags, 0o640)

    def write(self, fd: int, data: memoryview, offset: int) -> None:
        """All of ``data``."""
        while data:
            n = os.pwrite(fd, data, offset)
            data, offset = data[n:], offset + n

    def sync(self, fd: int) -> None:
        """Returns when what was written survives a power failure."""
        os.fdatasync(fd)

    def commit(self, writes: Sequence[Write]) -> list[OSError | None]:
        """Write all of them, then sync all of them; what became of each. A failed sync is a `SyncError`."""
        failures: list[OSError | None] = []
        for write in writes:
            at, failure = write.offset, None
            try:
                for part in write.parts:
                    self.write(write.fd, part, at)
                    at += len(part)
            except OSError as exc:
                failure = exc
            failures.append(failure)
        for i, write in enumerate(writes):
            if failures[i] is None:
                try:
                    self.sync(write.fd)
                except OSError as exc:
                    failures[i] = SyncError(exc.errno, exc.strerror)
        return failures

    def read(self, fd: int, n: int, offset: int) -> bytes:
        return os.pread(fd, n, offset)

    def cut(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def trim(self, fd: int) -> None:
        """Give back what was reserved behind the end of a file."""
        found = os.fstat(fd)
        if has_room_behind(found):
            os.ftruncate(fd, found.st_size)

    def close(self, fd: int) -> None:
        os.close(fd)

    def make_directory(self, path: Path) -> None:
        """Make it if it is missing, and durably so."""
        if not path.is_dir():
            path.mkdir(mode=0o750, parents=True, exist_ok=True)
            self.sync_directory(path.parent)

    def sync_directory(self, path: Path) -> None:
        """Returns when the names in it survive a power failure."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Within one directory tree; durable only once both directories are synced."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """A directory and all that is in it."""
        shutil.rmtree(path)

    def free(self, path: Path) -> int:
        """Bytes that may still be written to the file system that ``path`` lies in."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize


class NativeDisk(Disk):
    """The same, with a commit that gives up the interpreter's lock once, however many writes it has."""

    def commit(self, writes: Sequence[Write]) -> list[OSError | None]:
        assert _commit is not None
        results = _commit.commit([(w.fd, w.offset, w.parts, w.reserve) for w in writes])
        return [
            (SyncError if at_sync else OSError)(number, os.strerror(number)) if number else None
            for number, at_sync in results
        ]


def best_disk() -> Disk:
    """The native one, where it was built and is not turned off (``TRACESVC_NATIVE=0``)."""
    native = _commit is not None and os.environ.get("TRACESVC_NATIVE") != "0"
    return NativeDisk() if native else Disk()
