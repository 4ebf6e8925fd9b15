"""EVENTS frames: a batch of one proc's events, in columns.

Body of the frame::

    [proc, first, t0, types, deltas, groups]

``types`` is one byte per event, its type number.  ``deltas`` is a column with the time to the event before it (0 for the
first, which happened at ``t0``).  ``groups`` has one row ``[type, n, [column, ...]]`` per type that occurs, ascending:
there are n events of it, and its columns are the fields of the type in the order of the vocabulary, one value for every
such event, in order.
INT, FLOAT and STRING fields are columns as in `tracesvc.format.columns`, DATA fields plain msgpack arrays.

The writer's side takes *records*: a flat list with five slots per event (type, time, and three for the fields; where a
type has more than three, the third is a tuple of the rest).  That is what the recorder appends to, see
`tracesvc.recorder.proc`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, compress
from operator import itemgetter, sub
from typing import Any, Final

from tracesvc.events import EVENTS, Event, Storage
from tracesvc.format.columns import decode_column, encode_column
from tracesvc.format.errors import FormatError

__all__ = ["MAX_EVENTS", "SLOTS", "Batch", "encode_batch", "sort_records"]

SLOTS: Final = 5
"""slots of one record"""
MAX_EVENTS: Final = 1 << 16
"""events in one frame, at most; bounds what a decoder allocates"""

_SELECT: Final = {number: bytes(number == i for i in range(256)) for number in EVENTS}
_DATA: Final = ""
_STRING: Final = "s"
_CODE: Final = {Storage.INT: "q", Storage.STRING: _STRING, Storage.FLOAT: "d", Storage.DATA: _DATA}
_EMPTY: Final[dict[Storage, object]] = {Storage.INT: 0, Storage.FLOAT: 0.0, Storage.STRING: 0, Storage.DATA: None}
_by_time: Final[Callable[[tuple[Any, ...]], int]] = itemgetter(1)


def sort_records(records: list[Any], not_before: int) -> int:
    """Put the records in order of time, none before ``not_before``; returns how many had to be moved up.

    Emission is re-entrant: a signal handler or the garbage collector may emit between the clock reading and the store
    of another event, so two records can lie the wrong way round.  Sorting is stable and rare.
    """
    rows = sorted(zip(*[iter(records)] * SLOTS, strict=True), key=_by_time)
    late = 0
    for i, row in enumerate(rows):
        if row[1] >= not_before:
            break
        rows[i] = (row[0], not_before, *row[2:])
        late += 1
    records[:] = [slot for row in rows for slot in row]
    return late


def encode_batch(proc: int, first: int, records: Sequence[Any], intern: Callable[[str], int]) -> list[object]:
    """The body for records that are in order of time.

    ``intern`` turns a name into its id in the generation's string table.
    """
    types = bytes(records[0::SLOTS])
    times = records[1::SLOTS]
    slots = (records[2::SLOTS], records[3::SLOTS], records[4::SLOTS])
    groups: list[object] = []
    for number in sorted(set(types)):
        select = types.translate(_SELECT[number])
        columns: list[object] = []
        values: list[Any] = []
        for code, slot, rest in _PLANS[number]:
            values = list(compress(slots[slot], select))
            if rest is not None:
                values = list(map(rest, values))
            if code == _DATA:
                columns.append(values)
            elif code == _STRING:
                columns.append(encode_column(list(map(intern, values))))
            else:
                columns.append(encode_column(values, code))
        groups.append([number, len(values) if columns else sum(select), columns])
    deltas = [0, *map(sub, times[1:], times)]
    return [proc, first, times[0], types, encode_column(deltas), groups]


_Plan = tuple[tuple[str, int, Callable[[tuple[Any, ...]], Any] | None], ...]


def _plan(event: type[Event]) -> _Plan:
    """Per field: how it is stored, in which of the three slots, and how to get it out of a slot that holds a tuple."""
    codes = [_CODE[field.storage] for field in event.fields]
    if len(codes) <= 3:
        return tuple((code, i, None) for i, code in enumerate(codes))
    return tuple((code, min(i, 2), itemgetter(i - 2) if i >= 2 else None) for i, code in enumerate(codes))


_PLANS: Final[dict[int, _Plan]] = {number: _plan(event) for number, event in EVENTS.items()}


class Batch:
    """The decoded body of an EVENTS frame; columns are decoded when they are asked for.

    Raises:
      FormatError: the body is not one (`__init__`), or a column of it is damaged (the methods).
    """

    __slots__ = ("_groups", "_deltas", "count", "first", "proc", "t0", "types")

    def __init__(self, body: object) -> None:
        match body:
            case [int(proc), int(first), int(t0), bytes(types), list(deltas), list(groups)] if (
                proc >= 0 and first >= 0 and 0 < len(types) <= MAX_EVENTS
            ):
                self.proc, self.first, self.t0, self.types = proc, first, t0, types
                self.count = len(types)
                self._deltas = deltas
            case _:
                raise FormatError("not the body of an EVENTS frame")
        self._groups: dict[int, tuple[int, list[object]]] = {}
        for group in groups:
            if not (
                type(group) is list
                and len(group) == 3
                and type(group[0]) is int
                and type(group[1]) is int
                and type(group[2]) is list
                and group[0] not in self._groups
                and 0 < group[1] <= self.count
            ):
                raise FormatError("not a group of columns")
            self._groups[group[0]] = group[1], group[2]
        if sum(n for n, _ in self._groups.values()) != self.count:
            raise FormatError("the groups of a batch do not add up to its events")

    @property
    def end(self) -> int:
        """Sequence number behind the last event."""
        return self.first + self.count

    @property
    def numbers(self) -> list[int]:
        """The event types that occur."""
        return list(self._groups)

    def deltas(self) -> array[int]:
        """ns from each event to the one before it; the first is 0."""
        return decode_column(self._deltas, self.count)

    def times(self) -> list[int]:
        """Absolute time of every event, ns."""
        deltas = self.deltas()
        deltas[0] += self.t0
        return list(accumulate(deltas))

    def columns(self, number: int) -> list[Sequence[Any]]:
        """The fields of all events of a type, in order; string fields as ids. Fields the writer did not know are empty."""
        n, stored = self._groups[number]
        decoded: list[Sequence[Any]] = []
        for (code, _, _), column in zip(_PLANS[number], stored, strict=False):
            if code == _DATA:
                if not isinstance(column, list) or len(column) != n:
                    raise FormatError(f"a field of {EVENTS[number].type} has not {n} values")
                decoded.append(column)
            else:
                decoded.append(decode_column(column, n, "d" if code == "d" else "q"))
        for field in EVENTS[number].fields[len(decoded) :]:
            decoded.append([_EMPTY[field.storage]] * n)
        return decoded

    def events(self, text: Callable[[int], str]) -> Iterator[Event]:
        """Every event, typed; ``text`` resolves string ids. Types this version does not know are passed over."""
        rows: dict[int, Iterator[tuple[Any, ...]]] = {}
        for number in self._groups:
            event = EVENTS.get(number)
            if event is None:
                continue
            columns = self.columns(number)
            for i, field in enumerate(event.fields):
                if field.storage is Storage.STRING:
                    columns[i] = list(map(text, columns[i]))
            rows[number] = zip(*columns, strict=True) if columns else iter(((),) * self._groups[number][0])
        proc, seq = self.proc, self.first
        for number, time in zip(self.types, self.times(), strict=True):
            if number in rows:
                try:
                    fields = next(rows[number])
                except StopIteration:
                    raise FormatError(f"event {seq} of proc {proc} has no fields") from None
                yield EVENTS[number](time, proc, seq, *fields)
            seq += 1
