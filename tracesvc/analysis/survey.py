"""One pass over a trace: everything that is counted, fed piece by piece."""

from __future__ import annotations

from collections import Counter as Tally
from typing import Final

import numpy as np

from tracesvc.analysis.loops import LoopTimes
from tracesvc.analysis.losses import Books
from tracesvc.analysis.pieces import Annotations, Calls, Collections
from tracesvc.analysis.tasks import TaskTimes
from tracesvc.analysis.values import Counters, Messages
from tracesvc.events import ProcKind, ProcStart, ProcStop
from tracesvc.format import Batch, Damage, Generation, Header, Item, Loss, Procs, Snapshot
from tracesvc.model.columns import Columns
from tracesvc.model.reader import Trace

__all__ = ["STALLS", "Survey"]

STALLS: Final = 10
"""steps that are listed, the longest"""
CHUNK: Final = 1 << 17
"""events that are looked at together"""


class Survey:
    """Reads a trace to its present end.

    The batches between two places where something is missing are looked at together, as columns.  At such a place the
    state of that run's tasks becomes unknown, until their own events or the next snapshot tell it again.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._builder = trace.builder()
        self._pending: set[int] = set()
        """procs with batches in the builder"""
        self._blind: set[int] = set()
        """runs with a gap, before their next snapshot"""
        self._opens: bool | None = True
        """whether the open spans and regions are known; None: the snapshot of them comes here, if there is one"""
        self._parts: list[Snapshot] = []
        self._kinds: dict[int, tuple[int, str]] = {}
        self._over: set[int] = set()
        """procs that have had their last account"""
        self._stopped: set[int] = set()
        """procs that have said that they end"""
        self.tasks: Final = TaskTimes(STALLS)
        self.loops: Final = LoopTimes()
        self.spans: Final = Annotations()
        self.regions: Final = Annotations()
        self.calls: Final = Calls()
        self.collections: Final = Collections()
        self.counters: Final = Counters()
        self.messages: Final = Messages()
        self.books: Final = Books()
        self.types: Final[Tally[int]] = Tally()
        self.generations = 0
        self.began: int | None = None
        """ns, of the first thing in the trace"""
        self.ended = 0
        """ns, of the last"""
        self.ends: dict[int, int] = {}
        """run with live tasks -> ns of the last that is known of it"""

    def run(self) -> None:
        """Read it all.

        Raises:
          FormatError: it is not a trace.
          OSError: it cannot be read.
        """
        for item in self._trace.items():
            if isinstance(item, Damage):
                self.books.damaged(item)
                self._opens, self._parts = False, []
            else:
                self._item(item)
        self._flush()
        self._finish()

    def runs(self) -> dict[int, str]:
        """proc -> name, of the runs."""
        return {proc: name for proc, (kind, name) in self._kinds.items() if kind == ProcKind.RUN}

    def _item(self, item: Item) -> None:
        match item.record:
            case Batch() as batch:
                self._batch(batch)
                if self._builder.add(item) >= CHUNK:
                    self._flush()
            case Header() as header:
                self._tick(header.monotonic)
            case Generation() as generation:
                self._generation(generation)
            case Procs(rows):
                for row in rows:
                    self._kinds[row.proc] = row.kind, row.name
                    if self.books.accounted(row):
                        self._gap(row.proc, None)
                    if not row.live:
                        self._over.add(row.proc)
                self.books.accounts_over()
            case Loss(rows):
                for loss in rows:
                    self._tick(loss.end)
                    if self.books.loss(loss):
                        self._gap(loss.proc, loss.start)
            case Snapshot() as snapshot:
                self._snapshot(snapshot)

    def _tick(self, time: int) -> None:
        if self.began is None:
            self.began = time
        self.ended = max(self.ended, time)

    def _generation(self, generation: Generation) -> None:
        self.generations += 1
        self._tick(generation.monotonic)
        self.books.generation(generation.number)
        self._parts = []
        if self._opens is False:
            self._opens = None
        if self._over:
            self._flush()
            for proc in self._over:
                self.tasks.end(proc, self.loops.last(proc))
                self.loops.end(proc, self.loops.last(proc))
            self._over.clear()

    # --- what is missing -------------------------------------------------------------------------

    def _batch(self, batch: Batch) -> None:
        if self._opens is None:  # no snapshot of them came: none were open
            self._adopt_opens([])
        if self.books.events(batch.proc, batch.first, batch.count):
            self._gap(batch.proc, None)
        self._pending.add(batch.proc)

    def _gap(self, proc: int, time: int | None) -> None:
        """Events of a proc are missing from ``time`` on; None: from its last event on."""
        if proc in self._pending:
            self._flush()
        time = self.loops.last(proc) if time is None else max(time, self.loops.last(proc))
        self._opens = False
        self._blind.add(proc)
        self.tasks.gap(proc, time)
        self.loops.gap(proc, time)
        self.calls.gap(proc)
        self.collections.gap(proc)

    def _snapshot(self, part: Snapshot) -> None:
        """Believed only where something is missing; elsewhere it says what is known."""
        if part.proc not in self._blind and (part.proc or self._opens is not None):
            return
        self._parts = [*self._parts, part] if part.part else [part]
        if len(self._parts) != part.parts or [p.part for p in self._parts] != [*range(part.parts)]:
            return
        parts, self._parts = self._parts, []
        if not part.proc:
            self._adopt_opens(parts)
            return
        self._flush()
        rows = [row for one in parts for row in one.tasks]
        began = 0 if self.began is None else self.began
        self.tasks.adopt(part.proc, rows, self._trace.text, self.ended, began)
        self._blind.discard(part.proc)

    def _adopt_opens(self, parts: list[Snapshot]) -> None:
        self._flush()
        text, self._opens = self._trace.text, True
        self.spans.adopt([(r.span, r.since, text(r.name)) for part in parts for r in part.spans])
        self.regions.adopt(
            [(r.region, r.since, text(r.name)) for part in parts for r in part.regions]
        )

    # --- what is there ---------------------------------------------------------------------------

    def _flush(self) -> None:
        """Look at what has been gathered."""
        if self._pending:
            self._pending.clear()
            self._look(self._builder.take())
        for damage in self._builder.damage:
            self.books.damaged(damage)
        self._builder.damage.clear()

    def _look(self, columns: Columns) -> None:
        if not len(columns):
            return
        self._tick(int(columns.time.min()))
        self._tick(int(columns.time.max()))
        counts = np.bincount(columns.type, minlength=256)
        self.types.update(
            {number: int(counts[number]) for number in np.flatnonzero(counts).tolist()}
        )
        self.loops.add(columns)
        self.tasks.add(columns)
        self.spans.add_spans(columns)
        self.regions.add_regions(columns)
        self.calls.add(columns)
        self.collections.add(columns)
        self.counters.add(columns)
        self.messages.add(columns)
        starts, stops = columns.of(ProcStart), columns.of(ProcStop)
        names = starts.names("name")
        for proc, kind, name in zip(starts.proc.tolist(), starts.kind.tolist(), names, strict=True):
            self._kinds.setdefault(proc, (kind, name))
        for proc, time in zip(stops.proc.tolist(), stops.time.tolist(), strict=True):
            self.loops.end(proc, time)
            self.tasks.end(proc, time)
            self._stopped.add(proc)

    def _finish(self) -> None:
        end = self._trace.end
        if end is not None:
            self._tick(end.monotonic)
        for proc in {*self.tasks.procs(), *self.runs()} - self._stopped:
            # Without an end mark nobody knows what became of a run after its last event.
            last = self.loops.last(proc)
            self.ends[proc] = last if end is None else max(last, end.monotonic)
            self.loops.end(proc, self.ends[proc])
