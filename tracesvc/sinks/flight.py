"""The flight recorder: the newest part of the trace, in memory, to be written when it turns out to be wanted.

It keeps whole generations, each of which can be decoded alone; the oldest one goes when it is not needed any more to
reach back far enough, or when there is no room.  A frame is never copied: a snapshot is a list of the frames that are
there, with the accounts and the end mark that a sink has that leaves at that moment.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from tracesvc.events import FrameKind, LossCause
from tracesvc.format import Frame, Generation, Header
from tracesvc.format.apart import apart
from tracesvc.recorder.annotations import log
from tracesvc.recorder.clock import now
from tracesvc.recorder.tree import GONE, in_run
from tracesvc.sinks.base import Sink, SinkStatistics
from tracesvc.sinks.errors import SinkError
from tracesvc.sinks.file import THREAD, Compression, FileSink
from tracesvc.sinks.queue import FrameQueue
from tracesvc.sinks.replay import Replay
from tracesvc.sinks.shots import Shots
from tracesvc.sinks.threads import in_thread
from tracesvc.sinks.triggers import Trigger

__all__ = ["FRAME_OVERHEAD", "FlightRecorder", "FlightWindow"]

FRAME_OVERHEAD: Final = 320
"""bytes that a frame takes beside its data: an object, its numbers, a place in a list (CPython 3.11 to 3.13)"""
MIN_BYTES: Final = 1 << 20
"""the largest frame has half of that"""
GENERATIONS: Final = 4
"""generations that are to fit in at least"""


@dataclass(frozen=True, slots=True)
class FlightWindow:
    """What a flight recorder holds, or what it wrote."""

    begin: int
    """ns, `CLOCK_MONOTONIC`: when the oldest generation began; 0: there is none"""
    end: int
    """ns: up to when"""
    generations: int
    frames: int
    events: int
    bytes: int
    """of the frames"""
    full: bool
    """whether something went that is younger than ``min_age``, for want of room"""

    @property
    def seconds(self) -> float:
        """How far it reaches back."""
        return (self.end - self.begin) / 1e9


class FlightRecorder(Sink):
    """Keep the newest part of the trace in memory, for `snapshot`.

    ::

        recorder = tracesvc.FlightRecorder()
        async with tracesvc.open_tracer(recorder):
            ...
            await recorder.snapshot("slow.trace")

    Any number of them may stand beside each other and beside other sinks.  What it holds stays when the session is
    over, until the recorder is opened again.

    Args:
      min_age: seconds that it reaches back, if they fit.
      max_bytes: what it holds at most, at any moment, the objects that its frames are included: at least 1 MiB.  A
        snapshot under way keeps what it writes in memory beside that.
      triggers: when it is to take a snapshot by itself, see `tracesvc.triggers`.
      directory: for the snapshots of the triggers; it is made.

    Raises:
      TypeError: one of ``triggers`` is none.
      ValueError: ``min_age`` is negative, or ``max_bytes`` less than 1 MiB.
    """

    def __init__(
        self,
        min_age: float = 10.0,
        max_bytes: int = 16 << 20,
        *,
        triggers: Sequence[Trigger] = (),
        directory: str | os.PathLike[str] = "snapshots",
        name: str = "flight recorder",
    ) -> None:
        if not 0 <= min_age < 1e9:
            raise ValueError(f"min_age must be seconds, 0 or more, not {min_age}")
        if max_bytes < MIN_BYTES:
            raise ValueError(f"max_bytes must be at least {MIN_BYTES}, not {max_bytes}")
        super().__init__(name)
        self.min_age: Final = min_age
        self.max_bytes: Final = max_bytes
        self.generation_bytes = max_bytes // GENERATIONS
        self._ring: _Ring | None = None
        for trigger in triggers:
            if not isinstance(trigger, Trigger):
                raise TypeError(f"{trigger!r} is no trigger: see tracesvc.triggers")
        self.triggers: Final = tuple(triggers)
        self.directory: Final = Path(directory)

    def open_queue(self) -> FrameQueue:
        """The ring itself: a frame is in it as soon as it is handed out."""
        shots = Shots(self.triggers, self.directory, self._write_now) if self.triggers else None
        self._ring = _Ring(int(self.min_age * 1e9), self.max_bytes, shots)
        return self._ring

    async def run(self, frames: FrameQueue) -> None:
        """Until the session is over; takes the snapshots that the triggers ask for."""
        self._begin(frames)
        assert isinstance(frames, _Ring)
        if frames.shots is None:
            await frames.get()
            return
        try:
            await in_thread(partial(self.directory.mkdir, parents=True, exist_ok=True), name=THREAD)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(frames.shots.run, self._take_shot)
                await frames.get()
                frames.shots.finish()
        except OSError as exc:
            raise SinkError(
                f"no snapshots in {self.directory}: {exc.strerror or exc}; choose another directory"
            ) from exc
        finally:
            frames.shots.close()

    async def _take_shot(self, path: Path, options: dict[str, Any]) -> None:
        await self._write(path, "auto", options)

    def _write_now(self, path: Path, options: dict[str, Any]) -> None:
        """When the program ends, and there is no run any more."""
        if self._ring is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            frames, _ = self._ring.take([], options)
            path.write_bytes(b"".join(frame.data for frame in frames))

    @property
    def window(self) -> FlightWindow:
        """What it holds right now."""
        ring = self._ring
        return FlightWindow(0, 0, 0, 0, 0, 0, False) if ring is None else ring.window()

    @property
    def held_bytes(self) -> int:
        """Bytes that count against ``max_bytes``."""
        return 0 if self._ring is None else self._ring.held_bytes

    def statistics(self) -> SinkStatistics:
        """What it holds; what is too old is not lost, and not counted any more."""
        window = self.window
        lost = {} if self._ring is None else +self._ring.lost
        return SinkStatistics(self.name, window.frames, window.bytes, window.events, lost)

    async def snapshot(
        self, to: str | os.PathLike[str] | Sink, *, compression: Compression = None
    ) -> FlightWindow:
        """Write what it holds, up to this call, as a trace of its own; the recording goes on meanwhile.

        It is a session of its own, whose header says of which one it is a snapshot.  It begins with whole generations,
        so spans and tasks that were there before are in it, and ends with the account of every proc: how many events
        came before the window, and how many were lost.  Of any task, in any run; several at once are several traces.  A
        file comes to be as a whole, or not at all.

        Args:
          to: the file, which is replaced if there is one; or a `Sink` of its own, such as a `PushSink`.
          compression: as for `FileSink`; of a file.

        Raises:
          SinkError: it cannot be written, or there is nothing: the recorder was never opened, or not even one
            generation fits in its ``max_bytes``.
        """
        log("snapshot of the flight recorder", level="debug")  # a mark in the trace
        if isinstance(to, Sink):
            frames, window = await self._take({})
            await to.run(Replay(frames))
            return window
        return await self._write(Path(to), compression, {})

    async def _write(
        self, path: Path, compression: Compression, options: dict[str, Any]
    ) -> FlightWindow:
        frames, window = await self._take(options)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            await FileSink(part, compression=compression).run(Replay(frames))
            await in_thread(os.replace, part, path, name=THREAD)
        except OSError as exc:
            raise SinkError(
                f"cannot write the snapshot to {path}: {exc.strerror or exc}; choose another path"
            ) from exc
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
        return window

    async def _take(self, options: dict[str, Any]) -> tuple[list[Frame], FlightWindow]:
        """What it holds, once everything is in it that was emitted before the call."""
        ring = self._ring
        if ring is None:
            raise SinkError("the flight recorder holds nothing: give it to open_tracer() first")
        if ring.ask_end is None or ring.over:
            await trio.lowlevel.checkpoint()
            return ring.take([], options)
        taken: list[tuple[list[Frame], FlightWindow] | SinkError] = []
        done, token = trio.Event(), trio.lowlevel.current_trio_token()

        def answer(end: list[Frame]) -> None:
            try:
                taken.append(ring.take(end, options))
            except SinkError as exc:
                taken.append(exc)
            if in_run(token):
                done.set()
            else:
                with contextlib.suppress(*GONE):
                    token.run_sync_soon(done.set)

        ring.ask_end(answer)
        await done.wait()
        if isinstance(taken[0], SinkError):
            raise taken[0]
        return taken[0]


class _Generation:
    """The frames of one generation."""

    __slots__ = ("began", "events", "frames", "size")

    def __init__(self, began: int) -> None:
        self.began = began
        self.frames: list[Frame] = []
        self.events = 0
        self.size = 0


class _Ring(FrameQueue):
    """A queue that the sink takes nothing from: what it holds is the newest whole generations."""

    def __init__(self, min_age: int, max_bytes: int, shots: Shots | None) -> None:
        """``min_age`` in ns."""
        super().__init__()
        self.shots: Final = shots
        self._min_age: Final = min_age
        self._max_bytes: Final = max_bytes
        self._header: Frame | None = None
        self._session = ""
        self._generations: Final[deque[_Generation]] = deque()
        self._size = 0
        self._newest_gone = 0
        """when the newest of the generations that went for want of room was over"""
        self._ended = 0
        """when the session was over"""

    @property
    def over(self) -> bool:
        """Whether nothing will come any more."""
        return self._finished or self._closed is not None

    @property
    def held_bytes(self) -> int:
        """Of frames, their objects included."""
        return self._size

    # --- the reader's side ---------------------------------------------------------------------------

    def put(self, frame: Frame) -> None:
        """Keep a frame, and let go of what is too old, or too much."""
        if self._closed is not None:
            self._lose(frame.count, self._closed)
            return
        if self.shots is not None:
            self.shots.frame(frame)
        if frame.kind == FrameKind.HEADER:
            self._header = frame
            self._session = Header.unpack(frame.body()).session
            return
        if frame.kind == FrameKind.GENERATION:
            began = Generation.unpack(frame.body()).monotonic
            self._generations.append(_Generation(began))
            self._drop_old(began)
        elif not self._generations:
            return  # the rest of one that does not fit
        newest, size = self._generations[-1], len(frame.data) + FRAME_OVERHEAD
        while self._size + size > self._max_bytes and self._generations:
            self._newest_gone = now()
            self._drop_oldest()
        if not self._generations:
            return
        newest.frames.append(frame)
        newest.events += frame.count
        newest.size += size
        self._size += size

    def _drop_old(self, time: int) -> None:
        """What is not needed to reach back from ``time``."""
        generations = self._generations
        while len(generations) > 1 and generations[1].began <= time - self._min_age:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        oldest = self._generations.popleft()
        self._size -= oldest.size
        if self._generations and self._newest_gone:
            self._newest_gone = self._generations[0].began

    def tick(self) -> None:
        """Nothing waits here."""

    def finish(self) -> None:
        """The session is over; what is held is held."""
        self._ended = self._ended or now()
        super().finish()

    def close(self, cause: LossCause = LossCause.SINK_FAILED, reason: str = "") -> None:
        """Likewise, before its time."""
        self._ended = self._ended or now()
        super().close(cause, reason)

    # --- the sink's side -----------------------------------------------------------------------------

    def window(self) -> FlightWindow:
        """What is in it."""
        generations = list(self._generations)
        end = self._ended or now()
        begin = generations[0].began if generations else 0
        return FlightWindow(
            begin,
            end,
            len(generations),
            sum(len(generation.frames) for generation in generations),
            sum(generation.events for generation in generations),
            sum(len(f.data) for generation in generations for f in generation.frames),
            self._newest_gone > end - self._min_age,
        )

    def take(self, end: list[Frame], more: dict[str, Any]) -> tuple[list[Frame], FlightWindow]:
        """A whole stream: what is in it, closed by ``end``; with ``more`` in the options of its header.

        Raises:
          SinkError: there is nothing.
        """
        if not self._generations or self._header is None:
            raise SinkError(
                f"the flight recorder holds nothing: no generation fits in {self._max_bytes:,} bytes, give it more"
            )
        kept = [frame for generation in self._generations for frame in generation.frames]
        session, options = str(uuid.uuid4()), {"snapshot_of": self._session, **more}
        return [
            apart(frame, session, options) for frame in (self._header, *kept, *end)
        ], self.window()
