"""What a push sink has not had acknowledged yet: pieces of its stream, in memory or in a spool directory."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from tracesvc.format import Frame, compress
from tracesvc.format.frames import HEADER_SIZE, parse_header
from tracesvc.sinks.threads import in_thread

__all__ = ["PIECE", "Piece", "Window"]

logger: Final = logging.getLogger("tracesvc")
T = TypeVar("T")

PIECE: Final = 256 << 10
"""bytes that are worth a request of their own"""
THREAD: Final = "tracesvc push"


class Piece:
    """Some whole frames of the stream that follow one another."""

    __slots__ = ("acknowledged", "data", "end", "events", "frames", "offset", "path")

    def __init__(self, offset: int) -> None:
        self.offset = self.end = self.acknowledged = offset
        self.frames = self.events = 0
        self.data: bytes | None = b""
        """None: it lies in ``path`` only"""
        self.path: Path | None = None

    @property
    def size(self) -> int:
        return self.end - self.offset

    async def rest(self, limit: int) -> bytes:
        """What of it is not acknowledged: whole frames of at most ``limit`` bytes, but at least one."""
        data = self.data
        if data is None:
            assert self.path is not None
            data = await _in_thread(self.path.read_bytes)
        start = self.acknowledged - self.offset
        if len(data) - start <= limit:
            return data[start:]
        end = start
        while end < len(data) and (head := parse_header(data[end : end + HEADER_SIZE])) is not None:
            if end > start and end + HEADER_SIZE + head[-1] - start > limit:
                break
            end += HEADER_SIZE + head[-1]
        return data[start:end]


class Window:
    """Pieces in the order of the stream.

    Args:
      session: its name; files of the spool are named by it.
      memory: bytes to keep in memory; sealed pieces beyond go to the spool, where there is one.
      spool: directory, or None.
      spool_bytes: bound of what lies there.
      compressed: whether to compress frames as they come in.
    """

    def __init__(
        self, session: str, memory: int, spool: Path | None, spool_bytes: int, *, compressed: bool
    ) -> None:
        self.session = session
        self.in_memory = 0
        """bytes"""
        self.spooled = 0
        """bytes"""
        self._memory, self._spool, self._spool_bytes = memory, spool, spool_bytes
        self._compressed = compressed
        self._pieces: deque[Piece] = deque()
        self._open = Piece(0)
        self._parts: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._pieces or self._parts)

    @property
    def start(self) -> int:
        """Offset up to which all is acknowledged."""
        return self._pieces[0].acknowledged if self._pieces else self._open.offset

    @property
    def end(self) -> int:
        """Offset behind everything."""
        return self._open.end

    @property
    def first(self) -> Piece | None:
        """The oldest sealed piece."""
        return self._pieces[0] if self._pieces else None

    @property
    def unsealed(self) -> bool:
        """Whether there are frames that no piece for sending has yet."""
        return bool(self._parts)

    async def add(self, frame: Frame) -> bool:
        """Take one more frame; True if that filled a piece."""
        data = compress(frame.data) if self._compressed else frame.data
        self._parts.append(data)
        self._open.end += len(data)
        self._open.frames += 1
        self._open.events += frame.count
        self.in_memory += len(data)
        if self._open.size < PIECE:
            return False
        piece = self.seal()
        if self.in_memory > self._memory:
            await self._put_away(piece)
        return True

    def seal(self) -> Piece:
        """What has come in is to be sent, however little it is."""
        piece, self._open = self._open, Piece(self._open.end)
        piece.data, self._parts = b"".join(self._parts), []
        self._pieces.append(piece)
        return piece

    async def acknowledge(self, offset: int) -> list[Piece]:
        """The service has everything up to ``offset``; returns the pieces that are done with.

        Raises:
          ValueError: this stream has no such place, or what lies there has been given up already.
        """
        if not self.start <= offset <= self.end:
            raise ValueError(offset)
        done = []
        while self._pieces and self._pieces[0].end <= offset:
            piece = self._pieces.popleft()
            if piece.data is not None:
                self.in_memory -= len(piece.data)
            done.append(piece)
        if self._pieces:
            self._pieces[0].acknowledged = max(offset, self._pieces[0].acknowledged)
        for piece in done:
            if piece.path is not None:
                self.spooled -= piece.size
                await _in_thread(partial(piece.path.unlink, missing_ok=True))
        return done

    async def leave_behind(self) -> None:
        """Nothing more will be delivered: what lies in memory goes to the spool too, where there is one."""
        if self._parts:
            self.seal()
        for piece in self._pieces:
            await self._put_away(piece)

    async def _put_away(self, piece: Piece) -> None:
        """Move it to the spool, if there is one and it has room."""
        data = piece.data
        if self._spool is None or data is None or self.spooled + piece.size > self._spool_bytes:
            return
        path = self._spool / f"{self.session}-{piece.offset:020}.trace"
        self.spooled += piece.size
        try:
            await _in_thread(_write, path, data)
        except OSError as exc:
            logger.warning("tracesvc: cannot spool to %s: %s", path, exc)
        else:
            if piece in self._pieces:
                piece.data, piece.path = None, path
                self.in_memory -= piece.size
                return
        # kept in memory, or acknowledged while it was being written
        self.spooled -= piece.size
        with contextlib.suppress(OSError):
            await _in_thread(partial(path.unlink, missing_ok=True))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


async def _in_thread(function: Callable[..., T], *args: object) -> T:
    return await in_thread(function, *args, name=THREAD)
