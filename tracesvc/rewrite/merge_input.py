"""One of the traces that are merged: its accounts, and its events with the numbers of the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tracesvc.events import EVENTS, LossCause, ProcKind, ProcStart, Reason
from tracesvc.format import (
    Batch,
    Damage,
    FormatError,
    Generation,
    Header,
    Loss,
    LossRow,
    ProcRow,
    Procs,
    Snapshot,
)
from tracesvc.format.records import RegionRow, SpanRow, TaskRow
from tracesvc.model.reader import Source, read
from tracesvc.model.timebase import Timebase

__all__ = ["Account", "Input"]

_IDS: Final = {
    "task",
    "waker",
    "parent",
    "nursery",
    "scope",
    "requester",
    "span",
    "parent span",
    "region",
}
_FD: Final = (Reason.READABLE, Reason.WRITABLE)
_ROLES: Final = {n: [f.role for f in e.fields] for n, e in EVENTS.items()}


@dataclass(slots=True)
class Account:
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


class Input:
    """One trace, and how its numbers are turned into those of the whole."""

    def __init__(self, source: Source, index: int, count: int) -> None:
        self._source, self._index, self._count = source, index, count
        self.base = Timebase()
        self.place: Callable[[int], int] = _as_it_is
        """a time on the common axis"""
        self.shift = 0
        """ns to add to that, in the trace that is made"""
        self._newest: dict[int, int] = {}
        """proc -> the last of its times"""
        self.header: Header | None = None
        self.session = ""
        self.accounts: dict[int, Account] = {}
        self.late = self.ended = False
        self.begin: int | None = None
        self.clock: tuple[int, int] | None = None
        self.snapshots: list[tuple[Snapshot, dict[int, str]]] = []
        """of the first generation, where it is not the session's; and their names"""
        self._survey()

    def at(self, time: int) -> int:
        """A time of this trace, in the one that is made."""
        return self.place(time) + self.shift

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
                self.base.note(item.record)
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
        account = self.accounts.setdefault(row.proc, Account(row))
        account.row = row
        if first:
            account.begin = account.next = row.emitted
            account.lost_before = row.lost
        elif row.emitted > account.next:
            self._miss(account, row.emitted, account.time)

    def _batch(self, batch: Batch, text: Callable[[int], str]) -> None:
        account = self.accounts.get(batch.proc)
        if account is None:
            account = self.accounts[batch.proc] = Account(_described(batch, text))
        if batch.first > account.next:
            self._miss(account, batch.first, batch.t0)
        account.next = max(account.next, batch.end)
        account.time = max(account.time, batch.t0)
        self.begin = batch.t0 if self.begin is None else min(self.begin, batch.t0)

    def _miss(self, account: Account, until: int, time: int) -> None:
        """Events are missing; for now nobody knows why."""
        cause = int(LossCause.DAMAGE)
        row = LossRow(account.row.proc, account.next, until - 1, cause, account.time, time)
        account.losses.append(row)
        account.next = until

    def _tell(self, proc: int, said: list[LossRow]) -> None:
        """Put what the trace says of its losses in the place of what is only known to be missing."""
        account = self.accounts.setdefault(proc, Account(ProcRow(proc, 1, "", 0, 0, 0, True)))
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
                    records = list(batch.records(trace.text, trace.stack))
                except FormatError:
                    continue
                # heapq wants what it merges to be in order: a batch may be older than the one before.
                last = max(last, self.at(batch.t0))
                yield last, self._index, batch.proc, batch.first, self._flat(batch.proc, records)

    def _flat(self, proc: int, records: list[tuple[int, int, tuple[Any, ...]]]) -> list[Any]:
        flat: list[Any] = []
        newest = self._newest.get(proc, 0)
        for number, time, fields in records:
            values = list(fields)
            roles = _ROLES.get(number, ())
            for i, role in enumerate(roles):
                if role in _IDS or (role == "object" and values[i - 1] not in _FD):
                    values[i] = self.id(values[i])
            rest = [*values[:2], tuple(values[2:])] if len(values) > 3 else [*values, 0, 0, 0][:3]
            # Where a clock was set back between two exchanges, time stands still instead.
            newest = max(newest, self.at(time))
            flat += [number, newest, *rest]
        self._newest[proc] = newest
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
                    self.at(r.since),
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
                    self.at(r.since),
                    name(r.name),
                    r.attributes,
                )
                for r in part.spans
            ]
            regions = [
                RegionRow(
                    self.id(r.region),
                    self.id(r.task),
                    self.at(r.since),
                    name(r.name),
                    r.attributes,
                )
                for r in part.regions
            ]
            yield Snapshot(
                self.proc(part.proc), part.seq, part.part, part.parts, tasks, spans, regions
            )


def _as_it_is(time: int) -> int:
    return time


def _described(batch: Batch, text: Callable[[int], str]) -> ProcRow:
    """What the start of a proc, if it is in its first batch, says of it: the trace has no account of it yet."""
    kind, thread, name = int(ProcKind.RUN), 0, ""
    if ProcStart.number in batch.groups:
        kinds, threads, names = batch.columns(ProcStart.number)[:3]
        kind, thread, name = kinds[0], threads[0], text(names[0])
    return ProcRow(batch.proc, kind, name, thread, 0, 0, True)
