"""Checks the bytes that are to continue a session, before they are stored."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final, TypeAlias

import msgpack

from tracesvc.events import FRAME_KINDS, FrameKind
from tracesvc.format import Batch, Clocks, End, FormatError, Generation, Header, Loss, Procs, zstd
from tracesvc.format.frames import COMPRESSED, HEADER_SIZE, MARKER, MAX_FRAME, parse_header
from tracesvc.format.native import frames as native
from tracesvc.store.base import BadStreamError, StoreError
from tracesvc.store.ledger import MAX_PROCS, Glance, Ledger

__all__ = ["Piece", "Tail", "check", "record_of", "walk"]

Row: TypeAlias = tuple[int, int, int, int, int, int, int, tuple[int, int, int] | None]
"""kind, flags, number, last number, start, end, frames, glance: see ``walk`` in ``format/csrc/frames.c``"""

LIGHT: Final = 512 << 10
"""bytes that are checked in well under a millisecond"""
_LIMIT: Final = 1 << 62
_EVENTS: Final = int(FrameKind.EVENTS)
_NO_HEADER, _BAD_CHECKSUM = 1, 2
_UNPACK: Final[dict[int, Callable[[object], object]]] = {
    FrameKind.HEADER: Header.unpack,
    FrameKind.GENERATION: Generation.unpack,
    FrameKind.PROCS: Procs.unpack,
    FrameKind.EVENTS: Batch,
    FrameKind.LOSS: Loss.unpack,
    FrameKind.END: End.unpack,
    FrameKind.CLOCKS: Clocks.unpack,
}


class Piece:
    """Whole good frames found at the beginning of some bytes."""

    __slots__ = ("breaks", "problem", "records", "size")

    def __init__(self) -> None:
        self.size = 0
        """bytes of the whole good frames"""
        self.breaks: list[int] = []
        """where in them generations begin"""
        self.records: list[tuple[int, object]] = []
        """number of each frame and what it says, as far as the ledger needs it"""
        self.problem: StoreError | None = None
        """what is wrong with the frame that follows; None: it is merely not complete"""


class Tail:
    """The end of a stream: what decides which frames may follow."""

    __slots__ = ("_known", "_new", "_session", "ended", "last")

    def __init__(self, session: str, ledger: Ledger) -> None:
        self._session = session
        self._known = ledger.procs
        self._new: set[int] = set()
        self.last, self.ended = ledger.last_number, ledger.ended

    def follow(self, kind: int, number: int, record: object) -> None:
        """Move on by one frame.

        Raises:
          BadStreamError: it may not stand here.
        """
        if self.ended:
            raise BadStreamError("after-end", "nothing may follow the end mark of a session")
        if (self.last < 0) != (kind == FrameKind.HEADER):
            why = "the first frame of a session, and no other, is its header"
            raise BadStreamError("no-header", why)
        if number <= self.last:
            raise BadStreamError("frame-order", f"frame {number} follows frame {self.last}")
        if type(record) is Glance:  # first what comes most often
            self._meet(record.proc)
        elif type(record) is Loss or type(record) is Procs:
            for row in record.rows:
                self._meet(row.proc)
        elif type(record) is End:
            self.ended = True
        elif isinstance(record, Header | Generation) and record.session != self._session:
            why = f"a frame of session {record.session} in {self._session}"
            raise BadStreamError("wrong-session", why)
        self.last = number

    def _meet(self, proc: int) -> None:
        if proc not in self._known and proc not in self._new:
            if len(self._known) + len(self._new) >= MAX_PROCS:
                raise BadStreamError("too-many-procs", f"a session may have {MAX_PROCS} procs")
            self._new.add(proc)


def check(data: memoryview, tail: Tail, *, light: bool = False) -> Piece | None:
    """Find the whole good frames that may follow ``tail``, and move that behind them.

    Every byte is looked at once, and copied only where it must be decompressed.  ``light``: rather give None than
    decompress anything, or look at more than `LIGHT` bytes.
    """
    piece, size = Piece(), len(data)
    if light and size > LIGHT:
        return None
    rows, why = _walk(data, _EVENTS, MAX_FRAME)
    try:
        for kind, flags, number, last, start, end, frames, seen in rows:
            if light and flags & COMPRESSED:
                return None
            if seen is not None:
                record: object = Glance(seen[0], seen[1], seen[2], frames)
            else:
                record = record_of(kind, flags, data[start + HEADER_SIZE : end])
            tail.follow(kind, number, record)
            tail.last = last
            piece.records.append((last, record))
            if kind == FrameKind.GENERATION:
                piece.breaks.append(start)
            piece.size = end
        at = piece.size
        if why == _BAD_CHECKSUM:
            why_not = f"the checksum of frame {int.from_bytes(data[at + 9 : at + 13], 'big')} does not match its bytes"
            raise BadStreamError("wrong-checksum", why_not)  # noqa: TRY301
        if why or not MARKER.startswith(bytes(data[at : at + len(MARKER)])):
            raise _no_frame(data, at)
    except BadStreamError as exc:
        piece.problem = exc
    except FormatError as exc:
        piece.problem = BadStreamError("bad-frame", str(exc))
    return piece


def walk(data: memoryview, _events: int, _largest: int) -> tuple[list[Row], int]:
    """The twin of the native ``walk``: a row for every frame, and no glance at any."""
    rows: list[Row] = []
    at, size = 0, len(data)
    while size - at >= HEADER_SIZE:
        head = parse_header(data, at)
        if head is None:
            return rows, _NO_HEADER
        kind, flags, number, crc, length = head
        end = at + HEADER_SIZE + length
        if end > size:
            break
        if zlib.crc32(data[at + 18 : end], zlib.crc32(data[at + 6 : at + 13])) != crc:
            return rows, _BAD_CHECKSUM
        rows.append((kind, flags, number, number, at, end, 1, None))
        at = end
    return rows, 0


_walk: Final = walk if native is None else native.walk


def record_of(kind: int, flags: int, body: memoryview) -> object:
    """What a frame says, typed where the ledger or a check needs it.

    Raises:
      BadStreamError: it cannot be decompressed within the bounds, or its numbers are out of all bounds.
      FormatError: it is not what its kind demands.
    """
    raw: bytes | memoryview = body
    if flags & ~COMPRESSED:  # what no reader could read is not to be kept
        raise BadStreamError(
            "unknown-flags", f"flags {flags:#x} are not known to this service: upgrade"
        )
    if flags & COMPRESSED:
        try:
            raw = zstd.decompress(bytes(body), MAX_FRAME - HEADER_SIZE)
        except FormatError as exc:
            raise BadStreamError("bad-compression", str(exc)) from exc
    if kind == FrameKind.EVENTS and native is not None and (seen := native.glance(raw)) is not None:
        return Glance(*seen)
    try:
        content: object = msgpack.unpackb(raw, strict_map_key=False)
    except Exception as exc:  # msgpack raises a dozen classes, ValueError to RecursionError
        raise FormatError(f"the body of a frame is not msgpack: {exc}") from exc
    unpack = _UNPACK.get(kind)
    if unpack is None:
        return None
    record = unpack(content)
    if type(record) is Batch:
        return Glance(record.proc, record.first, record.count)
    if not _plausible(record):
        raise BadStreamError(
            "bad-numbers", f"a {FRAME_KINDS[kind].name} frame counts what cannot be"
        )
    return record


def _plausible(record: object) -> bool:
    """Whether sums of these numbers mean something: sequence numbers start from 0 and fit in 62 bits."""
    match record:
        case Loss(rows):
            return all(
                r.proc >= 0 and 0 <= r.first <= r.last < _LIMIT and r.cause >= 0 for r in rows
            )
        case Procs(rows):
            return all(r.proc >= 0 and 0 <= r.emitted < _LIMIT for r in rows)
        case End(emitted=number) | Header(wall=number):
            return 0 <= number < _LIMIT
    return True


def _no_frame(data: memoryview, at: int) -> BadStreamError:
    """Why no good frame begins at ``at``."""
    size = HEADER_SIZE + int.from_bytes(data[at + 19 : at + 23], "big")
    if bytes(data[at : at + 6]) == MARKER and data[at + 18] == 0xC6 and size > MAX_FRAME:
        return BadStreamError(
            "frame-too-large", f"a frame of {size} bytes; {MAX_FRAME} are allowed"
        )
    return BadStreamError("bad-frame", f"no frame begins at byte {at} of this part of the body")
