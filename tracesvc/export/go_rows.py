"""The records of a Go trace, put in order and encoded a chunk at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import ProcStop
from tracesvc.export.go_regions import Mark
from tracesvc.export.go_table import BY_NAME, BY_NUMBER
from tracesvc.export.lives import Moves
from tracesvc.export.wire import Nested, Part, Records, join, varint
from tracesvc.model.columns import Columns, Table

__all__ = ["Rows"]

Integers: TypeAlias = NDArray[np.int64]
KEY, TYPE, PROC, TIME, V1, V2, V3, V4 = range(8)
SUBS: Final = 8
"""records that one move can make, in order"""
_BATCH: Final = BY_NAME["Batch"].number
_SEQ: Final = {
    BY_NAME[name].number
    for name in (
        "GoCreate",
        "GoWaiting",
        "GoInSyscall",
        "GoStartLocal",
        "GoUnblockLocal",
        "GoSysExit",
    )
}
"""what raises the sequence number of a goroutine"""
_SYS_EXIT: Final = BY_NAME["GoSysExit"].number


def encode(name: str, *values: int, tail: bytes | None = None) -> bytes:
    """One record; of a timed one the first value is the ticks since the one before."""
    body = b"".join(map(varint, values))
    number = BY_NAME[name].number
    head = (
        bytes([number | len(values) - 1 << 6])
        if len(values) <= 3
        else bytes([number | 192]) + varint(len(body))
    )
    return head + body + (b"" if tail is None else varint(len(tail)) + tail)


class Rows:
    """Gathers the records of a chunk in whatever order, and gives them out as bytes.

    ``written`` is where it counts them.
    """

    def __init__(self, written: Counter[str]) -> None:
        self._written = written
        self._processors: dict[int, int] = {}
        """proc -> P: numbered without gaps, for Go has tables as long as the highest"""
        self._started: set[int] = set()
        self._last: dict[int, int] = {}
        """proc -> ticks of its last record"""
        self._seq: dict[int, int] = {}
        self._parts: list[Integers] = []
        self._texts: dict[int, bytes] = {}
        self._stop: list[int] = []

    # --- a chunk ---------------------------------------------------------------------------------

    def begin(self, moves: Moves) -> None:
        """A chunk begins."""
        self._moves = moves
        index = moves.index
        rank = np.arange(len(index)) - np.searchsorted(index, index)
        self._step = (int(rank.max(initial=0)) + 2) * SUBS
        self._keys = (index + 1) * self._step + (rank + 1) * SUBS
        self._parts, self._texts, self._stop = [], {}, []

    def moves(self, name: str, at: Integers, sub: int, *values: Any) -> None:
        """A record for each of these moves; a value is an array, or the same for all."""
        moves = self._moves
        self._add(name, self._keys[at] + sub, moves.proc[at], moves.time[at], values)

    def events(
        self,
        name: str,
        table: Table,
        *values: Any,
        texts: list[bytes] | None = None,
        where: Any = slice(None),
    ) -> None:
        """A record for each event of a table."""
        keys = (table.index[where] + 1) * self._step
        if texts is not None:
            self._texts.update(zip(keys.tolist(), texts, strict=True))
        self._add(name, keys, table.proc[where], table.time[where], [v[where] for v in values])

    def mark(self, mark: Mark, name: int, stack: int) -> None:
        """A region begins or ends."""
        key = int(self._keys[mark.index]) + 3 if mark.after else (mark.index + 1) * self._step
        mode = 0 if mark.begins else 1
        self._add_one("UserRegion", key, mark.proc, mark.time, 0, mode, name, stack)

    def started(self, proc: int) -> bool:
        """Whether its P has been started."""
        return proc in self._started

    def start(self, proc: int, thread: int, moves: Moves, at: int) -> None:
        """The P of a run starts, just before a move."""
        self._started.add(proc)
        self._add_one("ProcStart", int(self._keys[at]), proc, int(moves.time[at]), thread)

    def start_others(
        self, columns: Columns, is_run: Callable[[int], bool], thread: Callable[[int], int]
    ) -> None:
        """The Ps of whatever else writes here for the first time start."""
        at = 0
        for batch in columns.batches:
            if batch.proc not in self._started and not is_run(batch.proc):
                self._started.add(batch.proc)
                time = int(columns.time[at])
                self._add_one(
                    "ProcStart", (at + 1) * self._step - 1, batch.proc, time, thread(batch.proc)
                )
            at += batch.count

    def stop(self, stops: Table) -> None:
        """These procs end."""
        where = np.array([proc in self._started for proc in stops.proc.tolist()], np.bool_)
        self._started -= set(stops.proc.tolist())
        self.events("ProcStop", stops, where=where)

    def _add_one(self, name: str, key: int, proc: int, time: int, *values: int) -> None:
        self._add(name, np.array([key]), np.array([proc]), np.array([time]), values)

    def _add(self, name: str, key: Any, proc: Any, time: Any, values: Sequence[Any]) -> None:
        rows = np.zeros((8, len(key)), np.int64)
        rows[KEY], rows[TYPE], rows[PROC], rows[TIME] = key, BY_NAME[name].number, proc, time
        for i, value in enumerate(values):
            rows[V1 + i] = value
        self._written[name] += len(key)
        self._parts.append(rows)

    # --- bytes -----------------------------------------------------------------------------------

    def end(self) -> bytes:
        """The chunk as bytes."""
        if not self._parts:
            return b""
        order = np.argsort(np.concatenate([part[KEY] for part in self._parts]), kind="stable")
        rows = np.empty((8, len(order)), np.int64)
        for field in range(8):
            column = np.concatenate([part[field] for part in self._parts])
            np.take(column, order, out=rows[field])
        self._in_order(rows)
        self._number(rows)
        change = np.flatnonzero(np.concatenate(([True], rows[PROC, 1:] != rows[PROC, :-1])))
        ends = np.append(change[1:], rows.shape[1]) - 1
        for proc, time in zip(rows[PROC, ends].tolist(), rows[TIME, ends].tolist(), strict=True):
            self._last[proc] = time
        deltas = np.diff(rows[TIME], prepend=0)
        deltas[change] = 0
        return self._encode(rows, deltas, change)

    def _in_order(self, rows: Integers) -> None:
        """Go back in time never: damage may, and what was put in."""
        procs = np.unique(rows[PROC]).tolist()
        for proc in procs:
            self._processors.setdefault(proc, len(self._processors))
            mine = np.flatnonzero(rows[PROC] == proc) if len(procs) > 1 else slice(None)
            times = rows[TIME, mine]
            low = self._last.get(proc, 0)
            if len(times) and (times[0] < low or (times[1:] < times[:-1]).any()):
                rows[TIME, mine] = np.maximum(np.maximum.accumulate(times), low)

    def _number(self, rows: Integers) -> None:
        """Sequence numbers, which GoSysExit needs."""
        at = np.flatnonzero(np.isin(rows[TYPE], list(_SEQ)))
        if not len(at):
            return
        order = np.argsort(rows[V1, at], kind="stable")
        at = at[order]
        tasks = rows[V1, at]
        first = np.flatnonzero(np.concatenate(([True], tasks[1:] != tasks[:-1])))
        counts = np.diff(np.append(first, len(tasks)))
        names = tasks[first].tolist()
        before = np.array([self._seq.get(task, 0) for task in names], np.int64)
        numbers = np.arange(len(tasks)) - np.repeat(first - before, counts)
        exits = rows[TYPE, at] == _SYS_EXIT
        rows[V2, at[exits]] = numbers[exits]
        self._seq.update(zip(names, (before + counts).tolist(), strict=True))
        for task in self._moves.task[self._moves.move == 9].tolist():
            self._seq.pop(task, None)

    def _encode(self, rows: Integers, deltas: Integers, change: Integers) -> bytes:
        total = rows.shape[1] + len(change)
        # Batch headers stand before the records that begin a batch.
        shift = np.zeros(rows.shape[1], np.int64)
        shift[change] = 1
        places = np.arange(rows.shape[1]) + np.cumsum(shift)
        processors = np.array([self._processors[p] for p in rows[PROC, change].tolist()], np.int64)
        head = bytes([_BATCH | 1 << 6])
        groups = [(places[change] - 1, Records(len(change), head, processors, rows[TIME, change]))]
        for number in np.unique(rows[TYPE]).tolist():
            at = np.flatnonzero(rows[TYPE] == number)
            groups.append((places[at], self._records(number, rows[:, at], deltas[at])))
        return join(groups, total)

    def _records(self, number: int, rows: Integers, deltas: Integers) -> Records:
        count = len(BY_NUMBER[number].values)
        values: list[Part] = [deltas, *(rows[V1 + i] for i in range(count - 1))]
        n = rows.shape[1]
        if count <= 3:
            return Records(n, bytes([number | (count - 1) << 6]), *values)
        head = bytes([number | 0xC0])
        if BY_NUMBER[number].name != "UserLog":
            return Records(n, head, Nested(*values))
        texts = [self._texts[key] for key in rows[KEY].tolist()]
        return Records(n, head, Nested(*values), Nested(texts))

    # --- the end of the file ---------------------------------------------------------------------

    def raw(self, name: str, *values: int) -> bytes:
        """One record that is no event."""
        return encode(name, *values)

    def stop_all(self, time: int) -> bytes:
        """Every P stops."""
        data = []
        for proc in sorted(self._started):
            self._written["ProcStop"] += 1
            time = max(time, self._last.get(proc, 0))
            data += [encode("Batch", self._processors[proc], time), encode("ProcStop", 0)]
        return b"".join(data)

    def aside(
        self, events: list[tuple[str, int, tuple[int, ...], bytes | None]], begin: int, thread: int
    ) -> bytes:
        """A P of its own for events that belong to no proc, in order of time: (record, time, values, text)."""
        if not events:
            return b""
        last = min(begin, events[0][1])
        data = [encode("Batch", len(self._processors), last), encode("ProcStart", 0, thread)]
        for name, time, values, text in events:
            data.append(encode(name, time - last, *values, tail=text))
            self._written[name] += 1
            last = time
        data.append(encode("ProcStop", 0))
        self._written["ProcStart"] += 1
        self._written["ProcStop"] += 1
        return b"".join(data)

    def nothing(self, begin: int, end: int) -> bytes:
        """Of a trace in which no task ever runs: enough for Go to open it."""
        data = [encode("Batch", len(self._processors) + 1, begin), encode("ProcStart", 0, 1)]
        data += [encode("Gomaxprocs", 0, 1, 0)] * 2 + [encode("ProcStop", max(0, end - begin))]
        for name, count in (("ProcStart", 1), ("Gomaxprocs", 2), ("ProcStop", 1)):
            self._written[name] += count
        return b"".join(data)


assert ProcStop.number == 2
