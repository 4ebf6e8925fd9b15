"""Events as NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import EVENTS, Event, Frames, Storage
from tracesvc.format import Batch, Damage, FormatError, Item, StreamDecoder
from tracesvc.format.bulk import Bulk

if TYPE_CHECKING:
    from tracesvc.format.bulk import Values

__all__ = ["Columns", "Table"]

Integers: TypeAlias = NDArray[np.int64]


class Table:
    """All events of one type: an array per field, as attributes; names are indexes into `Columns.strings`.

    DATA fields (texts and attributes) are lists.
    """

    def __init__(self, columns: Columns, event: type[Event], values: Sequence[Values]) -> None:
        self.event = event
        self.columns = columns
        self._values = dict(zip((f.name for f in event.fields), values, strict=True))

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"{self.event.type} has no field {name!r}") from None

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def index(self) -> Integers:
        """Where each event stands in the arrays of the `Columns`."""
        found = self.columns.indexes.get(self.event.number)
        return np.flatnonzero(self.columns.type == self.event.number) if found is None else found

    @cached_property
    def time(self) -> Integers:
        """ns of each event."""
        return self.columns.time[self.index]

    @cached_property
    def proc(self) -> Integers:
        """Writer of each event."""
        return self.columns.proc[self.index]

    @cached_property
    def seq(self) -> Integers:
        """Sequence number of each event."""
        return self.columns.seq[self.index]

    def names(self, field: str) -> list[str]:
        """The texts of a name field."""
        return list(map(self.columns.strings.__getitem__, self._values[field]))


class Columns:
    """Events in stored order, in arrays of equal length, and per type a `Table` with the fields.

    ::

        columns = trace.columns()
        steps = columns.of(StepStart)
        print(columns.time[-1] - columns.time[0], steps.task, steps.time)
    """

    def __init__(self, bulk: Bulk, strings: list[str], stacks: list[Frames]) -> None:
        self.type: NDArray[np.uint8] = bulk.types
        """type number of each event, a key of `tracesvc.events.EVENTS`"""
        self.time: Integers = bulk.times
        """ns of each event, ``CLOCK_MONOTONIC``"""
        self.strings = strings
        """the texts that the name fields index; stays the same list, and only grows, from chunk to chunk of a trace"""
        self.stacks = stacks
        """what the stack fields index, in the same way; 0: none"""
        self.batches = bulk.batches
        self.indexes = bulk.indexes
        self._fields = bulk.fields
        self._tables: dict[int, Table] = {}

    def __len__(self) -> int:
        return len(self.type)

    @cached_property
    def proc(self) -> Integers:
        """Writer of each event."""
        procs = np.empty(len(self), np.int64)
        at = 0
        for batch in self.batches:
            procs[at : at + batch.count] = batch.proc
            at += batch.count
        return procs

    @cached_property
    def seq(self) -> Integers:
        """Sequence number of each event."""
        numbers = np.arange(len(self), dtype=np.int64)
        at = 0
        for batch in self.batches:
            numbers[at : at + batch.count] += batch.first - at
            at += batch.count
        return numbers

    def of(self, event: type[Event]) -> Table:
        """The events of a type."""
        table = self._tables.get(event.number)
        if table is None:
            values = self._fields.get(event.number)
            if values is None:
                values = [_nothing(field.storage) for field in event.fields]
            table = self._tables[event.number] = Table(self, event, values)
        return table


def _nothing(storage: Storage) -> Values:
    match storage:
        case Storage.DATA:
            return []
        case Storage.FLOAT:
            return np.zeros(0, np.float64)
        case _:
            return np.zeros(0, np.int64)


_Tables = tuple[dict[int, str], dict[int, list[tuple[int, int, int]]]]
"""names and stacks of one generation"""


class Builder:
    """Gathers batches of any number of generations and gives them out as one `Columns`."""

    def __init__(self, decoder: StreamDecoder) -> None:
        self.damage: list[Damage] = []
        self.count = 0
        self._decoder = decoder
        self._strings: list[str] = [""]
        self._ids: dict[str, int] = {"": 0}
        self._stacks: list[Frames] = [()]
        self._stack_ids: dict[Frames, int] = {(): 0}
        self._batches: list[Batch] = []
        self._frames: list[tuple[int, int]] = []
        self._tables: list[tuple[int, _Tables]] = []
        """from which batch on names and stacks come from which tables"""

    def add(self, item: Item | Damage) -> int:
        """Take it if it is a batch; returns the number of events gathered."""
        if isinstance(item, Item) and isinstance(item.record, Batch):
            if not self._tables or self._tables[-1][1][0] is not self._decoder.strings:
                tables = self._decoder.strings, self._decoder.stacks
                self._tables.append((len(self._batches), tables))
            self._batches.append(item.record)
            self._frames.append((item.frame.offset, item.frame.end))
            self.count += item.record.count
        return self.count

    def take(self) -> Columns:
        """What has been gathered; a batch with a damaged column is left out and its frame noted in ``damage``."""
        try:
            bulk = Bulk(self._batches)
        except FormatError:
            self._drop_damaged()
            bulk = Bulk(self._batches)
        if self._batches:
            self._resolve(bulk)
        self._batches, self._frames, self._tables, self.count = [], [], [], 0
        return Columns(bulk, self._strings, self._stacks)

    def _drop_damaged(self) -> None:
        kept: list[Batch] = []
        tables = dict(self._tables)
        moved: list[tuple[int, _Tables]] = []
        for i, (batch, (start, end)) in enumerate(zip(self._batches, self._frames, strict=True)):
            if i in tables:
                moved.append((len(kept), tables[i]))
            try:
                batch.check()
            except FormatError as exc:
                self.damage.append(Damage(start, end, str(exc)))
            else:
                kept.append(batch)
        self._batches, self._tables = kept, moved

    def _resolve(self, bulk: Bulk) -> None:
        """Turn ids of the generations' tables into indexes of one list."""
        named = {
            number: [
                (i, f.storage)
                for i, f in enumerate(EVENTS[number].fields)
                if f.storage in (Storage.STRING, Storage.STACK)
            ]
            for number in bulk.fields
        }
        named = {number: places for number, places in named.items() if places}
        bounds = [first for first, _ in self._tables[1:]] + [len(self._batches)]
        done = dict.fromkeys(named, 0)
        for (_, (table, stacks)), end in zip(self._tables, bounds, strict=True):
            rows = self._translation(table)
            for number, places in named.items():
                until = bulk.until(number, end)
                part = slice(done[number], until)
                done[number] = until
                for place, storage in places:
                    ids: Any = bulk.fields[number][place]
                    if storage is Storage.STRING:
                        ids[part] = self._translate(ids[part], rows, table)
                    else:  # they are rare
                        ids[part] = [
                            self._stack_index(stacks.get(i, []), table) for i in ids[part].tolist()
                        ]

    def _stack_index(self, rows: list[tuple[int, int, int]], texts: dict[int, str]) -> int:
        """Its index in the list of all stacks; 0 where its row is missing."""
        stack = tuple(
            (texts.get(function, f"?{function}"), texts.get(file, f"?{file}"), line)
            for function, file, line in rows
        )
        index = self._stack_ids.get(stack)
        if index is None:
            index = self._stack_ids[stack] = len(self._stacks)
            self._stacks.append(stack)
        return index

    def _translation(self, table: dict[int, str]) -> Integers:
        """Row i: the index of the text with id i, or -1."""
        # Ids are dense in what a writer makes; anything else must not cost more memory than it has.
        rows = np.full(min(max(table), 2 * len(table)) + 1, -1, np.int64)
        for number, text in table.items():
            if number < len(rows):
                rows[number] = self.index(text)
        return rows

    def _translate(self, ids: Integers, rows: Integers, table: dict[int, str]) -> Integers:
        known = (ids >= 0) & (ids < len(rows))
        indexes = rows[np.where(known, ids, 0)]
        known &= indexes >= 0
        if not known.all():
            for i in np.flatnonzero(~known):
                number = int(ids[i])
                indexes[i] = self.index(table.get(number, f"?{number}"))
        return indexes

    def index(self, text: str) -> int:
        """Where a text is in `Columns.strings`; entered if it is not."""
        index = self._ids.get(text)
        if index is None:
            index = self._ids[text] = len(self._strings)
            self._strings.append(text)
        return index
