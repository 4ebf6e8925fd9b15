"""Spans and regions, from their begin to their end, with what is known of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tracesvc.events import RegionBegin, RegionEnd, SpanBegin, SpanEnd
from tracesvc.export.replay import Chunk

__all__ = ["Piece", "Pieces"]

MAX_EARLY: Final = 10_000
"""ends that came by before their begin, kept at most: procs hand over their buffers one by one"""


@dataclass(slots=True)
class Piece:
    """One span or region."""

    id: int
    parent: int
    task: int
    begin: int
    """ns"""
    name: str
    attributes: dict[str, Any] | None
    end: int | None = None
    """ns; None: it never ended, or that is not in the trace"""
    end_task: int = 0


class Pieces:
    """Spans, or regions: fed with chunks, gives out what has ended; memory goes with the open ones."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._types: tuple[Any, Any] = (
            (SpanBegin, SpanEnd) if kind == "span" else (RegionBegin, RegionEnd)
        )
        self.open: dict[int, Piece] = {}
        self._early: dict[int, tuple[int, int]] = {}
        self.unmatched = 0
        """ends whose begin never came"""

    def begun(self, chunk: Chunk) -> list[Piece]:
        """What begins in a chunk, in stored order; to be asked for before `ended`."""
        found = [
            Piece(one.id, one.parent, one.task, one.since, one.name, one.attributes)
            for one in chunk.opened
            if one.kind == self._kind and one.id not in self.open
        ]
        table = chunk.columns.of(self._types[0])
        ids = getattr(table, self._kind).tolist()
        parents = table.parent.tolist() if self._kind == "span" else [0] * len(ids)
        rows = zip(
            ids,
            parents,
            table.task.tolist(),
            table.time.tolist(),
            table.names("name"),
            table.attributes,
            strict=True,
        )
        found += [Piece(*row) for row in rows]
        self.open.update((piece.id, piece) for piece in found)
        return found

    def ended(self, chunk: Chunk) -> Iterator[Piece]:
        """What ends in a chunk."""
        for number in [number for number in self._early if number in self.open]:
            yield self._end(number, *self._early.pop(number))
        table = chunk.columns.of(self._types[1])
        ids = getattr(table, self._kind).tolist()
        for number, time, task in zip(ids, table.time.tolist(), table.task.tolist(), strict=True):
            if number in self.open:
                yield self._end(number, time, task)
            elif len(self._early) < MAX_EARLY:
                self._early[number] = time, task
            else:
                self.unmatched += 1

    def _end(self, number: int, time: int, task: int) -> Piece:
        piece = self.open.pop(number)
        piece.end, piece.end_task = max(time, piece.begin), task
        return piece

    def rest(self) -> list[Piece]:
        """What has not ended."""
        self.unmatched += len(self._early)
        pieces, self.open = list(self.open.values()), {}
        return pieces
