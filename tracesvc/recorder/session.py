"""One recording, from start to stop: its procs, and the way of full buffers to the reader.

The full queue is a bounded trio memory channel, as Go's is a list under a lock; but hooks and threads never touch it.
They append to ``_sealed`` and wake the reader's run, and only the callback that then runs there, `_feed`, moves buffers
into the channel: a ``send_nowait`` from another thread would break that run, and from inside a hook it would name a
bystander as the waker of the reader.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, cast

import trio

from tracesvc.events import LossCause, ProcKind
from tracesvc.recorder.box import SPARE_BUFFERS, Box
from tracesvc.recorder.clock import now, wall
from tracesvc.recorder.native import native
from tracesvc.recorder.pacer import Pacer
from tracesvc.recorder.proc import Buffer, Proc
from tracesvc.recorder.records import AnyRecords, Records
from tracesvc.recorder.tree import GONE, in_run

if TYPE_CHECKING:
    from pathlib import Path

    from tracesvc.recorder.annotations import Region
    from tracesvc.recorder.choice import Choice
    from tracesvc.recorder.meter import Meter
    from tracesvc.recorder.options import Options
    from tracesvc.recorder.policy import Policy

__all__ = ["Session", "local"]


class _Local(threading.local):
    proc: Proc | None = None
    """the proc that this thread writes to"""


local: Final = _Local() if native is None else cast(_Local, native.Local())


class Session:
    """What is shared by everything that records between one start and its stop."""

    __slots__ = (
        "__dict__",
        "__weakref__",
        "open",
        "policy",
    )  # these two are read with every annotation

    def __init__(
        self,
        buffer_events: int,
        queue_buffers: int,
        new_records: Callable[[], AnyRecords] = Records,
    ) -> None:
        """``new_records`` makes a buffer, native or not."""
        self.new_records: Final = new_records
        self.box: Box | None = None
        """where what is recorded is kept for the case that the process dies"""
        self.policy: Policy | None = None
        """what becomes of annotations before they are recorded; None, mostly: all are, as they are"""
        self.meter: Meter | None = None
        """measures what the session costs; None: it has no budget"""
        self.choice: Choice | None = None
        """what is recorded; None: everything"""
        self.slow = -1
        """ns that a wait lasts whose stack is recorded; negative: none"""
        self.structure: frozenset[str] = frozenset()
        """what is recorded of nurseries and cancellation, see `tracesvc.recorder.structure`"""
        self.id: Final = str(uuid.uuid4())
        self.open = True
        """False from the stop on: what is emitted then is dropped and counted as late"""
        self.accepting = True
        """False once the last buffer has been taken"""
        self.dropped_late = 0
        self.buffer_events: Final = buffer_events
        self.queue_buffers: Final = queue_buffers
        self.monotonic = now()
        self.wall = wall()
        self.procs: Final[dict[int, Proc]] = {}
        self._proc_numbers: Final = itertools.count(1).__next__
        self._threads: Final[dict[int, threading.Thread]] = {}
        self._sealed: Final[deque[Buffer]] = deque()
        self._empty: Final[deque[Buffer]] = deque(maxlen=queue_buffers)
        self._spare: Final[deque[AnyRecords]] = deque(maxlen=4)
        self._queued = 0
        """buffers in the channel; changed in the reader's run only"""
        self._reader: trio.lowlevel.TrioToken | None = None
        self._feeding: Final = threading.Lock()
        self.had_reader = False
        self.buffers = 0
        self._full, self._take = trio.open_memory_channel[Buffer](queue_buffers)
        self.draining = False
        self.open_spans: Final[set[int]] = set()
        self.open_regions: Final[dict[int, Region]] = {}
        """task (or minus the proc of a thread that works for none) -> its innermost open region"""
        self.process = self._add(Proc(self, 0, ProcKind.PROCESS, "process", 0, buffer_events))

    def open_box(self, options: Options, natively: bool) -> None:
        """Have a black box, if the options ask for one; before anything is recorded.

        Raises:
          BlackBoxError: there is no room for it.
        """
        directory, name, size = (
            options.box_directory,
            options.source_name,
            options.black_box_bytes,
        )
        if directory is None:
            return
        records = (self.queue_buffers + SPARE_BUFFERS) * self.buffer_events
        self.box = Box(directory, name, self.id, size, records, natively)
        self.process.keep_in(self.box)

    @property
    def box_path(self) -> Path | None:
        """The directory of the black box; None: there is none."""
        return None if self.box is None else self.box.path

    def give_up(self) -> None:
        """There will be no trace: the start failed."""
        self.open = self.accepting = False
        self.close_box()

    def close_box(self) -> None:
        """The trace is out, or there will be none."""
        if self.box is not None:
            self.box.close()
            self.box = None

    # --- procs -----------------------------------------------------------------------------------

    def new_proc(self, kind: ProcKind, name: str) -> Proc:
        """A proc that writes for the current thread."""
        return self._add(
            Proc(
                self,
                self._proc_numbers(),
                kind,
                name,
                threading.get_native_id(),
                self.buffer_events,
            )
        )

    def _add(self, proc: Proc) -> Proc:
        self.procs[proc.number] = proc
        return proc

    def proc_of_thread(self) -> Proc:
        """The proc of the current thread; a thread that has none gets one."""
        proc = local.proc
        if proc is None or proc.session is not self or not proc.live:
            thread = threading.current_thread()
            proc = local.proc = self.new_proc(ProcKind.THREAD, thread.name)
            self._threads[proc.number] = thread
            proc.start()
        return proc

    def end_procs_of_dead_threads(self) -> None:
        """Nobody tells when a thread ends, so this is asked for from time to time."""
        for number, thread in list(self._threads.items()):
            if not thread.is_alive():
                del self._threads[number]
                proc = self.procs.get(number)
                if proc is not None and proc.live:
                    proc.stop()

    def open_annotations(self) -> set[int]:
        """Numbers of the spans and regions that have begun in this session and not ended."""
        found = set(self.open_spans)
        if native is not None:
            found |= (
                native.open_annotations()
            )  # when the session ends they are put into `open_spans`
        for innermost in list(self.open_regions.values()):
            region: Region | None = innermost
            while region is not None:
                found.add(region.id)
                region = region.below
        return found

    # --- the full queue and the empty list -------------------------------------------------------

    def take_empty(self, proc: Proc) -> Buffer | LossCause:
        """An empty buffer for a block of ``proc``, or why it must be dropped. Any thread, any hook."""
        if len(self._sealed) + self._queued >= self.queue_buffers:
            return LossCause.QUEUE_FULL if self.had_reader else LossCause.NO_READER
        try:
            return self._empty.pop()
        except IndexError:
            return Buffer(self.new_records())

    def submit(self, buffer: Buffer) -> None:
        """Queue a sealed buffer and wake the reader's run. Any thread, any hook.

        Raises:
          MemoryError: it is not queued.
        """
        self._sealed.append(buffer)
        try:
            self.buffers += 1
            self.call_reader(self._feed)
        except MemoryError:  # the pacer tries again
            pass

    def wake_reader(self) -> None:
        """Have sealed buffers moved to where the reader finds them, if there are any left."""
        if self._sealed:
            self.call_reader(self._feed)

    def call_reader(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called soon in the run in which the reader lives; nothing, where there is none."""
        reader = self._reader
        if reader is not None:
            with contextlib.suppress(*GONE):
                reader.run_sync_soon(callback, idempotent=True)

    def take_spare(self) -> AnyRecords:
        """Empty records for a block that is to be dropped."""
        try:
            return self._spare.pop()
        except IndexError:
            return self.new_records()

    def give_back(self, records: AnyRecords) -> None:
        """What `take_spare` gave."""
        records.clear()
        self._spare.append(records)

    def drop_late(self, records: AnyRecords) -> None:
        """What was emitted after the end."""
        late = self.new_records()
        records.take(records.events, late)
        self.dropped_late += late.events

    def recycle(self, buffer: Buffer) -> None:
        """Put a buffer that was read back on the empty list."""
        buffer.clear()
        self._empty.append(buffer)

    def _feed(self) -> None:
        """In the reader's run: from the sealed list into the channel."""
        with self._feeding:
            if not self.reader_is_here:  # called for a reader that was here before
                return
            try:
                while self._sealed and self._queued < self.queue_buffers:
                    self._full.send_nowait(self._sealed[0])
                    self._sealed.popleft()
                    self._queued += 1
            except (trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
                return
            except MemoryError:  # in trio's own task: raised there, it would end the program
                return
            if self.draining and not self._sealed:
                self._full.close()

    def attach_reader(self, token: trio.lowlevel.TrioToken | None = None) -> None:
        """The current run reads from here on, or that with this token, which is about to."""
        with self._feeding:
            self._reader = token or trio.lowlevel.current_trio_token()
            self.had_reader = True
        self._feed()

    async def next_full(self) -> Buffer | None:
        """The oldest full buffer, waiting for it; None once the session is drained. A cancelled wait loses nothing."""
        try:
            buffer = await self._take.receive()
        except trio.EndOfChannel:
            return None
        self._queued -= 1
        self._feed()
        return buffer

    def next_full_nowait(self) -> Buffer | None:
        """The oldest full buffer, if there is one."""
        try:
            buffer = self._take.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            return None
        self._queued -= 1
        self._feed()
        return buffer

    @property
    def reader_is_here(self) -> bool:
        """Whether the current run is the one that reads."""
        return self._reader is not None and in_run(self._reader)

    @property
    def reader_alive(self) -> bool:
        """Whether a run that has read is still there to read on."""
        reader = self._reader
        if reader is None:
            return False
        try:
            reader.run_sync_soon(_nothing, idempotent=True)
        except GONE:
            return False
        return True

    @contextlib.contextmanager
    def unless_reader_dies(self, give_up: Callable[[], None]) -> Iterator[None]:
        """Call ``give_up``, in a thread, when the reader's run has been over for two beats: time to pass it on."""
        if self.reader_is_here:
            yield
            return
        dead = 0

        def beat() -> None:
            nonlocal dead
            dead = 0 if self.reader_alive else dead + 1
            if dead == 2:
                give_up()

        watch = Pacer(beat)
        watch.start()
        try:
            yield
        finally:
            watch.stop()

    # --- the end ---------------------------------------------------------------------------------

    def seal_all(self) -> dict[int, int]:
        """Hand over what every proc has so far; returns how many events of each that makes."""
        procs = list(self.procs.values())
        for proc in procs:
            proc.seal(everything=True)
        return {proc.number: proc.sealed for proc in procs}

    def drain(self) -> None:
        """Seal what every proc still has; nothing that comes later counts."""
        self.open = False
        for proc in list(self.procs.values()):
            for _ in range(3):  # memory may have run out
                proc.seal(everything=True, wait=True)
        self.accepting = False
        for proc in list(self.procs.values()):  # whoever still found it open is through
            proc.wait_for_seal()
        self.draining = True
        self.call_reader(self._feed)

    def abandon_in_child(self) -> None:
        """In a forked child: the stream is the parent's."""
        self.open = self.accepting = False
        self._reader = None
        self._sealed.clear()

    def abandon(self) -> list[Buffer]:
        """Buffers that no reader will come for."""
        left = [*self._sealed]
        self._sealed.clear()
        try:
            while True:
                left.append(self._take.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            pass
        self._queued = 0
        self._empty.clear()
        return left

    def late(self) -> int:
        """Events that were emitted after the end, and dropped."""
        return self.dropped_late + sum(
            proc.emitted - proc.sealed for proc in list(self.procs.values())
        )


def _nothing() -> None:
    """Asks a token whether its run is still there."""


if native is not None:
    native.sessions(Session)
