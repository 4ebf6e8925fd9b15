"""What a session's messages and objects say: bytes at an offset wherever they lie, and what others have appended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from tracesvc.store.archive import Archive
from tracesvc.store.base import StoreBrokenError
from tracesvc.store.intake import Piece
from tracesvc.store.link import Link, Message
from tracesvc.store.payloads import Payloads
from tracesvc.store.shared import Chunk, SharedSession

__all__ = ["TIME", "Contents"]

log = logging.getLogger("tracesvc.store")

TIME: Final = "Tracesvc-Time"
"""header: wall clock of the replica that took the frames in, ns since the epoch"""


class Contents:
    """Joins stream and bucket."""

    def __init__(
        self,
        link: Link,
        archive: Archive | None,
        frames: str,
        subject_of: Callable[[str], str],
        archived_within: float,
    ) -> None:
        """``frames``: the stream; ``archived_within``: seconds since its last frame within which none is forgotten."""
        self._link, self._archive = link, archive
        self._frames, self._subject_of = frames, subject_of
        self._archived_within = int(archived_within * 1e9)
        self._payloads = Payloads()

    def keep(self, seq: int, data: bytes) -> None:
        """Remember a message that was written."""
        self._payloads.keep(seq, data)

    async def read(self, stored: SharedSession, offset: int, max_bytes: int) -> bytes:
        """Durable bytes, wherever they lie: it may be between two requests that they move from stream to bucket."""
        end = min(offset + max_bytes, stored.size)
        parts: list[bytes] = []
        at = offset
        while at < end:
            if parts and stored.chunk_at(at) is None:
                break  # enough for now; to find the next part takes a request
            part = await self._part(stored, at, end - at)
            if not part:
                break
            parts.append(part)
            at += len(part)
        if not parts:
            await trio.lowlevel.checkpoint()
            if offset < end:
                why = f"bytes {offset} to {end} of {stored.name} are neither in the stream nor in the bucket"
                raise StoreBrokenError(why)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def exactly(self, stored: SharedSession, offset: int, n: int) -> bytes:
        """That many durable bytes."""
        data = b""
        while len(data) < n:
            data += await self.read(stored, offset + len(data), n - len(data))
        return data

    async def _part(self, stored: SharedSession, offset: int, n: int) -> bytes:
        """Some of what lies at ``offset``; nothing where it is not to be found."""
        segment = stored.segment_at(offset)
        if segment is None:
            chunk = await self.locate(stored, offset)
            if chunk is not None:
                data = await self._payloads.get(chunk.seq, self._fetch)
                if data is not None:
                    return data[offset - chunk.start :][:n]
                if chunk in stored.chunks:  # it has moved to the bucket meanwhile
                    stored.chunks.remove(chunk)
            if self._archive is None:
                return b""
            stored.segments = await self._archive.segments(stored.name)
            segment = stored.segment_at(offset)
        if segment is None or self._archive is None:
            return b""
        start, end = segment
        return await self._archive.read(stored.name, start, offset, min(n, end - offset))

    async def _fetch(self, seq: int) -> bytes | None:
        message = await self._link.at(self._frames, seq)
        return None if message is None else message.data

    async def locate(self, stored: SharedSession, offset: int) -> Chunk | None:
        """The chunk with this byte, if the stream has it; found by halving."""
        known = stored.chunk_at(offset)
        if known is not None:
            return known
        subject = self._subject_of(stored.name)
        first = await self._link.next(self._frames, subject, 1)
        if first is None or Chunk.of(first).start > offset:
            return None
        low, high = Chunk.of(first), stored.seq
        while low.end <= offset and low.seq < high:
            middle = (low.seq + high + 1) // 2
            message = await self._link.next(self._frames, subject, middle)
            if message is None or Chunk.of(message).start > offset:
                high = middle - 1
            else:
                low = Chunk.of(message)
                self._payloads.keep(message.seq, message.data)
        if low.end <= offset:
            return None
        stored.place(low)
        return low

    async def follow(self, stored: SharedSession) -> bool:
        """Take in what others have appended, if there is anything; call with the session's lock held."""
        began, before = trio.current_time(), stored.size
        found = False
        while message := await self._link.next(
            self._frames, self._subject_of(stored.name), stored.seq + 1
        ):
            found = True
            await self._take_in(stored, message)
        stale = stored.updated < time.time_ns() - self._archived_within // 2
        if not found and self._archive is not None and not stored.ended and stale:
            last = await self._link.last(self._frames, self._subject_of(stored.name))
            if last is None:  # nothing in the stream at all: it ended, and is in the bucket
                await self.take_archived(stored, None)
        stored.looked, stored.unsure, stored.heard = began, False, 0
        if stored.size > before:
            stored.moved.unpark_all()
        return stored.size > before

    async def _take_in(self, stored: SharedSession, message: Message) -> None:
        chunk = Chunk.of(message)
        if chunk.start > stored.size:
            await self.take_archived(stored, chunk.start)
        if not message.data:  # somebody had to know for sure what the last one is
            stored.seq = message.seq
            return
        stored.place(chunk)
        self._payloads.keep(message.seq, message.data)
        if chunk.end > stored.size:
            if chunk.start > stored.size:
                log.error("%s: bytes %d to %d are missing", stored.name, stored.size, chunk.start)
                stored.size = chunk.start
            data = memoryview(message.data)[stored.size - chunk.start :]
            await self._note(stored, data, int(message.headers.get(TIME, "0")))
        stored.seq = message.seq

    async def take_archived(self, stored: SharedSession, end: int | None) -> None:
        """Take in what the bucket has, up to ``end``."""
        if self._archive is None:
            return
        stored.segments = await self._archive.segments(stored.name)
        in_bucket = stored.segments[-1][1] if stored.segments else 0
        stored.archived = max(stored.archived, in_bucket)
        end = in_bucket if end is None else min(end, in_bucket)
        updated = stored.updated or time.time_ns()
        rest = b""
        while stored.size + len(rest) < end:
            at = stored.size + len(rest)
            segment = stored.segment_at(at)
            if segment is None:
                break
            n = min(1 << 20, segment[1] - at, end - at)
            data = rest + await self._archive.read(stored.name, segment[0], at, n)
            before = stored.size
            await self._note(stored, memoryview(data), updated, whole=False)
            rest = data[stored.size - before :]

    async def _note(
        self, stored: SharedSession, data: memoryview, updated: int, *, whole: bool = True
    ) -> None:
        """Enter stored bytes into the ledger.  What is damaged is passed over, for offsets must not move."""
        piece = await self.examine(stored, data)
        stored.advance(piece, updated)
        left = len(data) - piece.size
        if left and (whole or piece.problem is not None):
            log.error("%s: %d bytes at %d: %s", stored.name, left, stored.size, piece.problem)
            stored.size += left

    async def examine(self, stored: SharedSession, data: memoryview) -> Piece:
        """See `tracesvc.store.intake.check`; what takes long is done in a thread."""
        piece = stored.examine(data, light=True)
        if piece is None:
            piece = await trio.to_thread.run_sync(partial(stored.examine, data, light=False))
        assert piece is not None
        return piece
