"""`Index`: a trace kept so that any window of it can be drawn at once.

Bytes of the stream are fed in as they come, so a trace that is being written is indexed as it grows, and a large one
piece by piece.  Memory is bounded: beyond ``most`` bytes the oldest phases are let go of, and
`Index.since` says up to where.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.analysis.timeline.fates import Fates
from tracesvc.analysis.timeline.intervals import Intervals, Rows
from tracesvc.analysis.timeline.lanes import Lanes
from tracesvc.analysis.timeline.marks import Counters, Logs, Losses, Places, Stalls, Texts
from tracesvc.events import ProcKind
from tracesvc.format import Damage, Generation, Item
from tracesvc.model.lives import Lives
from tracesvc.model.pieces import OPEN, Pieces
from tracesvc.model.reader import Readable, Trace
from tracesvc.model.replay import Part, Replay

__all__ = ["Index"]

Integers: TypeAlias = NDArray[np.int64]

MOST: Final = 1 << 30
"""bytes"""
CHUNK: Final = 1 << 15
"""events that are looked at together: few enough to stay in the processor's cache"""
LANES: Final = 32
"""rows that spans of one name are spread over at most, so that they do not overlap; the last one takes the rest"""
ATTRIBUTES: Final = 200_000
"""spans and regions whose attributes are kept, the latest"""


class _Feed:
    """What has come and has not been read."""

    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()

    def push(self, data: bytes) -> None:
        self._parts.append(data)

    def read(self, n: int, /) -> bytes:
        del n  # parts are small
        return self._parts.popleft() if self._parts else b""


class _Watched(Trace):
    """A trace that notes where its generations begin."""

    def __init__(self, file: Readable) -> None:
        super().__init__(file, owned=False)
        self.generations: list[tuple[int, int]] = []
        """(ns, offset in the stream) of each"""

    def _note(self, item: Item | Damage) -> None:
        super()._note(item)
        if isinstance(item, Item) and isinstance(item.record, Generation):
            self.generations.append((item.record.monotonic, item.frame.offset))


class Index:
    """Feed it, `settle` it, then ask."""

    def __init__(self, most: int = MOST) -> None:
        self._feed = _Feed()
        self.trace: Final = _Watched(self._feed)
        self.replay: Final = Replay(self.trace, CHUNK)
        self.fed = 0
        """bytes"""
        self.events = 0
        self.lanes: Final = Lanes()
        self.texts: Final = Texts()
        """what `Rows.name` and `Lives` columns index"""
        self.spans: Final = Intervals()
        """row: name, times `LANES`, plus lane"""
        self.regions: Final = Intervals()
        """row: task"""
        self.calls: Final = Intervals()
        """row: proc"""
        self.collections: Final = Intervals()
        """row 0; id: the generation"""
        self.io_waits: Final = Intervals()
        """row: proc"""
        self.counters: Final = Counters()
        self.logs: Final = Logs()
        self.losses: Final = Losses()
        self.stalls: Final = Stalls()
        self.places: Final = Places()
        self.fates: Final = Fates()
        self.attributes: Final[dict[tuple[str, int], dict[str, Any]]] = {}
        """(``span`` or ``region``, id) -> what it has"""
        self.since = 0
        """ns: what came before is not kept any more"""
        self.procs: Final[dict[int, tuple[int, int]]] = {}
        """proc -> ns of its first and last event"""
        self._most = most
        self._ended: list[Lives] = []
        self._lives: Lives | None = None
        self._lane_ends: dict[int, list[int]] = {}
        self._held_lanes: dict[int, tuple[int, int]] = {}
        """open span -> its name and lane"""
        self._dirty = True
        self._began: int | None = None

    # --- what comes in ---------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """The next bytes of the stream.

        Raises:
          FormatError: it is none.
        """
        self._feed.push(data)
        self.fed += len(data)
        self._dirty = True
        for part in self.replay.more():
            self._take(part)
        while self.lanes.droppable() and self.nbytes > self._most:
            self._drop()

    def _drop(self) -> None:
        self.since = max(self.since, self.lanes.drop())
        for kept in (self.spans, self.regions, self.calls, self.collections, self.io_waits):
            kept.forget(self.since)
        self.counters.forget(self.since)
        self._ended = [lives.take(lives.end >= self.since) for lives in self._ended]

    def _take(self, part: Part) -> None:
        columns = part.columns
        self.lanes.add(part.phases)
        self.stalls.add(part.phases)
        if len(part.lives):
            self._ended.append(part.lives)
        self.spans.add(self._span_rows(part.spans))
        self.regions.add(self._rows(part.regions, part.regions.task, "region"))
        self.calls.add(self._rows(part.calls, part.calls.proc))
        self.collections.add(self._rows(part.collections, np.zeros_like(part.collections.proc)))
        self.io_waits.add(self._rows(part.io_waits, part.io_waits.proc))
        self.losses.add(part.losses)
        if columns is not None:
            self.events += len(columns)
            self.counters.add(columns)
            self.logs.add(columns)
            self.places.add(columns)
            self.fates.add(columns)
            at = 0
            for batch in columns.batches:
                first, last = int(columns.time[at]), int(columns.time[at + batch.count - 1])
                at += batch.count
                known = self.procs.get(batch.proc, (first, last))
                self.procs[batch.proc] = min(known[0], first), max(known[1], last)

    def settle(self, *, soon: bool = False) -> None:
        """Make all that was fed visible, and what is open at its end.

        ``soon``: there is more to come at once, so it is not put in order for good.
        """
        if not self._dirty:
            return
        self._dirty = False
        if self._began is None and self.replay.walk.began is not None:
            # Buffers of procs come in any order, and the first events may be older than the header.
            firsts = [first for first, _ in self.procs.values()]
            self._began = min([self.replay.walk.began, *firsts])
        open_ = self.replay.open()
        self.lanes.show(open_.phases, merge=not soon)
        self.spans.show(self._span_rows(open_.spans, ended=False))
        self.regions.show(self._rows(open_.regions, open_.regions.task, "region"))
        self.calls.show(self._rows(open_.calls, open_.calls.proc))
        self.collections.show(self._rows(open_.collections, np.zeros_like(open_.collections.proc)))
        self.io_waits.show(self._rows(open_.io_waits, open_.io_waits.proc))
        self._ended = [Lives.join(self._ended)]
        self._lives = Lives.join([self._ended[0], open_.lives])

    def _rows(self, pieces: Pieces, row: Integers, kind: str = "") -> Rows:
        count = len(pieces)
        open_ = pieces.end == OPEN
        names = np.fromiter((self.texts.index(n) for n in pieces.name), np.int64, count)
        if kind and count:
            self._keep_attributes(kind, pieces)
        return Rows(
            row,
            pieces.begin,
            np.where(open_, np.maximum(self.replay.walk.ended, pieces.begin), pieces.end),
            pieces.id,
            pieces.task,
            names,
            pieces.parent,
            open_,
        )

    def _keep_attributes(self, kind: str, pieces: Pieces) -> None:
        kept = self.attributes
        for number, attributes in zip(pieces.id.tolist(), pieces.attributes, strict=True):
            if attributes:
                kept[kind, number] = attributes
        for _ in range(len(kept) - ATTRIBUTES):
            del kept[next(iter(kept))]

    def _span_rows(self, pieces: Pieces, *, ended: bool = True) -> Rows:
        """Spans on the first lane of their name that is free.

        One that has not ``ended`` holds its lane, and is given it again when it ends.
        """
        rows = self._rows(pieces, np.zeros(len(pieces), np.int64), "span")
        known = self._held_lanes
        if ended:  # those that held a lane give it back when they end, not before and not later
            known = {}
            for number, end in zip(rows.id.tolist(), rows.end.tolist(), strict=True):
                if number in self._held_lanes:
                    name, lane = known[number] = self._held_lanes.pop(number)
                    ends = self._lane_ends[name]
                    ends[lane] = max(ends[lane], end)
        held: dict[int, set[int]] = {}
        for name, lane in self._held_lanes.values():
            held.setdefault(name, set()).add(lane)
        lanes = np.empty(len(rows), np.int64)
        still: dict[int, tuple[int, int]] = {}
        order = np.argsort(rows.begin, kind="stable")
        columns = (order, rows.name[order], rows.begin[order], rows.end[order], rows.id[order])
        for i, name, begin, end, number in zip(*(c.tolist() for c in columns), strict=True):
            ends, taken = self._lane_ends.setdefault(name, []), held.setdefault(name, set())
            if number in known:
                lane = known[number][1]
            else:
                free = (j for j, until in enumerate(ends) if until <= begin and j not in taken)
                lane = min(next(free, len(ends)), LANES - 1)
            if lane >= len(ends):
                ends.append(0)
            if ended:
                ends[lane] = max(ends[lane], end)
            else:
                taken.add(lane)
                still[number] = name, lane
            lanes[i] = name * LANES + lane
        if not ended:
            self._held_lanes = still
        rows.row = lanes
        return rows

    # --- what there is ---------------------------------------------------------------------------

    @property
    def nbytes(self) -> int:
        """Memory that it takes, about."""
        kinds = (self.spans, self.regions, self.calls, self.collections, self.io_waits)
        return (
            self.lanes.nbytes
            + sum(kind.nbytes for kind in kinds)
            + self.counters.nbytes
            + 200 * sum(map(len, self._ended))
        )

    @property
    def began(self) -> int:
        """ns, by the clock of the trace."""
        return self._began or 0

    @property
    def ended(self) -> int:
        """ns, of the last there is."""
        return max(self.replay.walk.ended, self.began)

    @property
    def lives(self) -> Lives:
        """Of all tasks; `settle` first."""
        assert self._lives is not None
        return self._lives

    def kinds(self, kind: ProcKind) -> dict[int, str]:
        """proc -> name."""
        return {p: name for p, (k, name) in sorted(self.replay.walk.kinds.items()) if k == kind}
