"""`open_tracer`: from one tracer to any number of sinks, in whatever runs they live.

Every ``open_tracer`` is a *member* of the process's one session: it has a nursery, in which its sinks run, each behind
its own queue.  One member, at first the one that started the tracer, also runs the reader; the reader hands each frame
to every member.  A member that leaves takes only its own sinks with it; the reader's place passes to another one, and
the last one to leave stops the tracer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Unpack

import trio

from tracesvc.events import FrameKind, LossCause
from tracesvc.format import Frame
from tracesvc.recorder.errors import TracerBusyError
from tracesvc.recorder.options import OptionKeywords, Options
from tracesvc.recorder.pacer import real_deadline
from tracesvc.recorder.tracer import Tracer, TracerState, current_tracer
from tracesvc.recorder.tree import GONE, in_run
from tracesvc.sinks.base import Sink, SinkStatistics
from tracesvc.sinks.errors import SinkError
from tracesvc.sinks.queue import FrameQueue

__all__ = ["deliver", "open_tracer"]

logger: Final = logging.getLogger("tracesvc")


def open_tracer(
    *sinks: Sink, drain_timeout: float = 5.0, **options: Unpack[OptionKeywords]
) -> AbstractAsyncContextManager[Tracer]:
    """Trace this process into ``sinks`` while the body runs.

    If a tracer is running already, opened in this way, the sinks join its session at its next generation, and the other
    options are those it was opened with.  On the way out, whatever way that is, everything recorded so far is handed to
    the sinks and they get ``drain_timeout`` seconds of real time to put it away; what is not away then is counted as
    lost.  An exception of the body leaves as it is.

    Args:
      sinks: where the trace goes; each has its own bounded queue, and one that fails or stalls disturbs no other.
      drain_timeout: seconds.
      options: see `tracesvc.recorder.options.Options`.

    Raises:
      TypeError: an argument is no `Sink`.
      ValueError: an option is out of its range.
      TracerBusyError: a `Tracer` was started in this process by hand; there is no way to join it. On entering.
    """
    Options(**options)  # what is wrong with them is told here, not only where they come to be used
    return _Membership(sinks, drain_timeout, lambda: _start(options))


def deliver(
    tracer: Tracer, *sinks: Sink, drain_timeout: float = 5.0
) -> AbstractAsyncContextManager[Tracer]:
    """Hand what a tracer that is ON records to ``sinks``, from the current run; the last one to leave stops it."""

    def given() -> Tracer:
        if tracer.state is not TracerState.ON:
            raise TracerBusyError(f"this tracer is {tracer.state.value}")
        tracer.joinable = True
        return tracer

    return _Membership(sinks, drain_timeout, given)


def _start(options: OptionKeywords) -> Tracer:
    """The tracer that runs already, or a new one."""
    while (tracer := current_tracer()) is None:
        with contextlib.suppress(TracerBusyError):  # another thread was faster
            own = Tracer(**options)
            own.joinable = True
            own.start()
    return tracer


class _Membership(AbstractAsyncContextManager[Tracer]):
    """What `open_tracer` and `deliver` return.

    A class, because its methods are protected from Ctrl-C as a whole, and because the body's exception then never comes
    by here: nothing has to be raised again.
    """

    _member: _Member
    _nursery: trio.Nursery

    def __init__(
        self, sinks: tuple[Sink, ...], drain_timeout: float, running: Callable[[], Tracer]
    ) -> None:
        """``running`` gives the tracer to join."""
        if not drain_timeout > 0:
            raise ValueError(f"drain_timeout must be positive, not {drain_timeout}")
        for sink in sinks:
            if not isinstance(sink, Sink):
                raise TypeError(
                    f"open_tracer() takes sinks, such as FileSink(path); {sink!r} is none"
                )
        self._sinks: Final = sinks
        self._drain_timeout: Final = drain_timeout
        self._running: Final = running
        self._manager: Final = trio.open_nursery()

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Tracer:
        await trio.lowlevel.checkpoint()
        member = _Member(self._sinks)
        while not member.join(tracer := self._running()):
            await _until_over(tracer)
        self._member = member
        self._nursery = await self._manager.__aenter__()
        member.open(self._nursery)
        try:
            tracer.record_run()
        except Exception:
            logger.exception("tracesvc: this run cannot be recorded")
        return tracer

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._member.leave(self._drain_timeout)
        finally:
            self._nursery.cancel_scope.shield = True  # from here on nothing in it is the program's
            await self._manager.__aexit__(None, None, None)


async def _until_over(tracer: Tracer) -> None:
    """Until a session that ends is over; one that just begins is a matter of microseconds."""
    if not _Delivery.ends(tracer):
        await trio.lowlevel.checkpoint()
        return
    off = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def tell() -> None:
        with contextlib.suppress(*GONE):
            token.run_sync_soon(off.set)

    tracer.call_when_off(tell)
    await off.wait()


class _Delivery:
    """The members of one session."""

    lock: Final = threading.RLock()
    """guards the members, and `current`"""
    current: _Delivery | None = None

    def __init__(self, tracer: Tracer) -> None:
        self.tracer: Final = tracer
        self.members: Final[list[_Member]] = []
        self._reader: _Member | None = None
        self._over = False
        self._last_words: Final[deque[SinkStatistics]] = deque(maxlen=100)
        """of sinks that have left"""
        tracer.delivered = True
        tracer.on_beat = self._beat
        tracer.sinks = self._statistics

    @classmethod
    def of(cls, tracer: Tracer) -> _Delivery | None:
        """The delivery of a tracer; None if there is nothing to join: it just starts, or drains.

        Raises:
          TracerBusyError: its frames are read by hand.
        """
        if tracer.state is not TracerState.ON:
            return None
        delivery = cls.current
        if delivery is None or delivery.tracer is not tracer or not delivery.members:
            if tracer.has_reader or not tracer.joinable:
                raise TracerBusyError(
                    "a Tracer was started in this process by hand; open_tracer() cannot join it"
                )
            delivery = cls.current = cls(tracer)
        return None if delivery._over else delivery

    @classmethod
    def ends(cls, tracer: Tracer) -> bool:
        """Whether nothing but OFF can follow: it drains, or the last member leaves."""
        with cls.lock:
            delivery = cls.current
            over = delivery is not None and delivery.tracer is tracer and delivery._over
            return over or tracer.state is TracerState.DRAINING

    def join(self, member: _Member) -> bool:
        """Whether the new member is to be the reader."""
        self.members.append(member)
        self._bound_generations()
        if self._reader is None:
            self._reader = member
            return True
        self.tracer.new_generation()
        return False

    def _bound_generations(self) -> None:
        sizes = [sink.generation_bytes for member in self.members for sink in member.sinks]
        self.tracer.generation_bytes = min(filter(None, sizes), default=0)

    def part(self, member: _Member) -> bool:
        """A member is about to leave; whether it is the last, so that nobody can join any more."""
        with self.lock:
            member.leaving = True
            self._over = all(other.leaving for other in self.members)
            return self._over

    def remove(self, member: _Member) -> None:
        """A member has left."""
        with self.lock:
            if member in self.members:  # not so in a forked child
                self.members.remove(member)
                self._bound_generations()
                member.close()
                self._last_words.extend(sink.statistics() for sink in member.sinks)

    def pass_reader(self, member: _Member) -> None:
        """If ``member`` has the reader's place, another one takes it."""
        with self.lock:
            if self._reader is member:
                others = (other for other in self.members if other is not member)
                self._reader = min(others, key=lambda other: other.leaving, default=None)
                if self._reader is not None:
                    self._reader.call(self._reader.read_from_now_on)
                    # at once: a stop() just now must not find that the reader's run is over
                    self.tracer.attach_reader(self._reader.token)

    def look(self) -> None:
        """Have it looked, in the reader's run, whether a member that leaves has had everything."""
        reader = self._reader
        if reader is not None:
            reader.call(self._look)

    def _look(self) -> None:
        # If another one has the place by now, it looked when it took it.
        if self._reader is not None and self._reader.is_here:
            self.hand_out([])

    def hand_out(self, frames: list[Frame] | None) -> None:
        """In the reader's run. None: the session is over."""
        for member in list(self.members):
            member.take(frames)

    def _beat(self) -> None:
        """In the pacer's thread: have what is queued written."""
        for member in list(self.members):
            member.call(member.tick)

    def _statistics(self) -> tuple[SinkStatistics, ...]:
        with self.lock:
            here = [sink.statistics() for member in self.members for sink in member.sinks]
            return (*self._last_words, *here)


class _Inbox(FrameQueue):
    """What a member is still to be told: from the reader's run to the member's own, which may be blocked for long."""

    def take(self) -> tuple[list[Frame], Counter[LossCause]]:
        """Everything that waits, and what was lost here for want of room."""
        frames, self._frames, self._bytes = self._frames, [], 0
        lost, self.lost = self.lost, Counter()
        return frames, lost


class _Member:
    """One ``open_tracer``: its sinks, their queues, and maybe the reader."""

    delivery: _Delivery

    def __init__(self, sinks: tuple[Sink, ...]) -> None:
        self.sinks: Final = sinks
        self.leaving = False
        self.token: Final = trio.lowlevel.current_trio_token()
        self._queues: Final = [sink.open_queue() for sink in sinks]
        for queue in self._queues:
            queue.ask_end = self.ask_end
        self._scopes: Final = [trio.CancelScope(shield=True) for _ in sinks]
        """of the sinks; shielded: a cancelled program is still to be drained. `leave` cancels them"""
        self._running = len(sinks)
        self._done: Final = trio.Event()
        """the sinks have ended"""
        self._lock: Final = threading.Lock()
        """guards the next seven"""
        self._inbox: Final = _Inbox()
        self._waits_for_generation = True
        self._until: dict[int, int] | None = None
        """events of each proc that our stream is to have; None while we stay"""
        self._complete = False
        """the inbox has the last of our stream"""
        self._asked: list[tuple[dict[int, int], Callable[[list[Frame]], None]]] = []
        """who wants to know how the stream would end, once these events have come by; see `FrameQueue.ask_end`"""
        self._answers: list[tuple[list[Frame], Callable[[list[Frame]], None], list[Frame]]] = []
        """(what is to be put into the queues first, who asked, the answer)"""
        self._gone = False
        """nothing will come any more"""
        self._ended = False
        """so have the queues"""
        self._nursery: trio.Nursery | None = None
        self._reader_scope: Final = trio.CancelScope(shield=True)
        self._reads = False
        self._reader_gone: Final = trio.Event()

    def join(self, tracer: Tracer) -> bool:
        """Become a member of a tracer's delivery; False where there is nothing to join now."""
        with _Delivery.lock:
            delivery = _Delivery.of(tracer)
            if delivery is None:
                return False
            self.delivery = delivery
            self._reads = delivery.join(self)
        return True

    def open(self, nursery: trio.Nursery) -> None:
        """Begin to work, in this nursery."""
        self._nursery = nursery
        for sink, queue, scope in zip(self.sinks, self._queues, self._scopes, strict=True):
            queue.put(self.delivery.tracer.header)
            nursery.start_soon(
                self._run_sink, sink, queue, scope, name=f"tracesvc sink {sink.name}"
            )
        if not self.sinks:
            self._done.set()
        if self._reads:
            self._reads = False
            self.read_from_now_on()

    def call(self, function: Callable[[], None]) -> None:
        """Call in this member's run, soon."""
        with contextlib.suppress(*GONE):
            self.token.run_sync_soon(function, idempotent=True)

    @property
    def is_here(self) -> bool:
        """Whether the current run is this member's."""
        return in_run(self.token)

    # --- frames ----------------------------------------------------------------------------------

    def take(self, frames: list[Frame] | None) -> None:
        """In the reader's run, which may not be this member's. None: the session is over."""
        with self._lock:
            if self._complete:
                return
            self._put(frames or [])
            self._answer()
            if frames is None:
                self._complete = True
            elif self._until is not None and self.delivery.tracer.has_read(self._until):
                self._put(self.delivery.tracer.farewell())
                self._complete = True
            if self._complete:
                self._inbox.finish()
        if self.is_here:
            self.unpack()
        else:
            self.call(self.unpack)

    def _put(self, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.kind == FrameKind.GENERATION:  # a stream begins with a whole one
                self._waits_for_generation = False
            if not self._waits_for_generation:
                self._inbox.put(frame)

    def ask_end(self, answer: Callable[[list[Frame]], None]) -> None:
        """See `FrameQueue.ask_end`; from any thread."""
        events = self.delivery.tracer.seal_all()
        with self._lock:
            if not (gone := self._gone):
                self._asked.append((events, answer))
        if gone:
            answer([])
        elif self._complete:
            self.call(self.unpack)
        else:
            self.delivery.look()

    def _answer(self) -> None:
        """In the reader's run: what is due to those who asked; the lock is held."""
        tracer = self.delivery.tracer
        if not self._asked or self._waits_for_generation or self._inbox.dropping:
            return
        due = [asked for asked in self._asked if tracer.has_read(asked[0])]
        if due:
            frames, lost = self._inbox.take()
            self._inbox.lost.update(lost)
            for asked in due:
                self._asked.remove(asked)
                self._answers.append((frames, asked[1], tracer.farewell()))
                frames = []

    def unpack(self) -> None:
        """In this member's run: from the inbox into the sinks' queues."""
        with self._lock:
            answers, self._answers = self._answers, []
            frames, lost = self._inbox.take()
            complete = self._complete
            if complete or self._gone:
                asked = [answer for _, answer in self._asked]
                self._asked.clear()
            else:
                asked = []
        for queue in self._queues:
            queue.lost.update(lost)
        for before, answer, end in answers:
            self._queue(before)
            answer(end)
        self._queue(frames)
        if complete:
            for queue in self._queues:
                queue.finish()
        self._ended = complete
        for answer in asked:
            answer([])

    def _queue(self, frames: list[Frame]) -> None:
        for queue in self._queues:
            for frame in frames:
                queue.put(frame)

    def close(self) -> None:
        """Nothing will come any more."""
        with self._lock:
            self._gone = True
        self.unpack()  # into queues that are closed: what came too late is counted there

    def tick(self) -> None:
        """In this member's run: what is queued is to be put away, however little."""
        for queue in self._queues:
            queue.tick()

    # --- tasks -----------------------------------------------------------------------------------

    def read_from_now_on(self) -> None:
        """In this member's run: take the reader's place."""
        if self._nursery is not None and not self._reads:
            self._reads = True
            self.delivery.tracer.attach_reader()
            self._nursery.start_soon(self._read, name="tracesvc reader")

    @trio.lowlevel.enable_ki_protection
    async def _read(self) -> None:
        delivery, over = self.delivery, False
        try:
            with self._reader_scope:
                delivery.hand_out([])
                while (frames := await delivery.tracer.read_frames()) is not None:
                    delivery.hand_out(frames)
                over = True
        except Exception:
            logger.exception("tracesvc: the reader failed; this trace ends here")
            over = True
        finally:
            self._reader_gone.set()
            if over:
                delivery.hand_out(None)
            else:
                delivery.pass_reader(self)

    @trio.lowlevel.enable_ki_protection
    async def _run_sink(self, sink: Sink, queue: FrameQueue, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await sink.run(queue)
            if self._nursery is None:  # a forked child
                return
            if scope.cancelled_caught:
                queue.close(LossCause.SINK_FULL, "the sink did not finish in time")
                logger.error(
                    "tracesvc: sink %s did not finish in time; what it had left is lost", sink.name
                )
            elif not self._ended or queue.queued_bytes:
                queue.close(LossCause.SINK_FAILED, "the sink returned before the end")
                logger.error("tracesvc: sink %s returned before the end and was dropped", sink.name)
        except Exception as exc:
            cause = exc.cause if isinstance(exc, SinkError) else LossCause.SINK_FAILED
            queue.close(cause, str(exc))
            logger.error("tracesvc: sink %s failed and was dropped: %s", sink.name, exc)
        finally:
            self._running -= 1
            if not self._running:
                self._done.set()

    # --- the end ---------------------------------------------------------------------------------

    async def leave(self, timeout: float) -> None:
        """Everything emitted so far reaches the sinks, and they end; takes at most ``timeout`` seconds of real time."""
        delivery = self.delivery
        try:
            if self._nursery is not None:  # None: this is a forked child
                with trio.CancelScope(shield=True) as scope, real_deadline(scope, timeout):
                    if delivery.part(self):
                        await delivery.tracer.stop()
                    else:
                        self._until = delivery.tracer.seal_all()
                        delivery.look()
                    await self._done.wait()
        finally:
            self.abandon()
            with trio.CancelScope(shield=True):
                await self._done.wait()
                delivery.remove(self)
                self._nursery = None
                if self._reads:
                    await self._reader_gone.wait()
                else:
                    delivery.pass_reader(self)  # it may have come to us just now

    def abandon(self) -> None:
        """Our tasks are shielded from the program's cancellation: whatever happens, they end here."""
        for scope in self._scopes:
            scope.cancel()
        self._reader_scope.cancel()

    def orphan(self) -> None:
        """In a forked child, in the copy of this member's run: it is not ours any more."""
        self._nursery = None
        self.abandon()


def _in_child() -> None:
    """After a fork: the stream is the parent's, and nothing here may write to what the child shares with it."""
    _Delivery.lock.release()
    delivery, _Delivery.current = _Delivery.current, None
    if delivery is not None:
        for member in delivery.members:
            if member.is_here:
                member.orphan()
        delivery.members.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_Delivery.lock.acquire,
        after_in_parent=_Delivery.lock.release,
        after_in_child=_in_child,
    )
