"""A proc: one writer of events, with its own buffer, sequence numbers and loss count.

Emitting is one call, ``proc.extend((type, time, a, b, c))``, which stores a record whole: see
`tracesvc.recorder.records`.  The buffer is never replaced.  ``seal()`` takes full blocks of records off its front and
hands them to the session; the sequence number of a record is its place in the buffer plus what was taken before, so it
is assigned before anything can be lost.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from tracesvc.events import LossCause, ProcKind, ProcStart, ProcStop
from tracesvc.format.batch import SLOTS
from tracesvc.format.records import LossRow
from tracesvc.recorder.clock import now
from tracesvc.recorder.native import native
from tracesvc.recorder.records import AnyRecords, Records, flat
from tracesvc.recorder.texts import cut_name

if TYPE_CHECKING:
    from tracesvc.recorder.box import Box
    from tracesvc.recorder.session import Session

__all__ = ["Buffer", "Proc"]


class Buffer:
    """A sealed block of one proc's records, on its way to the reader and back to be used again."""

    __slots__ = ("first", "lost", "proc", "records")

    def __init__(self, records: AnyRecords) -> None:
        self.records: Final = records
        self.proc: Proc | None = None
        self.first = 0
        self.lost: list[LossRow] = []
        """what this proc lost just before ``first``"""

    def __len__(self) -> int:
        """Events in it."""
        return self.records.events

    def clear(self) -> None:
        """Empty it for the next use."""
        self.records.clear()
        self.lost = []
        self.proc = None


class Proc:
    """One writer. Made by its session, see `tracesvc.recorder.session.Session.new_proc`."""

    __slots__ = (
        "_pending_loss",
        "_sealing",
        "_dark_entered",
        "_dark_left",
        "_skipped",
        "_told",
        "capacity",
        "dark",
        "extend",
        "kind",
        "live",
        "lost",
        "name",
        "number",
        "payload",
        "records",
        "sealed",
        "session",
        "skipped",
        "thread",
    )

    def __init__(
        self, session: Session, number: int, kind: ProcKind, name: str, thread: int, events: int
    ) -> None:
        self.session: Final = session
        self.number: Final = number
        self.kind: Final = kind
        self.name: Final = cut_name(name)
        self.thread: Final = thread
        self.records: Final = session.new_records()
        self.capacity: Final = events * (SLOTS if isinstance(self.records, Records) else 1)
        """``len(proc.records)`` of a full buffer"""
        self.records.capacity = self.capacity
        self.extend: Callable[[tuple[Any, ...]], None] = self.records.extend
        """never replaced once something is recorded"""
        self.payload = 0
        """bytes of texts and attributes in the buffer, about"""
        self.sealed = 0
        """events taken out of the buffer so far: the sequence number of the first one in it"""
        self.lost: Final[Counter[LossCause]] = Counter()
        """events by cause"""
        self.skipped: Final = bytearray()
        """a byte for each annotation that was left out since the last block; appending one is atomic"""
        self._skipped = 0
        """of them, those that were taken out of it"""
        self.dark: Any = None
        """what records into it, where that may leave out events and count them: ``dark.unrecorded``"""
        self._dark_left = self._dark_entered = 0
        self.live = True
        self._pending_loss: list[LossRow] = []
        self._told = now()
        """ns, of the last event that found room"""
        self._sealing = threading.Lock()
        if session.box is not None:
            self.keep_in(session.box)

    def keep_in(self, box: Box) -> None:
        """Have every record kept there too; before the first one."""
        self.extend = box.keeper(self.records, self.number) or self.extend

    @property
    def emitted(self) -> int:
        """Events so far; the next sequence number."""
        left_out = self._skipped + len(self.skipped) + self._unrecorded
        return self.sealed + left_out + self.records.events

    @property
    def _unrecorded(self) -> int:
        """Events that were left out, and not told of yet."""
        dark = self.dark
        return self._dark_left + (0 if dark is None else dark.unrecorded) - self._dark_entered

    def let_go(self) -> None:
        """Nothing records into it any more by hooks."""
        dark, self.dark = self.dark, None
        if dark is not None:
            self._dark_left += dark.unrecorded

    def start(self) -> None:
        self.extend((ProcStart.number, now(), self.kind, self.thread, self.name))

    def stop(self) -> None:
        """Emit the last event and hand everything over."""
        if not self.live:
            return
        self.live = False  # first: what the garbage collector says from here on goes elsewhere
        self.extend((ProcStop.number, now(), 0, 0, 0))
        self.seal(everything=True)

    @trio.lowlevel.enable_ki_protection
    def seal(self, everything: bool = False, wait: bool = False) -> None:
        """Hand full blocks of the buffer to the session (``everything``: the rest too).

        Does nothing while another call for this proc is under way: that one comes from another thread, or is what this
        one interrupted (``wait`` makes it wait for that thread, at most a second).
        """
        if not self._sealing.acquire(blocking=wait, timeout=1.0 if wait else -1):
            return
        try:
            records, size = self.records, self.session.buffer_events
            self.payload = 0
            if not self.session.accepting:  # the trace is over; a thread or a hook did not know yet
                self.session.drop_late(records)
                return
            while records.events >= size or ((everything or records.missed) and records.events):
                self._seal_block(min(records.events, size))
        finally:
            self._sealing.release()

    def _enter_skipped(self) -> None:
        """Tell of what was left out, as if all of it came before the next block that finds room."""
        self._hold_skipped()
        skipped, self._skipped = self._skipped, 0
        if skipped:
            self.sealed += skipped
            first = self.sealed - skipped
            self._lose(first, skipped, self._told, now(), LossCause.SAMPLED)
        unrecorded = self._unrecorded
        if unrecorded:
            self._dark_entered += unrecorded
            self.sealed += unrecorded
            first = self.sealed - unrecorded
            self._lose(first, unrecorded, self._told, now(), LossCause.OVER_BUDGET)

    def _hold_skipped(self) -> None:
        skipped = len(self.skipped)
        self._skipped += skipped
        del self.skipped[:skipped]

    def _seal_block(self, count: int) -> None:
        buffer = self.session.take_empty(self)
        block = self.session.take_spare() if isinstance(buffer, LossCause) else buffer.records
        missed = self.records.take(count, block)
        if isinstance(buffer, LossCause):
            if block.in_order(0):
                start, end = block.first_time, block.last_time
            else:  # an emission was interrupted
                times = flat(block)[1::SLOTS]
                start, end = min(times), max(times)
            self.sealed += count
            self._lose(self.sealed - count, count, start, end, buffer)
            self.session.give_back(block)
            self._hold_skipped()
        else:
            buffer.lost = self.take_pending_loss()
            buffer.proc, buffer.first = self, self.sealed
            self.sealed += count
            self._told = block.last_time
            self.session.submit(buffer)
        if missed:
            self.sealed += missed
            time = now()
            self._lose(self.sealed - missed, missed, time, time, LossCause.NO_MEMORY)

    def _lose(self, first: int, count: int, start: int, end: int, cause: LossCause) -> None:
        """Enter a block that found no room; one row for what was lost in one go."""
        self.lost[cause] += count
        rows = self._pending_loss
        if rows and rows[-1].cause == cause:  # nothing was stored since, so it is contiguous
            last = rows.pop()
            first, start, end = last.first, min(last.start, start), max(last.end, end)
        rows.append(LossRow(self.number, first, self.sealed - 1, cause, start, end))

    def wait_for_seal(self) -> None:
        """Until a `seal` that another thread has begun is over."""
        if self._sealing.acquire(timeout=1.0):
            self._sealing.release()

    def take_last_loss(self, passed: int) -> list[LossRow]:
        """What was lost at the end of a proc that is over, once the reader has had the ``passed`` events before it."""
        if self.live or self.records.events or not self._sealing.acquire(blocking=False):
            return []
        try:
            self._enter_skipped()
            rows = self._pending_loss
            return self.take_pending_loss() if rows and rows[0].first == passed else []
        finally:
            self._sealing.release()

    def take_pending_loss(self) -> list[LossRow]:
        """What was lost since the last buffer that found room; the caller puts it into the stream."""
        self._enter_skipped()
        rows, self._pending_loss = self._pending_loss, []
        return rows


if native is not None:
    native.procs(Proc)
