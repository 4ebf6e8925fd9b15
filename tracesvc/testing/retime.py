"""`retime`: a trace by a virtual clock of which it is known when it jumped."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final, NamedTuple

from tracesvc.events import Counter, GcEnd, GcStart, Overhead
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
    have taken less than it did.

    Args:
      trace: as recorded, without losses.
      jumps: in order.
      procs: their numbers.
    """
    header, records, rows = _read(trace, procs)
    writer = SessionWriter()
    wall = header.wall
    frames = [writer.header(header)]
    frames += writer.generation(Generation(0, 0, wall, header.session), [])
    following = iter([*jumps, Jump(1 << 62, 0)])
    jump, virtual, place = next(following), 0, 0
    pieces: dict[int, list[Any]] = {}
    written: dict[int, int] = {}

    def write(proc: int) -> None:
        piece = pieces.pop(proc)
        first = written.get(proc, 0)
        frames.extend(writer.events(proc, first, piece))
        written[proc] = first + len(piece) // SLOTS

    for record in sorted(records):
        while jump.real <= record.time:
            jump, virtual = next(following), jump.virtual
        place += 1
        time = virtual + place
        values = record.fields
        slots = (*values[:2], values[2:]) if len(values) > 3 else (*values, 0, 0, 0)[:3]
        piece = pieces.setdefault(record.proc, [])
        piece += (record.number, time, *slots)
        if len(piece) >= _PIECE * SLOTS:
            write(record.proc)
    for proc in list(pieces):
        write(proc)
    frames += writer.procs(
        [
            row._replace(emitted=written.get(proc, 0), lost=0, live=False)
            for proc, row in sorted(rows.items())
        ]
    )
    while jump.real < 1 << 62:  # nothing came after the last ones
        jump, virtual = next(following), jump.virtual
    end = virtual + place + 1
    frames.append(writer.end(End(end, wall + end, sum(written.values()), 0)))
    return b"".join(frame.data for frame in frames)


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
