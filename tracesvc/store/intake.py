"""Checks the bytes that are to continue a session, before they are stored."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Final

import msgpack

from tracesvc.events import FRAME_KINDS, FrameKind
from tracesvc.format import Batch, End, FormatError, Generation, Header, Loss, Procs, zstd
from tracesvc.format.frames import COMPRESSED, HEADER_SIZE, MARKER, MAX_FRAME, parse_header
from tracesvc.store.base import BadStreamError, StoreError
from tracesvc.store.ledger import MAX_PROCS, Ledger

__all__ = ["Piece", "Tail", "check", "passed_over", "record_of"]

LIGHT: Final = 512 << 10
"""bytes that are checked in well under a millisecond"""
_LIMIT: Final = 1 << 62
_UNPACK: Final[dict[int, Callable[[object], object]]] = {
    FrameKind.HEADER: Header.unpack,
    FrameKind.GENERATION: Generation.unpack,
    FrameKind.PROCS: Procs.unpack,
    FrameKind.EVENTS: Batch,
    FrameKind.LOSS: Loss.unpack,
    FrameKind.END: End.unpack,
}


class Piece:
    """Whole good frames found at the beginning of some bytes."""

    __slots__ = ("problem", "records", "size")

    def __init__(self) -> None:
        self.size = 0
        """bytes of the whole good frames"""
        self.records: list[tuple[int, object]] = []
        """number of each frame and what it says, as far as the ledger needs it"""
        self.problem: StoreError | None = None
        """what is wrong with the frame that follows; None: it is merely not complete"""


class Tail:
    """The end of a stream: what decides which frames may follow."""

    __slots__ = ("ended", "known", "last", "new")

    def __init__(self, ledger: Ledger) -> None:
        self.last, self.ended = ledger.last_number, ledger.ended
        self.known = ledger.procs
        self.new: set[int] = set()

    def follow(self, kind: int, number: int, record: object, session: str) -> None:
        """Move on by one frame.

        Raises:
          BadStreamError: it may not stand here.
        """
        if self.ended:
            raise BadStreamError("after-end", "nothing may follow the end mark of a session")
        if (self.last < 0) != (kind == FrameKind.HEADER):
            raise BadStreamError(
                "no-header", "the first frame of a session, and no other, is its header"
            )
        if number <= self.last:
            raise BadStreamError("frame-order", f"frame {number} follows frame {self.last}")
        if isinstance(record, Header | Generation) and record.session != session:
            raise BadStreamError(
                "wrong-session", f"a frame of session {record.session} in {session}"
            )
        self.new.update(proc for proc in _procs(record) if proc not in self.known)
        if len(self.known) + len(self.new) > MAX_PROCS:
            raise BadStreamError("too-many-procs", f"a session may have {MAX_PROCS} procs")
        self.last, self.ended = number, isinstance(record, End)


def check(data: memoryview, session: str, tail: Tail, *, light: bool = False) -> Piece | None:
    """Find the whole good frames that may follow ``tail``, and move that behind them.

    Every byte is looked at once, and copied only where it must be decompressed.  ``light``: rather give None than
    decompress anything, or look at more than `LIGHT` bytes.
    """
    piece = Piece()
    if light and len(data) > LIGHT:
        return None
    try:
        while (found := _frame(data, piece.size)) is not None:
            kind, flags, number, end = found
            if light and flags & COMPRESSED:
                return None
            record = record_of(kind, flags, data[piece.size + HEADER_SIZE : end])
            tail.follow(kind, number, record, session)
            piece.records.append((number, record))
            piece.size = end
    except BadStreamError as exc:
        piece.problem = exc
    except FormatError as exc:
        piece.problem = BadStreamError("bad-frame", str(exc))
    return piece


def passed_over(data: memoryview, size: int) -> int | None:
    """Bytes of the whole frames within the first ``size``, which are stored already: they are not checked again.

    None: they are no frames, or one of them reaches beyond ``size``.
    """
    at = 0
    while at < min(size, len(data)):
        head = parse_header(data[at : at + HEADER_SIZE]) if len(data) - at >= HEADER_SIZE else None
        if head is None:
            return at if len(data) - at < HEADER_SIZE and _may_begin(data, at) else None
        end = at + HEADER_SIZE + head[-1]
        if end > size:
            return None
        if end > len(data):
            break
        at = end
    return at


def record_of(kind: int, flags: int, body: memoryview) -> object:
    """What a frame says, typed where the ledger or a check needs it.

    Raises:
      BadStreamError: it cannot be decompressed within the bounds, or its numbers are out of all bounds.
      FormatError: it is not what its kind demands.
    """
    raw: bytes | memoryview = body
    if flags & COMPRESSED:
        try:
            raw = zstd.decompress(bytes(body), MAX_FRAME - HEADER_SIZE)
        except FormatError as exc:
            raise BadStreamError("bad-compression", str(exc)) from exc
    try:
        content: object = msgpack.unpackb(raw, strict_map_key=False)
    except Exception as exc:  # msgpack raises a dozen classes, ValueError to RecursionError
        raise FormatError(f"the body of a frame is not msgpack: {exc}") from exc
    unpack = _UNPACK.get(kind)
    if unpack is None:
        return None
    record = unpack(content)
    if not _plausible(record):
        raise BadStreamError(
            "bad-numbers", f"a {FRAME_KINDS[kind].name} frame counts what cannot be"
        )
    return record


def _plausible(record: object) -> bool:
    """Whether sums of these numbers mean something: sequence numbers start from 0 and fit in 62 bits."""
    match record:
        case Batch(end=end):
            return end < _LIMIT
        case Loss(rows):
            return all(
                r.proc >= 0 and 0 <= r.first <= r.last < _LIMIT and r.cause >= 0 for r in rows
            )
        case Procs(rows):
            return all(r.proc >= 0 and 0 <= r.emitted < _LIMIT for r in rows)
        case End(emitted=number) | Header(wall=number):
            return 0 <= number < _LIMIT
    return True


def _procs(record: object) -> Iterable[int]:
    match record:
        case Batch(proc=proc):
            return (proc,)
        case Loss(rows) | Procs(rows):
            return (row.proc for row in rows)
    return ()


def _frame(data: memoryview, at: int) -> tuple[int, int, int, int] | None:
    """(kind, flags, number, end) of the frame at ``at``, or None while it is not complete.

    Raises:
      BadStreamError: there is no good frame.
    """
    if len(data) - at < HEADER_SIZE:
        if _may_begin(data, at):
            return None
        raise BadStreamError("bad-frame", f"no frame begins at byte {at} of this part of the body")
    head = parse_header(data[at : at + HEADER_SIZE])
    if head is None:
        size = HEADER_SIZE + int.from_bytes(data[at + 19 : at + 23], "big")
        if bytes(data[at : at + 6]) == MARKER and data[at + 18] == 0xC6 and size > MAX_FRAME:
            raise BadStreamError(
                "frame-too-large", f"a frame of {size} bytes; {MAX_FRAME} are allowed"
            )
        raise BadStreamError("bad-frame", f"no frame begins at byte {at} of this part of the body")
    kind, flags, number, crc, length = head
    end = at + HEADER_SIZE + length
    if end > len(data):
        return None
    if zlib.crc32(data[at + 18 : end], zlib.crc32(data[at + 6 : at + 13])) != crc:
        raise BadStreamError(
            "wrong-checksum", f"the checksum of frame {number} does not match its bytes"
        )
    return kind, flags, number, end


def _may_begin(data: memoryview, at: int) -> bool:
    """Whether a frame may begin with the few bytes that there are."""
    head = bytes(data[at : at + len(MARKER)])
    return MARKER.startswith(head)
