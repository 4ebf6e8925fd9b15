"""Where a trace lies: in a file, or in a directory with its segments, as a service keeps them."""

from __future__ import annotations

import errno
import os
import re
from bisect import bisect_right
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

__all__ = ["open_trace", "trace_size"]

_SEGMENT: Final = re.compile(r"[0-9]{20}\.trace")


def open_trace(path: Path) -> BinaryIO:
    """The stream, as a file to read from front to back, with ``seek``.

    Raises:
      OSError: it cannot be opened.
    """
    if path.is_dir():
        source: Any = _Segments(path)
        return cast(BinaryIO, source)
    return path.open("rb")


def trace_size(path: Path) -> int:
    """Bytes.

    Raises:
      OSError: it is not there.
    """
    if path.is_dir():
        return sum(part.stat().st_size for part in _parts(path))
    return path.stat().st_size


def _parts(directory: Path) -> list[Path]:
    """In the order of their names, which are the offsets of their first bytes."""
    return sorted(path for path in directory.iterdir() if _SEGMENT.fullmatch(path.name))


class _Segments:
    """One after the other; more may come while they are being read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: BinaryIO | None = None
        self._name = ""
        if not self._next():
            why = "no trace, and no directory with the segments of one"
            raise FileNotFoundError(errno.ENOENT, why, os.fspath(directory))

    def read(self, n: int = -1) -> bytes:
        while self._file is not None:
            later = (
                self._later()
            )  # before the read: what ends now ends for good only if there was a next one
            data = self._file.read(n)
            if data or not later:
                return data
            self._next()
        return b""

    def seek(self, position: int) -> int:
        parts = _parts(self._directory)
        first = int(parts[0].stem)
        at = bisect_right([int(part.stem) - first for part in parts], position) - 1
        self.close()
        self._name, self._file = parts[at].name, parts[at].open("rb")
        self._file.seek(position - int(parts[at].stem) + first)
        return position

    def __enter__(self) -> _Segments:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _later(self) -> list[Path]:
        return [path for path in _parts(self._directory) if path.name > self._name]

    def _next(self) -> bool:
        later = self._later()
        if later:
            self.close()
            self._name, self._file = later[0].name, later[0].open("rb")
        return bool(later)
