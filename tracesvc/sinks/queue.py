"""The bounded queue between the tracer's reader and one sink."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import trio

from tracesvc.events import FrameKind, LossCause
from tracesvc.format import FormatError, Frame
from tracesvc.sinks.errors import SinkError
from tracesvc.sinks.gap import Gap

__all__ = ["Ask", "FrameQueue"]

Ask = Callable[[Callable[[list[Frame]], None]], None]
MAX_ROWS: Final = 1 << 15
"""rows in the account of a gap; a sink that misses more than can be told of is given up"""


class FrameQueue:
    """Frames from the reader's task to a sink's task, in the same run.

    The writing side (`put`, `tick`, `finish`, `close`) is synchronous, never blocks and never raises.  When a frame
    does not fit, it and all that follow are dropped up to the next generation that fits: what comes out can always
    be decoded.  In place of what was dropped come LOSS and PROCS frames that account for it.  The first and the last
    frame of a session are always kept.

    Args:
      capacity_bytes: how much may wait; the frames that account for a gap come on top.
      lost: called with the number of events and the cause whenever some are lost here.
    """

    def __init__(
        self,
        capacity_bytes: int = 8 << 20,
        lost: Callable[[int, LossCause], None] | None = None,
    ) -> None:
        if capacity_bytes < 1:
            raise ValueError(f"capacity_bytes must be positive, not {capacity_bytes}")
        self.capacity_bytes = capacity_bytes
        self.lost: Counter[LossCause] = Counter()
        """events lost here, by cause"""
        self.taken_events = 0
        """events that the sink took"""
        self.ask_end: Ask | None = None
        """given by the tracer: takes a function, and calls it once, in the sink's run, when everything that was emitted
        before has been put here, with the accounts and the end mark that would close the stream at this place; with
        none where the session is over"""
        self.full: Callable[[], LossCause] = _sink_full
        """gives the cause of what is lost for want of room"""
        self._note_loss = lost
        self._frames: list[Frame] = []
        self._bytes = 0
        self._gap: Gap | None = None
        self._finished = False
        self._closed: LossCause | None = None
        self._reason = ""
        self._due = False
        self._wanted = 1
        self._wake: trio.Event | None = None

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for the sink."""
        return self._bytes

    @property
    def dropping(self) -> bool:
        """Whether frames are being dropped right now."""
        return self._gap is not None or self._closed is not None

    # --- the reader's side ---------------------------------------------------------------------------

    def put(self, frame: Frame) -> None:
        """Queue a frame, or drop it and account for it."""
        if self._closed is not None:
            self._lose(frame.count, self._closed)
        elif self._gap is None:
            fits = self._bytes + len(frame.data) <= self.capacity_bytes
            if fits or frame.kind in (FrameKind.HEADER, FrameKind.END):
                self._append(frame)
            else:
                self._gap = Gap()
                self._drop(self._gap, frame)
        elif frame.kind == FrameKind.END or (
            frame.kind == FrameKind.GENERATION and self._has_room_behind(self._gap, frame)
        ):
            self._resume(self._gap, closing=frame.kind == FrameKind.END)
            self._append(frame)
        else:
            self._drop(self._gap, frame)

    def tick(self) -> None:
        """Hand over what is queued, however little; the tracer calls this a few times a second, on real time."""
        if self._frames:
            self._due = True
            self._notify()

    def finish(self) -> None:
        """Nothing follows: the sink gets what is queued, and then the end."""
        if self._gap is not None:
            self._resume(self._gap, closing=True)
        self._finished = True
        self._notify()

    def close(self, cause: LossCause = LossCause.SINK_FAILED, reason: str = "") -> None:
        """The sink will take no more: what is queued and all that follows is lost, and counted under ``cause``."""
        if self._closed is not None:
            return
        self._closed, self._reason = cause, reason or "the sink was closed"
        self._lose(sum(frame.count for frame in self._frames), cause)
        self._frames, self._bytes, self._gap = [], 0, None
        self._notify()

    # --- the sink's side -----------------------------------------------------------------------------

    async def get(self, min_bytes: int = 1) -> list[Frame]:
        """Everything that is queued, once that is ``min_bytes`` or more, at a `tick` or at the end. Empty: the end.

        A checkpoint; if cancelled, nothing was taken.

        Raises:
          SinkError: the queue was closed.
        """
        if self._due or self._bytes >= min_bytes or self._finished or self._closed is not None:
            await trio.lowlevel.checkpoint()
        else:
            self._wanted, self._wake = min_bytes, trio.Event()
            try:
                await self._wake.wait()
            finally:
                self._wake = None
        if self._closed is not None:
            raise SinkError(self._reason)
        frames, self._frames, self._bytes, self._due = self._frames, [], 0, False
        self.taken_events += sum(frame.count for frame in frames)
        return frames

    # --- inside --------------------------------------------------------------------------------------

    def _append(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._bytes += len(frame.data)
        if self._bytes >= self._wanted:
            self._notify()

    def _notify(self) -> None:
        if self._wake is not None:
            self._wake.set()

    def _has_room_behind(self, gap: Gap, frame: Frame) -> bool:
        account = sum(len(frame.data) for frame in gap.frames(closing=False))
        return self._bytes + account + len(frame.data) <= self.capacity_bytes

    def _resume(self, gap: Gap, *, closing: bool) -> None:
        self._gap = None
        for frame in gap.frames(closing=closing):
            self._append(frame)

    def _drop(self, gap: Gap, frame: Frame) -> None:
        cause = self.full()
        self._lose(frame.count, cause)
        try:
            gap.add(frame, cause)
        except FormatError as exc:
            self.close(reason=f"a dropped frame cannot be accounted for: {exc}")
        else:
            if gap.rows > MAX_ROWS:
                self.close(
                    reason="the sink stood still for so long that what it missed cannot be accounted for"
                )

    def _lose(self, events: int, cause: LossCause) -> None:
        if events:
            self.lost[cause] += events
            if self._note_loss is not None:
                self._note_loss(events, cause)


def _sink_full() -> LossCause:
    return LossCause.SINK_FULL
