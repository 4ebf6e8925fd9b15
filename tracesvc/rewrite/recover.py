"""A valid trace from the black box of a program that is dead.

The frames in the ring of the box are taken as they are, from the oldest whole generation on.  Behind them come the
records of the journal that the reader had not got to, encoded as it would have done it.  What is missing between them
was overwritten: the ledger says so, with the cause `LossCause.CRASH`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tracesvc.events import EVENTS, FrameKind, LossCause, ProcKind, ProcStart
from tracesvc.format import (
    Batch,
    Damage,
    End,
    FormatError,
    Frame,
    Generation,
    Header,
    Item,
    Loss,
    LossRow,
    ProcRow,
    Procs,
    SessionWriter,
    StreamDecoder,
)
from tracesvc.format.apart import apart
from tracesvc.format.batch import SLOTS, sort_records
from tracesvc.format.box import ACCOUNTS, NEWEST, RETIRED, Box, Slot
from tracesvc.format.frames import FrameDecoder, encode_frame
from tracesvc.format.records import digest_of

__all__ = ["Recovered", "recover"]

BATCH: Final = 2048
"""events in a frame"""


@dataclass(slots=True)
class Recovered:
    """What a black box gave."""

    session: str
    """of the trace: another than that of the program's, which its header tells"""
    source: dict[str, Any]
    pid: int
    end: int = 0
    """ns of the program's clock: its last event"""
    frames: int = 0
    bytes: int = 0
    events: int = 0
    """in the trace"""
    unread: int = 0
    """of them, those that the program's reader had not got to"""
    lost: int = 0
    """events that were overwritten before it died"""
    first: dict[int, int] = field(default_factory=dict)
    """proc -> the sequence number that the trace begins with"""


def recover(data: bytes | bytearray | memoryview, out: Callable[[bytes], Any]) -> Recovered:
    """Write the trace that is in a black box.

    Args:
      data: The whole box, of a process that is dead.
      out: Takes the bytes, frame by frame.

    Raises:
      FormatError: It is no box, or nothing was recorded into it.
    """
    return _Recovery(Box(data), out).run()


class _Proc:
    """What the trace has of one proc."""

    def __init__(self) -> None:
        self.row: ProcRow | None = None
        self.next = 0
        """the sequence number that is due"""
        self.lost = 0
        self.newest = 0
        self.digest = 0
        self.last: Batch | None = None


class _Recovery:
    def __init__(self, box: Box, out: Callable[[bytes], Any]) -> None:
        self._box: Final = box
        self._out: Final = out
        self._procs: Final[dict[int, _Proc]] = {}
        self._places: dict[int, tuple[int, int]] = {}
        """proc -> (events, records) that the frames have"""
        self._newest_proc = -1
        self._retired = 0, 0
        self._decoder: Final = StreamDecoder()
        self._clock = 0, 0

    def run(self) -> Recovered:
        header = self._header()
        self._session = header.session
        self._done = Recovered(header.session, header.source, self._box.pid, header.monotonic)
        self._clock = header.monotonic, header.wall
        frame = Frame(FrameKind.HEADER, 0, encode_frame(FrameKind.HEADER, 0, header.pack()))
        self._write([frame])
        self._decoder.feed(frame.data)
        list(self._decoder)
        kept = self._kept()
        for each in kept:
            self._follow(each)
        unread = self._unread()
        if kept:
            last = kept[-1]
            digests = {number: proc.digest for number, proc in self._procs.items()}
            strings, stacks = self._decoder.strings, self._decoder.stacks
            writer = SessionWriter.going_on(last.number + 1, 0, strings, stacks, digests)
        else:
            writer = SessionWriter.going_on(1, 0, {}, {}, {})
            began = Generation(0, header.monotonic, header.wall, header.session)
            for number, slots in unread.items():
                self._proc(number).row = _row_of(number, [slot.record for slot in slots])
            self._write(
                writer.generation(began, [proc.row for proc in self._procs.values() if proc.row])
            )
        for number, slots in sorted(unread.items()):
            self._add(writer, number, slots)
        self._close(writer)
        return self._done

    def _header(self) -> Header:
        decoder = StreamDecoder()
        decoder.feed(self._box.header)
        for item in decoder:
            if isinstance(item, Item) and isinstance(item.record, Header):
                session = str(uuid.uuid5(uuid.UUID(item.record.session), "recovered"))
                self._options = {"recovered_from": item.record.session}
                made = apart(item.frame, session, self._options)
                return Header.unpack(made.body())
        raise FormatError("the black box is damaged: it has no header")

    def _write(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._out(frame.data)
            self._done.frames += 1
            self._done.bytes += len(frame.data)
            self._done.events += frame.count

    # --- the ring --------------------------------------------------------------------------------

    def _kept(self) -> list[Frame]:
        """The frames up to the last accounts: what follows is in the journal, or half of a generation's beginning."""
        decoder, kept, pending = FrameDecoder(), list[Frame](), list[Frame]()
        decoder.feed(self._box.ring)
        for frame in decoder:
            if isinstance(frame, Damage):
                break
            if frame.kind != ACCOUNTS:
                pending.append(frame)
                continue
            kept += pending
            pending.clear()
            self._note(frame.body())
        return kept if kept and kept[0].kind == FrameKind.GENERATION else []

    def _note(self, rows: Any) -> None:
        listed = [tuple(map(int, row)) for row in rows]
        if any(row[0] == NEWEST for row in listed):  # of all that are not retired
            self._places = {}
        for proc, *place in listed:
            if proc == NEWEST:
                self._newest_proc = place[0]
            elif proc == RETIRED:
                self._retired = place[0], place[1]
            else:
                self._places[proc] = place[0], place[1]

    def _follow(self, frame: Frame) -> None:
        frame = apart(frame, self._session, self._options)
        self._write([frame])
        self._decoder.feed(frame.data)
        for item in self._decoder:
            if isinstance(item, Damage):
                raise FormatError(f"the black box is damaged: {item.reason}")
            match item.record:
                case Generation() as generation:
                    self._clock = generation.monotonic, generation.wall
                    self._done.end = max(self._done.end, generation.monotonic)
                case Procs(rows):
                    for row in rows:
                        self._account(row)
                case Loss(rows):
                    for lost in rows:
                        proc = self._proc(lost.proc)
                        proc.next = max(proc.next, lost.last + 1)
                        proc.lost += lost.last - lost.first + 1
                case Batch() as batch:
                    proc = self._proc(batch.proc)
                    proc.next, proc.last = max(proc.next, batch.end), batch
                    proc.digest = digest_of(frame, proc.digest)
                    self._done.first.setdefault(batch.proc, batch.first)
                    self._done.events += batch.count

    def _proc(self, number: int) -> _Proc:
        proc = self._procs.get(number)
        if proc is None:
            proc = self._procs[number] = _Proc()
        return proc

    def _account(self, row: ProcRow) -> None:
        if not row.live:  # it had its last account: nothing of it comes any more
            self._procs.pop(row.proc, None)
            return
        proc = self._proc(row.proc)
        if proc.row is None:
            proc.digest = row.digest or 0
            proc.lost = row.lost
        proc.row = row
        proc.next = max(proc.next, row.emitted)

    # --- the journal -----------------------------------------------------------------------------

    def _unread(self) -> dict[int, list[Slot]]:
        """The records that the frames do not have, of each proc, in order."""
        found: dict[int, dict[int, Slot]] = {}
        for slot in self._box.journal():
            place = self._places.get(slot.proc)
            if place is None and slot.proc <= self._newest_proc:
                continue  # it was over, and has had its last account
            passed, records = place or (0, 0)
            proc = self._proc(slot.proc)
            # what was said to be lost after its last buffer is not to come again
            if slot.n >= records + max(0, proc.next - passed):
                found.setdefault(slot.proc, {})[slot.n] = slot
        return {number: [slots[n] for n in sorted(slots)] for number, slots in found.items()}

    def _add(self, writer: SessionWriter, number: int, slots: list[Slot]) -> None:
        """One proc's records, with the gaps between them."""
        proc = self._proc(number)
        passed, records = self._places.get(number, (0, 0))
        if proc.last is not None:
            proc.newest = proc.last.times()[-1]
        to_seq = passed - records
        at = 0
        while at < len(slots):
            first = slots[at].n + to_seq
            if first > proc.next:
                self._lose(writer, number, proc, first - 1, slots[at].record[1])
            upto = at + 1
            while (
                upto < len(slots) and upto - at < BATCH and slots[upto].n == slots[at].n + upto - at
            ):
                upto += 1
            self._put(writer, number, proc, first, [slot.record for slot in slots[at:upto]])
            at = upto

    def _lose(self, writer: SessionWriter, number: int, proc: _Proc, last: int, time: int) -> None:
        count = last + 1 - proc.next
        row = LossRow(number, proc.next, last, LossCause.CRASH, proc.newest, max(proc.newest, time))
        proc.next, proc.lost = last + 1, proc.lost + count
        self._done.lost += count
        self._write(writer.losses([row]))

    def _put(
        self,
        writer: SessionWriter,
        number: int,
        proc: _Proc,
        first: int,
        rows: list[tuple[Any, ...]],
    ) -> None:
        if proc.row is None:
            proc.row = _row_of(number, rows)
        records = [slot for row in rows for slot in row]
        sort_records(records, proc.newest)
        proc.newest, proc.next = records[1 - SLOTS], first + len(rows)
        self._done.end = max(self._done.end, proc.newest)
        self._done.unread += len(rows)
        self._done.first.setdefault(number, first)
        self._write(writer.events(number, first, records))

    # --- the end ---------------------------------------------------------------------------------

    def _close(self, writer: SessionWriter) -> None:
        """The last accounts, as of the moment it died, and the end mark."""
        rows = [
            (proc.row or _row_of(number, []))._replace(
                emitted=proc.next, lost=proc.lost, live=False, digest=None
            )
            for number, proc in sorted(self._procs.items())
        ]
        for proc in self._procs.values():
            if proc.last is not None:
                self._done.end = max(self._done.end, proc.last.times()[-1])
        emitted = self._retired[0] + sum(row.emitted for row in rows)
        lost = self._retired[1] + sum(row.lost for row in rows)
        wall = self._clock[1] + self._done.end - self._clock[0]
        self._write([*writer.procs(rows), writer.end(End(self._done.end, wall, emitted, lost))])


_OF_RUNS: Final = {n for n, event in EVENTS.items() if event.type.startswith(("task_", "step_"))}


def _row_of(number: int, rows: list[tuple[Any, ...]]) -> ProcRow:
    """The account of a proc that no generation has told of."""
    for row in rows:
        if row[0] == ProcStart.number:
            return ProcRow(number, row[2], row[4], row[3], 0, 0, live=True)
    kind = ProcKind.RUN if any(row[0] in _OF_RUNS for row in rows) else ProcKind.THREAD
    if not number:
        return ProcRow(0, ProcKind.PROCESS, "process", 0, 0, 0, live=True)
    return ProcRow(number, kind, "", 0, 0, 0, live=True)
