"""Bytes <-> frames, without I/O.

A frame is one msgpack array of six elements whose lengths are all written in fixed width, so that any msgpack library
can walk a stream and this one can find its place again after damage::

    offset 0   96                 array of 6
           1   A4 't' 's' 'v' 'c' the marker
           6   kind               positive fixint, `tracesvc.events.FrameKind`
           7   flags              positive fixint, bit 0: the body is zstd-compressed
           8   CE nnnnnnnn        number of the frame in its session, big-endian
          13   CE cccccccc        CRC-32 of bytes 6..12, 18..22 and of the body as it lies here
          18   C6 llllllll        length of the body
          23   body               one msgpack value, after decompression
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import msgpack

from tracesvc.events import FrameKind
from tracesvc.format import zstd
from tracesvc.format.errors import FormatError
from tracesvc.format.native import frames as native
from tracesvc.frozen import Frozen, frozen

__all__ = [
    "HEADER_SIZE",
    "MARKER",
    "MAX_FRAME",
    "Damage",
    "Frame",
    "FrameDecoder",
    "compress",
    "encode_frame",
]

crc32: Final = native.crc32 if native is not None and native.folds else zlib.crc32
MARKER: Final = b"\x96\xa4tsvc"
HEADER_SIZE: Final = 23
MAX_FRAME: Final = 512 << 10
"""bytes of a whole frame; the decompressed body is held to the same bound"""
COMPRESSED: Final = 1
_HEAD: Final = struct.Struct(">6sBBBIBIBI")
MAX_NUMBER: Final = (1 << 32) - 1


@frozen
class Frame(Frozen):
    """One frame and where it lay.

    ``first``, ``count`` and the times ``oldest`` and ``newest`` say which events of ``proc`` it carries (EVENTS frames
    that come from a `SessionWriter`; elsewhere they are 0: decode the body).
    """

    kind: int
    number: int
    data: bytes
    offset: int = 0
    proc: int = 0
    first: int = 0
    count: int = 0
    oldest: int = 0
    newest: int = 0

    @property
    def end(self) -> int:
        """Offset of the first byte behind the frame."""
        return self.offset + len(self.data)

    @property
    def compressed(self) -> bool:
        return bool(self.data[7] & COMPRESSED)

    def content(self) -> bytes | memoryview:
        """The body as bytes, decompressed.

        Raises:
          FormatError: it decompresses to more than a frame may hold, or not at all, or has flags that are not known.
        """
        if self.data[7] & ~COMPRESSED:
            raise FormatError(
                f"frame {self.number}: flags {self.data[7]:#x} are not known to this version: upgrade"
            )
        raw = memoryview(self.data)[HEADER_SIZE:]
        if self.compressed:
            return zstd.decompress(bytes(raw), MAX_FRAME - HEADER_SIZE)
        return raw

    def body(self) -> object:
        """The decoded msgpack value.

        Raises:
          FormatError: the body is not msgpack, or decompresses to more than a frame may hold.
        """
        try:
            return msgpack.unpackb(self.content(), strict_map_key=False)
        except FormatError:
            raise
        except Exception as exc:  # msgpack raises a dozen classes, ValueError to RecursionError
            raise FormatError(f"frame {self.number}: body is not msgpack: {exc}") from exc

    def checksum(self) -> bytes:
        """The four bytes of the checksum that the frame had when it was made: before it was compressed, if it was.

        Raises:
          FormatError: it cannot be decompressed.
        """
        if not self.compressed:
            return self.data[14:18]
        return _checksum(self.kind, self.data[7] & ~COMPRESSED, self.number, self.content())


@frozen
class Damage(Frozen):
    """Bytes ``start`` to ``end`` of the stream that belong to no good frame."""

    start: int
    end: int
    reason: str


def _checksum(kind: int, flags: int, number: int, body: bytes | memoryview) -> bytes:
    checked = bytes((kind, flags, 0xCE)) + number.to_bytes(4, "big")
    length = b"\xc6" + len(body).to_bytes(4, "big")
    return crc32(body, crc32(length, crc32(checked))).to_bytes(4, "big")


def _seal(kind: int, flags: int, number: int, body: bytes) -> bytes:
    if len(body) > MAX_FRAME - HEADER_SIZE:
        raise FormatError(
            f"a frame body of {len(body)} bytes is over the limit of {MAX_FRAME - HEADER_SIZE}"
        )
    if not 0 <= number <= MAX_NUMBER:
        raise FormatError(f"frame number {number} does not fit in 32 bits")
    return b"".join(
        (
            MARKER,
            bytes((kind, flags, 0xCE)),
            number.to_bytes(4, "big"),
            b"\xce",
            _checksum(kind, flags, number, body),
            b"\xc6",
            len(body).to_bytes(4, "big"),
            body,
        )
    )


def encode_frame(kind: FrameKind, number: int, body: object) -> bytes:
    """Pack ``body`` and frame it.

    Raises:
      FormatError: it would be larger than `MAX_FRAME`.
    """
    return _seal(kind, 0, number, msgpack.packb(body))


def compress(data: bytes, level: int = 6) -> bytes:
    """The same frame with its body zstd-compressed; returned unchanged where that would not make it smaller."""
    if data[7] & COMPRESSED:
        return data
    body = zstd.compress(data[HEADER_SIZE:], level)
    if len(body) >= len(data) - HEADER_SIZE:
        return data
    return _seal(data[6], data[7] | COMPRESSED, int.from_bytes(data[9:13], "big"), body)


def uncompress(data: bytes) -> bytes:
    """The same frame with its body as it was before `compress`.

    Raises:
      FormatError: it cannot be decompressed.
    """
    if not data[7] & COMPRESSED:
        return data
    body = zstd.decompress(data[HEADER_SIZE:], MAX_FRAME - HEADER_SIZE)
    return _seal(data[6], data[7] & ~COMPRESSED, int.from_bytes(data[9:13], "big"), body)


def parse_header(
    data: bytes | bytearray | memoryview, at: int = 0
) -> tuple[int, int, int, int, int] | None:
    """(kind, flags, number, crc, length of the body) of the 23 bytes at ``at``, or None if they are no frame header."""
    marker, kind, flags, ce, number, ce_, crc, c6, length = _HEAD.unpack_from(data, at)
    if marker != MARKER or ce != 0xCE or ce_ != 0xCE or c6 != 0xC6:
        return None
    if kind > 0x7F or flags > 0x7F or length > MAX_FRAME - HEADER_SIZE:
        return None
    return kind, flags, number, crc, length


class FrameDecoder:
    """Finds the frames in a stream that arrives in pieces of any size.

    ``feed()`` bytes, then iterate: every item is a `Frame` or a `Damage`.  After damage it goes on at the next good
    frame.  ``close()`` says that nothing follows; what is left then comes out of a last iteration.  A frame that was
    still incomplete at that point is a `Damage` with the reason "truncated".  `pending` is the number of bytes held
    back for an incomplete frame; it never exceeds `MAX_FRAME` plus one piece.
    """

    def __init__(self, offset: int = 0) -> None:
        self._buffer = bytearray()
        self._start = offset
        self._closed = False
        self._bad_from: int | None = None
        self._why = ""
        self._tell = False

    @property
    def offset(self) -> int:
        """Offset in the stream of the first byte that has not come out yet."""
        return self._start if self._bad_from is None else self._bad_from

    @property
    def pending(self) -> int:
        return len(self._buffer)

    @property
    def lost(self) -> bool:
        """Whether the last bytes fed are within damage: no good frame has come since."""
        return self._bad_from is not None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        if self._closed:
            raise ValueError("feed() after close(): make a new FrameDecoder for another stream")
        self._buffer += data

    def close(self) -> None:
        self._closed = True

    def resync(self) -> bool:
        """All the bytes there are have been fed, and more may come: say what can be said already.

        If this is True, the next iteration gives something: the damage up to here, or, where a good frame lies behind
        one that seemed to be incomplete (its length was damaged), what follows there.  Otherwise nothing has changed.
        """
        if self._bad_from is not None and self._bad_from < self._start:
            self._tell = True
            return True
        probe = FrameDecoder(self._start)
        probe.feed(self._buffer)
        probe.close()
        for found in probe:
            if isinstance(found, Frame):
                if self._bad_from is None:
                    self._bad_from, self._why = self._start, "wrong length"
                del self._buffer[: found.offset - self._start]
                self._start = found.offset
                return True
        return False

    def __iter__(self) -> Iterator[Frame | Damage]:
        buffer, at = self._buffer, 0
        try:
            while at < len(buffer):
                found = self._frame_at(at)
                if isinstance(found, Frame):
                    if self._bad_from is not None:
                        damage, self._bad_from = (
                            Damage(self._bad_from, self._start + at, self._why),
                            None,
                        )
                        yield damage
                    at += len(found.data)
                    yield found
                elif found is None:
                    break
                else:
                    if self._bad_from is None:
                        self._bad_from, self._why = self._start + at, found
                    at = self._next_candidate(at + 1)
        finally:
            del buffer[:at]
            self._start += at
        tell, self._tell = self._closed or self._tell, False
        if tell and self._bad_from is not None:
            damage, self._bad_from = Damage(self._bad_from, self._start, self._why), None
            yield damage

    def _frame_at(self, at: int) -> Frame | str | None:
        """The frame at ``at``, or why there is none, or None while more bytes are needed to tell."""
        buffer = self._buffer
        have = len(buffer) - at
        if not buffer.startswith(MARKER, at) and (
            have >= len(MARKER) or not MARKER.startswith(buffer[at:])
        ):
            return "no frame marker"
        if have < HEADER_SIZE:
            return "truncated" if self._closed else None
        head = parse_header(buffer, at)
        if head is None:
            return "damaged frame header"
        kind, _flags, number, crc, length = head
        if have < HEADER_SIZE + length:
            return "truncated" if self._closed else None
        with memoryview(buffer) as view:
            data = bytes(view[at : at + HEADER_SIZE + length])
        if crc32(memoryview(data)[18:], crc32(data[6:13])) != crc:
            return "wrong checksum"
        return Frame(kind, number, data, self._start + at)

    def _next_candidate(self, at: int) -> int:
        """Where the next frame may begin: a marker, or its first bytes at the very end."""
        found = self._buffer.find(MARKER, at)
        if found >= 0:
            return found
        if self._closed:
            return len(self._buffer)
        for keep in range(min(len(MARKER) - 1, len(self._buffer) - at), 0, -1):
            if MARKER.startswith(self._buffer[-keep:]):
                return len(self._buffer) - keep
        return len(self._buffer)
