"""`merge`: several traces as one, on one clock.

Every id (of procs, tasks, nurseries, spans, regions, objects) is made unique: that of trace i of n becomes
``id * n + i``.  Clocks are brought together on one axis (`tracesvc.model.axis`): that of a service that their programs
pushed to, or, where they did not, the time of day.
The result is one session in one generation; what is missing in a trace stays missing.  It has an end mark if all have.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tracesvc.format import (
    End,
    Generation,
    Header,
    ProcRow,
    SessionWriter,
    Snapshot,
)
from tracesvc.model.axis import Axis
from tracesvc.model.choice import Choice
from tracesvc.model.links import Link, find_links
from tracesvc.model.reader import Source, read
from tracesvc.rewrite.merge_input import Account, Input

__all__ = ["Merged", "merge"]


@dataclass(slots=True)
class Merged:
    """What was written."""

    traces: int
    axis: Axis
    """where each of them is, in the order that they were given in"""
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
    inputs = [Input(source, i, len(sources)) for i, source in enumerate(sources)]
    traces = [read(source) for source in sources] if len(sources) > 1 else []
    try:
        links = find_links(traces)
    finally:
        for trace in traces:
            trace.close()
    return _Merger(inputs, links, out).run()


class _Merger:
    def __init__(self, inputs: list[Input], links: list[Link], out: Callable[[bytes], Any]) -> None:
        self._inputs, self._out = inputs, out
        self._writer = SessionWriter()
        self._axis = Axis.of([one.base for one in inputs], links)
        self._done = Merged(len(inputs), self._axis)
        self._newest = 0

    def run(self) -> Merged:
        first = self._inputs[0]
        # The times of the first one stay what they were, if only about.
        origin = self._axis.placed[0].time(first.begin or 0) - (first.begin or 0)
        for one, placed in zip(self._inputs, self._axis.placed, strict=True):
            one.place, one.shift = placed.time, -origin
        # A trace that began before the first one must not come to negative times.
        begin = min(one.at(one.begin) for one in self._inputs if one.begin is not None)
        for one in self._inputs:
            one.shift += max(0, -begin)
        begin = self._newest = max(0, begin)
        session = str(uuid.uuid5(uuid.NAMESPACE_OID, " ".join(one.session for one in self._inputs)))
        late = any(one.late for one in self._inputs)
        wall = 0 if first.clock is None else max(0, begin - first.shift)
        self._write(
            [self._writer.header(Header(session, self._about(), begin, wall, self._options()))]
        )
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

    def _options(self) -> dict[str, Any]:
        """What was left out of one of them may be missing in all."""
        choices = [Choice.of(one.header.options) for one in self._inputs if one.header is not None]
        said: dict[str, Any] = {}
        if choices and all(choice.groups is not None for choice in choices):
            said["groups"] = list(dict.fromkeys(g for c in choices for g in c.groups or ()))
        if any(choice.some_tasks for choice in choices):
            said["tasks"] = list(dict.fromkeys(t for c in choices for t in c.tasks or ()))
        if any(choice.spans is not None for choice in choices):
            said["spans"] = list(dict.fromkeys(s for c in choices for s in c.spans or ()))
        if any(choice.redacted for choice in choices):
            said["redacted"] = True
        said["clocks"] = [
            {"session": placed.session, "by": str(placed.method), "uncertainty": at.uncertainty}
            for placed in self._axis.placed
            for at in (placed.at(placed.base.end),)
        ]
        return said

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

    def _batch(self, one: Input, proc: int, number: int, records: list[Any]) -> None:
        account = one.accounts[proc]
        self._losses(one, account, number)
        self._write(self._writer.events(one.proc(proc), number, records))
        self._newest = max(self._newest, records[-4])
        self._done.events += len(records) // 5

    def _losses(self, one: Input, account: Account, before: int | None) -> None:
        """Tell of what was lost before this event, or of all that is left."""
        for row in account.losses[account.told :]:
            if before is not None and row.first >= before:
                return
            account.told += 1
            start, end = one.at(row.start), one.at(max(row.start, row.end))
            moved = row._replace(proc=one.proc(row.proc), start=start, end=end)
            self._write(self._writer.losses([moved]))
            self._newest = max(self._newest, end)
            self._done.lost += row.last - row.first + 1


def _when(batch: tuple[int, int, int, int, list[Any]]) -> tuple[int, int]:
    return batch[0], batch[1]
