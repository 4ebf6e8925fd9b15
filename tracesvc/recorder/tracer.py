"""The tracer: Go's StartTrace, StopTrace and ReadTrace, in structured concurrency.

Tasks stand in for Ps and goroutines, a memory channel for the full queue, a `trio.Event` for ``shutdownSema``: `stop`
waits for it, and `read` sets it when it has returned its final None.  The states are OFF, ON, DRAINING, OFF.
"""

from __future__ import annotations

import contextlib
import enum
import os
import platform
import socket
import sys
import threading
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import trio

from tracesvc.events import Counter, ProcKind, StepStart, StepYield, TaskWaiting
from tracesvc.format.frames import Frame
from tracesvc.recorder.annotations import open_annotations, recording, repairs, writing_to
from tracesvc.recorder.clock import now
from tracesvc.recorder.drain import Drain
from tracesvc.recorder.errors import ReaderBusyError, TracerBusyError
from tracesvc.recorder.garbage import GarbageEvents
from tracesvc.recorder.hooks import RunHooks
from tracesvc.recorder.pacer import Pacer, ResidentMemory
from tracesvc.recorder.proc import Buffer, Proc
from tracesvc.recorder.seams import Seams
from tracesvc.recorder.session import Session, local
from tracesvc.recorder.statistics import ProcStatistics, TracerStatistics
from tracesvc.recorder.tree import create_record, in_run, is_suspended, live_tasks, task_id
from tracesvc.recorder.reasons import reason_of

__all__ = ["Tracer", "TracerState", "current_tracer"]

RSS: Final = "process.rss"
"""counter: bytes of memory that the process has resident"""
OLD: Final = 1_000_000_000
"""ns after which a buffer is handed over though it is not full"""
RSS_STEP: Final = 64 << 10


class TracerState(enum.Enum):
    """`tracesvc.recorder.tracer.Tracer` goes OFF -> ON -> DRAINING -> OFF."""

    OFF = "OFF"
    ON = "ON"
    DRAINING = "DRAINING"


class Tracer:
    """Records the trio runs of this process into a stream of frames.

    Most programs use `tracesvc.open_tracer`; this is what lies below it.  One tracer at a time is ON or DRAINING in a
    process.  Buffers have ``buffer_events`` events; at most ``queue_buffers`` full ones wait for the reader, what comes
    when there is no room is dropped and accounted for.  ``name`` is the source's, by default that of the script.

    Raises:
      ValueError: an option is out of its range.
    """

    def __init__(self, *, name: str | None = None, buffer_events: int = 1024, queue_buffers: int = 256) -> None:
        if not 16 <= buffer_events <= 1 << 16:
            raise ValueError(f"buffer_events must be between 16 and 65536, not {buffer_events}")
        if not 2 <= queue_buffers <= 1 << 16:
            raise ValueError(f"queue_buffers must be between 2 and 65536, not {queue_buffers}")
        self._name: Final = name or _program_name()
        self._buffer_events: Final = buffer_events
        self._queue_buffers: Final = queue_buffers
        self.state = TracerState.OFF
        self._session: Session | None = None
        self._drain: Drain | None = None
        self._seams: Seams | None = None
        self._garbage: GarbageEvents | None = None
        self._pacer: Pacer | None = None
        self._runs: list[RunHooks] = []
        self._drained: tuple[trio.lowlevel.TrioToken, trio.Event] | None = None
        self._reading = False
        self._lent: Buffer | None = None
        self._held: Buffer | None = None
        self._pieces: Iterator[list[Frame]] | None = None
        self._header_written = self._footer_written = False
        self._undelivered = 0
        self._stored = 0
        self._memory: ResidentMemory | None = None
        self._rss = 0
        self._repairs_before: Tally[str] = Tally()
        self._last_trees = 0
        self.on_beat: Callable[[], None] | None = None
        """called in the pacer's thread, about four times a second; for what hands frames on"""
        self.sinks: Callable[[], tuple[Any, ...]] = tuple
        """gives the statistics of the sinks"""

    # --- start -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a session; in a trio run, with a snapshot of it.

        Called from outside of trio, it records the runs that begin later.

        Raises:
          TracerBusyError: a tracer of this process is ON, or DRAINING still.
        """
        with _starting:
            busy = _current.tracer
            if busy is not None:
                raise TracerBusyError(
                    f"a tracer is {busy.state.value} in this process: join it with open_tracer(), or wait for its stop()"
                )
            _current.tracer = self
        try:
            self._start()
        except BaseException:
            self._close_hooks()
            self.state, _current.tracer = TracerState.OFF, None
            raise

    def _start(self) -> None:
        session = self._session = Session(self._buffer_events, self._queue_buffers)
        self._runs = []
        self._lent = self._held = self._pieces = None
        self._reading = self._header_written = self._footer_written = False
        self._undelivered = self._stored = 0
        self._repairs_before = Tally(repairs)
        self._seams = Seams(session, self._new_run)
        self._garbage = GarbageEvents(session)
        hooks = None
        if trio.lowlevel.in_trio_run():
            hooks = self._new_run()
            proc = hooks.enter()
            self._snapshot(session, proc)
            proc.start()
            proc.extend((StepStart.number, now(), task_id(trio.lowlevel.current_task()), 0, 0))
            proc.running = task_id(trio.lowlevel.current_task())
        session.monotonic = now()
        self._drain = Drain(session, _source(self._name), {"buffer_events": self._buffer_events})
        self._memory, self._rss = ResidentMemory(), 0
        self._pacer = Pacer(self._beat)
        if hooks is not None:
            trio.lowlevel.add_instrument(hooks)
        self._seams.open()
        self._garbage.open()
        recording.session = session
        self.state = TracerState.ON
        self._pacer.start()

    def _snapshot(self, session: Session, proc: Proc) -> None:
        """Every live task of this run as if it had just come to be, and what is open in it."""
        caller = trio.lowlevel.current_task()
        contexts = []
        for task in live_tasks():
            proc.extend(create_record(task, now()))
            if task is not caller and is_suspended(task):
                proc.extend((TaskWaiting.number, now(), task_id(task), *reason_of(task)))
            contexts.append((task_id(task), task.context))
            if len(proc.records) >= proc.capacity:
                proc.seal()
        open_annotations(session, proc, contexts)

    def _new_run(self) -> RunHooks:
        assert self._session is not None
        hooks = RunHooks(self._session)
        self._runs.append(hooks)
        return hooks

    # --- stop ------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """End the session and wait until the reader has had all of it; nothing, while OFF or DRAINING.

        Where no reader ever came, or its run is over, what was not read is counted as lost and this returns.  Cancelled,
        it gives up on the reader in the same way.
        """
        if self.state is not TracerState.ON:
            await trio.lowlevel.checkpoint()
            return
        session = self._session
        assert session is not None
        self._finish_recording(session)
        drained = trio.Event()
        self._drained = trio.lowlevel.current_trio_token(), drained
        self.state = TracerState.DRAINING
        session.drain()
        try:
            if session.reader_alive:
                await drained.wait()
            else:
                await trio.lowlevel.checkpoint()
        finally:
            self._finish(session)

    def _finish_recording(self, session: Session) -> None:
        recording.session = None
        if trio.lowlevel.in_trio_run():
            proc = next((run.proc for run in self._runs if run.proc is not None and run.proc is local.proc), None)
            if proc is not None and proc.running:
                proc.extend((StepYield.number, now(), proc.running, 0, 0))
                proc.running = 0
                proc.stop()
        self._close_hooks()
        while now() == session.monotonic:  # a clock that ticks rarely must have moved
            pass

    def _close_hooks(self) -> None:
        if self._pacer is not None:
            self._pacer.stop()
        if self._memory is not None:
            self._memory.close()
        if self._garbage is not None:
            self._garbage.close()
        if self._seams is not None:
            self._seams.close()
        for run in self._runs:
            run.leave()

    def _finish(self, session: Session) -> None:
        """Account for what was not read, check that nothing is left behind, let go of the buffers."""
        left = session.abandon()
        for buffer in (self._held, self._lent):
            if buffer is not None and buffer.records and not self._footer_written:
                left.append(buffer)
        assert self._drain is not None
        self._undelivered += self._drain.undelivered(left)
        self._held = self._lent = self._pieces = None
        assert not session.abandon(), "a full buffer appeared after the drain"
        self.state = TracerState.OFF
        _current.tracer = None

    # --- read ------------------------------------------------------------------------------------

    async def read(self) -> bytes | None:
        """The next piece of the stream, one or more whole frames; None once the session is over and all was read.

        Raises:
          ReaderBusyError: another task is reading.
        """
        frames = await self.read_frames()
        return None if frames is None else b"".join(frame.data for frame in frames)

    async def read_frames(self) -> list[Frame] | None:
        """`read`, frame by frame."""
        session, drain = self._session, self._drain
        if self._reading:
            raise ReaderBusyError("another task is reading this trace; one reader at a time")
        if session is None or drain is None or self.state is TracerState.OFF:
            await trio.lowlevel.checkpoint()
            return None
        self._reading = True
        try:
            while True:
                frames = await self._next_frames(session, drain)
                if frames is None or frames:
                    return frames
        finally:
            self._reading = False

    async def _next_frames(self, session: Session, drain: Drain) -> list[Frame] | None:
        """One piece of work of under a millisecond; [] if it gave no frame. In the order of Go's ReadTrace."""
        if self._lent is not None:
            session.recycle(self._lent)
            self._lent = None
        if not self._header_written:
            self._header_written = True
            session.attach_reader()
            await trio.lowlevel.checkpoint()
            return drain.count([drain.header])
        if self._pieces is not None:
            await trio.lowlevel.checkpoint()
            piece = next(self._pieces, None)
            if piece is not None:
                return drain.count(piece)
            self._pieces = None
        if self._held is None:
            session.attach_reader()
            self._held = await session.next_full()
            if self._held is not None and drain.due(self._held):
                self._pieces = drain.begin_generation()
                return drain.count(next(self._pieces))
        else:
            await trio.lowlevel.checkpoint()
        if self._held is not None:
            frames = drain.count(drain.events(self._held))
            self._stored += len(self._held)
            self._lent, self._held = self._held, None
            return frames
        if not self._footer_written:
            self._footer_written = True
            return drain.count(drain.footer())
        if self._drained is not None:
            token, drained = self._drained
            if in_run(token):
                drained.set()
            else:  # stop() was called in another run
                with contextlib.suppress(trio.RunFinishedError):
                    token.run_sync_soon(drained.set)
        return None

    # --- by the clock ----------------------------------------------------------------------------

    def _beat(self) -> None:
        """In the pacer's thread."""
        session = self._session
        if session is None or not session.open:
            return
        session.end_procs_of_dead_threads()
        rss = self._memory.read() if self._memory is not None else 0
        if abs(rss - self._rss) >= RSS_STEP:
            self._rss = rss
            session.process.extend((Counter.number, now(), RSS, float(rss), 0))
        old = now() - OLD
        for proc in list(session.procs.values()):
            with contextlib.suppress(IndexError):  # its owner sealed it meanwhile
                if proc.records[1] <= old:
                    proc.seal(everything=True)
            if proc.stale and old >= self._last_trees:
                self._ask_for_tasks(proc)
        if self.on_beat is not None:
            self.on_beat()

    def _ask_for_tasks(self, proc: Proc) -> None:
        """After a loss: have the run's tasks read anew, at most once a second."""
        session, drain = self._session, self._drain
        for run in self._runs:
            if run.proc is proc and session is not None and drain is not None:
                self._last_trees = now()
                run.read_tasks(lambda tree, number=proc.number: drain.repair(number, tree))

    # --- for what hands the frames on ------------------------------------------------------------

    @property
    def has_reader(self) -> bool:
        """Whether anybody has read this session."""
        return self._session is not None and self._session.had_reader

    def attach_reader(self) -> None:
        """The current run is the one that reads, from now on."""
        if self._session is not None:
            self._session.attach_reader()

    def seal_all(self) -> int:
        """Hand everything that was emitted so far to the reader; compare `buffers_read` with the number returned."""
        return 0 if self._session is None else self._session.seal_all()

    @property
    def buffers_read(self) -> int:
        """Buffers that have come out of `read` as frames."""
        return 0 if self._drain is None else self._drain.buffers

    def farewell(self) -> list[Frame]:
        """What ends the stream of a sink that leaves while the session goes on."""
        return [] if self._drain is None else self._drain.farewell()

    def new_generation(self) -> None:
        """Begin a generation with the next buffer: somebody joined."""
        if self._drain is not None:
            self._drain.rotate = True

    # --- for the program -------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def proc(self, name: str) -> AsyncIterator[Proc | None]:
        """A proc of the calling task's own: what it and its children annotate goes into its buffers.

        Scheduler events stay with the run's proc.  None while the tracer is not ON.
        """
        session = self._session
        if session is None or not session.open or self.state is not TracerState.ON:
            yield None
            return
        proc = session.new_proc(ProcKind.TASK, name)
        proc.start()
        try:
            with writing_to(proc):
                yield proc
        finally:
            if session.open:
                proc.stop()

    @property
    def header(self) -> Frame:
        """The first frame of the session's stream; for a sink that joins late."""
        assert self._drain is not None, "the tracer was never started"
        return self._drain.header

    def statistics(self) -> TracerStatistics:
        """A look at the tracer; any task, any thread."""
        session, drain = self._session, self._drain
        procs = [] if session is None else list(session.procs.values())
        lost: Tally[str] = Tally()
        for proc in procs:
            lost.update({cause.name.lower(): n for cause, n in proc.lost.items()})
        retired = (0, 0) if drain is None else drain.retired
        return TracerStatistics(
            state=self.state.value,
            session=None if session is None else session.id,
            way="public",
            missing=() if self._seams is None else tuple(self._seams.missing),
            events=retired[0] + sum(proc.emitted if session.open else proc.sealed for proc in procs if session),
            stored=self._stored,
            lost=dict(lost),
            late=0 if session is None or session.open else session.late(),
            moved=0 if drain is None else drain.late,
            repairs=dict(repairs - self._repairs_before),
            buffers=0 if session is None else session.buffers,
            frames=0 if drain is None else drain.frames,
            bytes=0 if drain is None else drain.bytes,
            procs=tuple(
                ProcStatistics(
                    proc.number,
                    proc.kind.name.lower(),
                    proc.name,
                    proc.emitted,
                    {cause.name.lower(): n for cause, n in proc.lost.items()},
                    proc.live,
                )
                for proc in procs
            ),
            sinks=self.sinks(),
        )


class _Current:
    tracer: Tracer | None = None


_current: Final = _Current()
_starting: Final = threading.RLock()


def current_tracer() -> Tracer | None:
    """The tracer that is ON or DRAINING in this process, if there is one."""
    return _current.tracer


def _forget_in_child() -> None:
    """After a fork the child is OFF: it has none of the tracer's threads, and the stream belongs to the parent."""
    tracer = _current.tracer
    recording.session = None
    _current.tracer = None
    local.proc = None
    if tracer is None or tracer._session is None:
        return
    tracer.state = TracerState.OFF
    tracer._session.open = False
    tracer._session.abandon_in_child()
    if tracer._garbage is not None:
        tracer._garbage.close()
    if tracer._seams is not None:
        tracer._seams.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


def _program_name() -> str:
    script = sys.argv[0] if sys.argv else ""
    return Path(script).name or "python"


def _source(name: str) -> dict[str, Any]:
    """What a header says of the traced program."""
    return {
        "name": name,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "trio": trio.__version__,
        "tracesvc": metadata.version("tracesvc"),
    }


