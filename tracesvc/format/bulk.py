"""Many batches at once -> NumPy arrays: no Python per event, and little per batch.

The planes of a column (`tracesvc.format.columns`) are joined across batches first and put in place once, so the cost of
a call into NumPy is shared by all batches of a chunk.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tracesvc.events import EVENTS, Storage
from tracesvc.format.batch import ENDS, START, Batch
from tracesvc.format.columns import ONES
from tracesvc.format.errors import FormatError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes: TypeAlias = NDArray[np.uint8]
    Integers: TypeAlias = NDArray[np.int64]
    Floats: TypeAlias = NDArray[np.float64]
    Values: TypeAlias = Integers | Floats | list[Any]

__all__ = ["Bulk"]

_BYTES: Final = [bytes([i]) for i in range(256)]
_WIDTH: Final = (0, 1, 2, 4, 4, 8, 8, 8, 8)
"""planes needed -> bytes of the narrowest integer that has them"""


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
    masks: Sequence[int],
    rests: Sequence[int],
    places: Sequence[int],
    planes: Sequence[bytes],
    counts: Sequence[int],
    *,
    floats: bool = False,
) -> Any:
    """The values of one column of many batches; ``places`` says where in the planes of its batch each begins."""
    np = numpy()
    varying, constant = set(masks), set(rests)
    highest = max(constant)
    if highest >> 64 or min(constant) < 0 or min(varying) < 0:
        raise FormatError("not a column")
    needed = max(max(varying).bit_length(), (highest.bit_length() + 7) // 8)
    width = 8 if floats else _WIDTH[needed]
    dtype = np.dtype("<f8" if floats else "<i8")
    total = sum(counts)
    if not needed:
        return np.zeros(total, dtype.newbyteorder("="))
    make = np.zeros if needed < width else np.empty
    joined = make((total, width), np.uint8)
    for i in range(needed):
        bit, shift = 1 << i, 8 * i
        low = bit - 1
        if not any(mask & bit for mask in varying):
            here = {rest >> shift & 0xFF for rest in constant}
            if len(here) == 1:
                joined[:, i] = here.pop()
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
        joined[:, i] = np.frombuffer(b"".join(pieces), np.uint8)
    narrow = joined.reshape(-1).view(dtype if width == 8 else f"<u{width}")
    return narrow.astype(dtype.newbyteorder("="), copy=False)


class _Group:
    """The rows of one type in many batches, and how far their columns have been decoded."""

    __slots__ = ("batches", "counts", "places", "planes", "rows")

    def __init__(self) -> None:
        self.batches: list[int] = []
        """which batches have such a row"""
        self.counts: list[int] = []
        self.planes: list[bytes] = []
        self.rows: list[list[int]] = []
        self.places: list[int] = []
        """where in its planes the next column of each begins"""

    def values(self, i: int, *, floats: bool = False) -> Any:
        """The values of the i-th column; to be asked for in turn."""
        at = 2 + 2 * i
        try:
            masks = [row[at] for row in self.rows]
            rests = [row[at + 1] for row in self.rows]
        except IndexError:  # some writer did not know this field yet: zeros
            masks = [row[at] if at < len(row) else 0 for row in self.rows]
            rests = [row[at + 1] if at < len(row) else 0 for row in self.rows]
        values = _join(masks, rests, self.places, self.planes, self.counts, floats=floats)
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

    __slots__ = ("_groups", "batches", "fields", "times", "types")

    def __init__(self, batches: Sequence[Batch]) -> None:
        np = numpy()
        self.batches = batches
        self.types: Bytes = np.frombuffer(b"".join([b.types for b in batches]), np.uint8)
        self.times: Integers = np.zeros(0, np.int64)
        self._groups: dict[int, _Group] = {}
        self.fields: dict[int, list[Values]] = {}
        if not batches:
            return
        try:
            self._groups = self._gather()
            groups = dict(self._groups)
            times = groups.pop(0)
            self._check(times, groups)
            self.times = self._times(times)
            for number in sorted(groups.keys() & EVENTS.keys()):
                self.fields[number] = self._fields(number, groups[number])
            if any(batch.running is not None for batch in batches):
                self._fill_in_ends()
        except (TypeError, ValueError, IndexError, KeyError, OverflowError) as exc:
            # Looking at every element of every row would cost more than all the rest.
            raise FormatError(f"damaged columns: {exc}") from exc

    def _gather(self) -> dict[int, _Group]:
        groups: dict[int, _Group] = defaultdict(_Group)
        for i, batch in enumerate(self.batches):
            planes, at = batch.planes, 0
            for row in batch.rows:
                n = row[1]
                group = groups[row[0]]
                group.batches.append(i)
                group.counts.append(n)
                group.planes.append(planes)
                group.rows.append(row)
                group.places.append(at)
                for mask in row[2::2]:
                    at += ONES[mask] * n
            if at != len(planes):
                raise FormatError("not as many bytes of columns as the rows say")
        return groups

    def _check(self, times: _Group, groups: dict[int, _Group]) -> None:
        """Whether every batch has as many events of each type as its rows say."""
        np = numpy()
        counts = [batch.count for batch in self.batches]
        keys = np.repeat(np.arange(0, len(counts) << 8, 256), counts)
        keys += self.types
        found = np.bincount(keys, minlength=len(counts) << 8).reshape(-1, 256)
        for number, group in groups.items():
            if found[group.batches, number].tolist() != group.counts:
                raise FormatError("the rows of a batch are not what its types say")
        if times.counts != counts or sum(sum(g.counts) for g in groups.values()) != sum(counts):
            raise FormatError("the groups of a batch do not add up to its events")

    def _fill_in_ends(self) -> None:
        """The tasks of step ends that follow from their starts, see `Batch.running`."""
        np = numpy()
        counts = [batch.count for batch in self.batches]
        given = np.array([b.running is not None for b in self.batches], np.bool_)
        running = np.array([b.running or 0 for b in self.batches], np.int64)
        is_start = self.types == START
        starts = np.cumsum(is_start, dtype=np.int32)  # up to each event
        tasks = self.fields[START][0] if START in self.fields else np.zeros(0, np.int64)
        begins = np.cumsum([0, *counts[:-1]])
        before = np.where(begins > 0, starts[begins - 1], 0)  # starts before each batch
        batch_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        padded = np.append(tasks, 0)
        for number in ENDS & self.fields.keys():
            at = np.flatnonzero(self.types == number)
            batch, last = batch_of[at], starts[at] - 1
            derived = np.where(last >= before[batch], padded[last], running[batch])
            written = self.fields[number][0]
            self.fields[number][0] = np.where(given[batch], derived, written)

    def until(self, number: int, batch: int) -> int:
        """How many events of a type there are in the batches before one."""
        group = self._groups[number]
        return sum(group.counts[: bisect_left(group.batches, batch)])

    def _times(self, deltas: _Group) -> Integers:
        np = numpy()
        times: Integers = deltas.values(0)
        np.cumsum(times, out=times)
        starts = np.cumsum([0, *deltas.counts[:-1]])
        # What the sum has gathered up to the first event of a batch is not its time: t0 is.
        begun = np.array([batch.t0 for batch in self.batches], np.int64)
        times += np.repeat(begun - times[starts], deltas.counts)
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
