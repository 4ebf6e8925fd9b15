"""The system calls that a `FileStore` makes; for threads. Tests put a disk in its place that fails."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["Disk"]


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

    def read(self, fd: int, n: int, offset: int) -> bytes:
        return os.pread(fd, n, offset)

    def cut(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

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
