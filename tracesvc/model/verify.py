"""`verify`: does a trace say only what can be, and does it account for every event?

Frames, checksums and numbers; sequence numbers and the ledger of every proc; the life of every task by the table in
`tracesvc.model.states`; spans, regions, threads, collections, I/O waits; snapshots against the state replayed from the
events.  Whatever is wrong becomes a `Violation` with its place: nothing is raised for it.
"""

from __future__ import annotations

from typing import Any

from tracesvc.events import EVENTS, FrameKind, Overhead
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
    Procs,
    Snapshot,
    Strings,
)
from tracesvc.model.checker import Checker
from tracesvc.model.choice import Choice
from tracesvc.model.reader import Source, Trace, read
from tracesvc.model.report import Report, Violation

__all__ = ["verify"]

MAX_NAME = 1024


def verify(source: Source | Trace) -> Report:
    """Check a trace from front to end.

    A trace that is being written, or whose program was killed, is right as far as it goes; the report's ``ended`` and
    its notes tell.

    Args:
        source: As for `tracesvc.model.reader.read`; a `Trace` is read from where it stands and left open.

    Raises:
        OSError: The file cannot be read.
        FormatError: It is not a trace at all.
    """
    if isinstance(source, Trace):
        return Verifier(source).run()
    with read(source) as trace:
        return Verifier(trace).run()


class Verifier:
    """One pass over one trace."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._report = Report()
        self._offset = 0
        self._frame: int | None = None
        self._checker = Checker(self._add, trace.text, trace.knows)
        self._number: int | None = None
        self._resumes = False
        """frames are missing: only what may follow a sink's gap may follow"""
        self._headers = 0
        self._generation: Generation | None = None
        self._snapshots: dict[int, _Parts] = {}
        self._strings = 0
        self._joined_late = False
        self._end: End | None = None

    def run(self) -> Report:
        report = self._report
        for item in self._trace.items():
            if isinstance(item, Damage):
                self._damage(item)
            else:
                self._item(item)
        self._finish()
        report.bytes = self._trace.offset + self._trace.pending
        report.session = None if self._trace.session is None else self._trace.session.id
        report.by_type = {
            EVENTS[n].type if n in EVENTS else f"type {n}": c
            for n, c in sorted(self._checker.by_type.items())
        }
        changes = self._checker.by_type.get(Overhead.number, 0)
        if changes:
            report.notes.append(f"over its budget: what is left out changed {changes} times")
        report.events = sum(report.by_type.values())
        report.accounts = [ledger.account for _, ledger in sorted(self._checker.ledgers.items())]
        return report

    def _add(
        self,
        code: str,
        text: str,
        proc: int | None = None,
        seq: int | None = None,
        offset: int | None = None,
        frame: int | None = None,
    ) -> None:
        if offset is None:
            offset, frame = self._offset, self._frame
        self._report.add(Violation(code, text, offset, frame, proc, seq))

    # --- frames ----------------------------------------------------------------------------------

    def _damage(self, damage: Damage) -> None:
        self._offset, self._frame = damage.start, None
        self._add(
            "damage", f"bytes {damage.start:,} to {damage.end:,} are no good: {damage.reason}"
        )
        self._checker.blind(frames=True, damage=True)
        self._snapshots.clear()
        self._number = None

    def _item(self, item: Item) -> None:
        frame = item.frame
        self._offset, self._frame = frame.offset, frame.number
        self._report.frames += 1
        self._check_number(frame)
        if self._end is not None:
            self._add("end", "a frame after the end mark")
        if self._headers == 0 and frame.kind != FrameKind.HEADER:
            self._headers = 1
            self._add("header", "the stream does not begin with a header")
        if frame.kind != FrameKind.PROCS:
            self._joined_late = False
        match item.record:
            case Header() as header:
                self._header(header)
            case Generation() as generation:
                self._begin(generation)
            case Procs(rows):
                self._checker.accounts(rows, late=self._joined_late)
            case Strings(rows):
                self._names(rows)
            case Batch() as batch:
                self._batch(batch, frame)
            case Loss(rows):
                for row in rows:
                    self._checker.loss(row)
            case Snapshot() as snapshot:
                self._snapshot(snapshot)
            case End() as end:
                self._ending(end)
            case None if frame.kind not in set(FrameKind):
                note = f"frames of kind {frame.kind}, which this version does not know"
                if note not in self._report.notes:
                    self._report.notes.append(note)

    def _check_number(self, frame: Frame) -> None:
        due = self._number
        self._number = frame.number + 1
        if due is not None:
            if frame.number < due:
                self._add("frames", f"frame {frame.number} comes again or too late: {due} is due")
            elif frame.number > due:
                self._resumes = True
                self._snapshots.clear()
        # A sink that dropped frames accounts for them and goes on with a generation, or ends.
        if self._resumes and frame.kind not in (FrameKind.LOSS, FrameKind.PROCS):
            self._resumes = False
            if frame.kind not in (FrameKind.GENERATION, FrameKind.END):
                self._add("frames", f"frames before number {frame.number} are missing")
            self._checker.blind(frames=True)

    def _header(self, header: Header) -> None:
        self._headers += 1
        if self._headers > 1 or self._frame != 0:
            self._add("header", "a header that is not the first frame")
        if header.monotonic < 0 or header.wall < 0:
            self._add("clock", "a clock before its epoch")
        choice = Choice.of(header.options)
        if choice.some_tasks:
            self._checker.some_tasks()
        self._report.notes += choice.notes()

    def _begin(self, generation: Generation) -> None:
        self._close_generation()
        before, self._generation = self._generation, generation
        self._report.generations += 1
        self._strings = 0
        if generation.monotonic < self._checker.newest:
            self._add("clock", "a generation that begins before an event ahead of it")
        if generation.number < 0 or generation.monotonic < 0 or generation.wall < 0:
            self._add("clock", "a generation with a negative number or clock")
        if before is None:
            self._joined_late = generation.number > 0
            if self._joined_late:
                self._report.notes.append(
                    f"begins with generation {generation.number}: the sink joined then"
                )
                self._checker.blind()
        elif (
            generation.number <= before.number
            or generation.monotonic < before.monotonic
            or (generation.number != before.number + 1 and not self._checker.is_blind)
        ):
            self._add("clock", f"generation {generation.number} after generation {before.number}")
        self._checker.begin_generation(generation.number)

    def _follows(self, before: Generation, generation: Generation) -> bool:
        step = generation.number - before.number
        later = generation.monotonic >= before.monotonic
        return later and (step == 1 or (step > 1 and self._checker.is_blind))

    def _names(self, rows: list[tuple[int, str]]) -> None:
        for number, name in rows:
            if number != self._strings + 1 and not self._checker.is_blind:
                self._add("names", f"name {number} where {self._strings + 1} is due")
            self._strings = max(self._strings, number)
            if len(name.encode("utf-8", "replace")) > MAX_NAME:
                self._add("names", f"name {number} is longer than {MAX_NAME} bytes")

    def _batch(self, batch: Batch, frame: Frame) -> None:
        if self._generation is None:
            self._add("generation", "events before the first generation")
        try:
            self._checker.batch(batch, frame)
        except FormatError as exc:
            self._add(
                "damage", f"the columns of a batch are damaged: {exc}", batch.proc, batch.first
            )
            self._checker.blind()

    # --- snapshots -------------------------------------------------------------------------------

    def _snapshot(self, snapshot: Snapshot) -> None:
        parts = self._snapshots.get(snapshot.proc)
        if parts is None:
            parts = self._snapshots[snapshot.proc] = _Parts(snapshot, self._checker.state(snapshot))
        elif (snapshot.seq, snapshot.parts, snapshot.part) != parts.due:
            self._add(
                "snapshot",
                f"part {snapshot.part} of {snapshot.parts} of a snapshot is out of place",
                snapshot.proc,
            )
            return
        if not parts.take(snapshot):
            self._add("snapshot", "the first part of a snapshot is missing", snapshot.proc)
        elif parts.whole:
            self._checker.compare(parts.snapshot, parts.state)

    def _close_generation(self) -> None:
        """Every snapshot that was begun is whole, and there is one of everything that lives."""
        for proc, parts in self._snapshots.items():
            if not parts.whole:
                self._add(
                    "snapshot", f"{parts.taken} of {parts.snapshot.parts} parts of a snapshot", proc
                )
        self._snapshots.clear()

    # --- the end ---------------------------------------------------------------------------------

    def _ending(self, end: End) -> None:
        self._close_generation()
        self._end = end
        self._checker.end(end)
        if self._generation is not None and end.monotonic < self._generation.monotonic:
            self._add("clock", "the end comes before the last generation")

    def _finish(self) -> None:
        report, trace = self._report, self._trace
        report.ended = self._end is not None
        if self._headers == 0:
            self._add(
                "header",
                "there is no frame" if trace.pending == 0 else "not even the header is whole",
            )
        if not report.ended:
            report.notes.append("not ended: the trace is being written, or its program was killed")
            self._checker.leave_open()
        if trace.pending:
            report.notes.append(f"{trace.pending:,} bytes of an incomplete frame at the end")


class _Parts:
    """The parts of one snapshot, and what the state was when the first of them came."""

    def __init__(self, first: Snapshot, state: Any) -> None:
        self.snapshot = Snapshot(first.proc, first.seq, 0, first.parts)
        self.state = state
        self.taken = 0

    @property
    def due(self) -> tuple[int, int, int]:
        return self.snapshot.seq, self.snapshot.parts, self.taken

    @property
    def whole(self) -> bool:
        return self.taken == self.snapshot.parts

    def take(self, part: Snapshot) -> bool:
        if part.part != self.taken:
            return False
        self.taken += 1
        self.snapshot.tasks.extend(part.tasks)
        self.snapshot.spans.extend(part.spans)
        self.snapshot.regions.extend(part.regions)
        return True
