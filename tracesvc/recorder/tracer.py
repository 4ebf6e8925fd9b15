"""The tracer: Go's StartTrace, StopTrace and ReadTrace, in structured concurrency.

Tasks stand in for Ps and goroutines, a memory channel for the full queue, a `trio.Event` for ``shutdownSema``: `stop`
waits for it, and `read` sets it when it has returned its final None.  The states are OFF, ON, DRAINING, OFF.
"""

from __future__ import annotations

import contextlib
import enum
import os
import threading
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final, Unpack

import trio

from tracesvc.events import (
    LossCause,
    ProcKind,
    StepStart,
    StepYield,
)
from tracesvc.format.frames import Frame
from tracesvc.recorder.annotations import recording, repairs, writing_to
from tracesvc.recorder.beat import Beat
from tracesvc.recorder.choice import groups_of
from tracesvc.recorder.clock import now
from tracesvc.recorder.drain import Drain
from tracesvc.recorder.errors import ReaderBusyError, TracerBusyError
from tracesvc.recorder.garbage import GarbageEvents
from tracesvc.recorder.hooks import RunHooks
from tracesvc.recorder.meter import Meter
from tracesvc.recorder.objects import Objects
from tracesvc.recorder.options import OptionKeywords, Options, Way
from tracesvc.recorder.pacer import Pacer
from tracesvc.recorder.present import record_present
from tracesvc.recorder.proc import Buffer, Proc
from tracesvc.recorder.regulator import Regulator
from tracesvc.recorder.seams import Seams, in_own_thread
from tracesvc.recorder.session import Session, local
from tracesvc.recorder.source import source
from tracesvc.recorder.statistics import ProcStatistics, TracerStatistics
from tracesvc.recorder.structure import Structure
from tracesvc.recorder.tree import (
    in_any_run,
    in_any_task,
    in_run,
    task_id,
)
from tracesvc.recorder.watchdog import Watchdog

__all__ = ["Tracer", "TracerState", "current_tracer"]

PATIENCE: Final = 100
"""times in a row that the reader may find no memory before it gives up"""
LONGEST_STEP: Final = 200_000
"""ns that a step of the reader takes at most, however far behind it is"""


class TracerState(enum.Enum):
    """`tracesvc.recorder.tracer.Tracer` goes OFF -> ON -> DRAINING -> OFF."""

    OFF = "OFF"
    ON = "ON"
    DRAINING = "DRAINING"


class Tracer:
    """Records the trio runs of this process into a stream of frames.

    Most programs use `tracesvc.open_tracer`; this is what lies below it.  One tracer at a time is ON or DRAINING in a
    process.  It takes the options of `tracesvc.recorder.options.Options`.

    Raises:
      ValueError: an option is out of its range.
    """

    def __init__(self, **options: Unpack[OptionKeywords]) -> None:
        self._options: Final = Options(**options)
        self._way: Way | None = None
        self.state = TracerState.OFF
        self._session: Session | None = None
        self._drain: Drain | None = None
        self._seams: Seams | None = None
        self._structure: Structure | None = None
        self._objects: Objects | None = None
        self._garbage: GarbageEvents | None = None
        self._pacer: Pacer | None = None
        self._runs: list[RunHooks] = []
        self._drained: tuple[trio.lowlevel.TrioToken, trio.Event] | None = None
        self._reading = False
        self._lent: Buffer | None = None
        self._held: Buffer | None = None
        self._pieces: Iterator[list[Frame]] | None = None
        self._header_written = self._footer_written = False
        self._starved = 0  # times in a row that there was no memory
        self._encoded = 0
        """when the last step of the reader ended"""
        self._watchdog: Watchdog | None = None
        self._beat: Beat | None = None
        self._regulator: Regulator | None = None
        self._repairs_before: Tally[str] = Tally()
        self._when_off: list[Callable[[], None]] = []
        self.delivered = False
        """`open_tracer` reads this session and hands it out"""
        self.joinable = False
        """whether its frames are to be handed to sinks, so that others can join; else they are read by hand"""
        self.on_beat: Callable[[], None] | None = None
        """called in the pacer's thread, about four times a second; for what hands frames on"""
        self.sinks: Callable[[], tuple[Any, ...]] = tuple
        """gives the statistics of the sinks"""
        self.generation_bytes = 0  # after which a generation ends before its second is over; 0: any

    # --- start -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a session; in a trio run, with a snapshot of it.

        Called from outside of trio, it records the runs that begin later.

        Raises:
          TracerBusyError: a tracer of this process is ON, or DRAINING still.
          BlackBoxError: there is no room for the black box.
        """
        with _starting:
            busy = _current.tracer
            if busy is not None:
                raise TracerBusyError(
                    f"a tracer is {busy.state.value} in this process: "
                    "join it with open_tracer(), or wait for its stop()"
                )
            _current.tracer = self
        try:
            self._start()
        except BaseException:
            recording.session = None
            if self._session is not None:
                self._session.give_up()
            self._close_hooks()
            self.state, _current.tracer = TracerState.OFF, None
            raise

    def _start(self) -> None:
        options = self._options
        way = Way.choose(options, "" if self._way is None else self._way.obstacle)
        self._way = way
        session = self._session = Session(
            options.buffer_events, options.queue_buffers, way.new_records
        )
        session.slow = options.slow
        session.open_box(options, way.native)
        choice = session.choice = options.choice()
        session.policy = options.policy(choice)
        if choice is not None and "stacks" not in choice:
            session.slow = -1
        self._structure = Structure(
            groups_of(None) if choice is None else choice.groups,
            way.native,
            None if options.redact is None else options.redact.text,
        )
        session.structure = self._structure.groups
        self._objects = Objects(session, everything=options.watch == "all")
        self._runs = []
        self._drain = self._pacer = self._beat = None
        self._regulator = None
        self._lent = self._held = self._pieces = None
        self._starved = 0
        self._reading = self._header_written = self._footer_written = False
        self._encoded = now()
        self.delivered = False
        self._repairs_before = Tally(repairs)
        limits = options.limits
        if limits is not None:
            session.meter = Meter(way)
        self._seams = Seams(session, self._new_run)
        self._garbage = None
        if choice is None or "gc" in choice:
            self._garbage = GarbageEvents(session)
        hooks = None
        if in_any_run() and not in_own_thread():
            hooks = self._enter_run(session)
        session.monotonic = now()
        self._drain = Drain(session, source(options.source_name), options.in_header)
        if limits is not None and session.meter is not None:
            self._regulator = Regulator(session, self._drain, self._runs, session.meter, limits)
        self._beat = Beat(session, self._drain, self._runs, self._on_beat, self._regulator)
        self._pacer = Pacer(self._beat)
        if options.stall_s and (choice is None or "stacks" in choice):
            limit = int(options.stall_s * 1e9)
            self._watchdog = Watchdog(limit, lambda: list(self._runs), way.native)
        if hooks is not None:
            hooks.add()
        self._seams.open()
        self._structure.open()
        if self._garbage is not None:
            self._garbage.open()
        self._pacer.start()
        if self._watchdog is not None:
            self._watchdog.start()
        self.state = TracerState.ON
        recording.session = session
        if choice is None or "counters" in choice:
            self._objects.open()

    def _on_beat(self) -> None:
        if self.on_beat is not None:
            self.on_beat()

    def record_run(self) -> None:
        """Record the current run as well, if it began before the session did, in another thread; never our own."""
        if in_own_thread():
            return
        session = self._session
        if (
            session is not None
            and session.open
            and not any(run.is_current for run in list(self._runs))
        ):
            run = self._enter_run(session)
            run.add()
            if not session.open:  # a stop() in another thread has not seen it
                run.leave()

    def _enter_run(self, session: Session) -> RunHooks:
        """Make the current run one that is recorded: a snapshot of it, and the step that is under way."""
        caller = trio.lowlevel.current_task() if in_any_task() else None  # None: a guest's host
        hooks = self._new_run()
        proc = hooks.enter()
        record_present(session, hooks, proc, caller)
        proc.start()
        if caller is not None:
            number = proc.records.running = task_id(caller)
            if session.choice is None or session.choice.has(number):
                proc.extend((StepStart.number, now(), number, 0, 0))
            hooks.recording.in_step(caller)
        return hooks

    def _new_run(self) -> RunHooks:
        assert self._session is not None
        assert self._way is not None
        hooks = self._way.hooks(self._session, self._forget_run)
        self._runs.append(hooks)
        return hooks

    def _forget_run(self, run: RunHooks) -> None:
        with contextlib.suppress(ValueError):  # it was of the session before this one
            self._runs.remove(run)
            if self._session is not None and self._session.meter is not None:
                self._session.meter.forget(run)

    # --- stop ------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def stop(self) -> None:
        """End the session and wait until the reader has had all of it; nothing, while OFF or DRAINING.

        Where no reader ever came, or its run is over, what was not read is counted as lost and this returns.
        Cancelled, it gives up on the reader in the same way.
        """
        with _starting:
            ours = self.state is TracerState.ON
            if ours:
                self.state = TracerState.DRAINING
        if not ours:
            await trio.lowlevel.checkpoint()
            return
        session = self._session
        assert session is not None
        try:
            self._finish_recording(session)
            drained = trio.Event()
            token = trio.lowlevel.current_trio_token()
            self._drained = token, drained
            session.drain()
            if session.reader_alive:
                with session.unless_reader_dies(lambda: token.run_sync_soon(drained.set)):
                    await drained.wait()
            else:
                await trio.lowlevel.checkpoint()
        finally:
            self._finish(session)

    def _finish_recording(self, session: Session) -> None:
        recording.session = None
        session.open = False
        if self._pacer is not None:  # its thread looks at runs: nothing of that after their end
            self._pacer.stop()
        if in_any_run():
            proc = local.proc
            ours = proc is not None and any(run.proc is proc for run in list(self._runs))
            if ours and proc is not None and proc.records.running:
                number, proc.records.running = proc.records.running, 0
                if session.choice is None or session.choice.has(number):
                    proc.extend((StepYield.number, now(), number, 0, 0))
                proc.stop()
        self._close_hooks()
        while now() == session.monotonic:  # a clock that ticks rarely must have moved
            pass

    def _close_hooks(self) -> None:
        if self._pacer is not None:
            self._pacer.stop()
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None
        if self._beat is not None:
            self._beat.close()
        if self._garbage is not None:
            self._garbage.close()
        if self._seams is not None:
            self._seams.close()
        if self._structure is not None:
            self._structure.close()
        if self._objects is not None:
            self._objects.close()
        for run in list(self._runs):
            run.leave()

    def _finish(self, session: Session) -> None:
        """Account for what was not read, check that nothing is left behind, let go of the buffers."""
        left = session.abandon()
        if self._held is not None:
            left.append(self._held)
        self._count_unread(left)
        self._held = self._lent = self._pieces = None
        assert not session.abandon(), "a full buffer appeared after the drain"
        session.close_box()
        with _starting:
            self.state = TracerState.OFF
            _current.tracer = None
            waiting, self._when_off = self._when_off, []
        for callback in waiting:
            callback()

    def call_when_off(self, callback: Callable[[], None]) -> None:
        """Call this once the tracer is OFF, in whatever thread; at once, if it is."""
        with _starting:
            if self.state is not TracerState.OFF:
                self._when_off.append(callback)
                return
        callback()

    def _count_unread(self, buffers: list[Buffer]) -> None:
        for buffer in buffers:
            assert buffer.proc is not None
            buffer.proc.lost[LossCause.NO_READER] += len(buffer)

    # --- read ------------------------------------------------------------------------------------

    async def read(self) -> bytes | None:
        """The next piece of the stream, one or more whole frames; None once the session is over and all was read.

        Raises:
          ReaderBusyError: another task is reading.
        """
        if self.delivered:
            raise ReaderBusyError("open_tracer() reads this trace; one reader at a time")
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
        session.attach_reader()
        full = None
        if self._header_written and self._held is None:
            full = await session.next_full()
        else:
            await trio.lowlevel.checkpoint()
        # Nothing has changed before this line: cancelled, the next call goes on from here.
        if self._session is not session or self.state is TracerState.OFF:  # stop() gave up on us
            self._count_unread([] if full is None else [full])
            return None
        if not self._header_written:
            self._header_written = True
            return drain.count([drain.header])
        if full is not None:
            self._held = full
            if drain.due(full, self.generation_bytes):
                self._pieces = drain.begin_generation()
        if self._pieces is not None:
            piece = next(self._pieces, None)
            if piece is not None:
                return drain.count(piece)
            self._pieces = None
        if self._held is not None:
            return drain.count(self._encode(session, drain, self._held), whole=True)
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

    def _encode(self, session: Session, drain: Drain, buffer: Buffer) -> list[Frame]:
        """The frames of one buffer; of several, where the program fills them faster than it lets the reader run.

        All of it is one step of the reader: for that it takes no more than a quarter of the time since the step before.
        """
        began = now()
        enough = began + min((began - self._encoded) // 4, LONGEST_STEP)
        frames: list[Frame] = []
        try:
            frames += drain.events(buffer)
            self._lent, self._held = buffer, None
            while now() < enough and (more := session.next_full_nowait()) is not None:
                self._held = more
                if drain.due(more, self.generation_bytes):
                    self._pieces = drain.begin_generation()
                    break
                frames += drain.events(more)
                session.recycle(self._lent)
                self._lent, self._held = more, None
            self._starved = 0
        except MemoryError:  # there may be more when this is called again
            self._starved += 1
            if self._starved > PATIENCE:
                raise
        self._encoded = now()
        return frames

    # --- for what hands the frames on ------------------------------------------------------------

    @property
    def has_reader(self) -> bool:
        """Whether anybody has read this session."""
        return self._session is not None and self._session.had_reader

    def attach_reader(self, token: trio.lowlevel.TrioToken | None = None) -> None:
        """The current run is the one that reads from now on, or that with this token, which is about to."""
        if self._session is not None:
            self._session.attach_reader(token)

    def seal_all(self) -> dict[int, int]:
        """Hand everything that was emitted so far to the reader; see `has_read`."""
        return {} if self._session is None else self._session.seal_all()

    def has_read(self, events: dict[int, int]) -> bool:
        """Whether what `seal_all` told of has come out of `read`, and no generation is just being begun."""
        return self._drain is None or (self._pieces is None and self._drain.has_passed(events))

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
    def black_box(self) -> Path | None:
        """The directory of its black box; None: it has none."""
        return None if self._session is None else self._session.box_path

    @property
    def header(self) -> Frame:
        """The first frame of the session's stream; for a sink that joins late."""
        assert self._drain is not None, "the tracer was never started"
        return self._drain.header

    def statistics(self) -> TracerStatistics:
        """A look at the tracer; any task, any thread."""
        session, drain = self._session, self._drain
        procs = [] if session is None else list(session.procs.values())
        lost: Tally[LossCause] = Tally()
        for proc in procs:
            lost.update(proc.lost)
        retired = 0
        if drain is not None:
            retired = drain.retired
            lost.update(drain.retired_lost)
        return TracerStatistics(
            state=self.state.value,
            session=None if session is None else session.id,
            way="direct" if self._way is not None and self._way.direct else "public",
            native=self._way is not None and self._way.native,
            missing=tuple(
                name
                for part in (self._seams, self._structure, self._objects)
                if part is not None
                for name in part.missing
            ),
            events=retired
            + sum(proc.emitted if session.open else proc.sealed for proc in procs if session),
            stored=0 if drain is None else drain.stored,
            lost={cause.name.lower(): n for cause, n in lost.items()},
            late=0 if session is None or session.open else session.late(),
            moved=0 if drain is None else drain.late,
            repairs=dict(repairs - self._repairs_before),
            buffers=0 if session is None else session.buffers,
            frames=0 if drain is None else drain.frames,
            bytes=0 if drain is None else drain.bytes,
            procs=tuple(map(ProcStatistics.of, procs)),
            sinks=self.sinks(),
            overhead=None if self._regulator is None else self._regulator.statistics(),
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
    _starting.release()
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
    if tracer._beat is not None:
        tracer._beat.close()
    if tracer._structure is not None:
        tracer._structure.close()
    if tracer._objects is not None:
        tracer._objects.close()
    tracer._when_off.clear()
    for run in list(tracer._runs):
        if (
            run.is_current
        ):  # the others' threads are not here, and their wake-up sockets are the parent's
            run.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_starting.acquire,  # so that no other thread has it, and the child does not wait for ever
        after_in_parent=_starting.release,
        after_in_child=_forget_in_child,
    )
