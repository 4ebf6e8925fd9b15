"""`open_tracer`: from one tracer to any number of sinks, in whatever runs they live.

Every ``open_tracer`` is a *member* of the process's one session: it has a nursery, in which its sinks run, each behind its
own queue.  One member, at first the one that started the tracer, also runs the reader; the reader hands each frame to
every member.  A member that leaves takes only its own sinks with it; the reader's place passes to another one, and the
last one to leave stops the tracer.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

import trio

from tracesvc.events import FrameKind, LossCause
from tracesvc.format import Frame
from tracesvc.recorder.errors import TracerBusyError
from tracesvc.recorder.pacer import real_deadline
from tracesvc.recorder.tracer import Tracer, TracerState, current_tracer
from tracesvc.recorder.tree import in_run
from tracesvc.sinks.base import Sink, SinkStatistics
from tracesvc.sinks.queue import FrameQueue

__all__ = ["deliver", "open_tracer"]

logger: Final = logging.getLogger("tracesvc")


@contextlib.asynccontextmanager
async def open_tracer(
    *sinks: Sink,
    name: str | None = None,
    buffer_events: int = 1024,
    queue_buffers: int = 256,
    drain_timeout: float = 5.0,
) -> AsyncIterator[Tracer]:
    """Trace this process into ``sinks`` while the body runs.

    If a tracer is running already, opened in this way, the sinks join its session at its next generation, and the other
    options are those it was opened with.  On the way out, whatever way that is, everything recorded so far is handed to
    the sinks and they get ``drain_timeout`` seconds of real time to put it away; what is not away then is counted as
    lost.  An exception of the body leaves as it is.

    Args:
      sinks: where the trace goes; each has its own bounded queue, and one that fails or stalls disturbs no other.
      name: what the program is called in the trace; by default the name of its script.
      buffer_events: events in a full buffer, 16 to 65,536.
      queue_buffers: full buffers that may wait for the reader; what comes when there is no room is dropped and counted.
      drain_timeout: seconds.

    Raises:
      TypeError: an argument is no `Sink`.
      ValueError: an option is out of its range.
      TracerBusyError: a `Tracer` was started in this process by hand; there is no way to join it.
    """
    if not drain_timeout > 0:
        raise ValueError(f"drain_timeout must be positive, not {drain_timeout}")
    for sink in sinks:
        if not isinstance(sink, Sink):
            raise TypeError(f"open_tracer() takes sinks, such as FileSink(path); {sink!r} is none")
    await trio.lowlevel.checkpoint()
    while True:
        tracer = current_tracer()
        if tracer is None:
            tracer = Tracer(name=name, buffer_events=buffer_events, queue_buffers=queue_buffers)
            try:
                tracer.start()
            except TracerBusyError:
                continue  # another thread was faster; join it
        delivery = _Delivery.of(tracer)
        if delivery is not None:
            break
        await _wait_until_over(tracer)
    async with _member(delivery, sinks, drain_timeout):
        yield tracer


@contextlib.asynccontextmanager
async def deliver(tracer: Tracer, *sinks: Sink, drain_timeout: float = 5.0) -> AsyncIterator[None]:
    """Hand what a tracer that is ON records to ``sinks``, from the current run; stop it on leaving, as the last member."""
    delivery = _Delivery.of(tracer)
    if delivery is None:
        raise TracerBusyError("this tracer is not ON, or its frames are read by hand")
    async with _member(delivery, sinks, drain_timeout):
        yield


@contextlib.asynccontextmanager
async def _member(delivery: _Delivery, sinks: tuple[Sink, ...], drain_timeout: float) -> AsyncIterator[None]:
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            member = _Member(delivery, nursery, sinks)
            try:
                yield
            except BaseException as exc:
                failure = exc
            await member.leave(drain_timeout)
        if failure is not None:
            raise failure  # outside of our nursery, which would have wrapped it
    finally:
        del failure


async def _wait_until_over(tracer: Tracer) -> None:
    """Until a tracer that drains is OFF."""
    if tracer.state is TracerState.ON:
        raise TracerBusyError("a Tracer was started in this process by hand; open_tracer() cannot join it")
    over = trio.Event()
    token = trio.lowlevel.current_trio_token()
    delivery = _Delivery.find(tracer)
    if delivery is None or not delivery.when_over(token, over):
        await trio.lowlevel.checkpoint()
    else:
        await over.wait()


class _Delivery:
    """The members of one session."""

    _lock: Final = threading.RLock()
    _current: _Delivery | None = None

    def __init__(self, tracer: Tracer) -> None:
        self.tracer: Final = tracer
        self.members: list[_Member] = []
        self.reader: _Member | None = None
        self.over = False
        self._waiting: list[tuple[trio.lowlevel.TrioToken, trio.Event]] = []

    @classmethod
    def of(cls, tracer: Tracer) -> _Delivery | None:
        """The delivery of a tracer that is ON; None if it drains already, or its frames are read by hand."""
        with cls._lock:
            if tracer.state is not TracerState.ON:
                return None
            if cls._current is not None and cls._current.tracer is tracer and not cls._current.over:
                return cls._current
            if tracer.has_reader:
                return None
            cls._current = delivery = cls(tracer)
            tracer.on_beat = delivery.beat
            tracer.sinks = delivery.statistics
            return delivery

    @classmethod
    def find(cls, tracer: Tracer) -> _Delivery | None:
        return cls._current if cls._current is not None and cls._current.tracer is tracer else None

    def when_over(self, token: trio.lowlevel.TrioToken, event: trio.Event) -> bool:
        """Have ``event`` set when the session is over; False if it is already."""
        with self._lock:
            if self.tracer.state is TracerState.OFF:
                return False
            self._waiting.append((token, event))
            return True

    def session_over(self) -> None:
        with self._lock:
            self.over = True
            waiting, self._waiting = self._waiting, []
        for token, event in waiting:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(event.set)

    def beat(self) -> None:
        """In the pacer's thread: have what is queued written."""
        for member in list(self.members):
            member.call(member.tick)

    def statistics(self) -> tuple[SinkStatistics, ...]:
        return tuple(sink.statistics() for member in list(self.members) for sink in member.sinks)

    def hand_out(self, frames: list[Frame] | None) -> None:
        """In the reader's run. None: the session is over."""
        for member in list(self.members):
            member.take(frames)

    def join(self, member: _Member) -> bool:
        """Whether the new member is the reader."""
        with self._lock:
            self.members.append(member)
            if self.reader is None:
                self.reader = member
                return True
        self.tracer.new_generation()
        return False

    def remove(self, member: _Member) -> None:
        with self._lock:
            if member in self.members:
                self.members.remove(member)

    def pass_reader(self, member: _Member) -> None:
        """``member``, which has the reader's place, stopped reading: another one is to go on."""
        with self._lock:
            if self.reader is member:
                self.reader = next((other for other in self.members if other is not member), None)
                if self.reader is not None:
                    self.reader.call(self.reader.read_from_now_on)


class _Member:
    """One ``open_tracer``: its sinks, their queues, and maybe the reader."""

    def __init__(self, delivery: _Delivery, nursery: trio.Nursery, sinks: tuple[Sink, ...]) -> None:
        self.sinks: Final = sinks
        self._delivery: Final = delivery
        self._nursery: Final = nursery
        self._token: Final = trio.lowlevel.current_trio_token()
        self._queues: Final = [FrameQueue() for _ in sinks]
        self._inbox: Final[deque[list[Frame] | None]] = deque()
        self._waits_for_generation = True
        self._leaving: int | None = None
        """number of the last buffer that our stream is to have"""
        self._parted = False
        self._reads = False
        self._ended = False
        self._done: Final = trio.Event()
        self._running = len(sinks)
        self._scopes: Final[list[trio.CancelScope]] = []
        self._reader_scope: Final = trio.CancelScope(shield=True)
        """shielded: a cancelled program is still to be drained; `leave` cancels it"""
        self._reader_gone: Final = trio.Event()
        for queue in self._queues:
            queue.put(delivery.tracer.header)
        for sink, queue in zip(sinks, self._queues, strict=True):
            nursery.start_soon(self._run_sink, sink, queue, name=f"tracesvc sink {sink.name}")
        if not sinks:
            self._done.set()
        if delivery.join(self):
            self.read_from_now_on()

    def call(self, function: object) -> None:
        """Call in this member's run, soon."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function, idempotent=True)  # type: ignore[arg-type]

    # --- frames ----------------------------------------------------------------------------------

    def take(self, frames: list[Frame] | None) -> None:
        """In the reader's run, which may not be this member's. None: the session is over."""
        if self._parted:
            return
        self._inbox.append(frames)
        tracer = self._delivery.tracer
        if frames is not None and self._leaving is not None and tracer.buffers_read >= self._leaving:
            self._parted = True
            self._inbox.append(tracer.farewell())
            self._inbox.append(None)
        if in_run(self._token):
            self._unpack()
        else:
            self.call(self._unpack)

    def _unpack(self) -> None:
        while self._inbox:
            frames = self._inbox.popleft()
            if frames is None:
                self._end()
                return
            for frame in frames:
                if self._waits_for_generation:
                    if frame.kind != FrameKind.GENERATION:
                        continue  # a stream begins with a whole generation
                    self._waits_for_generation = False
                for queue in self._queues:
                    queue.put(frame)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            for queue in self._queues:
                queue.finish()

    def tick(self) -> None:
        for queue in self._queues:
            queue.tick()

    # --- tasks -----------------------------------------------------------------------------------

    def read_from_now_on(self) -> None:
        """In this member's run: take the reader's place."""
        if self._reads:
            return
        self._reads = True
        self._delivery.tracer.attach_reader()
        self._nursery.start_soon(self._read, name="tracesvc reader")

    async def _read(self) -> None:
        over = False
        try:
            with self._reader_scope:
                while (frames := await self._delivery.tracer.read_frames()) is not None:
                    self._delivery.hand_out(frames)
                over = True
        except Exception:
            logger.exception("tracesvc: the reader failed; this trace ends here")
            over = True
        finally:
            self._reader_gone.set()
            if over:
                self._delivery.hand_out(None)
            else:
                self._delivery.pass_reader(self)

    async def _run_sink(self, sink: Sink, queue: FrameQueue) -> None:
        try:
            with trio.CancelScope(shield=True) as scope:
                self._scopes.append(scope)
                await sink.run(queue)
            if scope.cancelled_caught:
                queue.close(LossCause.SINK_FULL, "the sink did not finish in time")
                logger.error("tracesvc: sink %s did not finish in time; what it had left is lost", sink.name)
            elif not self._ended:
                queue.close(LossCause.SINK_FAILED, "the sink returned before the end")
        except Exception as exc:
            queue.close(LossCause.SINK_FAILED, str(exc))
            logger.error("tracesvc: sink %s failed and was dropped: %s", sink.name, exc)
        finally:
            self._running -= 1
            if not self._running:
                self._done.set()

    # --- the end ---------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def leave(self, timeout: float) -> None:
        """Everything emitted so far reaches the sinks, and they end; takes at most ``timeout`` seconds of real time."""
        delivery, tracer = self._delivery, self._delivery.tracer
        try:
            with trio.CancelScope(shield=True) as scope, real_deadline(scope, timeout):
                with delivery._lock:
                    last = len(delivery.members) == 1
                    if last:
                        delivery.over = True
                        if delivery.reader is self:  # it may have been passed to us a moment ago
                            self.read_from_now_on()
                if last:
                    try:
                        await tracer.stop()
                    finally:
                        delivery.session_over()
                else:
                    self._leave_running(tracer)
                await self._done.wait()
        finally:
            # our tasks are shielded from the program's cancellation: whatever happened, they end here
            for sink_scope in self._scopes:
                sink_scope.cancel()
            self._end()
            with trio.CancelScope(shield=True):
                await self._done.wait()
                delivery.remove(self)
                if self._reads:
                    self._reader_scope.cancel()
                    await self._reader_gone.wait()

    def _leave_running(self, tracer: Tracer) -> None:
        """The others go on: end our stream once what was emitted up to now has come by."""
        self._leaving = tracer.seal_all()
        reader = self._delivery.reader
        if reader is not None:
            reader.call(self._check_leaving)

    def _check_leaving(self) -> None:
        """In the reader's run: it may all have come by already."""
        self.take([])
