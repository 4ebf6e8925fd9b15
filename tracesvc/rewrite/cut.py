"""`cut`: the part of a trace between two times, in whole generations.

A generation decodes alone, so the frames are taken as they are.  The result is what a sink has that joined the session
with the first of these generations and was cut off after the last.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tracesvc.events import FrameKind
from tracesvc.format import Batch, Damage, End, Generation, Header, Item, Procs
from tracesvc.format.frames import encode_frame
from tracesvc.model.reader import Source, Trace, read

__all__ = ["Cut", "cut"]

HELD: Final = 8 << 20
"""bytes in memory of a generation that may have to be kept; more of it goes to a temporary file"""
PIECE: Final = 1 << 20


@dataclass(slots=True)
class Cut:
    """What was kept."""

    generations: int = 0
    events: int = 0
    begin: int | None = None
    """ns of the trace's clock: where the first generation that was kept begins"""
    end: int | None = None
    """where the last one ends"""


def cut(
    source: Source | Trace,
    out: Callable[[bytes], Any],
    *,
    begin: int | None = None,
    end: int | None = None,
) -> Cut:
    """Keep the generations that overlap the time from ``begin`` to ``end``.

    Args:
        source: As for `tracesvc.read`.
        out: Takes the bytes, piece by piece.
        begin: ns of the trace's clock; None: from the start.
        end: Likewise; None: to the end.

    Raises:
        ValueError: ``end`` lies before ``begin``, or there is nothing in between.
        FormatError: The source is not a trace.
    """
    if begin is not None and end is not None and end < begin:
        raise ValueError(f"end ({end}) is before begin ({begin})")
    trace = source if isinstance(source, Trace) else read(source)
    return _Cutter(trace, out, begin, end).run()


class _Cutter:
    def __init__(
        self, trace: Trace, out: Callable[[bytes], Any], begin: int | None, end: int | None
    ) -> None:
        self._trace, self._out, self._begin, self._end = trace, out, begin, end
        self._held = tempfile.SpooledTemporaryFile(HELD)  # noqa: SIM115  # as long as this lives
        """the generation that may have to be kept: whether it reaches into the time, its end tells"""
        self._kept = Cut()
        self._last: Generation | None = None

    def run(self) -> Cut:
        with self._held:
            return self._run()

    def _run(self) -> Cut:
        header: bytes | None = None
        count = 0
        for item in self._trace.items():
            if isinstance(item, Damage):
                continue
            match item.record:
                case Header():
                    header = item.frame.data
                    continue
                case Generation() as generation:
                    before, self._last = self._last, generation
                    self._decide(header, before, generation.monotonic, count)
                    count = 0
                    if self._end is not None and generation.monotonic > self._end:
                        self._close(item)
                        return self._kept
                case Batch() as batch:
                    count += batch.count
                case End() as end:
                    self._decide(header, self._last, end.monotonic, count)
                    self._last = None
                    if self._kept.generations:
                        self._out(item.frame.data)
                        self._kept.end = end.monotonic
                    continue
            self._held.write(item.frame.data)
        self._decide(header, self._last, None, count)
        if not self._kept.generations:
            raise ValueError("there is nothing in the trace between these times")
        return self._kept

    def _decide(
        self,
        header: bytes | None,
        held: Generation | None,
        until: int | None,
        count: int,
    ) -> None:
        """Write the generation that ends here, or drop it."""
        early = self._begin is not None and until is not None and until < self._begin
        if held is None or early:
            self._drop()
            return
        if not self._kept.generations:
            self._kept.begin = held.monotonic
            if header is not None:
                self._out(header)
        self._held.seek(0)
        while piece := self._held.read(PIECE):
            self._out(piece)
        self._drop()
        self._kept.generations += 1
        self._kept.events += count
        self._kept.end = until

    def _drop(self) -> None:
        self._held.seek(0)
        self._held.truncate()

    def _close(self, item: Item) -> None:
        """End the stream here: what the next generation begins with is the account.

        There is no end mark, for the session went on: buffers that were handed over later belong to this time too.
        """
        if not self._kept.generations:
            raise ValueError("there is nothing in the trace between these times")
        number = item.frame.number
        for following in self._trace.items():
            if isinstance(following, Damage) or not isinstance(following.record, Procs):
                break
            self._out(encode_frame(FrameKind.PROCS, number, following.record.pack()))
            number += 1
