"""Columns of numbers as byte planes.

A column of n 64-bit values is cut into eight planes: plane i holds byte i (little-endian) of every value.  A
plane whose bytes are all equal is not written; its byte goes into ``rest``.  What is left is small by itself
(small numbers have high planes of zeros) and compresses well, because bytes of like meaning lie side by side.

A column is ``mask, rest, planes``, as a msgpack array by itself or side by side with others, see
`tracesvc.format.batch`.  Bit i of ``mask`` says that plane i is in ``planes`` (in ascending order, n bytes each);
byte i of ``rest`` (an unsigned 64-bit number) holds the constant of every other plane.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Any, Final

from tracesvc.format.errors import FormatError

__all__ = ["ONES", "Column", "decode_column", "decode_planes", "encode_column"]

Column = tuple[int, int, bytes]
"""(mask, rest, planes)"""

_LITTLE: Final = array("H", [1]).tobytes() == b"\x01\x00"
ONES: Final = [mask.bit_count() for mask in range(256)]
"""mask -> how many planes it says there are"""
_PLANES: Final = [[i for i in range(8) if mask >> i & 1] for mask in range(256)]


def encode_column(values: Sequence[int] | Sequence[float], typecode: str = "q") -> Column:
    """``typecode`` is that of `struct`: "q" for signed 64-bit integers, "d" for doubles.

    Raises:
      OverflowError: a value does not fit in 64 bits.
    """
    n = len(values)
    if not n:
        return 0, 0, b""
    first = values[0]
    if typecode != "q":
        raw = struct.pack(f"<{n}{typecode}", *values)
    elif first == values[-1] and values.count(first) == n:
        return 0, int.from_bytes(_pack("q", (first,)), "little"), b""
    else:
        raw = _narrow(values)
    width = len(raw) // n
    mask, rest, planes = 0, 0, []
    for i in range(width):
        plane = raw[i::width]
        if plane[0] == plane[-1] and plane == plane[:1] * n:
            rest |= plane[0] << (8 * i)
        else:
            mask |= 1 << i
            planes.append(plane)
    return mask, rest, b"".join(planes)


def _narrow(values: Sequence[int] | Sequence[float]) -> bytes:
    """Little-endian, in 1, 4 or 8 bytes each: planes of zeros that are never made need not be found."""
    if values[0] < 256:
        try:
            return bytes(values)  # type: ignore[arg-type]
        except ValueError:
            pass
    try:
        return struct.pack(f"<{len(values)}I", *values)
    except struct.error:
        return _pack("q", values)


def _pack(typecode: str, values: Sequence[int] | Sequence[float]) -> bytes:
    try:
        return struct.pack(f"<{len(values)}{typecode}", *values)
    except struct.error as exc:
        raise OverflowError(f"a value does not fit in 64 bits: {exc}") from exc


def decode_planes(mask: int, rest: int, planes: bytes, n: int, typecode: str = "q") -> array[Any]:
    """The n values of a column whose ``planes`` are as many as ``mask`` has bits."""
    raw = bytearray(rest.to_bytes(8, "little") * n) if rest else bytearray(8 * n)
    at = 0
    for i in _PLANES[mask]:
        raw[i::8] = planes[at : at + n]
        at += n
    numbers: array[Any] = array(typecode, raw)
    if not _LITTLE:
        numbers.byteswap()
    return numbers


def decode_column(column: object, n: int, typecode: str = "q") -> array[Any]:
    """The n values of a column.

    Raises:
      FormatError: it is no column of n values.
    """
    if not isinstance(column, list) or len(column) < 3:
        raise FormatError("not a column")
    mask, rest, planes = column[:3]
    if not (
        type(mask) is int
        and type(rest) is int
        and type(planes) is bytes
        and 0 <= mask <= 0xFF
        and 0 <= rest < 1 << 64
        and len(planes) == ONES[mask] * n
    ):
        raise FormatError(f"not a column of {n} values")
    return decode_planes(mask, rest, planes, n, typecode)
