"""The black box of a program: what lies where in it, and what can be read of it when the program is dead. No I/O.

::

    offset 0      words of 8 bytes, little-endian, the order is that of `_WORDS`
           4096   the HEADER frame of the session
           64 K   the journal: slots of 64 bytes
                  the text area: values of the journal's records, as msgpack
                  the ring: frames

A slot of the journal is a stamp and a record as the native recorder has it: time, five values, their tags.  The stamp
is ``(proc << 40 | n) + 1``, where n counts what was stored in the proc's buffer; it is 0 while the slot is written.  A
value that is no number is a place in the text area: the length of a msgpack value, four bytes, and that value.  A place
counts all bytes ever written there, so it tells whether the value has been overwritten since.

The ring holds frames of the session, whole ones from ``ring_start``, where a generation begins, to ``ring_end`` (which
count in the same way).  Between them stand frames of the kind `ACCOUNTS`, which are for here only: rows ``[proc, seq,
n]`` say that the frames before have all of a proc's events before sequence number ``seq``, and of its records those
before n.  The first ones after a generation's beginning have a row for every proc that has not had its last account, a
row `NEWEST` with the highest number of a proc so far, and a row `RETIRED` with the events emitted and lost by the procs
that have.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import msgpack

from tracesvc.events import EVENTS, Storage
from tracesvc.format.batch import SLOTS
from tracesvc.format.errors import FormatError
from tracesvc.frozen import Frozen, frozen

__all__ = ["ACCOUNTS", "MIN_SIZE", "NEWEST", "RETIRED", "Box", "Layout", "Slot", "pack_value"]

MAGIC: Final = b"tsvcbox\x01"
ACCOUNTS: Final = 0x70
"""kind of a frame"""
NEWEST: Final = -1
RETIRED: Final = -2
HEADER_AT: Final = 4096
JOURNAL_AT: Final = 64 << 10
SLOT: Final = struct.Struct("<QqQQQQQBBBBBBBB")
"""stamp, time, five values, type, five tags, whether all five are used, whether any is a text"""
INT, DOUBLE, OBJECT = 0, 1, 2
MIN_SIZE: Final = 4 << 20
_WORDS: Final = (
    *("magic", "pid", "journal_at", "slots", "text_at", "text_size", "ring_at", "ring_size"),
    *("text_end", "ring_start", "ring_end", "header_size", "started"),
)
_WORD: Final = struct.Struct("<Q")
_LENGTH: Final = struct.Struct("<I")


@frozen
class Layout(Frozen):
    """Where the parts are; sizes in bytes."""

    slots: int
    text_size: int
    ring_size: int

    @classmethod
    def of(cls, size: int, records: int) -> Layout:
        """That of a box of so many bytes, whose journal is to have that many records: at most half of it."""
        if size < MIN_SIZE:
            raise ValueError(f"a black box has at least {MIN_SIZE} bytes, not {size}")
        room = size - JOURNAL_AT
        slots = min(records, room // 2 // SLOT.size)
        text = room // 6 & ~4095
        return cls(slots, text, (room - slots * SLOT.size - text) & ~4095)

    @property
    def size(self) -> int:
        """Of the whole box."""
        return JOURNAL_AT + self.slots * SLOT.size + self.text_size + self.ring_size

    def words(self, pid: int, started: int) -> dict[str, int]:
        """What a new box begins with; ``started`` in ns since the epoch."""
        text_at = JOURNAL_AT + self.slots * SLOT.size
        return {
            "pid": pid,
            "journal_at": JOURNAL_AT,
            "slots": self.slots,
            "text_at": text_at,
            "text_size": self.text_size,
            "ring_at": text_at + self.text_size,
            "ring_size": self.ring_size,
            "text_end": 8,
            "started": started,
        }


def offset_of(word: str) -> int:
    """Where a word lies."""
    return 8 * _WORDS.index(word)


def pack_value(value: object) -> bytes:
    """A value for the text area."""
    data: bytes = msgpack.packb(value, default=lambda _: None, unicode_errors="replace")
    return _LENGTH.pack(len(data)) + data


@frozen
class Slot(Frozen):
    """A record of the journal."""

    proc: int
    n: int
    """how many were stored in the proc's buffer before"""
    record: tuple[Any, ...]
    """type, time, a, b, c"""


class Box:
    """A box that nobody writes to any more.

    Raises:
      FormatError: it is none, or its beginning was not finished.
    """

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data: Final = memoryview(data)
        if len(self._data) < JOURNAL_AT or bytes(self._data[: len(MAGIC)]) != MAGIC:
            raise FormatError("this is no black box, or its program died before it had one")
        self._words = {word: self._word(word) for word in _WORDS[1:]}
        ends = (
            self._words["journal_at"] + self._words["slots"] * SLOT.size,
            self._words["text_at"] + self._words["text_size"],
            self._words["ring_at"] + self._words["ring_size"],
        )
        if max(ends) > len(self._data) or not self._words["text_size"]:
            raise FormatError("the black box is not whole")
        if not 0 < self._words["header_size"] <= JOURNAL_AT - HEADER_AT:
            raise FormatError("its program died before it had begun to record")

    def _word(self, word: str) -> int:
        number: int = _WORD.unpack_from(self._data, offset_of(word))[0]
        return number

    @property
    def pid(self) -> int:
        return self._words["pid"]

    @property
    def started(self) -> int:
        """ns since the epoch."""
        return self._words["started"]

    @property
    def header(self) -> bytes:
        """The HEADER frame."""
        return bytes(self._data[HEADER_AT : HEADER_AT + self._words["header_size"]])

    @property
    def ring(self) -> bytes:
        """The frames."""
        at, size = self._words["ring_at"], self._words["ring_size"]
        start, end = self._words["ring_start"], self._words["ring_end"]
        if not 0 <= end - start <= size:
            raise FormatError("the black box is damaged: its ring has no beginning")
        ring, first = self._data[at : at + size], start % size if size else 0
        length = end - start
        return bytes(ring[first : first + length]) + bytes(ring[: max(0, first + length - size)])

    def journal(self) -> Iterator[Slot]:
        """The records that can be read, in no order."""
        at, size = self._words["journal_at"], self._words["slots"] * SLOT.size
        for stamp, time, *rest in SLOT.iter_unpack(self._data[at : at + size]):
            if not stamp:
                continue
            values, (number, *tags, wide, _) = rest[:5], rest[5:]
            event = EVENTS.get(number)
            if event is None:
                continue
            try:
                fields = [self._value(*pair) for pair in zip(values, tags, strict=True)]
            except _GoneError:
                continue
            flat = fields if wide or len(event.fields) <= 3 else _unfolded(fields)
            if len(flat) < len(event.fields) or not all(
                isinstance(value, _TYPES[field.storage])
                for value, field in zip(flat, event.fields, strict=False)
            ):
                continue
            if wide:
                fields[2:] = [tuple(fields[2 : len(event.fields)])]
            yield Slot((stamp - 1) >> 40, (stamp - 1) & (1 << 40) - 1, (number, time, *fields[:3]))

    def _value(self, bits: int, tag: int) -> Any:
        if tag == INT:
            return bits - (1 << 64) if bits >> 63 else bits
        if tag == DOUBLE:
            return struct.unpack("<d", _WORD.pack(bits))[0]
        return self._text(bits)

    def _text(self, place: int) -> Any:
        end, size = self._words["text_end"], self._words["text_size"]
        at = place % size
        if not end - size <= place < end or not place or at + 4 > size:
            raise _GoneError
        at += self._words["text_at"]
        length = _LENGTH.unpack_from(self._data, at)[0]
        try:
            return msgpack.unpackb(
                self._data[at + 4 : at + 4 + length], use_list=False, strict_map_key=False
            )
        except Exception:  # msgpack raises a dozen classes
            raise _GoneError from None


_TYPES: Final[dict[Storage, type | tuple[type, ...]]] = {
    Storage.INT: int,
    Storage.FLOAT: (int, float),
    Storage.STRING: str,
    Storage.STACK: (tuple, int),
    Storage.DATA: object,
}
"""what a field may be; a stack that is not known is 0"""


def _unfolded(fields: list[Any]) -> list[Any]:
    """The fields of a record whose third value is a tuple of the rest."""
    return [*fields[:2], *fields[2]] if isinstance(fields[2], tuple) else []


class _GoneError(Exception):
    """A value has been overwritten."""


assert SLOTS == 5
