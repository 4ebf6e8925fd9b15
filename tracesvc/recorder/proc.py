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
        "_block",
        "_missed",
        "_pending_loss",
        "_place",
        "_sealing",
        "_dark_entered",
        "_dark_left",
        "_ending",
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
        self._ending = threading.RLock()
        self._block: AnyRecords | None = None
        """taken out of the buffer, and not handed over yet: between calls only where there was no memory"""
        self._place: Buffer | LossCause | None = None
        """where that goes, or why it is lost"""
        self._missed = 0
        """events that found no memory behind it, and were not told of yet"""
        if session.box is not None:
            self.keep_in(session.box)

    def keep_in(self, box: Box) -> None:
        """Have every record kept there too; before the first one."""
        self.extend = box.keeper(self.records, self.number) or self.extend

    @property
    def emitted(self) -> int:
        """Events so far; the next sequence number."""
        left_out = self._skipped + len(self.skipped) + self._unrecorded
        block = self._block
        held = self._missed + (0 if block is None else block.events)
        return self.sealed + held + left_out + self.records.events

    @property
    def stuck(self) -> bool:
        """Whether there was no memory to hand over what is out of the buffer already."""
        return self._block is not None or self._missed > 0

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
        with self._ending:
            self.live = False  # first: what the garbage collector says from here on goes elsewhere
            self.extend((ProcStop.number, now(), 0, 0, 0))
        self.seal(everything=True)

    def tell(self, record: tuple[Any, ...]) -> None:
        """Store a record from another thread, unless the proc has come to its end meanwhile."""
        with self._ending:  # as long as it takes to store one
            if self.live:
                self.extend(record)

    @trio.lowlevel.enable_ki_protection
    def seal(self, everything: bool = False, wait: bool = False) -> None:
        """Hand full blocks of the buffer to the session (``everything``: the rest too).

        Does nothing while another call for this proc is under way: that one comes from another thread, or is what this
        one interrupted (``wait`` makes it wait for that thread, at most a second).  Where memory runs out, what is left
        goes with the next call.
        """
        if not self._sealing.acquire(blocking=wait, timeout=1.0 if wait else -1):
            return
        try:
            records, size = self.records, self.session.buffer_events
            self.payload = 0
            if not self.session.accepting:  # the trace is over; a thread or a hook did not know yet
                self.session.drop_late(records)
                return
            self._hand_over()
            while records.events >= size or records.missed or (everything and records.events):
                self._take(min(records.events, size))
                self._hand_over()
        except MemoryError:
            pass
        finally:
            self._sealing.release()

    # Memory may run out at each allocation of these, and events must neither get lost nor count twice.  So each of them
    # first makes what it needs, and then only stores it; `seal` goes on where the call before it ended.

    def _enter_skipped(self) -> None:
        """Tell of what was left out, as if all of it came before the next block that finds room."""
        self._hold_skipped()
        if self._skipped:
            self._lose(self._skipped, self._told, now(), LossCause.SAMPLED)
            self._skipped = 0
        if unrecorded := self._unrecorded:
            entered = self._dark_entered + unrecorded
            self._lose(unrecorded, self._told, now(), LossCause.OVER_BUDGET)
            self._dark_entered = entered

    def _hold_skipped(self) -> None:
        skipped = len(self.skipped)
        if skipped:
            held = self._skipped + skipped
            del self.skipped[:skipped]
            self._skipped = held

    def _take(self, count: int) -> None:
        """The next block out of the buffer; 0: only how many events found no memory."""
        if not count:
            self._missed = self.records.take(0, self.session.take_spare())
            return
        place = self.session.take_empty(self)
        if isinstance(place, LossCause):
            block = self.session.take_spare()
        else:
            self._enter_skipped()
            block = place.records
        self._missed = self.records.take(count, block)
        self._place, self._block = place, block

    def _hand_over(self) -> None:
        block, place = self._block, self._place
        if block is not None and place is not None:
            if isinstance(place, LossCause):
                if block.in_order(0):
                    start, end = block.first_time, block.last_time
                else:  # an emission was interrupted
                    times = flat(block)[1::SLOTS]
                    start, end = min(times), max(times)
                self._lose(block.events, start, end, place)
                self._block = None
                self._hold_skipped()
                self.session.give_back(block)
            else:
                self._submit(place)
                self._block, self._place = None, None
        if self._missed:
            time = now()
            self._lose(self._missed, time, time, LossCause.NO_MEMORY)
            self._missed = 0

    def _submit(self, buffer: Buffer) -> None:
        first, none = self.sealed, list[LossRow]()
        after, told = first + len(buffer), buffer.records.last_time
        if self._pending_loss:
            buffer.lost, self._pending_loss = self._pending_loss, none
        buffer.proc, buffer.first = self, first
        self.sealed = after
        try:
            self.session.submit(buffer)
        except MemoryError:
            self.sealed = first
            raise
        self._told = told

    def _lose(self, count: int, start: int, end: int, cause: LossCause) -> None:
        """The next ``count`` events are lost; one row for what was lost in one go."""
        first, after, rows = self.sealed, self.sealed + count, self._pending_loss
        self.lost[cause] = before = self.lost[cause]  # so that it has its place
        total = before + count
        if rows and rows[-1].cause == cause:  # nothing was stored since, so it is contiguous
            last = rows[-1]
            first, start, end = last.first, min(last.start, start), max(last.end, end)
            rows[-1] = LossRow(self.number, first, after - 1, cause, start, end)
        else:
            rows.append(LossRow(self.number, first, after - 1, cause, start, end))
        self.lost[cause] = total
        self.sealed = after

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
