"""`merge`: several traces as one, on one clock.

Every id (of procs, tasks, nurseries, spans, regions, objects) is made unique: that of trace i of n becomes
``id * n + i``.  Clocks are brought together by the time of day that each trace began at; of one machine they are the
same already.
The result is one session in one generation; what is missing in a trace stays missing.  It has an end mark if all have.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tracesvc.events import EVENTS, LossCause, ProcKind, ProcStart, Reason, Storage
from tracesvc.format import (
    Batch,
    Damage,
    End,
    FormatError,
    Generation,
    Header,
    Loss,
    LossRow,
    ProcRow,
    Procs,
    SessionWriter,
    Snapshot,
)
from tracesvc.format.records import RegionRow, SpanRow, TaskRow
from tracesvc.model.reader import Source, read

__all__ = ["Merged", "merge"]

SAME_CLOCK: Final = 1_000_000_000
"""ns: clocks that are apart by less are taken for one, if the host is the same"""
_IDS: Final = {
    "task",
    "waker",
    "parent",
    "nursery",
    "span",
    "parent span",
    "region",
}
_FD: Final = (Reason.READABLE, Reason.WRITABLE)
_ROLES: Final = {n: [f.role for f in e.fields] for n, e in EVENTS.items()}
_STRINGS: Final = {
    n: [i for i, f in enumerate(e.fields) if f.storage is Storage.STRING] for n, e in EVENTS.items()
}


@dataclass(slots=True)
class Merged:
    """What was written."""

    traces: int
    events: int = 0
    lost: int = 0


def merge(sources: Sequence[Source], out: Callable[[bytes], Any]) -> Merged:
    """Write several traces as one.

    Args:
        sources: Paths or bytes, as for `tracesvc.read`; each is read twice.
        out: Takes the bytes, piece by piece.

    Raises:
        ValueError: There are no traces.
        FormatError: A source is not a trace.
    """
    if not sources:
        raise ValueError("sources must have at least one trace")
    return _Merger([_Input(source, i, len(sources)) for i, source in enumerate(sources)], out).run()


@dataclass(slots=True)
class _Account:
    """Of one proc."""

    row: ProcRow
    begin: int = 0
    """events before the trace"""
    lost_before: int = 0
    next: int = 0
    time: int = 0
    losses: list[LossRow] = field(default_factory=list)
    told: int = 0
    """how many of them are written"""


class _Input:
    """One trace, and how its numbers are turned into those of the whole."""

    def __init__(self, source: Source, index: int, count: int) -> None:
        self._source, self._index, self._count = source, index, count
        self.shift = 0
        """ns to add to its times"""
        self.header: Header | None = None
        self.session = ""
        self.accounts: dict[int, _Account] = {}
        self.late = self.ended = False
        self.begin: int | None = None
        self.clock: tuple[int, int] | None = None
        self.snapshots: list[tuple[Snapshot, dict[int, str]]] = []
        """of the first generation, where it is not the session's; and their names"""
        self._survey()

    def id(self, number: int) -> int:
        """Unique among all traces; 0 stays 0."""
        return number * self._count + self._index if number else 0

    def proc(self, number: int) -> int:
        """Likewise, of a proc; those of the processes themselves come first."""
        return number * self._count + self._index

    # --- first pass: accounts --------------------------------------------------------------------

    def _survey(self) -> None:
        said: dict[int, list[LossRow]] = {}
        generations = 0
        begun = False
        with read(self._source) as trace:
            for item in trace.items():
                if isinstance(item, Damage):
                    continue
                match item.record:
                    case Header() as header:
                        self.header = header
                        self._begin(header.monotonic, header.wall)
                    case Generation() as generation:
                        self.late = self.late or (not generations and generation.number > 0)
                        generations += 1
                        self._begin(generation.monotonic, generation.wall)
                    case Procs(rows):
                        for account in rows:
                            self._account(
                                account, first=generations == 1 and not begun and self.late
                            )
                    case Snapshot() as part:
                        if self.late and generations == 1 and not begun:
                            self.snapshots.append((part, self._names(trace.text, part)))
                    case Loss(losses):
                        for loss in losses:
                            said.setdefault(loss.proc, []).append(loss)
                    case Batch() as batch:
                        begun = True
                        self._batch(batch, trace.text)
            self.ended = trace.end is not None
            if trace.session is not None:
                self.session = trace.session.id
        for proc, told in said.items():
            self._tell(proc, sorted(told))

    def _begin(self, monotonic: int, wall: int) -> None:
        if self.clock is None:
            self.clock = monotonic, wall
        self.begin = monotonic if self.begin is None else min(self.begin, monotonic)

    def _account(self, row: ProcRow, *, first: bool) -> None:
        account = self.accounts.setdefault(row.proc, _Account(row))
        account.row = row
        if first:
            account.begin = account.next = row.emitted
            account.lost_before = row.lost
        elif row.emitted > account.next:
            self._miss(account, row.emitted, account.time)

    def _batch(self, batch: Batch, text: Callable[[int], str]) -> None:
        account = self.accounts.get(batch.proc)
        if account is None:
            account = self.accounts[batch.proc] = _Account(_described(batch, text))
        if batch.first > account.next:
            self._miss(account, batch.first, batch.t0)
        account.next = max(account.next, batch.end)
        account.time = max(account.time, batch.t0)
        self.begin = batch.t0 if self.begin is None else min(self.begin, batch.t0)

    def _miss(self, account: _Account, until: int, time: int) -> None:
        """Events are missing; for now nobody knows why."""
        cause = int(LossCause.DAMAGE)
        row = LossRow(account.row.proc, account.next, until - 1, cause, account.time, time)
        account.losses.append(row)
        account.next = until

    def _tell(self, proc: int, said: list[LossRow]) -> None:
        """Put what the trace says of its losses in the place of what is only known to be missing."""
        account = self.accounts.setdefault(proc, _Account(ProcRow(proc, 1, "", 0, 0, 0, True)))
        for row in said:
            if row.first >= account.next:
                self._miss(account, row.last + 1, row.end)
        rows: list[LossRow] = []
        for gap in account.losses:
            at = gap.first
            for row in said:
                first, last = max(row.first, at), min(row.last, gap.last)
                if first > last:
                    continue
                if first > at:
                    rows.append(gap._replace(first=at, last=first - 1))
                rows.append(row._replace(first=first, last=last))
                at = last + 1
            if at <= gap.last:
                rows.append(gap._replace(first=at))
        account.losses = rows

    def _names(self, text: Callable[[int], str], part: Snapshot) -> dict[int, str]:
        ids = {n for row in part.tasks for n in (row.name, row.entry)}
        ids |= {row.name for row in part.spans} | {row.name for row in part.regions}
        return {n: text(n) for n in ids}

    # --- second pass: events ---------------------------------------------------------------------

    def batches(self) -> Iterator[tuple[int, int, int, int, list[Any]]]:
        """(ns, number of the trace, proc, first sequence number, records) of each batch, made fit for the whole."""
        last = 0
        with read(self._source) as trace:
            for item in trace.items():
                if isinstance(item, Damage) or not isinstance(item.record, Batch):
                    continue
                batch = item.record
                try:
                    records = list(batch.records(trace.text))
                except FormatError:
                    continue
                # heapq wants what it merges to be in order: a batch may be older than the one before.
                last = max(last, batch.t0 + self.shift)
                yield last, self._index, batch.proc, batch.first, self._flat(records)

    def _flat(self, records: list[tuple[int, int, tuple[Any, ...]]]) -> list[Any]:
        flat: list[Any] = []
        for number, time, fields in records:
            values = list(fields)
            roles = _ROLES.get(number, ())
            for i, role in enumerate(roles):
                if role in _IDS or (role == "object" and values[i - 1] not in _FD):
                    values[i] = self.id(values[i])
            rest = [*values[:2], tuple(values[2:])] if len(values) > 3 else [*values, 0, 0, 0][:3]
            flat += [number, time + self.shift, *rest]
        return flat

    def parts(self, intern: Callable[[str], int]) -> Iterator[Snapshot]:
        """The snapshots of the first generation, made fit for the whole."""
        for part, names in self.snapshots:

            def name(number: int, names: dict[int, str] = names) -> int:
                return intern(names[number])

            tasks = [
                TaskRow(
                    self.id(r.task),
                    self.id(r.parent),
                    self.id(r.nursery),
                    name(r.name),
                    name(r.entry),
                    r.state,
                    r.since + self.shift,
                    r.reason,
                    r.object if r.reason in _FD else self.id(r.object),
                )
                for r in part.tasks
            ]
            spans = [
                SpanRow(
                    self.id(r.span),
                    self.id(r.parent),
                    self.id(r.task),
                    r.since + self.shift,
                    name(r.name),
                    r.attributes,
                )
                for r in part.spans
            ]
            regions = [
                RegionRow(
                    self.id(r.region),
                    self.id(r.task),
                    r.since + self.shift,
                    name(r.name),
                    r.attributes,
                )
                for r in part.regions
            ]
            yield Snapshot(
                self.proc(part.proc), part.seq, part.part, part.parts, tasks, spans, regions
            )


class _Merger:
    def __init__(self, inputs: list[_Input], out: Callable[[bytes], Any]) -> None:
        self._inputs, self._out = inputs, out
        self._writer = SessionWriter()
        self._done = Merged(len(inputs))
        self._newest = 0

    def run(self) -> Merged:
        first = self._inputs[0]
        for one in self._inputs[1:]:
            one.shift = _shift(first, one)
        # A trace that began before the first one must not come to negative times.
        begin = min(one.begin + one.shift for one in self._inputs if one.begin is not None)
        for one in self._inputs:
            one.shift += max(0, -begin)
        begin = self._newest = max(0, begin)
        session = str(uuid.uuid5(uuid.NAMESPACE_OID, " ".join(one.session for one in self._inputs)))
        late = any(one.late for one in self._inputs)
        wall = (
            0
            if first.clock is None
            else max(0, first.clock[1] + begin - first.clock[0] - first.shift)
        )
        self._write([self._writer.header(Header(session, self._about(), begin, wall))])
        clock = Generation(int(late), begin, wall, session)
        self._write(self._writer.generation(clock, self._rows(live=True)))
        self._snapshots()
        for _, index, proc, number, records in heapq.merge(
            *(one.batches() for one in self._inputs), key=_when
        ):
            self._batch(self._inputs[index], proc, number, records)
        for one in self._inputs:
            for account in one.accounts.values():
                self._losses(one, account, None)
        rows = self._rows(live=False)
        self._write(self._writer.procs(rows))
        emitted, lost = sum(row.emitted for row in rows), sum(row.lost for row in rows)
        if not all(one.ended for one in self._inputs):
            return self._done
        self._write(
            [self._writer.end(End(self._newest, wall + self._newest - begin, emitted, lost))]
        )
        return self._done

    def _write(self, frames: Any) -> None:
        for frame in frames:
            self._out(frame.data)

    def _about(self) -> dict[str, Any]:
        sources = [{} if one.header is None else one.header.source for one in self._inputs]
        names = dict.fromkeys(str(source.get("name", "?")) for source in sources)
        return {
            "name": " + ".join(names),
            "merged": [str(source.get("name", "?")) for source in sources],
        }

    def _rows(self, *, live: bool) -> list[ProcRow]:
        rows = []
        for one in self._inputs:
            for proc, account in sorted(one.accounts.items()):
                lost = account.lost_before
                if not live:
                    lost += sum(row.last - row.first + 1 for row in account.losses)
                emitted = account.begin if live else account.next
                row = account.row._replace(proc=one.proc(proc), emitted=emitted, lost=lost)
                rows.append(row._replace(live=live, digest=None))
        return rows

    def _snapshots(self) -> None:
        """Spans and regions of all traces make one snapshot, for they are those of proc 0."""
        opens: list[Snapshot] = []
        for one in self._inputs:
            for part in one.parts(self._writer.intern):
                if part.tasks or not (part.spans or part.regions):
                    self._write(self._writer.snapshot(part))
                else:
                    opens.append(part)
        for i, part in enumerate(opens):
            part = Snapshot(0, 0, i, len(opens), [], part.spans, part.regions)
            self._write(self._writer.snapshot(part))

    def _batch(self, one: _Input, proc: int, number: int, records: list[Any]) -> None:
        account = one.accounts[proc]
        self._losses(one, account, number)
        self._write(self._writer.events(one.proc(proc), number, records))
        self._newest = max(self._newest, records[-4])
        self._done.events += len(records) // 5

    def _losses(self, one: _Input, account: _Account, before: int | None) -> None:
        """Tell of what was lost before this event, or of all that is left."""
        for row in account.losses[account.told :]:
            if before is not None and row.first >= before:
                return
            account.told += 1
            start, end = row.start + one.shift, max(row.start, row.end) + one.shift
            moved = row._replace(proc=one.proc(row.proc), start=start, end=end)
            self._write(self._writer.losses([moved]))
            self._newest = max(self._newest, end)
            self._done.lost += row.last - row.first + 1


def _described(batch: Batch, text: Callable[[int], str]) -> ProcRow:
    """What the start of a proc, if it is in its first batch, says of it: the trace has no account of it yet."""
    kind, thread, name = int(ProcKind.RUN), 0, ""
    if ProcStart.number in batch.groups:
        kinds, threads, names = batch.columns(ProcStart.number)[:3]
        kind, thread, name = kinds[0], threads[0], text(names[0])
    return ProcRow(batch.proc, kind, name, thread, 0, 0, True)


def _when(batch: tuple[int, int, int, int, list[Any]]) -> tuple[int, int]:
    return batch[0], batch[1]


def _shift(first: _Input, other: _Input) -> int:
    """ns between the clocks of two traces."""
    if first.clock is None or other.clock is None:
        return 0
    apart = (other.clock[1] - other.clock[0]) - (first.clock[1] - first.clock[0])
    hosts = [
        one.header.source.get("host") if one.header is not None else None for one in (first, other)
    ]
    return 0 if hosts[0] == hosts[1] and abs(apart) < SAME_CLOCK else apart
