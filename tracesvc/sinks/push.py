"""A sink that pushes the session to a service."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import trio

from tracesvc.events import FrameKind, LossCause
from tracesvc.format import FormatError, Frame, Header
from tracesvc.recorder import own_run
from tracesvc.sinks.base import Sink
from tracesvc.sinks.courier import Courier
from tracesvc.sinks.errors import SinkError
from tracesvc.sinks.file import Compression, wants_compression
from tracesvc.sinks.queue import FrameQueue
from tracesvc.sinks.window import THREAD, Window

__all__ = ["PushSink"]

BATCH: Final = 64 << 10
"""bytes that are worth handing to the other thread; the tracer's tick bounds the wait"""


class PushSink(Sink):
    """Push the session to a tracesvc service, ``POST {url}/v1/sessions/{session}/frames``.

    Frames are kept until the service has acknowledged that they are durable.  When it cannot be reached, or has no
    room, the sink tries again for as long as the session lasts, and goes on from the offset up to which the service
    has the stream.  All of that happens in a thread with a trio run of its own: a slow network does not slow the
    program down, and the clock of its run (a `trio.testing.MockClock`, say) does not matter here.

    Args:
      url: of the service, ``http://host:port``; a path before ``/v1`` is fine.
      token: sent as ``Authorization: Bearer``.
      spool: a directory for what does not fit in memory while the service is away. What could not be delivered at the
        end stays there: ``<session>-<offset>.trace``, the bytes of the stream from that offset on.
      max_bytes: bound of what is kept in memory. When it is reached (and the spool full) the sink takes no more frames
        until the service has acknowledged some; its queue fills up, and drops and accounts for the rest.
      spool_bytes: bound of what is kept in the spool.
      compression: as for `FileSink`.
      max_backoff: seconds between two attempts, at most; they begin with a quarter and double, with jitter.

    Raises:
      ValueError: an argument is out of its range.
      SinkError: httpx2 is not installed.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        spool: str | os.PathLike[str] | None = None,
        max_bytes: int = 64 << 20,
        *,
        spool_bytes: int = 1 << 30,
        compression: Compression = "auto",
        max_backoff: float = 15.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url must be like http://host:port, not {url!r}")
        if max_bytes < 1 << 20:
            raise ValueError(f"max_bytes must be at least 1 MiB, not {max_bytes}")
        if spool_bytes < 0:
            raise ValueError(f"spool_bytes must not be negative, not {spool_bytes}")
        if not max_backoff > 0:
            raise ValueError(f"max_backoff must be positive, not {max_backoff}")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ValueError("token has characters that no HTTP header can carry")
        if importlib.util.find_spec("httpx2") is None:
            raise SinkError("pushing needs httpx2: pip install 'tracesvc[push]'")
        where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
        super().__init__(f"push {where}")
        self._url, self._token = url.rstrip("/"), token
        self._spool = None if spool is None else Path(spool)
        self._max_bytes, self._spool_bytes = max_bytes, spool_bytes
        self._compress = wants_compression(compression)
        self._max_backoff = max_backoff

    async def run(self, frames: FrameQueue) -> None:
        """Take frames until the queue ends, and return when the service has acknowledged all of them.

        Cancelling this ends the thread at once; what was not acknowledged until then is lost.

        Raises:
          SinkError: the service refuses the stream for good.
        """
        self._begin(frames)
        try:
            if (
                batch := await frames.get()
            ):  # the header: the sooner its thread is there, the better
                await self._push(batch, frames)
        finally:
            self._end()

    async def _push(self, batch: list[Frame], frames: FrameQueue) -> None:
        memory = self._max_bytes if self._spool is None else self._max_bytes // 2
        window = Window(
            _session(batch[0]), memory, self._spool, self._spool_bytes, compressed=self._compress
        )
        courier = Courier(self._url, self._token, window, self._stored, self._max_backoff)
        frames.full = lambda: LossCause.QUOTA if courier.over_quota else LossCause.SINK_FULL
        bridge = _Bridge(courier)
        try:
            with bridge.feeding:
                while batch:
                    await bridge.hand_over(batch, self._max_bytes)
                    batch = await frames.get(BATCH)
                courier.finish()
                await bridge.ended.wait()
        finally:
            await bridge.end()
        if bridge.error is not None:
            raise bridge.error


def _session(frame: Frame) -> str:
    """The session's name, from its first frame.

    Raises:
      SinkError: that is no header.
    """
    if frame.kind == FrameKind.HEADER:
        with contextlib.suppress(FormatError):
            return Header.unpack(frame.body()).session
    raise SinkError("the first frame of a stream is to be its header")


class _Bridge:
    """Between the program's run, to which all methods belong, and the courier's, in a thread."""

    def __init__(self, courier: Courier) -> None:
        self.feeding: Final = trio.CancelScope()
        """cancelled when the courier has ended, before its time or in due time"""
        self.ended: Final = trio.Event()
        self.error: BaseException | None = None
        self._courier = courier
        self._token: Final = trio.lowlevel.current_trio_token()
        self._room: trio.Event | None = None
        courier.on_room = self._on_room
        # a daemon: a program that dies without a word must not hang on its tracer
        self._thread = threading.Thread(target=self._deliver, name=THREAD, daemon=True)
        self._thread.start()

    async def hand_over(self, frames: list[Frame], max_bytes: int) -> None:
        """Returns when there is room for more."""
        self._courier.give(frames)
        while self._courier.held > max_bytes:
            self._room = trio.Event()
            if (
                self._courier.held > max_bytes
            ):  # it may have looked for `_room` before that was there
                await self._room.wait()
            self._room = None

    async def end(self) -> None:
        """The thread is over when this returns; shielded, but it never takes long."""
        if not self.ended.is_set():
            self._courier.cancel()
            with trio.CancelScope(shield=True):
                await self.ended.wait()
        self._thread.join()

    def _deliver(self) -> None:
        """The thread."""
        try:
            own_run.run(self._courier.run)
        except BaseException as exc:  # it is for the other thread to raise it
            self.error = SinkError(f"pushing failed: {exc!r}")
            self.error.__cause__ = exc
        else:
            self.error = self._courier.error
        self._call(self._on_end)

    def _on_end(self) -> None:
        self.ended.set()
        self.feeding.cancel()

    def _on_room(self) -> None:
        """In the courier's thread."""
        if (room := self._room) is not None:
            self._call(room.set)

    def _call(self, function: Callable[[], object]) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function)
