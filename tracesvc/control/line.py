"""The agent's side of its connection to a service: what comes down the line is done, and answered.

`tracesvc.control.agent` keeps it up.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

import trio

from tracesvc.control.errors import ControlError
from tracesvc.format import Frame
from tracesvc.format.apart import apart
from tracesvc.recorder.errors import TracerError
from tracesvc.recorder.options import OptionKeywords, Options
from tracesvc.recorder.seams import OWN
from tracesvc.recorder.tracer import current_tracer
from tracesvc.sinks.base import Sink, SinkStatistics
from tracesvc.sinks.delivery import open_tracer
from tracesvc.sinks.errors import SinkError
from tracesvc.sinks.flight import FlightRecorder
from tracesvc.sinks.push import PushSink
from tracesvc.sinks.queue import FrameQueue

__all__ = ["Line", "LostError"]

logger: Final = logging.getLogger("tracesvc")

CONNECT: Final = 10.0
"""seconds for the service to answer at all"""
MISSED: Final = 3
"""signs of life that may stay away before the line counts as lost"""
REMOTE: Final = frozenset({"stacks", "slow_block_s", "stall_s", "buffer_events", "queue_buffers"})
"""options of the tracer that may be set from afar"""


class LostError(Exception):
    """The line to the service; it may come back."""


@dataclass(slots=True)
class _Remote:
    """A trace that was started from afar."""

    session: str
    stop: trio.Event


class Line:
    """One agent's side of its connections to the service."""

    def __init__(
        self,
        url: str,
        token: str | None,
        source: str,
        labels: dict[str, str],
        flight: FlightRecorder | None,
        connected: Callable[[str], None],
    ) -> None:
        self._url, self._token, self._source = url, token, source
        self._flight = flight
        self._connected: Callable[[str], None] | None = connected
        self._parameters = [("label", f"{name}={value}") for name, value in labels.items()]
        self._parameters += [
            ("host", socket.gethostname()),
            ("pid", str(os.getpid())),
            ("python", sys.version.split()[0]),
            ("trio", trio.__version__),
            ("flight", "true" if flight is not None else "false"),
        ]
        self._options: OptionKeywords = {}
        self._remote: _Remote | None = None
        self._starting = trio.Lock()
        self._agent = ""
        self._client: Any = None

    async def hold(self) -> None:
        """Connect, and obey until the line is lost.

        Raises:
          LostError: it is, or it never came to be.
          ControlError: the service refuses.
        """
        import httpx2

        headers = {} if self._token is None else {"authorization": f"Bearer {self._token}"}
        path = f"{self._url}/v1/sources/{quote(self._source, safe='')}/agent"
        try:
            async with (
                httpx2.AsyncClient(
                    headers=headers, timeout=httpx2.Timeout(CONNECT, read=None)
                ) as self._client,
                self._client.stream("GET", path, params=self._parameters) as answer,
            ):
                await self._demand_success(answer)
                await self._obey_all(answer.aiter_lines())
        except (httpx2.HTTPError, OSError) as exc:
            raise LostError(str(exc) or type(exc).__name__) from exc

    async def _demand_success(self, answer: Any) -> None:
        if answer.status_code == 200:
            return
        text = (await answer.aread()).decode(errors="replace")[:200]
        said = f"the service answers {answer.status_code}: {text}"
        if 400 <= answer.status_code < 500 and answer.status_code not in (408, 429):
            raise ControlError(f"no commands can be had from {self._url}: {said}")
        raise LostError(said)

    async def _obey_all(self, lines: Any) -> None:
        import httpx2

        beat = CONNECT
        async with trio.open_nursery() as nursery:
            while True:
                with trio.move_on_after(beat * MISSED) as patience:
                    try:
                        text = await anext(lines)
                    except (StopAsyncIteration, httpx2.HTTPError):
                        break
                if patience.cancelled_caught:
                    break
                command = json.loads(text)
                if "agent" in command:
                    self._agent, beat = str(command["agent"]), float(command["heartbeat"])
                    if self._connected is not None:
                        connected, self._connected = self._connected, None
                        connected(self._agent)
                elif command:
                    nursery.start_soon(self._obey, nursery, command, name=f"{OWN}agent")
            # A trace from afar ends with the line: in order, as far as the sink gets.
            if self._remote is not None:
                self._remote.stop.set()
        raise LostError("the line was lost")

    async def _obey(self, nursery: trio.Nursery, command: dict[str, Any]) -> None:
        try:
            said = await self._do(nursery, command)
        except (TracerError, SinkError, ValueError, TypeError) as exc:
            said = {"ok": False, "error": str(exc)}
        except Exception as exc:
            logger.exception("tracesvc: the command %r failed", command.get("do"))
            said = {"ok": False, "error": repr(exc)}
        await self._say({**said, "command": command.get("command")})

    async def _do(self, nursery: trio.Nursery, command: dict[str, Any]) -> dict[str, Any]:
        match command.get("do"):
            case "start":
                async with self._starting:
                    if self._remote is None and (own := self._pushed_already()):
                        return {"ok": True, "session": own, "already": True}
                    if self._remote is None:
                        options = self._checked(command.get("options", {}))
                        await nursery.start(self._trace, options, command.get("seconds"))
                    assert self._remote is not None
                    return {"ok": True, "session": self._remote.session}
            case "stop":
                if self._remote is None:
                    return {"ok": True, "session": None}
                session = self._remote.session
                self._remote.stop.set()
                return {"ok": True, "stopped": session}
            case "snapshot":
                return await self._snapshot()
            case "set":
                self._options = self._checked(command.get("options", {}))
                return {"ok": True}
        return {"ok": False, "error": f"this agent cannot {command.get('do')!r}"}

    def _pushed_already(self) -> str | None:
        """The session that the program pushes to this service by itself."""
        tracer = current_tracer()
        if tracer is None:
            return None
        statistics, name = tracer.statistics(), PushSink(self._url).name
        return statistics.session if any(s.name == name for s in statistics.sinks) else None

    def _checked(self, options: dict[str, Any]) -> OptionKeywords:
        """Those set before and these; ValueError, TypeError: not all of them are right."""
        unknown = {*options} - REMOTE
        if unknown:
            raise ValueError(f"there is no option {min(unknown)!r} that can be set from afar")
        merged: OptionKeywords = {**self._options, **options}  # type: ignore[typeddict-item]
        Options(**merged)
        return merged

    async def _trace(
        self,
        options: OptionKeywords,
        seconds: float | None,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Push a trace until somebody has enough."""
        stop, sink = trio.Event(), _AsOwnSession(PushSink(self._url, self._token))
        async with open_tracer(sink, **options):
            self._remote = _Remote(sink.session, stop)
            task_status.started()
            try:
                with trio.move_on_after(float("inf") if seconds is None else seconds):
                    await stop.wait()
            finally:
                self._remote = None
        await self._say({"session": None})

    async def _snapshot(self) -> dict[str, Any]:
        if self._flight is None:
            return {"ok": False, "error": "this agent was given no flight recorder"}
        sink = _AsOwnSession(PushSink(self._url, self._token))
        window = await self._flight.snapshot(sink)
        return {
            "ok": True,
            "snapshot": sink.session,
            "seconds": window.seconds,
            "events": window.events,
        }

    async def _say(self, said: dict[str, Any]) -> None:
        import httpx2

        if "session" not in said and self._remote is not None:
            said["session"] = self._remote.session
        with contextlib.suppress(httpx2.HTTPError, OSError, RuntimeError):  # the line will tell
            await self._client.post(f"{self._url}/v1/agents/{self._agent}", json=said)


class _AsOwnSession(Sink):
    """Hands a stream on as a session of its own.

    A service keeps one stream a session, and what is asked for from afar are many parts of the program's one: each with
    a beginning of its own.
    """

    def __init__(self, sink: Sink) -> None:
        super().__init__(f"{sink.name}, asked for")
        self.session: Final = str(uuid.uuid4())
        self._sink: Final = sink

    async def run(self, frames: FrameQueue) -> None:
        """As the sink inside."""
        await self._sink.run(_Renamed(frames, self.session))

    def statistics(self) -> SinkStatistics:
        """Of the sink inside."""
        return replace(self._sink.statistics(), name=self.name)


class _Renamed(FrameQueue):
    """The frames of another queue; the session that they name is ours."""

    def __init__(self, frames: FrameQueue, session: str) -> None:
        super().__init__()
        self._inner, self._session = frames, session
        self.lost = frames.lost

    async def get(self, min_bytes: int = 1) -> list[Frame]:
        """As from the queue inside."""
        found = [apart(frame, self._session, {}) for frame in await self._inner.get(min_bytes)]
        self.taken_events = self._inner.taken_events
        return found
