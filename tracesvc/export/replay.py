"""A trace, replayed in chunks: what every exporter reads.

A `Chunk` has the events as columns, the moves of the tasks made legal (`tracesvc.export.lives`), and what is missing.
Memory goes with the chunk, the live tasks and the names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tracesvc.events import FrameKind, LossCause, ProcKind, ProcStart
from tracesvc.export.books import Books
from tracesvc.export.lives import Lives, Moves, Row, raw_moves
from tracesvc.format import Batch, Damage, Generation, Header, Item, LossRow, Procs, Snapshot
from tracesvc.format.records import Loss
from tracesvc.model.columns import Columns
from tracesvc.model.reader import Source, Trace, read

__all__ = ["CHUNK", "NAMELESS", "Chunk", "Open", "ProcInfo", "Replay"]

CHUNK: Final = 1 << 17
"""events that are looked at together"""
NAMELESS: Final = "(name lost)"
"""stands for the name of a task whose creation is not in the trace"""


@dataclass(frozen=True, slots=True)
class ProcInfo:
    """What is known of a writer."""

    kind: int
    name: str
    thread: int


@dataclass(frozen=True, slots=True)
class Open:
    """A span or region that began before the trace, or in a gap."""

    kind: str
    """``span`` or ``region``"""
    id: int
    parent: int
    task: int
    since: int
    """ns"""
    name: str
    attributes: dict[str, Any] | None


@dataclass(slots=True)
class Chunk:
    """Some consecutive events; in the last chunk there may be none, and the moves end every life."""

    columns: Columns
    moves: Moves
    losses: list[LossRow] = field(default_factory=list)
    """of which the trace has told up to here and not in a chunk before"""
    opened: list[Open] = field(default_factory=list)
    """told by a snapshot before the events of this chunk; may be known already"""
    generations: list[Generation] = field(default_factory=list)
    """that have begun since the last chunk"""


class Replay:
    """Reads a trace from front to back, once: iterate over `chunks`."""

    def __init__(
        self,
        source: Source | Trace,
        *,
        chunk: int = CHUNK,
        place: Callable[[int], int] | None = None,
    ) -> None:
        """``place``: turns times of the trace into ns since the epoch; None: by the clocks at its start."""
        self.trace = source if isinstance(source, Trace) else read(source)
        self.procs: dict[int, ProcInfo] = {}
        """what has been heard of so far"""
        self.books: Final = Books()
        self.lives: Final = Lives()
        self.began: int | None = None
        """ns of the first thing in the trace"""
        self.ended = 0
        """ns of the last thing so far"""
        self.wall: tuple[int, int] | None = None
        """a moment by both clocks: (monotonic, wall), ns"""
        self.events = 0
        self._chunk, self._place = chunk, place
        self._builder = self.trace.builder()
        self._pending: set[int] = set()
        self._last: dict[int, int] = {}
        self._blind: set[int] = set()
        self._opens_known = True
        self._generation: Generation | None = None
        self._first_generation = True
        self._parts: list[Snapshot] = []
        self._synthetic: list[Row] = []
        self._next = Chunk(self._builder.take(), Lives().play(raw_moves(self._builder.take())))
        self._ready: list[Chunk] = []

    @property
    def source(self) -> dict[str, Any]:
        """What the header says of the program; empty without one."""
        header = self.trace.header
        return header.source if header is not None else {}

    def name(self, index: int) -> str:
        """A task's name."""
        return self._strings[index] or NAMELESS

    def at(self, time: int) -> int:
        """Time of day of a time in the trace, both in ns; the same, where the trace does not tell."""
        if self._place is not None:
            return self._place(time)
        return time if self.wall is None else self.wall[1] + time - self.wall[0]

    def pair(self, time: int, wall: int) -> tuple[int, int]:
        """A moment by both clocks; ``wall`` is what the trace says itself."""
        return time, wall if self._place is None else self._place(time)

    def chunks(self) -> Iterator[Chunk]:
        """Everything, in stored order.

        Raises:
          FormatError: it is not a trace.
          OSError: it cannot be read.
        """
        for item in self.trace.items():
            if isinstance(item, Damage):
                self._opens_known = False
                self._parts = []
            else:
                self._item(item)
            if self._ready:
                yield from self._ready
                self._ready.clear()
        self._finish()
        yield from self._ready

    @property
    def _strings(self) -> list[str]:
        return self._next.columns.strings

    def _tick(self, time: int) -> None:
        if self.began is None or time < self.began:
            self.began = time
        self.ended = max(self.ended, time)

    def _item(self, item: Item) -> None:
        if item.frame.kind not in (FrameKind.GENERATION, FrameKind.PROCS):
            self.books.late = False
        match item.record:
            case Batch() as batch:
                if self.books.events(batch.proc, batch.first, batch.count):
                    self._gap(batch.proc, None)
                self._first_generation = False
                self._pending.add(batch.proc)
                if self._builder.add(item) >= self._chunk:
                    self._flush()
            case Header() as header:
                self._clock(header.monotonic, header.wall)
            case Generation() as generation:
                self._begin(generation)
            case Procs(rows):
                for row in rows:
                    self.procs[row.proc] = ProcInfo(row.kind, row.name, row.thread)
                    if self.books.account(row):
                        self._gap(row.proc, None)
            case Loss(rows):
                for loss in rows:
                    self._next.losses.append(loss)
                    if self.books.loss(loss) and LossCause.loses_track(loss.cause):
                        self._gap(loss.proc, loss.start)
            case Snapshot() as part:
                self._snapshot(part)

    def _clock(self, monotonic: int, wall: int) -> None:
        self._tick(monotonic)
        if self.wall is None:
            self.wall = monotonic, wall

    def _begin(self, generation: Generation) -> None:
        if self._generation is None:
            self.books.late = generation.number > 0
            if self.books.late:
                self._opens_known = False
            if self.began is not None and generation.number > 0:
                self.began = generation.monotonic  # of what was before there is nothing here
        else:
            self._first_generation = False
        self._clock(generation.monotonic, generation.wall)
        self._generation = generation
        self._next.generations.append(generation)
        self._parts = []

    # --- what is missing -------------------------------------------------------------------------

    def _gap(self, proc: int, time: int | None) -> None:
        """Events of a proc are missing from ``time`` on; None: from its last event on."""
        if proc in self._pending:
            self._flush()
        self._opens_known = False
        if self.procs.get(proc, ProcInfo(int(ProcKind.RUN), "", 0)).kind != ProcKind.RUN:
            return
        self._settle()
        last = self._last.get(proc, 0)
        self._synthetic += self.lives.lose(proc, last if time is None else max(time, last))
        self._blind.add(proc)

    def _settle(self) -> None:
        """What was put in before is played before more is put in."""
        if self._synthetic:
            self._flush(forced=True)

    def _snapshot(self, part: Snapshot) -> None:
        """Believed only where something is missing; elsewhere it says what is known."""
        wanted = part.proc in self._blind if part.proc else not self._opens_known
        if not (wanted or (self._first_generation and self._generation is not None)):
            return
        self._parts = [*self._parts, part] if part.part else [part]
        if len(self._parts) != part.parts or [p.part for p in self._parts] != [*range(part.parts)]:
            return
        parts, self._parts = self._parts, []
        self._flush()
        if part.proc:
            self._adopt(part.proc, parts)
        else:
            self._adopt_opens(parts)

    def _adopt(self, proc: int, parts: list[Snapshot]) -> None:
        self._settle()
        text, index = self.trace.text, self._builder.index
        rows = [
            (row, index(text(row.name)), index(text(row.entry)))
            for one in parts
            for row in one.tasks
        ]
        self.lives.rename({row.task: (name, entry) for row, name, entry in rows})
        # Not the time of the generation: events behind the snapshot may be older than that.
        since = max((row.since for row, _, _ in rows), default=0)
        time = max(since, self._last.get(proc, 0))
        self._synthetic += self.lives.adopt(proc, rows, time)
        self._blind.discard(proc)

    def _adopt_opens(self, parts: list[Snapshot]) -> None:
        text = self.trace.text
        for one in parts:
            self._next.opened += [
                Open("span", r.span, r.parent, r.task, r.since, text(r.name), r.attributes)
                for r in one.spans
            ]
            self._next.opened += [
                Open("region", r.region, 0, r.task, r.since, text(r.name), r.attributes)
                for r in one.regions
            ]
        self._opens_known = True

    # --- what is there ---------------------------------------------------------------------------

    def _flush(self, *, forced: bool = False, last: bool = False) -> None:
        """What has been gathered becomes a chunk."""
        if not (self._pending or forced or last):
            return
        chunk = self._next
        columns = chunk.columns = self._builder.take()
        synthetic, self._synthetic = self._synthetic, []
        if len(columns):
            self._tick(int(columns.time.min()))
            self._tick(int(columns.time.max()))
            self.events += len(columns)
            at = 0
            for batch in columns.batches:
                at += batch.count
                self._last[batch.proc] = int(columns.time[at - 1])
            self._note_procs(columns)
        chunk.moves = self.lives.play(raw_moves(columns, synthetic))
        self._pending.clear()
        self._ready.append(chunk)
        self._next = Chunk(self._builder.take(), chunk.moves)

    def _note_procs(self, columns: Columns) -> None:
        starts = columns.of(ProcStart)
        for proc, kind, thread, name in zip(
            starts.proc.tolist(),
            starts.kind.tolist(),
            starts.thread.tolist(),
            starts.names("name"),
            strict=True,
        ):
            self.procs.setdefault(proc, ProcInfo(kind, name, thread))

    def _finish(self) -> None:
        self._flush(forced=bool(self._synthetic))
        end = self.trace.end
        if end is not None:
            self._tick(end.monotonic)
        self._next.losses += self.books.unexplained(self.ended)
        times = {} if end is not None else self._last
        self._synthetic = self.lives.finish(times, self.ended, -1)
        self._flush(last=True)
