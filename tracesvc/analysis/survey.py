"""One pass over a trace: everything that a summary counts, fed piece by piece."""

from __future__ import annotations

from collections import Counter as Tally
from typing import Final

import numpy as np

from tracesvc.analysis.loops import LoopTimes
from tracesvc.analysis.overhead import Changes
from tracesvc.analysis.pieces import Annotations, Calls, Collections
from tracesvc.analysis.structure import Structures
from tracesvc.analysis.tasks import TaskTimes
from tracesvc.analysis.values import Counters, Messages
from tracesvc.model.columns import Columns
from tracesvc.model.reader import Trace
from tracesvc.model.walk import Chunk, Gap, Healed, Lost, Opens, Over, Walk

__all__ = ["STALLS", "Survey"]

STALLS: Final = 10
"""steps that are listed, the longest"""


class Survey:
    """Reads a trace to its present end."""

    def __init__(self, trace: Trace) -> None:
        self.walk: Final = Walk(trace)
        self.tasks: Final = TaskTimes(STALLS)
        self.loops: Final = LoopTimes()
        self.spans: Final = Annotations()
        self.regions: Final = Annotations()
        self.calls: Final = Calls()
        self.collections: Final = Collections()
        self.counters: Final = Counters()
        self.messages: Final = Messages()
        self.overhead: Final = Changes()
        self.structure: Final = Structures()
        self.types: Final[Tally[int]] = Tally()
        self.ends: dict[int, int] = {}
        """run with live tasks -> ns of the last that is known of it"""

    def run(self) -> None:
        """Read it all.

        Raises:
          FormatError: it is not a trace.
          OSError: it cannot be read.
        """
        for piece in self.walk:
            match piece:
                case Chunk(columns):
                    self._look(columns)
                case Gap(proc, time):
                    self.tasks.gap(proc, time)
                    self.loops.gap(proc, time)
                    self.calls.gap(proc)
                    self.collections.gap(proc)
                case Healed(proc, rows, text, time, begin):
                    self.tasks.adopt(proc, rows, text, time, begin)
                case Opens(spans, regions, text):
                    self.spans.adopt([(r.span, r.since, text(r.name)) for r in spans])
                    self.regions.adopt([(r.region, r.since, text(r.name)) for r in regions])
                case Over(proc, time):
                    self.loops.end(proc, time)
                    self.tasks.end(proc, time)
                case Lost():
                    pass  # the walk's books have it
        for proc in {*self.tasks.procs(), *self.walk.runs()} - self.walk.stopped:
            self.ends[proc] = self.walk.end_of(proc)
            self.loops.end(proc, self.ends[proc])

    def _look(self, columns: Columns) -> None:
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
        self.overhead.add(columns)
        self.structure.add(columns)
