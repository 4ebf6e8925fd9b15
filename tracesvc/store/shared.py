"""What replicas know of a session: an entry that all of them see, and what one of them has in memory."""

from __future__ import annotations

import zlib
from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final

import msgpack
import trio

from tracesvc.events import FrameKind
from tracesvc.format.frames import HEADER_SIZE, parse_header
from tracesvc.store.base import StoreBrokenError
from tracesvc.store.catalogue import Entry
from tracesvc.store.intake import Piece, Tail, check
from tracesvc.store.ledger import Ledger
from tracesvc.store.link import Message

__all__ = ["OFFSET", "Chunk", "SharedEntry", "SharedSession", "breaks", "frame_id", "slices"]

OFFSET: Final = "Tracesvc-Offset"
"""header: offset of the first byte of a chunk in its stream"""
CHUNK: Final = 512 << 10
"""bytes of a message, at most, but where a single frame has more"""
_VERSION: Final = 1


@dataclass(frozen=True, slots=True, order=True)
class Chunk:
    """Where a run of frames lies: from ``start`` to ``end`` in the session, at ``seq`` in the stream."""

    start: int
    end: int
    seq: int

    @classmethod
    def of(cls, message: Message) -> Chunk:
        """Where the frames of a message lie.

        Raises:
          StoreBrokenError: it is not one of ours.
        """
        text = message.headers.get(OFFSET, "")
        if not text.isdigit():
            why = f"message {message.seq} of the frames has no offset: who else writes there?"
            raise StoreBrokenError(why)
        start = int(text)
        return cls(start, start + len(message.data), message.seq)


@dataclass(frozen=True, slots=True)
class SharedEntry:
    """What is written down of a session, for all replicas; it may be late, for the frames say it all again."""

    ledger: bytes
    size: int
    seq: int
    """place of the last message of the session that is counted in"""
    updated: int
    ended: bool
    archived: int = 0
    """bytes that the bucket has"""
    whole: bool = False
    """the bucket has all, and the stream nothing any more"""
    gone: bool = False
    """it is being deleted"""
    tables: bytes | None = None
    """what the bucket has of them, see `tracesvc.store.tables.Compacted`"""

    def pack(self) -> bytes:
        first = (self.ledger, self.size, self.seq, self.updated, self.ended, self.archived)
        packed: bytes = msgpack.packb([_VERSION, *first, self.whole, self.gone, self.tables])
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> SharedEntry:
        _, *known = msgpack.unpackb(data)
        return cls(*known[: len(fields(cls))])  # a younger replica may say more

    def joined(self, other: SharedEntry) -> SharedEntry:
        """The most that both say together."""
        ahead = max(self, other, key=lambda entry: (entry.size, entry.updated))
        return replace(
            ahead,
            archived=max(self.archived, other.archived),
            whole=self.whole or other.whole,
            gone=self.gone or other.gone,
            tables=ahead.tables or self.tables or other.tables,
        )

    def row(self) -> tuple[object, ...]:
        """For the `Catalogue`."""
        return Entry(Ledger.unpack(self.ledger), self.size, self.updated).row()


@dataclass(eq=False, slots=True)
class SharedSession:
    """A session as far as this replica has followed it."""

    name: str
    ledger: Ledger = field(default_factory=Ledger)
    size: int = 0
    """bytes that are durable"""
    seq: int = 0
    updated: int = 0
    archived: int = 0
    whole: bool = False
    gone: bool = False
    tables: bytes | None = None
    revision: int = 0
    """of the entry that all see"""
    born: int = 0
    """revision of the entry of a session of that name that was deleted before"""
    entered: int = -1
    """size, as that entry has it"""
    lock: trio.Lock = field(default_factory=trio.Lock)
    """held by who appends, or follows what others have appended"""
    moved: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    heard: int = 0
    """what others are said to have come to; it may be ahead of ``size``"""
    looked: float = 0.0
    """when the stream was looked at last"""
    unsure: bool = False
    """something was sent, and there was no answer"""
    loaded: bool = False
    users: int = 0
    last_used: float = 0.0
    chunks: list[Chunk] = field(default_factory=list)
    """those whose place is known, in order"""
    segments: Sequence[tuple[int, int]] = ()
    """of the bucket, as far as is known"""

    @property
    def ended(self) -> bool:
        return self.ledger.ended

    @property
    def known(self) -> bool:
        return self.size > 0 and not self.gone

    def load(self, entry: SharedEntry, revision: int) -> None:
        """Begin where others have got to."""
        self.revision, self.entered = revision, entry.size
        self.archived, self.whole = max(self.archived, entry.archived), entry.whole
        self.gone, self.tables = entry.gone, entry.tables
        if entry.size > self.size:
            self.ledger = Ledger.unpack(entry.ledger)
            self.size, self.seq, self.updated = entry.size, entry.seq, entry.updated

    def entry(self) -> SharedEntry:
        return SharedEntry(
            self.ledger.pack(),
            self.size,
            self.seq,
            self.updated,
            self.ended,
            self.archived,
            self.whole,
            self.gone,
            self.tables,
        )

    def examine(self, data: memoryview, *, light: bool) -> Piece | None:
        """See `check`."""
        return check(data, Tail(self.name, self.ledger), light=light)

    def advance(self, piece: Piece, updated: int) -> None:
        """It is durable."""
        for number, record in piece.records:
            self.ledger.note(number, record)
        self.size += piece.size
        self.updated = max(self.updated, updated)

    def place(self, chunk: Chunk) -> None:
        """Remember where it lies."""
        if not self.chunks or chunk > self.chunks[-1]:
            self.chunks.append(chunk)
        elif self.chunk_at(chunk.start) != chunk:
            insort(self.chunks, chunk)

    def chunk_at(self, offset: int) -> Chunk | None:
        """The chunk that has this byte, if its place is known."""
        at = bisect_right(self.chunks, offset, key=lambda chunk: chunk.start) - 1
        if at >= 0 and self.chunks[at].end > offset:
            return self.chunks[at]
        return None

    def segment_at(self, offset: int) -> tuple[int, int] | None:
        """The segment of the bucket that has this byte, if it is known."""
        at = bisect_right(self.segments, offset, key=lambda segment: segment[0]) - 1
        if at >= 0 and self.segments[at][1] > offset:
            return self.segments[at]
        return None


def frame_id(session: str, offset: int, data: bytes | memoryview) -> str:
    """What makes a message the same message: its frames, and where they stand."""
    return f"{session}/{offset}/{len(data)}/{zlib.crc32(data):08x}"


def slices(data: memoryview) -> Iterator[memoryview]:
    """``data`` in pieces for one message each, cut between frames."""
    begin = at = 0
    while len(data) - at >= HEADER_SIZE and (head := parse_header(data, at)) is not None:
        end = at + HEADER_SIZE + head[-1]
        if end - begin > CHUNK and at > begin:
            yield data[begin:at]
            begin = at
        at = end
    yield data[begin:]


def breaks(data: bytes) -> list[tuple[int, bool]]:
    """Where frames begin, and whether a generation does."""
    found, at = [], 0
    while len(data) - at >= HEADER_SIZE and (head := parse_header(data, at)) is not None:
        found.append((at, head[0] == FrameKind.GENERATION))
        at += HEADER_SIZE + head[-1]
    return found
