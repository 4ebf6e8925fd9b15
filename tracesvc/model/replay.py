"""`Replay`: a trace as tables, part by part: phases of tasks, their lives, spans, regions, calls, collections, losses.

::

    for part in Replay(trace).parts():
        print(part.phases.task, part.spans.name)

A part has what has *ended* in a stretch of the trace; what is open at its present end comes in the last part.  Memory
goes with one chunk of events, the live tasks and the open spans, not with the length of the trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tracesvc.format import LossRow
from tracesvc.model.columns import Columns
from tracesvc.model.lives import LifeMaker, Lives
from tracesvc.model.phases import PhaseMaker, Phases
from tracesvc.model.pieces import CALLS, COLLECTIONS, IO_WAITS, REGIONS, SPANS, ById, InTurn, Pieces
from tracesvc.model.reader import Trace
from tracesvc.model.walk import Chunk, Gap, Healed, Lost, Opens, Over, Walk

__all__ = ["Part", "Replay"]


@dataclass(slots=True)
class Part:
    """What has come to its end in one stretch of a trace."""

    columns: Columns | None = None
    """the events themselves; None where there are none"""
    phases: Phases = field(default_factory=lambda: Phases.join([]))
    lives: Lives = field(default_factory=lambda: Lives.join([]))
    spans: Pieces = field(default_factory=lambda: Pieces.join([]))
    regions: Pieces = field(default_factory=lambda: Pieces.join([]))
    calls: Pieces = field(default_factory=lambda: Pieces.join([]))
    """in worker threads"""
    collections: Pieces = field(default_factory=lambda: Pieces.join([]))
    """of garbage"""
    io_waits: Pieces = field(default_factory=lambda: Pieces.join([]))
    """of the run loops"""
    losses: list[LossRow] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    """where events are missing, also such as nothing accounts for"""
    last: bool = False
    """nothing comes after it"""


class Replay:
    """One pass over a trace."""

    def __init__(self, trace: Trace, chunk: int | None = None) -> None:
        self.walk: Final = Walk(trace, chunk)
        self.phases: Final = PhaseMaker()
        """its ``names`` are those of `Phases.name`, its ``illegal`` what the table of states does not allow"""
        self._lives = LifeMaker()
        self._spans, self._regions = ById(*SPANS), ById(*REGIONS)
        self._calls, self._collections = InTurn(*CALLS), InTurn(*COLLECTIONS)
        self._io_waits = InTurn(*IO_WAITS)
        self._in_turn = (
            ("calls", self._calls),
            ("collections", self._collections),
            ("io_waits", self._io_waits),
        )

    @property
    def names(self) -> list[str]:
        """What `Phases.name` indexes."""
        return self.phases.names

    def parts(self) -> Iterator[Part]:
        """Everything there is, from where the trace stands to its present end.

        Raises:
          FormatError: it is not a trace.
          OSError: it cannot be read.
        """
        yield from self.more()
        yield from self._rest()

    def more(self) -> Iterator[Part]:
        """What has ended up to the present end of the trace; to be called again when there is more of it.

        Raises:
          FormatError: it is not a trace.
          OSError: it cannot be read.
        """
        for piece in self.walk:
            match piece:
                case Chunk(columns):
                    yield self._chunk(columns)
                case Gap(proc, time):
                    part = Part(phases=self.phases.gap(proc, time), gaps=[piece])
                    for name, maker in self._in_turn:
                        setattr(part, name, maker.gap(proc))
                    yield part
                case Healed():
                    yield Part(phases=self.phases.adopt(piece), lives=self._lives.adopt(piece))
                case Opens(spans, regions, text):
                    spans_ = [
                        (s.span, s.parent, s.task, s.since, text(s.name), s.attributes)
                        for s in spans
                    ]
                    regions_ = [
                        (r.region, 0, r.task, r.since, text(r.name), r.attributes) for r in regions
                    ]
                    yield Part(
                        spans=self._spans.adopt(spans_), regions=self._regions.adopt(regions_)
                    )
                case Over(proc, time):
                    yield Part(phases=self.phases.end(proc, time), lives=self._lives.end(proc))
                case Lost(row):
                    yield Part(losses=[row])

    def open(self) -> Part:
        """What has not ended at the present end of the trace, as far as it has come; ends nothing."""
        ends = {proc: self.walk.end_of(proc) for proc in self.phases.procs()}
        return Part(
            phases=self.phases.so_far(ends),
            lives=self._lives.live,
            spans=self._spans.rest(),
            regions=self._regions.rest(),
            calls=self._calls.rest(),
            collections=self._collections.rest(),
            io_waits=self._io_waits.rest(),
        )

    def _chunk(self, columns: Columns) -> Part:
        part = Part(
            columns=columns,
            phases=self.phases.add(columns),
            lives=self._lives.add(columns),
            spans=self._spans.add(columns),
            regions=self._regions.add(columns),
        )
        for name, maker in self._in_turn:
            setattr(part, name, maker.add(columns))
        return part

    def _rest(self) -> Iterator[Part]:
        """What is open at the end."""
        for proc in self.phases.procs():
            end = self.walk.end_of(proc)
            yield Part(phases=self.phases.end(proc, end), lives=self._lives.end(proc))
        yield Part(
            lives=self._lives.live,
            spans=self._spans.rest(),
            regions=self._regions.rest(),
            calls=self._calls.rest(),
            collections=self._collections.rest(),
            io_waits=self._io_waits.rest(),
            last=True,
        )
