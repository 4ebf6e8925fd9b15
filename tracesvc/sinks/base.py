"""What every sink is: a place where the frames of a session go, with an account of what got there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tracesvc.events import LossCause
from tracesvc.sinks.queue import FrameQueue

__all__ = ["Sink", "SinkStatistics"]


@dataclass(frozen=True, slots=True)
class SinkStatistics:
    """How far a sink got. Events on their way are neither stored nor lost yet."""

    name: str
    frames: int
    """frames that are safely out"""
    bytes: int
    """their size as stored, after compression"""
    events: int
    """events in them"""
    lost: Mapping[LossCause, int] = field(default_factory=dict)
    """events that this sink lost, by cause; losses before the frames reached it are not its own"""


class Sink(ABC):
    """Where frames go. One object serves one session at a time.

    A subclass implements `run`, calls `_begin` first, `_stored` for what is safely out, and `_end` last.
    """

    generation_bytes = 0
    """a generation of more bytes than this is to end before its second is over; 0: it may be of any size"""

    def __init__(self, name: str) -> None:
        self.name = name
        self._queue: FrameQueue | None = None
        self._frames = self._bytes = self._events = 0
        self._cause: LossCause | None = None

    @abstractmethod
    async def run(self, frames: FrameQueue) -> None:
        """Take frames until the queue ends, and return when all of them are safely out.

        Raises:
          SinkError: it cannot go on.  Any exception means that: the tracer reports it and drops the sink.
        """

    def open_queue(self) -> FrameQueue:
        """The queue that a session's frames are to come through; a new one for every session."""
        return FrameQueue()

    def statistics(self) -> SinkStatistics:
        """Right at any time and in any state, during `run` too."""
        lost: Counter[LossCause] = Counter()
        if self._queue is not None:
            lost.update(self._queue.lost)
            if self._cause is not None:
                lost[self._cause] += self._queue.taken_events - self._events
        return SinkStatistics(self.name, self._frames, self._bytes, self._events, +lost)

    def _begin(self, frames: FrameQueue) -> None:
        self._queue, self._cause = frames, None
        self._frames = self._bytes = self._events = 0

    def _stored(self, frames: int, events: int, size: int) -> None:
        """So many more are safely out. Always called from the same thread."""
        self._frames += frames
        self._events += events
        self._bytes += size

    def _end(self, cause: LossCause = LossCause.SINK_FAILED) -> None:
        """No more will get out: what was taken from the queue and not stored is lost."""
        self._cause = cause
