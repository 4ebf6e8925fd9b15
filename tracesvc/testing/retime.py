"""`retime`: a trace by a virtual clock of which it is known when it jumped."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final, NamedTuple

from tracesvc.events import (
    Counter,
    GcEnd,
    GcStart,
    IoWaitEnd,
    IoWaitStart,
    Overhead,
    ProcKind,
)
from tracesvc.format import Batch, End, Generation, Header, Item, ProcRow, Procs, SessionWriter
from tracesvc.format.batch import SLOTS
from tracesvc.model.reader import Trace

__all__ = ["Jump", "retime"]

_REAL: Final = {GcStart.number, GcEnd.number, Overhead.number}
"""types of events that tell of the machine and not of the program"""
_REAL_COUNTERS: Final = {"process.rss", "trio.loop_lag", "trio.run_queue"}
_PIECE: Final = 1000
"""events that are written together"""


class Jump(NamedTuple):
    """The clock jumped."""

    real: int
    """ns of the trace's clock; no event has exactly this time"""
    virtual: int
    """ns of the virtual clock, from then on"""
    idle: bool
    """every task was blocked: the run loop waits"""


class _Record(NamedTuple):
    """An event of the trace; in the order of the program, as far as clocks tell."""

    time: int
    proc: int
    seq: int
    number: int
    fields: tuple[Any, ...]


def retime(trace: Trace, jumps: Iterable[Jump], procs: Collection[int]) -> bytes:
    """A whole trace anew, in one generation, by the virtual clock; only with what ``procs`` have written.

    An event's time is the virtual one and a ns for each event up to it: what comes later is later, and nothing seems to
    have taken less than it did.  Where the clock jumped because every task was blocked, the run loop has waited.

    Args:
      trace: as recorded, without losses.
      jumps: in order, of the clock of the first run.
      procs: their numbers.
    """
    header, records, rows = _read(trace, procs)
    run = min(proc for proc, row in rows.items() if row.kind == ProcKind.RUN)
    stream = _Stream(header)
    left = [*jumps][::-1]
    for record in sorted(records):
        while left and left[-1].real <= record.time:
            stream.jump(left.pop(), run)
        stream.put(record.proc, record.number, record.fields)
    for jump in reversed(left):
        stream.virtual = jump.virtual
    return stream.end(rows)


class _Stream:
    """What is written."""

    def __init__(self, header: Header) -> None:
        self._writer: Final = SessionWriter()
        self._wall: Final = header.wall
        self._frames = [self._writer.header(header)]
        clock = Generation(0, 0, header.wall, header.session)
        self._frames += self._writer.generation(clock, [])
        self.virtual = 0
        """ns"""
        self._place = 0
        self._pieces: dict[int, list[Any]] = {}
        self._written: dict[int, int] = {}

    def jump(self, jump: Jump, run: int) -> None:
        """The clock jumps."""
        before, self.virtual = self.virtual, jump.virtual
        if jump.idle:
            self._place += 1
            waits = IoWaitStart.number, before + self._place, jump.virtual - before, 0, 0
            self._add(run, waits)
            self.put(run, IoWaitEnd.number, ())

    def put(self, proc: int, number: int, fields: tuple[Any, ...]) -> None:
        """The next event."""
        self._place += 1
        slots = (*fields[:2], fields[2:]) if len(fields) > 3 else (*fields, 0, 0, 0)[:3]
        self._add(proc, (number, self.virtual + self._place, *slots))

    def _add(self, proc: int, record: tuple[Any, ...]) -> None:
        piece = self._pieces.setdefault(proc, [])
        piece += record
        if len(piece) >= _PIECE * SLOTS:
            self._write(proc)

    def _write(self, proc: int) -> None:
        piece = self._pieces.pop(proc)
        first = self._written.get(proc, 0)
        self._frames += self._writer.events(proc, first, piece)
        self._written[proc] = first + len(piece) // SLOTS

    def end(self, rows: dict[int, ProcRow]) -> bytes:
        """All of it."""
        for proc in list(self._pieces):
            self._write(proc)
        accounts = [
            row._replace(emitted=self._written.get(proc, 0), lost=0, live=False)
            for proc, row in sorted(rows.items())
        ]
        self._frames += self._writer.procs(accounts)
        end = self.virtual + self._place + 1
        total = sum(self._written.values())
        self._frames.append(self._writer.end(End(end, self._wall + end, total, 0)))
        return b"".join(frame.data for frame in self._frames)


def _read(trace: Trace, procs: Collection[int]) -> tuple[Header, list[_Record], dict[int, ProcRow]]:
    records: list[_Record] = []
    rows: dict[int, ProcRow] = {}
    header: Header | None = None
    for item in trace.items():
        assert isinstance(item, Item), "it was recorded here and now"
        match item.record:
            case Header() as found:
                header = found
            case Procs(accounts):
                rows |= {row.proc: row for row in accounts if row.proc in procs}
            case Batch() as batch if batch.proc in procs:
                for seq, (number, time, fields) in enumerate(
                    batch.records(trace.text, trace.stack), batch.first
                ):
                    if number in _REAL or (
                        number == Counter.number and fields[0] in _REAL_COUNTERS
                    ):
                        continue
                    records.append(_Record(time, batch.proc, seq, number, fields))
    assert header is not None
    told = Header(header.session, header.source, 0, header.wall, header.options)
    return told, records, rows
