"""`Overview`: the first picture of a session, kept in a file, so that it is there before the session is indexed.

It has the outline and, of every row, what the whole session looks like at a moderate width; rows on which little
happens are in it exactly.  The file is made by a process of its own (`main`), from an `Index` of the same bytes; it
is a cache, nothing else is in it, and whoever finds it damaged, of another version or of another length of the stream
makes it anew.

The file: a line that says what it is; the length of the directory (4 bytes, little-endian); the directory, then groups
of rows.  Each of them is msgpack in a zlib stream, which has a checksum.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgpack

if TYPE_CHECKING:
    from tracesvc.analysis.timeline import Index

__all__ = ["FILE", "Overview", "OverviewError", "make"]

FILE: Final = "timeline.overview"
"""its name, beside the segments"""
HEAD: Final = b"tracesvc timeline overview, version 1\n"
"""The number goes up with every change of what an outline or a window has in it."""
NARROWEST: Final = 256
WIDEST: Final = 2048
"""pixels"""
CELLS: Final = 4 << 20
"""rows times pixels, about"""
MAX_ROWS: Final = 20_000
"""rows that are in it; a session with more shows the others once it is indexed"""
GROUP: Final = 32
"""rows that lie together"""
LARGEST: Final = 256 << 20
"""bytes of a part once unpacked; more is damage"""
PIECE: Final = 1 << 20
"""bytes indexed at once"""


class OverviewError(Exception):
    """There is none, or it is damaged, or it is not of this."""


class Overview:
    """A file that has been looked into; `window` reads what it needs, at any time, from any thread."""

    def __init__(self, path: Path, size: int) -> None:
        """Of the first ``size`` bytes of a stream.

        Raises:
          OverviewError: it is not to be had.
        """
        self._path = path
        try:
            with path.open("rb") as file:
                head = file.read(len(HEAD) + 4)
                _demand(head[:-4] == HEAD, "of another version")
                length = int.from_bytes(head[-4:], "little")
                directory = _unpacked(file.read(length))
            _demand(directory["bytes"] == size, "the session has changed since")
            self.outline: Final[dict[str, Any]] = directory["outline"]
            self._window: dict[str, Any] = directory["window"]
            self._groups: list[list[int]] = directory["groups"]
            self._of: dict[str, int] = directory["rows"]
            self._at = len(head) + length
        except (KeyError, TypeError, OSError) as exc:
            raise OverviewError(f"damaged: {exc}") from None

    def first_rows(self) -> list[str]:
        """The rows that are at the top, 200 at most."""
        return list(islice(self._of, 200))

    def window(self, rows: Sequence[str]) -> dict[str, Any]:
        """The whole session on ``rows``, as `tracesvc.analysis.timeline.window.window` gives it.

        Raises:
          OverviewError: the file is damaged.
        """
        found = {}
        try:
            with self._path.open("rb") as file:
                for number in sorted({self._of[row] for row in rows if row in self._of}):
                    at, size = self._groups[number]
                    file.seek(self._at + at)
                    group = _unpacked(file.read(size))
                    found.update({row: group[row] for row in rows if row in group})
        except (OSError, ValueError, IndexError, TypeError) as exc:
            raise OverviewError(f"damaged: {exc}") from None
        return {**self._window, "rows": found}


def _demand(good: bool, why: str) -> None:
    if not good:
        raise OverviewError(why)


def _packed(content: Any) -> bytes:
    return zlib.compress(msgpack.packb(content), 1)


def _unpacked(data: bytes) -> dict[str, Any]:
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(data, LARGEST)
        if not unpacker.eof:
            raise OverviewError("cut off")
        made = msgpack.unpackb(content, strict_map_key=False)
    except (zlib.error, ValueError, msgpack.UnpackException) as exc:
        raise OverviewError(f"damaged: {exc}") from None
    if not isinstance(made, dict):
        raise OverviewError("damaged: not what it is to be")
    return made


def make(index: Index, path: Path) -> None:
    """Write the overview of all that the index has been fed, in the place of the one that is there.

    Raises:
      OSError: it cannot be written.
    """
    from tracesvc.analysis.timeline.outline import outline
    from tracesvc.analysis.timeline.window import all_rows, window

    rows = list(islice(all_rows(index), MAX_ROWS))
    width = min(max(CELLS // max(len(rows), 1), NARROWEST), WIDEST)
    began, ended = index.began, max(index.ended, index.began + 1)
    groups: list[list[int]] = []
    of: dict[str, int] = {}
    temporary, new = (path.with_name(f"{path.name}.{os.getpid()}{end}") for end in ("", ".new"))
    try:
        with (
            open(temporary, "w+b", opener=_private) as body,
            open(new, "wb", opener=_private) as file,
        ):
            for at in range(0, len(rows), GROUP):
                some = rows[at : at + GROUP]
                data = _packed(window(index, began, ended, width, some)["rows"])
                of.update(dict.fromkeys(some, len(groups)))
                groups.append([body.tell(), len(data)])
                body.write(data)
            directory = _packed(
                {
                    "bytes": index.fed,
                    "outline": outline(index),
                    "window": window(index, began, ended, width, []),
                    "groups": groups,
                    "rows": of,
                }
            )
            file.write(HEAD + len(directory).to_bytes(4, "little") + directory)
            body.seek(0)
            while piece := body.read(PIECE):
                file.write(piece)
        new.replace(path)
    finally:
        for name in (temporary, new):
            name.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    """Not for others, as the segments are not."""
    return os.open(path, flags, 0o640)


def main(arguments: Sequence[str]) -> None:
    """``DIRECTORY BYTES``: make the overview of the first so many bytes of the session in a directory.

    Raises:
      SystemExit: it cannot be done, and why.
    """
    from tracesvc.analysis.timeline import Index
    from tracesvc.format import FormatError
    from tracesvc.model.source import open_trace

    directory, left = Path(arguments[0]), int(arguments[1])
    with suppress(OSError):
        os.nice(19)
    index = Index()
    for left_behind in directory.glob(f"{FILE}.*"):  # by one that was killed
        left_behind.unlink(missing_ok=True)
    try:
        with open_trace(directory) as file:
            while left:
                data = file.read(min(PIECE, left))
                if not data:
                    raise SystemExit("the session has become shorter")
                left -= len(data)
                index.feed(data)
        index.settle()
        make(index, directory / FILE)
    except (OSError, FormatError) as exc:
        raise SystemExit(str(exc)) from None
