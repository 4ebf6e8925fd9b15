"""Many batches at once -> NumPy arrays: no Python per event, and little per batch.

The planes of a column (`tracesvc.format.columns`) are joined across batches first and put in place once, so the cost of
a call into NumPy is shared by all batches of a chunk.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate, zip_longest
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tracesvc.events import EVENTS, Storage
from tracesvc.format.batch import ENDS, START, Batch
from tracesvc.format.columns import ONES
from tracesvc.format.errors import FormatError
from tracesvc.format.native import native

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes: TypeAlias = NDArray[np.uint8]
    Integers: TypeAlias = NDArray[np.int64]
    Floats: TypeAlias = NDArray[np.float64]
    Values: TypeAlias = Integers | Floats | list[Any]

__all__ = ["Bulk"]

_BYTES: Final = [bytes([i]) for i in range(256)]


def numpy() -> Any:
    """NumPy, or an error that says how to get it.

    Raises:
      ImportError: it is not installed.
    """
    try:
        import numpy as np
    except ImportError as exc:
        raise ImportError("columns need NumPy: pip install 'tracesvc[analysis]'") from exc
    return np


def _join(
    masks: tuple[int, ...],
    rests: tuple[int, ...],
    places: list[int],
    planes: list[bytes],
    counts: list[int],
    *,
    floats: bool = False,
) -> Any:
    """The values of one column of many batches; ``places`` says where in the planes of its batch each begins."""
    np = numpy()
    if native is not None:
        joined = np.empty(sum(counts), np.float64 if floats else np.int64)
        native.join(masks, rests, places, planes, counts, joined)
        return joined
    varying, constant = set(masks), set(rests)
    highest = max(constant)
    if highest >> 64 or min(constant) < 0 or min(varying) < 0:
        raise FormatError("not a column")
    needed = max(max(varying).bit_length(), (highest.bit_length() + 7) // 8)
    written: list[tuple[int, Bytes]] = []
    base = 0
    for i in range(needed):
        bit, shift = 1 << i, 8 * i
        low = bit - 1
        here = {rest >> shift & 0xFF for rest in constant}
        if len(here) == 1 and not any(mask & bit for mask in varying):
            base |= here.pop() << shift
            continue
        if len(varying) == 1 and masks[0] & bit:
            before = ONES[masks[0] & low]
            pieces = [
                p[at + before * n : at + before * n + n]
                for p, at, n in zip(planes, places, counts, strict=True)
            ]
        else:
            pieces = [
                p[(start := at + ONES[mask & low] * n) : start + n]
                if mask & bit
                else _BYTES[rest >> shift & 0xFF] * n
                for mask, rest, at, p, n in zip(masks, rests, places, planes, counts, strict=True)
            ]
        written.append((i, np.frombuffer(b"".join(pieces), np.uint8)))
    return _assemble(written, base, sum(counts), floats)


def _assemble(written: list[tuple[int, Bytes]], base: int, total: int, floats: bool) -> Any:
    """The values, from the planes that are written (which byte it is, the bytes) and all other bytes, in place."""
    np = numpy()
    places = [i for i, _ in written]
    if floats or places not in ([], [0], [0, 1]) or base >> 63:
        joined = np.empty((total, 8 if floats or places[-1:] > [3] or base >> 32 else 4), np.uint8)
        for i in range(joined.shape[1]):
            if i not in places:
                joined[:, i] = base >> 8 * i & 0xFF
        for i, plane in written:
            joined[:, i] = plane
        width = joined.shape[1]
        values = joined.reshape(-1).view("<f8" if floats else "<i8" if width == 8 else "<u4")
        return values.astype(np.float64 if floats else np.int64, copy=False)
    if not written:
        return np.full(total, base, np.int64)
    # One or two bytes vary, as in most columns: there are instructions for many of them at once.
    values = written[0][1]
    if len(written) == 2:
        high = written[1][1].astype(np.uint16)
        high *= np.uint16(256)
        high += values
        values = high
    values = values.astype(np.int64)
    if base:
        values += base
    return values


class _Group:
    """The rows of one type in many batches, and how far their columns have been decoded."""

    __slots__ = ("_columns", "batches", "counts", "places", "planes", "rows")

    def __init__(
        self, planes: Sequence[bytes], entries: Sequence[tuple[int, tuple[int, ...], int]]
    ) -> None:
        batches, self.rows, places = zip(*entries, strict=True)
        self.batches: list[int] = list(batches)
        """which batches have such a row"""
        self.counts: list[int] = [row[1] for row in self.rows]
        self.planes: list[bytes] = [planes[i] for i in self.batches]
        self.places: list[int] = list(places)
        """where in its planes the next column of each begins"""
        self._columns: list[tuple[int, ...]] = []

    def values(self, i: int, *, floats: bool = False) -> Any:
        """The values of the i-th column; to be asked for in turn."""
        if not self._columns:  # zeros where some writer did not know a field yet
            self._columns = list(zip_longest(*self.rows, fillvalue=0))
        if 3 + 2 * i >= len(self._columns):
            return numpy().zeros(sum(self.counts), "f8" if floats else "i8")
        masks, rests = self._columns[2 + 2 * i], self._columns[3 + 2 * i]
        values = _join(masks, rests, self.places, self.planes, self.counts, floats=floats)
        if any(masks):
            self.places = [
                place + ONES[mask] * n
                for place, mask, n in zip(self.places, masks, self.counts, strict=True)
            ]
        return values

    def data(self, batches: Sequence[Batch], number: int, i: int) -> list[Any]:
        """The values of the i-th DATA field."""
        values: list[Any] = []
        for batch, n in zip(self.batches, self.counts, strict=True):
            lists = batches[batch].values(number, n)
            values += lists[i] if i < len(lists) else [None] * n
        return values


class Bulk:
    """The events of a run of batches, in stored order.

    Attributes:
      types: type number of each event
      times: ns of each event
      fields: type number -> the fields of its events, in the order of the vocabulary; names as ids, DATA as lists

    Raises:
      FormatError: a column of one of the batches is damaged; `Batch.check` tells of which.
      ImportError: NumPy is not installed.
    """

    __slots__ = ("_groups", "_starts", "batches", "fields", "indexes", "times", "types")

    def __init__(self, batches: Sequence[Batch]) -> None:
        np = numpy()
        self.batches = batches
        self.types: Bytes = np.frombuffer(b"".join([b.types for b in batches]), np.uint8)
        self.times: Integers = np.zeros(0, np.int64)
        self.fields: dict[int, list[Values]] = {}
        self.indexes: dict[int, Integers] = {}
        """type number -> where its events are; of starts and ends of steps only"""
        self._groups: dict[int, _Group] = {}
        if not batches:
            return
        try:
            counts = [batch.count for batch in batches]
            self._starts: list[int] = [0, *accumulate(counts)]
            self._groups = self._gather()
            groups = dict(self._groups)
            times = groups.pop(0)
            self._check(groups)
            self.times = self._times(times, counts)
            for number in sorted(groups.keys() & EVENTS.keys()):
                self.fields[number] = self._fields(number, groups[number])
            if any(batch.running is not None for batch in batches):
                self._fill_in_ends()
        except (TypeError, ValueError, IndexError, KeyError, OverflowError) as exc:
            # Looking at every element of every row would cost more than all the rest.
            raise FormatError(f"damaged columns: {exc}") from exc

    def _gather(self) -> dict[int, _Group]:
        entries: dict[int, list[tuple[int, tuple[int, ...], int]]] = defaultdict(list)
        for i, batch in enumerate(self.batches):
            at = 0
            for row in batch.rows:
                entries[row[0]].append((i, row, at))
                n = row[1]
                for mask in row[2::2]:
                    at += ONES[mask] * n
            if at != len(batch.planes):
                raise ValueError("not as many bytes of columns as the rows say")
        planes = [batch.planes for batch in self.batches]
        return {number: _Group(planes, found) for number, found in entries.items()}

    def _check(self, groups: dict[int, _Group]) -> None:
        """Whether every batch has as many events of each type as its rows say."""
        if native is not None:
            self._check_natively(groups)
            return
        np = numpy()
        total = 0
        starts = np.array(self._starts[:-1])
        for number, group in groups.items():
            among = self.types == number
            said = np.zeros(len(starts), np.int64)
            said[group.batches] = group.counts
            if number == START or number in ENDS or max(group.counts) > 0xFF:
                here = np.flatnonzero(among)
                found = np.searchsorted(here, self._starts)
                found = found[1:] - found[:-1]
                if number == START or number in ENDS:
                    self.indexes[number] = here
            else:  # counted in bytes, 32 at a time: one that is 256 too low makes the sum of all wrong
                found = np.add.reduceat(among.view(np.uint8), starts, dtype=np.uint8)
                if np.count_nonzero(among) != sum(group.counts):
                    raise ValueError("not as many events of a type as the rows say")
            if (found != said).any():
                raise ValueError("the rows of a batch are not what its types say")
            total += sum(group.counts)
        if total != len(self.types):
            raise ValueError("the groups of a batch do not add up to its events")

    def _check_natively(self, groups: dict[int, _Group]) -> None:
        np = numpy()
        found = np.empty((len(self.batches), 256), np.uint32)
        assert native is not None
        native.count(self.types, [batch.count for batch in self.batches], found)
        for number, group in groups.items():
            if found[group.batches, number].tolist() != group.counts:
                raise ValueError("the rows of a batch are not what its types say")
        if sum(sum(group.counts) for group in groups.values()) != len(self.types):
            raise ValueError("the groups of a batch do not add up to its events")

    def _times(self, deltas: _Group, counts: list[int]) -> Integers:
        if deltas.counts != counts:
            raise ValueError("not as many times as events")
        np = numpy()
        times: Integers = deltas.values(0)
        starts = np.array(self._starts[:-1])
        begun = np.array([batch.t0 for batch in self.batches], np.int64)
        ended = begun + np.add.reduceat(times, starts)
        # One sum runs through all batches: it is put right where the next one begins.
        times[starts] += begun - np.concatenate(([0], ended[:-1]))
        np.cumsum(times, out=times)
        return times

    def _fields(self, number: int, group: _Group) -> list[Values]:
        fields: list[Values] = []
        column = datum = 0
        for field in EVENTS[number].fields:
            if field.storage is Storage.DATA:
                fields.append(group.data(self.batches, number, datum))
                datum += 1
            else:
                fields.append(group.values(column, floats=field.storage is Storage.FLOAT))
                column += 1
        return fields

    def _fill_in_ends(self) -> None:
        """The tasks of step ends that follow from their starts, see `Batch.running`."""
        np = numpy()
        if native is not None:
            running: Any = [batch.running for batch in self.batches]
            begun = self.fields[START][0] if START in self.fields else np.zeros(0, np.int64)
            columns = {number: self.fields[number][0] for number in ENDS & self.fields.keys()}
            counts = [batch.count for batch in self.batches]
            native.ends(self.types, counts, running, START, begun, columns)
            return
        none = np.zeros(0, np.int64)
        begun = self.indexes.get(START, none)
        tasks = self.fields[START][0] if START in self.fields else none
        # Whose step it is changes where a batch begins, and with every start: put both into one sequence.
        bounds = np.searchsorted(begun, self._starts).tolist()
        where = np.empty(len(begun) + len(self.batches), np.int64)
        whose = np.empty_like(where)
        for i, batch in enumerate(self.batches):
            low, high = bounds[i], bounds[i + 1]
            where[low + i] = self._starts[i]
            whose[low + i] = batch.running or 0
            where[low + i + 1 : high + i + 1] = begun[low:high]
            whose[low + i + 1 : high + i + 1] = tasks[low:high]
        running = np.repeat(whose, np.diff(where, append=len(self.types)))
        given = np.array([batch.running is not None for batch in self.batches], np.bool_)
        for number in ENDS & self.fields.keys():
            at = self.indexes[number]
            ended = running[at]
            if not given.all():
                batch_of = np.searchsorted(self._starts, at, "right") - 1
                ended = np.where(given[batch_of], ended, self.fields[number][0])
            self.fields[number][0] = ended

    def until(self, number: int, batch: int) -> int:
        """How many events of a type there are in the batches before one."""
        group = self._groups[number]
        return sum(group.counts[: bisect_left(group.batches, batch)])
