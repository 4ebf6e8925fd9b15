r"""Binary records, many at once: literal bytes, variable-length numbers and texts, put in place by NumPy.

A *shape* is what all records of one kind have in common, a sequence of parts: ``bytes`` that each of them has, an array
with a number for each (written as a varint: little-endian base 128), a list of texts (bytes), or a `Nested` shape,
which is preceded by its length::

    Records(n, b"\x08", numbers, Nested(b"\x12", other_numbers))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Nested", "Part", "Raw", "Records", "Some", "join", "varint"]

Integers: TypeAlias = NDArray[np.int64]
Part: TypeAlias = "bytes | NDArray[Any] | list[bytes] | Nested | Raw | Some"
BLOCK: Final = 4096
"""records that are laid out together: what fits in the cache"""

_SMALL: Final = [bytes([i]) for i in range(0x80)]
_LIMITS: Final = [np.uint64(1 << 7 * i) for i in range(1, 10)]


def varint(value: int) -> bytes:
    """One number; a negative one as the unsigned 64-bit number with the same bits."""
    if 0 <= value < 0x80:
        return _SMALL[value]
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    out.append(value)
    return bytes(out)


class Nested:
    """Parts that are preceded by ``tag``, if there is one, and by the number of their bytes."""

    def __init__(self, *parts: Part, tag: bytes = b"") -> None:
        self.parts, self.tag = parts, tag


class Raw:
    """An array of numbers of one byte, or the rows of a two-dimensional array of bytes, written as they are."""

    def __init__(self, values: NDArray[np.uint8]) -> None:
        self.values = values if values.ndim == 2 else values.reshape(-1, 1)


class Some:
    """Rows of bytes, like `Raw`, that only some of the records have."""

    def __init__(self, where: NDArray[np.bool_], values: NDArray[np.uint8]) -> None:
        self.where, self.values = where, values


class _Literal:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.widths: Any = len(data)
        self.room = len(data)

    def fill(self, block: Any, mask: Any, rows: slice) -> None:
        block[:] = np.frombuffer(self._data, np.uint8)

    def write(self, out: NDArray[np.uint8], at: Integers) -> None:
        for i, byte in enumerate(self._data):
            out[at + i] = byte


class _Bytes:
    def __init__(self, raw: Raw) -> None:
        self._values = raw.values
        self.widths: Any = raw.values.shape[1]
        self.room = raw.values.shape[1]

    def fill(self, block: Any, mask: Any, rows: slice) -> None:
        block[:] = self._values[rows]

    def write(self, out: NDArray[np.uint8], at: Integers) -> None:
        for i in range(self._values.shape[1]):
            out[at + i] = self._values[:, i]


class _Numbers:
    def __init__(self, values: NDArray[Any]) -> None:
        self._values = values.astype(np.uint64, copy=False)
        self._highest = int(self._values.max(initial=0))
        self.widths: Any = 1
        if self._highest >= 0x80:
            widths = np.ones(len(values), np.int64)
            for limit in _LIMITS:
                if self._highest < limit:
                    break
                widths += self._values >= limit
            self.widths = widths
        self.room = int(np.max(self.widths, initial=1))
        self._least = int(np.min(self.widths, initial=10))

    def fill(self, block: Any, mask: Any, rows: slice) -> None:
        values = self._values[rows]
        if self.room == 1:
            block[:, 0] = values
            return
        widths = self.widths[rows]
        for i in range(self.room):
            if i + 1 < self._least:
                block[:, i] = values | np.uint64(0x80)
            elif i + 1 == self.room:
                block[:, i] = values
            else:
                block[:, i] = (values & np.uint64(0x7F)) | ((widths > i + 1) * np.uint64(0x80))
            if i >= self._least:
                mask[:, i] = widths > i
            values = values >> np.uint64(7)

    def write(self, out: NDArray[np.uint8], at: Integers) -> None:
        if self._highest < 0x80:
            out[at] = self._values
            return
        widths, values = self.widths, self._values
        for i in range(int(widths.min(initial=1)) - 1):
            out[at + i] = (values & np.uint64(0x7F)) | np.uint64(0x80)
            values = values >> np.uint64(7)
        done = int(widths.min(initial=1)) - 1
        rest = np.arange(len(values))
        for i in range(done, int(widths.max(initial=1))):
            more = widths[rest] > i + 1
            out[at[rest] + i] = (values[rest] & np.uint64(0x7F)) | (more * np.uint64(0x80))
            rest = rest[more]
            values = values >> np.uint64(7)


class _Some:
    def __init__(self, some: Some) -> None:
        self._where = some.where
        self._values = some.values
        self.room = some.values.shape[1]
        self.widths: Any = some.where * np.int64(self.room)

    def fill(self, block: Any, mask: Any, rows: slice) -> None:
        block[:] = self._values[rows]
        mask[:] = self._where[rows, None]

    def write(self, out: NDArray[np.uint8], at: Integers) -> None:
        for i in range(self.room):
            out[at[self._where] + i] = self._values[self._where, i]


class _Texts:
    def __init__(self, texts: list[bytes]) -> None:
        self._texts = texts
        self.widths: Any = np.array([len(text) for text in texts], np.int64)
        self.room = int(self.widths.max(initial=0))

    def fill(self, block: Any, mask: Any, rows: slice) -> None:
        mask[:] = np.arange(self.room) < self.widths[rows, None]
        block[mask] = np.frombuffer(b"".join(self._texts[rows]), np.uint8)

    def write(self, out: NDArray[np.uint8], at: Integers) -> None:
        for text, place in zip(self._texts, at.tolist(), strict=True):
            out[place : place + len(text)] = np.frombuffer(text, np.uint8)


class Records:
    """``n`` records of one shape."""

    def __init__(self, n: int, *parts: Part) -> None:
        self.widths: Integers = np.zeros(n, np.int64)
        """bytes of each record"""
        self._parts: list[Any] = []
        self._add(parts)

    def _add(self, parts: Sequence[Part]) -> Any:
        """Returns the bytes of each record that these parts make."""
        total: Any = 0
        for part in parts:
            if isinstance(part, Nested):
                if part.tag:
                    total = total + self._add([part.tag])
                place = len(self._parts)
                inner = self._add(part.parts)
                sizes = np.broadcast_to(np.asarray(inner, np.int64), self.widths.shape)
                length = _Numbers(sizes)
                self._parts.insert(place, length)
                self.widths += length.widths
                total = total + inner + length.widths
                continue
            made: Any
            if isinstance(part, bytes):
                made = _Literal(part)
            elif isinstance(part, list):
                made = _Texts(part)
            elif isinstance(part, Raw):
                made = _Bytes(part)
            elif isinstance(part, Some):
                made = _Some(part)
            else:
                made = _Numbers(part)
            self._parts.append(made)
            self.widths += made.widths
            total = total + made.widths
        return total

    def tobytes(self) -> bytes:
        """All of them, one after the other."""
        room = sum(part.room for part in self._parts)
        done = []
        for start in range(0, len(self.widths), BLOCK):
            rows = slice(start, start + BLOCK)
            widths = self.widths[rows]
            block = np.empty((len(widths), room), np.uint8)
            mask = np.ones((len(widths), room), np.bool_)
            at = 0
            for part in self._parts:
                there = slice(at, at + part.room)
                part.fill(block[:, there], mask[:, there], rows)
                at += part.room
            done.append(block[mask].tobytes() if (widths != room).any() else block.tobytes())
        return b"".join(done)

    def write(self, out: NDArray[np.uint8], at: Integers) -> None:
        """Put each record where ``at`` says."""
        at = at.copy()
        for part in self._parts:
            part.write(out, at)
            at += part.widths


def join(groups: Sequence[tuple[Integers | slice, Records]], total: int) -> bytes:
    """All ``total`` records of some groups, one after the other; with a group come the places of its records."""
    widths = np.zeros(total, np.int64)
    for places, records in groups:
        widths[places] = records.widths
    ends = np.cumsum(widths)
    out = np.empty(int(ends[-1]) if total else 0, np.uint8)
    starts = ends - widths
    for places, records in groups:
        records.write(out, starts[places])
    return out.tobytes()
