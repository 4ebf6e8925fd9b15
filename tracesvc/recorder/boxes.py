"""Black boxes in their directory: one directory each, in it a file whose lock says that its program lives."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tracesvc.recorder.errors import BlackBoxError

__all__ = ["FILE", "default_directory", "find", "lives", "opened", "prepare"]

KEEP_BYTES: Final = 512 << 20
"""boxes of dead programs in one directory, at most; the oldest ones go"""
KEEP_SECONDS: Final = 7 * 24 * 3600
"""how old they become"""
FILE: Final = "box"


def default_directory() -> Path:
    """Where boxes are made if nothing else is said: in memory where there is such a file system."""
    memory = Path("/dev/shm")  # noqa: S108 - the directory in it is ours alone: `prepare` looks
    root = memory if memory.is_dir() and os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    return root / f"tracesvc-{os.getuid()}"


def find(directory: Path) -> list[Path]:
    """The boxes in a directory, or the one that it is; the newest first.

    Raises:
      BlackBoxError: there is no such directory.
    """
    if (directory / FILE).is_file():
        return [directory]
    try:
        found = [(path, _status(path)) for path in directory.iterdir()]
    except OSError as exc:
        raise BlackBoxError(f"no black boxes in {directory}: {exc.strerror or exc}") from exc
    dated = [(status.st_mtime_ns, path) for path, status in found if status is not None]
    return [path for _, path in sorted(dated, reverse=True)]


def _status(path: Path) -> os.stat_result | None:
    try:
        return (path / FILE).stat()
    except OSError:
        return None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[mmap.mmap]:
    """The memory of a box whose program is dead; nobody else opens or removes it meanwhile.

    Raises:
      BlackBoxError: its program lives, or somebody else is reading it, or it cannot be read.
    """
    try:
        fd = os.open(path / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise BlackBoxError(f"cannot read the black box {path}: {exc.strerror or exc}") from exc
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlackBoxError(
                f"the program of {path.name} still runs: take a snapshot of it, or wait for its end"
            ) from None
        try:
            memory = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as exc:
            raise BlackBoxError(f"the black box {path} is empty") from exc
        with memory:
            yield memory
    finally:
        os.close(fd)


def lives(path: Path) -> bool:
    """Whether the program of a box is still there."""
    with contextlib.suppress(OSError):
        fd = os.open(path / FILE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
    return False


def prepare(directory: Path) -> None:
    """Make the directory, for nobody but us, and clean it of boxes that are too old, or too many.

    Raises:
      OSError: it cannot be made, or is somebody else's.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.lstat()
    ours = status.st_uid == os.getuid() and not status.st_mode & 0o022
    if directory == default_directory() and (directory.is_symlink() or not ours):
        raise PermissionError(0, "the directory is not ours alone")
    oldest, size = time.time() - KEEP_SECONDS, 0
    for path in find(directory):
        box = _status(path)
        if box is None:
            continue
        size += box.st_size
        if box.st_mtime < oldest or size > KEEP_BYTES:
            with contextlib.suppress(BlackBoxError, OSError), opened(path):
                shutil.rmtree(path, ignore_errors=True)
