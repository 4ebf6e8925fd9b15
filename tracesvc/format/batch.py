"""EVENTS frames: a batch of one proc's events, in columns.

Body of the frame::

    [proc, first, t0, types, rows, planes, data, running]

``types`` is one byte per event, its type number.  ``rows`` says where the columns are: a row is
``[type, n, mask, rest, mask, rest, ...]``, for a type that occurs n times, with a pair for each of its INT, FLOAT
and STRING fields in the order of the vocabulary.  Every pair describes a column of n values, one per event of the
type, in order; what ``mask`` and ``rest`` mean, and how the planes of a column lie, is in
`tracesvc.format.columns`.  ``planes`` is one string of bytes with the planes of all columns, in the order of the
pairs.  The first row has type 0 and stands for all events: its one column is the time to the event before (0 for
the first event, which happened at ``t0``).  The other rows ascend by type.  ``data`` has a row
``[type, values, values, ...]`` for each type that has DATA fields: plain arrays of n values, one per such field.
``running`` is nil, or the task whose step ran when the batch began (0: none): then the tasks of step ends are not
written, because each is that of the last step start before it, or ``running``.

The writer's side takes *records*: a flat list with five slots per event (type, time, and three for the fields; where a
type has more than three, the third is a tuple of the rest).  That is what the recorder appends to, see
`tracesvc.recorder.proc`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain, compress
from operator import itemgetter, lt, sub
from typing import Any, Final

from tracesvc.events import (
    EVENTS,
    Event,
    Frames,
    StepBlock,
    StepStart,
    StepYield,
    Storage,
    TaskExit,
)
from tracesvc.format.columns import ONES, decode_planes, encode_column
from tracesvc.format.errors import FormatError

__all__ = [
    "ENDS",
    "MAX_EVENTS",
    "SLOTS",
    "START",
    "Batch",
    "encode_batch",
    "places",
    "sort_records",
]

SLOTS: Final = 5
"""slots of one record"""
MAX_EVENTS: Final = 1 << 16
"""events in one frame, at most; bounds what a decoder allocates"""

_BOUND: Final = 1 << 63
_DATA: Final = "-"
_STRING: Final = "s"
_STACK: Final = "k"
_CODE: Final = {
    Storage.INT: "q",
    Storage.STRING: _STRING,
    Storage.STACK: _STACK,
    Storage.FLOAT: "d",
    Storage.DATA: _DATA,
}
_EMPTY: Final[dict[Storage, object]] = {
    Storage.INT: 0,
    Storage.FLOAT: 0.0,
    Storage.STRING: 0,
    Storage.STACK: 0,
    Storage.DATA: None,
}
MAX_MOVES: Final = 64
"""records that are put in their places one by one; more are sorted all together"""


def sort_records(records: list[Any], not_before: int) -> int:
    """Put the records in order of time, none before ``not_before``; returns how many had to be moved up.

    Emission is re-entrant: a signal handler or the garbage collector may emit between the clock reading and the store
    of another event, so two records can lie the wrong way round.  Sorting is stable and rare.
    """
    times = records[1::SLOTS]
    lagging = list(compress(places(len(times)), map(lt, times, accumulate(times, max))))
    if len(lagging) > MAX_MOVES or len(times) > MAX_EVENTS:
        rows = sorted(zip(*[iter(records)] * SLOTS, strict=True), key=itemgetter(1))
        records[:] = chain.from_iterable(rows)
    else:  # as it always is: a few that lag behind, and all the others in order
        for place in lagging:
            time, record = times.pop(place), records[place * SLOTS : (place + 1) * SLOTS]
            del records[place * SLOTS : (place + 1) * SLOTS]
            at = bisect_right(times, time, 0, place)
            times.insert(at, time)
            records[at * SLOTS : at * SLOTS] = record
    late = bisect_left(records[1::SLOTS], not_before)
    records[1 : late * SLOTS : SLOTS] = [not_before] * late
    return late


def encode_batch(
    proc: int,
    first: int,
    records: Sequence[Any],
    intern: Callable[[str], int],
    intern_stack: Callable[[Any], int] = int,
) -> list[object]:
    """The body for records that are in order of time.

    ``intern`` turns a name into its id in the generation's string table, ``intern_stack`` a stack.
    """
    types = bytes(bytearray(records[0::SLOTS]))  # twice as fast as without the detour
    times = records[1::SLOTS]
    slots = (records[2::SLOTS], records[3::SLOTS], records[4::SLOTS])
    mask, rest, bytes_ = encode_column([0, *map(sub, times[1:], times)])
    rows: list[list[int]] = [[0, len(types), mask, rest]]
    planes = [bytes_]
    data: list[list[object]] = []
    starts = list(compress(slots[0], types.translate(_IS_START)))
    running = _running(types, slots[0], starts)
    for number in [number for number in EVENTS if number in types]:
        count, codes = types.count(number), _CODES[number]
        row = [number, count]
        rows.append(row)
        texts: list[object] = [number]
        if running is not None and number in ENDS:  # whose step it is, is known from its start
            row += (0, 0)
            codes = codes[1:]
            if not codes:
                continue
            columns = _pick(slots[1 : 1 + len(codes)], types, number, count)
        elif number == START:
            columns = [starts]
        else:
            columns = _pick(slots[: len(codes)], types, number, count)
        if len(codes) > len(slots):
            columns[-1:] = zip(*columns[-1], strict=True)
        for code, values in zip(codes, columns, strict=True):
            if code == _DATA:
                texts.append(values)
                continue
            if code == _STRING:
                mask, rest, bytes_ = encode_column(list(map(intern, values)))
            elif code == _STACK:
                mask, rest, bytes_ = encode_column(list(map(intern_stack, values)))
            else:
                mask, rest, bytes_ = encode_column(values, code)
            row += (mask, rest)
            planes.append(bytes_)
        if len(texts) > 1:
            data.append(texts)
    return [proc, first, times[0], types, rows, b"".join(planes), data, running]


START: Final = StepStart.number
ENDS: Final = {StepYield.number, StepBlock.number, TaskExit.number}
"""types that end a step; their first field is the task"""
_NO_ENDS: Final = bytes(set(range(256)) - ENDS)
_NO_STEPS: Final = bytes(set(range(256)) - ENDS - {START})
_IS_START: Final = bytes(number == START for number in range(256))
_IS_END: Final = bytes(number in ENDS for number in range(256))


def _running(types: bytes, tasks: Sequence[int], starts: list[int]) -> int | None:
    """The task whose step ran when the batch began (0: none), if all its step ends follow from their starts.

    None where they do not, or where there is none: then the tasks have to be written.
    """
    steps = types.translate(None, _NO_STEPS).translate(_IS_START)
    if 0 not in steps:
        return None
    ends = list(compress(tasks, types.translate(_IS_END)))
    begun = steps[0] == 1
    turns = b"\1\0" if begun else b"\0\1"
    if steps != (turns * (len(steps) // 2 + 1))[: len(steps)]:
        return None
    running = 0 if begun else ends[0]
    whose = starts if begun else [running, *starts]
    return running if running >= 0 and whose[: len(ends)] == ends else None


class _Places:
    made: tuple[int, ...] = ()


def places(n: int) -> tuple[int, ...]:
    """0, 1, 2, ... up to ``n`` or further: kept, for to make them takes longer than all that is done with them."""
    if len(_Places.made) < n:
        _Places.made = tuple(range(n))
    return _Places.made


_SELECT: Final = {number: bytes(number == i for i in range(256)) for number in EVENTS}
_CODES: Final = {
    number: tuple(_CODE[f.storage] for f in event.fields) for number, event in EVENTS.items()
}
"""type -> how each of its fields is stored"""


def _pick(
    slots: Sequence[Sequence[Any]], types: bytes, number: int, count: int
) -> list[Sequence[Any]]:
    """Of each slot, what belongs to the ``count`` events of this type; in the way that costs the least."""
    if count * 20 > len(types):  # then one look at every event costs less than a search for each
        select = types.translate(_SELECT[number])
        if len(slots) == 1:
            return [list(compress(slots[0], select))]
        chosen: Sequence[int] = list(compress(places(len(select)), select))
    else:
        chosen, place = [], -1
        for _ in range(count):
            place = types.index(number, place + 1)
            chosen.append(place)
    if count == 1:
        return [(slot[chosen[0]],) for slot in slots]
    return list(map(itemgetter(*chosen), slots))


def _no_stack(number: int) -> Frames:
    return ()


class Batch:
    """The decoded body of an EVENTS frame; its columns are looked at when they are asked for.

    Raises:
      FormatError: the body is not one (`__init__`), or a part of it is damaged (whatever looks at the columns).
    """

    __slots__ = (
        "_groups",
        "count",
        "data",
        "first",
        "planes",
        "proc",
        "rows",
        "running",
        "t0",
        "types",
    )

    def __init__(self, body: object) -> None:
        # spelled out: a match statement with class patterns takes 17 us here, this one half a microsecond
        if type(body) is not list or len(body) < 8:
            raise FormatError("not the body of an EVENTS frame")
        proc, first, t0, types, rows, planes, data, running = body[:8]
        if not (
            type(proc) is type(first) is type(t0) is int
            and type(types) is type(planes) is bytes
            and type(rows) is type(data) is list
            and 0 <= proc < _BOUND
            and 0 <= first < _BOUND
            and -_BOUND <= t0 < _BOUND
            and 0 < len(types) <= MAX_EVENTS
        ):
            raise FormatError("not the body of an EVENTS frame")
        self.proc, self.first, self.t0, self.types = proc, first, t0, types
        # tuples of numbers are nothing for the garbage collector, and a reader holds many
        try:
            self.rows = tuple(map(tuple, rows))
        except TypeError:
            raise FormatError("not rows of columns") from None
        self.planes, self.data = planes, data
        if running is not None and not (type(running) is int and 0 <= running < _BOUND):
            raise FormatError("not the body of an EVENTS frame")
        self.running: int | None = running
        """the task whose step ran when the batch began; None: the tasks of step ends are written"""
        self.count = len(types)
        self._groups: dict[int, tuple[int, list[tuple[int, int, int]]]] | None = None

    @property
    def groups(self) -> dict[int, tuple[int, list[tuple[int, int, int]]]]:
        """Type -> how many events of it, and (mask, rest, place in ``planes``) of every column; 0: times."""
        if self._groups is None:
            self._groups = self._look()
        return self._groups

    def _look(self) -> dict[int, tuple[int, list[tuple[int, int, int]]]]:
        groups: dict[int, tuple[int, list[tuple[int, int, int]]]] = {}
        at = 0
        for row in self.rows:
            if len(row) < 2 or len(row) % 2 or set(map(type, row)) != {int}:
                raise FormatError("not a row of columns")
            number, n = row[:2]
            if not 0 <= number <= 0xFF or number in groups:
                raise FormatError(f"a group of events of type {number}")
            if (self.types.count(number) if number else self.count) != n or not n:
                raise FormatError(f"a group of {n} events of type {number}: not what the types say")
            columns = []
            for mask, rest in zip(row[2::2], row[3::2], strict=True):
                if not 0 <= mask <= 0xFF or not 0 <= rest < 1 << 64:
                    raise FormatError("not a column")
                columns.append((mask, rest, at))
                at += ONES[mask] * n
            groups[number] = n, columns
        if at != len(self.planes):
            raise FormatError(f"{len(self.planes)} bytes of columns, not {at}")
        if (
            0 not in groups
            or not groups[0][1]
            or sum(n for n, _ in groups.values()) != 2 * self.count
        ):
            raise FormatError("the groups of a batch do not add up to its events")
        return groups

    @property
    def end(self) -> int:
        """Sequence number behind the last event."""
        return self.first + self.count

    @property
    def numbers(self) -> list[int]:
        """The event types that occur."""
        return [number for number in self.groups if number]

    def deltas(self) -> array[int]:
        """ns from each event to the one before it; the first is 0."""
        return self._column(0, 0)

    def times(self) -> list[int]:
        """Absolute time of every event, ns."""
        deltas = self.deltas()
        try:
            deltas[0] += self.t0
        except OverflowError as exc:
            raise FormatError("a time does not fit in 64 bits") from exc
        times = list(accumulate(deltas))
        if times[-1] >= _BOUND:
            raise FormatError("a time does not fit in 64 bits")
        return times

    def _column(self, number: int, i: int, typecode: str = "q") -> array[Any]:
        n, columns = self.groups[number]
        mask, rest, at = columns[i]
        return decode_planes(mask, rest, self.planes[at : at + ONES[mask] * n], n, typecode)

    def values(self, number: int, n: int) -> list[list[Any]]:
        """The n values of each DATA field of a type that the writer knew.

        Raises:
          FormatError: there are not n.
        """
        for row in self.data:
            if isinstance(row, list) and row and row[0] == number:
                if not all(isinstance(values, list) and len(values) == n for values in row[1:]):
                    raise FormatError(f"a field of {EVENTS[number].type} has not {n} values")
                return row[1:]
        return []

    def columns(self, number: int) -> list[Sequence[Any]]:
        """The fields of all events of a type, in order; string fields as ids.

        Fields that the writer did not know are empty.
        """
        n, stored = self.groups[number]
        data = iter(self.values(number, n))
        columns = iter(range(len(stored)))
        decoded: list[Sequence[Any]] = []
        for field, code in zip(EVENTS[number].fields, _CODES[number], strict=True):
            if code == _DATA:
                values: Any = next(data, None)
            else:
                i: int | None = next(columns, None)
                values = None if i is None else self._column(number, i, "d" if code == "d" else "q")
            decoded.append([_EMPTY[field.storage]] * n if values is None else values)
        if self.running is not None and number in ENDS:
            decoded[0] = self._tasks_of_ends(number, self.running)
        return decoded

    def _tasks_of_ends(self, number: int, running: int) -> list[int]:
        """The task of each event of this type: that of the last step start before it, or ``running``."""
        starts = iter(self._column(START, 0) if START in self.groups else ())
        tasks = []
        for begins in self.types.translate(None, _NO_STEPS).translate(_IS_START):
            if begins:
                running = next(starts)
            else:
                tasks.append(running)
        ends = self.types.translate(None, _NO_ENDS)
        return list(compress(tasks, ends.translate(_SELECT[number])))

    def check(self) -> None:
        """Decode everything once.

        Raises:
          FormatError: a column is damaged.
        """
        for number in self.groups.keys() & EVENTS.keys():
            self.columns(number)

    def records(
        self, text: Callable[[int], str], stack: Callable[[int], Frames] = _no_stack
    ) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
        """(type, time, fields) of every event; no fields where the type is not known.

        ``text`` resolves string ids, ``stack`` those of stacks.

        Raises:
          FormatError: a column is damaged; at once, not when it is iterated.
        """
        rows: dict[int, Iterator[tuple[Any, ...]]] = {}
        for number, (n, _) in self.groups.items():
            if number not in EVENTS:
                rows[number] = iter(((),) * n)
                continue
            columns = self.columns(number)
            for i, field in enumerate(EVENTS[number].fields):
                if field.storage is Storage.STRING:
                    columns[i] = list(map(text, columns[i]))
                elif field.storage is Storage.STACK:
                    columns[i] = list(map(stack, columns[i]))
            rows[number] = zip(*columns, strict=True) if columns else iter(((),) * n)
        times = self.times()
        return (
            (number, time, next(rows[number]))
            for number, time in zip(self.types, times, strict=True)
        )

    def events(
        self, text: Callable[[int], str], stack: Callable[[int], Frames] = _no_stack
    ) -> Iterator[Event]:
        """Every event, typed; types that this version does not know are passed over."""
        proc, seq = self.proc, self.first
        for number, time, fields in self.records(text, stack):
            if number in EVENTS:
                yield EVENTS[number](time, proc, seq, *fields)
            seq += 1
