"""`Walk`: one pass over a trace, cut into what can be looked at all at once and what happens in between.

Theory of operation
===================

Events are gathered and handed out as columns, about 128 K at a time.  Where events of a proc are missing (its sequence
numbers jump, its account speaks of more, a LOSS row comes next) what has been gathered is handed out first, then a
`Gap`.  From there until the next snapshot of that run, nobody knows the state of its tasks but by their own events; the
snapshot comes as `Healed`.  Where nothing is missing a snapshot says what is known already, and is passed over.  The
same goes for the open spans and regions of the process, `Opens`.

So whoever follows a walk sees events and never a frame, and memory goes with one chunk.  A walk ends where the data
end; walking on after more has been written goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from tracesvc.events import LossCause, ProcKind, ProcStart, ProcStop
from tracesvc.format import Batch, Damage, Generation, Header, Item, Loss, LossRow, Procs, Snapshot
from tracesvc.format.records import RegionRow, SpanRow, TaskRow
from tracesvc.model.columns import Columns
from tracesvc.model.losses import Books
from tracesvc.model.reader import Trace

__all__ = ["Chunk", "Gap", "Healed", "Lost", "Opens", "Over", "Piece", "Walk"]

CHUNK: Final = 1 << 17
"""events that are looked at together"""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Events, with nothing missing between those of any one proc."""

    columns: Columns


@dataclass(frozen=True, slots=True)
class Lost:
    """The trace says that these events are not in it."""

    row: LossRow


@dataclass(frozen=True, slots=True)
class Gap:
    """Events of a proc are missing from ``time`` (ns) on."""

    proc: int
    time: int


@dataclass(frozen=True, slots=True)
class Healed:
    """A snapshot after a gap: what the live tasks of a run are in."""

    proc: int
    rows: list[TaskRow]
    text: Callable[[int], str]
    """the names of ``rows``; good until the walk goes on"""
    time: int
    """ns, of the latest thing before it"""
    begin: int
    """ns of the trace's beginning"""


@dataclass(frozen=True, slots=True)
class Opens:
    """A snapshot after a gap: the spans and regions that are open."""

    spans: list[SpanRow]
    regions: list[RegionRow]
    text: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing more comes of a proc, which was heard of last at ``time`` (ns)."""

    proc: int
    time: int


Piece: TypeAlias = Chunk | Gap | Healed | Lost | Opens | Over


class Walk:
    """Reads a trace from where it stands to its present end; iterate over it.

    Raises:
      FormatError: (while iterating) it is not a trace.
      OSError: it cannot be read.
    """

    def __init__(self, trace: Trace, chunk: int | None = None) -> None:
        self._trace = trace
        self._builder = trace.builder()
        self._chunk = CHUNK if chunk is None else chunk
        self._pending: set[int] = set()
        """procs with batches in the builder"""
        self._blind: set[int] = set()
        """runs with a gap, before their next snapshot"""
        self._opens: bool | None = True
        """whether the open spans and regions are known; None: the snapshot of them comes here, if there is one"""
        self._parts: list[Snapshot] = []
        self._over: set[int] = set()
        """procs that have had their last account"""
        self._last: dict[int, int] = {}
        self.kinds: Final[dict[int, tuple[int, str]]] = {}
        """proc -> its kind and name"""
        self.stopped: Final[set[int]] = set()
        """procs that have said that they end"""
        self.died: Final[set[int]] = set()
        """procs whose last account came by while the session went on"""
        self.books: Final = Books()
        self.gaps = 0
        self.generations = 0
        self.began: int | None = None
        """ns, of the first thing in the trace"""
        self.ended = 0
        """ns, of the last"""

    def runs(self) -> dict[int, str]:
        """proc -> name, of the runs."""
        return {proc: name for proc, (kind, name) in self.kinds.items() if kind == ProcKind.RUN}

    def end_of(self, proc: int) -> int:
        """ns of the last that is known of a proc that has not stopped.

        Without an end mark nobody knows what became of it after its last event.
        """
        last = self._last.get(proc, self.began or 0)
        end = self._trace.end
        return last if end is None else max(last, end.monotonic)

    def __iter__(self) -> Iterator[Piece]:
        for item in self._trace.items():
            if isinstance(item, Damage):
                self.books.damaged(item)
                self._opens, self._parts = False, []
            else:
                yield from self._item(item)
        yield from self._flush()
        if self._trace.end is not None:
            self._tick(self._trace.end.monotonic)

    def _item(self, item: Item) -> Iterator[Piece]:
        match item.record:
            case Batch() as batch:
                yield from self._batch(batch)
                if self._builder.add(item) >= self._chunk:
                    yield from self._flush()
            case Header() as header:
                self._tick(header.monotonic)
            case Generation() as generation:
                yield from self._generation(generation)
            case Procs(rows):
                for row in rows:
                    self.kinds[row.proc] = row.kind, row.name
                    if self.books.accounted(row):
                        yield from self._gap(row.proc, None)
                    if not row.live:
                        self._over.add(row.proc)
                self.books.accounts_over()
            case Loss(rows):
                for loss in rows:
                    self._tick(loss.end)
                    if self.books.loss(loss) and LossCause.loses_track(loss.cause):
                        yield from self._gap(loss.proc, loss.start)
                    yield Lost(loss)
            case Snapshot() as snapshot:
                yield from self._snapshot(snapshot)

    def _tick(self, time: int) -> None:
        if self.began is None:
            self.began = time
        self.ended = max(self.ended, time)

    def _generation(self, generation: Generation) -> Iterator[Piece]:
        self.generations += 1
        self._tick(generation.monotonic)
        self.books.generation(generation.number)
        self._parts = []
        if self._opens is False:
            self._opens = None
        if self._over:
            yield from self._flush()
            for proc in self._over:
                yield Over(proc, self._last.get(proc, self.began or 0))
            self.died.update(self._over)
            self._over.clear()

    # --- what is missing -------------------------------------------------------------------------

    def _batch(self, batch: Batch) -> Iterator[Piece]:
        if self._opens is None:  # no snapshot of them came: none were open
            yield from self._adopt_opens([])
        if self.books.events(batch.proc, batch.first, batch.count):
            yield from self._gap(batch.proc, None)
        self._pending.add(batch.proc)

    def _gap(self, proc: int, time: int | None) -> Iterator[Piece]:
        """Events of a proc are missing from ``time`` on; None: from its last event on."""
        if proc in self._pending:
            yield from self._flush()
        last = self._last.get(proc, 0)
        self._opens = False
        self._blind.add(proc)
        self.gaps += 1
        yield Gap(proc, last if time is None else max(time, last))

    def _snapshot(self, part: Snapshot) -> Iterator[Piece]:
        """Believed only where something is missing; elsewhere it says what is known."""
        if part.proc not in self._blind and (part.proc or self._opens is not None):
            return
        self._parts = [*self._parts, part] if part.part else [part]
        if len(self._parts) != part.parts or [p.part for p in self._parts] != [*range(part.parts)]:
            return
        parts, self._parts = self._parts, []
        if not part.proc:
            yield from self._adopt_opens(parts)
            return
        yield from self._flush()
        rows = [row for one in parts for row in one.tasks]
        yield Healed(part.proc, rows, self._trace.text, self.ended, self.began or 0)
        self._blind.discard(part.proc)

    def _adopt_opens(self, parts: list[Snapshot]) -> Iterator[Piece]:
        yield from self._flush()
        self._opens = True
        spans = [row for part in parts for row in part.spans]
        regions = [row for part in parts for row in part.regions]
        yield Opens(spans, regions, self._trace.text)

    # --- what is there ---------------------------------------------------------------------------

    def _flush(self) -> Iterator[Piece]:
        """Hand out what has been gathered."""
        if self._pending:
            self._pending.clear()
            columns = self._builder.take()
            if len(columns):
                self._look(columns)
                yield Chunk(columns)
                yield from self._stops(columns)
        for damage in self._builder.damage:
            self.books.damaged(damage)
        self._builder.damage.clear()

    def _look(self, columns: Columns) -> None:
        self._tick(int(columns.time.min()))
        self._tick(int(columns.time.max()))
        at = 0
        for batch in columns.batches:
            at += batch.count
            last = int(columns.time[at - 1])
            self._last[batch.proc] = max(last, self._last.get(batch.proc, last))
        starts = columns.of(ProcStart)
        names = starts.names("name")
        for proc, kind, name in zip(starts.proc.tolist(), starts.kind.tolist(), names, strict=True):
            self.kinds.setdefault(proc, (kind, name))

    def _stops(self, columns: Columns) -> Iterator[Piece]:
        stops = columns.of(ProcStop)
        for proc, time in zip(stops.proc.tolist(), stops.time.tolist(), strict=True):
            self.stopped.add(proc)
            yield Over(proc, time)
