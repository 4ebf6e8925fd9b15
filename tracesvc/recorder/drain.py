"""Buffers -> frames: what the reader does with a full buffer, and when a generation begins. No I/O, no trio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from tracesvc.events import LossCause, ProcKind, ProcStart
from tracesvc.format.box import NEWEST, RETIRED
from tracesvc.format.frames import Frame
from tracesvc.format.records import (
    End,
    Generation,
    Header,
    LossRow,
    ProcRow,
    RegionRow,
    Snapshot,
    SpanRow,
)
from tracesvc.format.writer import SessionWriter
from tracesvc.recorder.clock import now, wall
from tracesvc.recorder.exchanges import AGAIN, exchanges
from tracesvc.recorder.live import LiveState
from tracesvc.recorder.proc import Buffer, Proc
from tracesvc.recorder.records import AnyRecords, flat
from tracesvc.recorder.session import Session
from tracesvc.recorder.tree import TaskTree

__all__ = ["Drain"]

GENERATION: Final = 1_000_000_000
"""ns that a generation lasts at least"""
PIECE: Final = 256
"""tasks of a snapshot that are written in one go; well under a millisecond"""
ANNOTATIONS: Final = 3
"""spans and regions in one frame: with 64 attributes of 1 KiB and their names each, they surely fit"""


class _Account:
    """What the stream has of one proc so far."""

    __slots__ = ("lost", "newest", "next", "place")

    def __init__(self) -> None:
        self.place = 0, 0
        """events, and records of the proc's buffer, up to the end of the last buffer"""
        self.next = 0
        self.lost = 0
        self.newest = 0


class Drain:
    """Makes the stream of one session."""

    def __init__(self, session: Session, source: dict[str, Any], options: dict[str, Any]) -> None:
        self._session: Final = session
        self._writer: Final = SessionWriter()
        self._live: Final = LiveState()
        self._accounts: Final[dict[int, _Account]] = {}
        self._generation = -1
        self._generation_began = 0
        self._events_since = 0
        self._bytes_since = 0
        self._weight = 0
        self.rotate = True
        """begin a generation with the next buffer, whatever the time"""
        self.header: Final = self._writer.header(
            Header(session.id, source, session.monotonic, session.wall, options)
        )
        if session.box is not None:
            session.box.header(self.header)
        self._retired_emitted = 0
        self._retired_lost = 0
        self.retired_lost: Final[Counter[LossCause]] = Counter()
        """events lost by procs that are over"""
        self._trees: Final[dict[int, TaskTree]] = {}
        self.stale: Final[set[int]] = set()
        """procs that lost something, until the state of the run's tasks has been read anew"""
        self._beginning: Final[set[int]] = set()
        """runs whose first snapshot has come by in part only: no generation begins in the middle of one"""
        self._ends_lost = False
        """spans and regions that are believed to be open may not be"""
        self._places: Final[dict[int, tuple[int, int]]] = {}
        """what the black box does not know yet, see `tracesvc.format.box`: proc -> (events, records) in the stream"""
        self._newest_proc = 0
        self._exchanges_told = 0
        """of all that the process has had"""
        self.frames = 0
        self.bytes = 0
        self.stored = 0
        """events that are in the stream"""
        self.late = 0
        """records that had to be moved up in time to keep the order of their proc"""

    @property
    def retired(self) -> int:
        """Events emitted by procs that are over."""
        return self._retired_emitted

    def count(self, frames: list[Frame], *, whole: bool = False) -> list[Frame]:
        """Note what is handed out, and put it into the black box; ``whole``: no part of a generation's beginning."""
        size = sum(len(frame.data) for frame in frames)
        self.frames += len(frames)
        self.bytes += size
        self._bytes_since += size
        box = self._session.box
        if box is not None:
            box.write(
                frames, [(proc, *place) for proc, place in self._places.items()] if whole else []
            )
            if whole:
                self._places.clear()
        return frames

    # --- generations -----------------------------------------------------------------------------

    def due(self, buffer: Buffer, size: int = 0) -> bool:
        """Whether a generation should begin before this buffer.

        After 1 s, or ``size`` bytes where that is not 0; but only once its events outweigh its snapshot.
        """
        if self._beginning and self._generation >= 0:
            return False
        if self.rotate:
            return True
        old = buffer.records.last_time - self._generation_began >= GENERATION
        box = self._session.box
        size = min(filter(None, (size, box.generation_bytes if box is not None else 0)), default=0)
        large = bool(size) and self._bytes_since >= size
        return (old or large) and self._events_since >= self._weight

    def begin_generation(self) -> Iterator[list[Frame]]:
        """The frames that open a generation, in pieces that take under a millisecond each; exhaust it."""
        if self._generation >= 0:
            yield self._last_losses()
        self.rotate = False
        self._generation += 1
        self._generation_began = now()
        self._events_since, self._bytes_since, self._weight = 0, 0, len(self._live)
        generation = Generation(self._generation, self._generation_began, wall(), self._session.id)
        yield [*self._writer.generation(generation, self._rows()), *self._clocks(AGAIN)]
        if self._session.box is not None:
            self._note_places()
        for proc in self._live.runs:
            if proc not in self.stale:  # what is believed of its tasks may be wrong
                yield from self._tasks(proc)
        if self._ends_lost:
            self._ends_lost = False
            self._live.keep_open(self._session.open_annotations())
        yield from self._annotations()

    def _clocks(self, again: int = 0) -> list[Frame]:
        """What was learned of other clocks, and at least the last ``again``."""
        rows, self._exchanges_told = exchanges.since(self._exchanges_told, again)
        return self._writer.clocks(rows)

    def _note_places(self) -> None:
        """What the black box is to know where a generation begins."""
        live = list(self._session.procs)
        self._places.clear()
        self._places.update((proc, self._account(proc).place) for proc in live)
        self._places[NEWEST] = max(*live, self._newest_proc), 0
        self._newest_proc = self._places[NEWEST][0]
        self._places[RETIRED] = self._retired_emitted, self._retired_lost

    def _tasks(self, proc: int) -> Iterator[list[Frame]]:
        seq, parts = self._account(proc).next, -(-self._live.tasks_of(proc) // PIECE)
        rows = self._live.task_rows(proc, self._writer.intern, self._writer.intern_stack)
        for part in range(parts):
            yield self._writer.snapshot(
                Snapshot(proc, seq, part, parts, tasks=list(islice(rows, PIECE)))
            )

    def _annotations(self) -> Iterator[list[Frame]]:
        rows = self._live.annotation_rows(self._writer.intern)
        parts = -(-len(rows) // ANNOTATIONS)
        for part in range(parts):
            some = rows[part * ANNOTATIONS : (part + 1) * ANNOTATIONS]
            spans = [row for row in some if isinstance(row, SpanRow)]
            regions = [row for row in some if isinstance(row, RegionRow)]
            yield self._writer.snapshot(Snapshot(0, 0, part, parts, spans=spans, regions=regions))

    def _rows(self, final: bool = False) -> list[ProcRow]:
        """Accounts of all procs; those that have ended, and wholly come by, are forgotten after this one."""
        rows = self._accounts_of_live()
        for i, row in enumerate(rows):
            proc = self._session.procs[row.proc]
            if not final and (proc.live or row.emitted != proc.emitted):
                continue
            rows[i] = row._replace(live=False)
            if not final:
                self._retired_emitted += row.emitted
                self._retired_lost += row.lost
                self.retired_lost.update(proc.lost)
                del self._session.procs[row.proc]
                self._accounts.pop(row.proc, None)
                self._live.forget_run(row.proc)
                self.stale.discard(row.proc)
                self._trees.pop(row.proc, None)
        return rows

    def _account(self, proc: int) -> _Account:
        account = self._accounts.get(proc)
        if account is None:
            account = self._accounts[proc] = _Account()
        return account

    def has_passed(self, events: dict[int, int]) -> bool:
        """Whether that many events of each proc went by, lost ones included."""
        return all(
            number not in self._session.procs or self._account(number).next >= count
            for number, count in events.items()
        )

    # --- events and losses -----------------------------------------------------------------------

    def events(self, buffer: Buffer) -> list[Frame]:
        """The frames for one buffer, what was lost before it included; where memory runs out, it is lost as well.

        Raises:
          MemoryError: not even that can be told; nothing has changed.
        """
        assert buffer.proc is not None
        account = self._account(buffer.proc.number)
        before = account.next, account.lost, account.newest
        mark = self._writer.mark(buffer.proc.number)
        try:
            return self._events(buffer.proc, account, buffer)
        except MemoryError:
            account.next, account.lost, account.newest = before
            self._writer.rewind(mark)
        try:
            return self._give_up(buffer.proc, buffer)
        except MemoryError:
            account.next, account.lost, account.newest = before
            self._writer.rewind(mark)
            raise

    def _events(self, proc: Proc, account: _Account, buffer: Buffer) -> list[Frame]:
        records: AnyRecords = buffer.records
        frames = self._losses(buffer.lost)
        account.next = buffer.first
        if proc.number in self._trees and self._trees[proc.number].seq == buffer.first:
            self._repair(proc.number, account)
        if self._session.meter is not None:
            self._session.meter.count(records.types())
        if not records.in_order(account.newest):
            self.late += records.settle(account.newest)
            if not records.in_order(account.newest):
                records = flat(records)
                records.settle(account.newest)
        account.newest = records.last_time
        count = len(buffer)
        account.next = buffer.first + count
        account.place = account.next, buffer.records.base + count
        self._places[proc.number] = account.place
        self._events_since += count
        self._live.apply(proc.number, records)
        frames += self._writer.events(proc.number, buffer.first, records)
        if buffer.first == 0 or proc.number in self._beginning:
            self._note_beginning(proc, records)
        if proc.number in self._trees:
            self._repair(proc.number, account)
        self.stored += count
        return frames

    def _give_up(self, proc: Proc, buffer: Buffer) -> list[Frame]:
        count, records = len(buffer), buffer.records
        times = [records.record(i)[1] for i in range(count)]
        last, (start, end) = buffer.first + count - 1, (min(times), max(times))
        row = LossRow(proc.number, buffer.first, last, LossCause.NO_MEMORY, start, end)
        frames = self._losses([*buffer.lost, row])
        proc.lost[LossCause.NO_MEMORY] += count
        return frames

    def _note_beginning(self, proc: Proc, records: AnyRecords) -> None:
        if proc.kind is ProcKind.PROCESS or ProcStart.number in records.types():
            self._beginning.discard(proc.number)
        else:
            self._beginning.add(proc.number)

    def _losses(self, rows: list[LossRow]) -> list[Frame]:
        for i, row in enumerate(rows):
            account = self._account(row.proc)
            account.next = row.last + 1
            account.lost += row.last - row.first + 1
            if not LossCause.loses_track(row.cause):
                if self._session.meter is not None:
                    self._session.meter.skipped(row.last - row.first + 1)
                continue
            self.stale.add(row.proc)
            self._beginning.discard(row.proc)
            self._ends_lost = True
            if (
                row.start < account.newest
            ):  # its first one was interrupted by what the stream has already
                rows[i] = row._replace(start=account.newest, end=max(row.end, account.newest))
        return self._writer.losses(rows)

    def _last_losses(self) -> list[Frame]:
        """What procs that are over lost at their end, where no buffer of theirs will come to tell of it."""
        frames: list[Frame] = []
        for proc in list(self._session.procs.values()):
            frames += self._losses(proc.take_last_loss(self._account(proc.number).next))
        return frames

    def repair(self, proc: int, tree: TaskTree) -> None:
        """The state of a run, read from trio; holds from its event ``tree.seq`` on, which is still to come by."""
        self._trees[proc] = tree

    def _repair(self, proc: int, account: _Account) -> None:
        if account.next >= self._trees[proc].seq:
            tree = self._trees.pop(proc)
            # Otherwise something was lost in between: it will be read again.
            if account.next == tree.seq:
                self._live.repair(proc, tree, now())
                self.stale.discard(proc)
                self.rotate = True

    def farewell(self) -> list[Frame]:
        """What ends the stream of a sink that leaves while the session goes on; they are not part of the others'."""
        rows = self._accounts_of_live()
        untold, _ = exchanges.since(self._exchanges_told)
        return self._writer.aside(rows, self._end(rows), untold)

    def _accounts_of_live(self) -> list[ProcRow]:
        rows = []
        for proc in list(self._session.procs.values()):
            account = self._account(proc.number)
            rows.append(
                ProcRow(
                    proc.number, proc.kind, proc.name, proc.thread, account.next, account.lost, True
                )
            )
        return rows

    # --- the end ---------------------------------------------------------------------------------

    def footer(self) -> list[Frame]:
        """Last losses, last accounts, end mark."""
        frames: list[Frame] = []
        if (
            self.rotate
        ):  # nothing has been written yet, or somebody who joined waits for a beginning
            for piece in self.begin_generation():
                frames += piece
        for proc in list(self._session.procs.values()):
            frames += self._losses(proc.take_pending_loss())
        frames += self._clocks()
        rows = self._rows(final=True)
        frames += self._writer.procs(rows)
        return [*frames, self._writer.end(self._end(rows))]

    def _end(self, rows: list[ProcRow]) -> End:
        """The end mark, given the accounts of the procs that are not retired."""
        emitted = self._retired_emitted + sum(row.emitted for row in rows)
        lost = self._retired_lost + sum(row.lost for row in rows)
        return End(now(), wall(), emitted, lost)
