"""Binary records, many at once: literal bytes, variable-length numbers and texts, put in place by NumPy.

A *shape* is what all records of one kind have in common, a sequence of parts: ``bytes`` that each of them has, an array
with a number for each (written as a varint: little-endian base 128), a list of texts (bytes), or a `Nested` shape,
which is preceded by its length::

    Records(n, b"\\x08", numbers, Nested(b"\\x12", other_numbers))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Nested", "Part", "Raw", "Records", "join", "varint"]

Integers: TypeAlias = NDArray[np.int64]
Part: TypeAlias = "bytes | NDArray[Any] | list[bytes] | Nested | Raw"

_LIMITS: Final = [np.uint64(1 << 7 * i) for i in range(1, 10)]


def varint(value: int) -> bytes:
    """One number; a negative one as the unsigned 64-bit number with the same bits."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    out.append(value)
    return bytes(out)


class Nested:
    """Parts that are preceded by the number of their bytes."""

    def __init__(self, *parts: Part) -> None:
        self.parts = parts


class Raw:
    """An array of numbers of one byte, or the rows of a two-dimensional array of bytes, written as they are."""

    def __init__(self, values: NDArray[np.uint8]) -> None:
        self.values = values if values.ndim == 2 else values.reshape(-1, 1)


class _Literal:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.widths: Any = len(data)

    def write(self, out: NDArray[np.uint8], at: Integers) -> None:
        for i, byte in enumerate(self._data):
            out[at + i] = byte


class _Bytes:
    def __init__(self, raw: Raw) -> None:
        self._values = raw.values
        self.widths: Any = raw.values.shape[1]

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


class _Texts:
    def __init__(self, texts: list[bytes]) -> None:
        self._texts = texts
        self.widths: Any = np.array([len(text) for text in texts], np.int64)

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
            else:
                made = _Numbers(part)
            self._parts.append(made)
            self.widths += made.widths
            total = total + made.widths
        return total

    def write(self, out: NDArray[np.uint8], at: Integers) -> None:
        """Put each record where ``at`` says."""
        at = at.copy()
        for part in self._parts:
            part.write(out, at)
            at += part.widths


def join(groups: Sequence[tuple[Integers | slice, Records]], total: int) -> bytes:
    """All ``total`` records of some groups, one after the other; with each group comes the place of each of its records."""
    widths = np.zeros(total, np.int64)
    for places, records in groups:
        widths[places] = records.widths
    ends = np.cumsum(widths)
    out = np.empty(int(ends[-1]) if total else 0, np.uint8)
    starts = ends - widths
    for places, records in groups:
        records.write(out, starts[places])
    return out.tobytes()
