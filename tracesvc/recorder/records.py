"""The buffer that events are recorded into: one record is ``(type, time, a, b, c)``.

A, b and c are the fields of the event in the order of the vocabulary; where a type has more than three, c is a tuple of
the rest.  `Records` is a list, five slots a record, so that `list.extend` stores one whole: under whatever re-enters at
that moment (a signal handler, a ``__del__``, the garbage collector) and from whatever thread.  The native one (see
``csrc/records.c``) keeps the same in 56 bytes each; where both are meant, `AnyRecords` says what they have in common.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from itertools import chain, compress
from typing import Any, Protocol

from tracesvc.format.batch import SLOTS, encode_batch, places, sort_records

__all__ = ["AnyRecords", "Records", "flat"]


class AnyRecords(Protocol):
    """What a buffer of either kind can do."""

    capacity: int
    """``len`` of a full one"""
    running: int
    """the task whose step runs in this proc (or whose thread call), 0: none"""
    proc: int
    """the proc whose buffer this is; -1: none's"""
    base: int
    """records that were taken out of the proc's buffer before the first one here"""

    @property
    def missed(self) -> int:
        """Events that found no memory since the last `take`."""

    @property
    def extend(self) -> Callable[[tuple[Any, ...]], None]:
        """Stores one record."""

    def __len__(self) -> int:
        """Slots: see `SLOTS_OF`."""

    @property
    def events(self) -> int:
        """Records in it."""

    @property
    def first_time(self) -> int:
        """ns, of the first record stored; IndexError: there is none."""

    @property
    def last_time(self) -> int:
        """ns, of the last record stored."""

    def record(self, i: int, /) -> tuple[Any, ...]:
        """The i-th record."""

    def take(self, n: int, empty: Any, /) -> int:
        """Move the first ``n`` into ``empty``; returns how many were missed behind them, for want of memory."""

    def clear(self) -> None:
        """Forget them; what they took is kept for the next ones."""

    def in_order(self, newest: int, /) -> bool:
        """Whether no record is older than the one before it, nor the first one than ``newest``."""

    def settle(self, newest: int, /) -> int:
        """Put them in order of time, none before ``newest``; how many were given a later time.

        Emission is re-entrant: a signal handler or the garbage collector may emit between the clock reading and the
        store of another event, so two records can lie the wrong way round.  The native one gives up where there is
        much to move: ask `in_order`, and go on with a flat list.
        """

    def types(self) -> bytes:
        """The type of each."""

    def last_of_tasks(self, changes: bytes, /) -> dict[int, int]:
        """Task -> place of its last record whose type is marked in ``changes``."""

    def encode(
        self, proc: int, first: int, strings: dict[str, int], stacks: dict[Any, int], /
    ) -> list[object]:
        """The body of an EVENTS frame, see `encode_batch`."""


class Records(list[Any]):
    """Records in a flat list."""

    __slots__ = ("base", "capacity", "missed", "proc", "running")

    def __init__(self, slots: Iterable[Any] = ()) -> None:
        super().__init__(slots)
        self.capacity = sys.maxsize
        self.running = self.missed = 0
        self.proc = -1
        self.base = 0

    @property
    def events(self) -> int:
        return len(self) // SLOTS

    @property
    def first_time(self) -> int:
        time: int = self[1]
        return time

    @property
    def last_time(self) -> int:
        time: int = self[1 - SLOTS]
        return time

    def record(self, i: int, /) -> tuple[Any, ...]:
        return tuple(self[i * SLOTS : (i + 1) * SLOTS])

    def take(self, n: int, empty: Records, /) -> int:
        empty[:] = self[: n * SLOTS]
        missed = 0 if n * SLOTS < len(self) else self.missed
        base, left = self.base + n + missed, self.missed - missed
        empty.base = self.base
        del self[: n * SLOTS]
        self.base, self.missed = base, left
        return missed

    def in_order(self, newest: int, /) -> bool:
        times = self[1::SLOTS]
        return not times or (times[0] >= newest and times == sorted(times))

    def settle(self, newest: int, /) -> int:
        moved = _move_up(self, newest)
        sort_records(self, newest)
        return moved

    def types(self) -> bytes:
        return bytes(bytearray(self[0::SLOTS]))  # twice as fast as without the detour

    def last_of_tasks(self, changes: bytes, /) -> dict[int, int]:
        marks = self.types().translate(changes)
        return dict(
            zip(compress(self[2::SLOTS], marks), compress(places(len(marks)), marks), strict=True)
        )

    def encode(
        self, proc: int, first: int, strings: dict[str, int], stacks: dict[Any, int], /
    ) -> list[object]:
        return encode_batch(proc, first, self, strings.__getitem__, stacks.__getitem__)


def flat(records: AnyRecords) -> Records:
    """The records as a list of either kind's slots."""
    if isinstance(records, Records):
        return records
    return Records(chain.from_iterable(records.record(i) for i in range(records.events)))


def _move_up(records: list[Any], newest: int) -> int:
    """Give records from before what this proc has in the stream already a time that it can have; returns how many.

    What interrupted the emission of such a record was stored before it, and filled the buffer.  It comes right behind
    that, for the interruption was over by then: the end of a region that began in it must not be overtaken.
    """
    moved, highest = 0, newest
    for i in range(1, len(records), SLOTS):
        if records[i] < newest:
            records[i] = highest
            moved += 1
        elif records[i] > highest:
            highest = records[i]
    return moved
