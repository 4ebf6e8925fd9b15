"""`debug_app`: an ASGI app to mount in a program's own, as Go's ``/debug/pprof``: a trace of it over HTTP.

Plain ASGI: it needs no framework, and runs under any server on trio.
"""

from __future__ import annotations

import hmac
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qs

import trio

from tracesvc.control.live import describe, lines
from tracesvc.recorder.errors import TracerError
from tracesvc.recorder.source import program_name
from tracesvc.sinks.delivery import open_tracer
from tracesvc.sinks.errors import SinkError
from tracesvc.sinks.flight import FlightRecorder
from tracesvc.sinks.stream import StreamSink

__all__ = ["ASGIApp", "Guard", "debug_app"]

logger: Final = logging.getLogger("tracesvc")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Guard = str | Callable[[Scope], bool | Awaitable[bool]]

LONGEST: Final = 3600.0
"""seconds that a trace may take"""
AT_ONCE: Final = 4
"""traces"""
MEDIA_TYPE: Final = "application/vnd.tracesvc"
INDEX: Final = """\
trace?seconds=5   a trace of the next seconds
flight            what the flight recorder holds
tasks             the tree of tasks, now; ?format=json
"""


def debug_app(guard: Guard, *, flight: FlightRecorder | None = None) -> ASGIApp:
    """An app that answers below wherever it is mounted, ``/debug`` for one.

    ``GET trace?seconds=5``: a trace of the next seconds; where the program traces itself already, of its session.
    ``GET flight``: a snapshot of ``flight``.  ``GET tasks``: the tree of the tasks of this run, with what each is
    blocked on and where; it needs no trace.

    Args:
      guard: a token, to be sent as ``Authorization: Bearer``; or a function, sync or async, that is given the ASGI
        scope and says whether to answer.
      flight: a recorder that the program has opened.

    Raises:
      ValueError: the token is empty.
    """
    if not callable(guard) and not guard:
        raise ValueError("guard is empty: give a token, or a function that says who may ask")
    return _Debug(guard, flight)


class _RefusalError(Exception):
    def __init__(self, status: int, why: str, **headers: str) -> None:
        super().__init__(why)
        self.status, self.headers = status, headers


class _Debug:
    def __init__(self, guard: Guard, flight: FlightRecorder | None) -> None:
        self._guard, self._flight = guard, flight
        self._traces = trio.CapacityLimiter(AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await _live(receive, send)
            return
        try:
            await self._answer(scope, receive, send)
        except _RefusalError as refusal:
            headers = {"content-type": "text/plain; charset=utf-8", **refusal.headers}
            await _respond(send, f"{refusal}\n".encode(), refusal.status, headers)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await self._allowed(scope):
            raise _RefusalError(401, "a token is wanted", **{"www-authenticate": "Bearer"})
        if scope["method"] not in ("GET", "HEAD"):
            raise _RefusalError(405, "GET is all there is", allow="GET")
        path = scope["path"].removeprefix(scope.get("root_path", "")).strip("/")
        query = {
            name: values[-1]
            for name, values in parse_qs(scope.get("query_string", b"").decode("latin-1")).items()
        }
        match path:
            case "trace":
                await self._trace(_seconds(query.get("seconds", "1")), receive, send)
            case "flight":
                await self._snapshot(send)
            case "tasks":
                await _tasks(query.get("format", "text"), send)
            case "":
                await _respond(send, INDEX.encode(), 200, {"content-type": "text/plain"})
            case _:
                raise _RefusalError(404, "there is: trace, flight, tasks")

    async def _allowed(self, scope: Scope) -> bool:
        if callable(self._guard):
            allowed = self._guard(scope)
            return bool(await allowed if inspect.isawaitable(allowed) else allowed)
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(given, b"Bearer " + self._guard.encode())

    async def _trace(self, seconds: float, receive: Receive, send: Send) -> None:
        try:
            self._traces.acquire_on_behalf_of_nowait(receive)
        except trio.WouldBlock:
            why = f"{AT_ONCE} traces are under way"
            raise _RefusalError(429, why, **{"retry-after": "5"}) from None
        try:
            body = _Body(send)
            tracing = open_tracer(StreamSink(body, "debug_app"))
            try:
                async with tracing:
                    await body.start(f"{program_name()}.trace")
                    with trio.move_on_after(seconds):
                        await _until_gone(receive)
            except TracerError as exc:  # on entering
                raise _RefusalError(409, str(exc)) from None
            await body.end()
        finally:
            self._traces.release_on_behalf_of(receive)

    async def _snapshot(self, send: Send) -> None:
        if self._flight is None:
            raise _RefusalError(404, "debug_app() was given no flight recorder")
        body = _Body(send)
        try:
            if not self._flight.window.generations:
                raise _RefusalError(409, "the flight recorder holds nothing yet")
            await body.start(f"{program_name()}-flight.trace")
            await self._flight.snapshot(StreamSink(body, "debug_app"))
        except SinkError:
            logger.exception("tracesvc: the snapshot was not sent")
            raise
        await body.end()


class _Body(trio.abc.SendStream):
    """The body of an answer, as a stream; the answer begins before the first byte."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = trio.Event()

    async def start(self, name: str) -> None:
        headers = {
            "content-type": MEDIA_TYPE,
            "content-disposition": f'attachment; filename="{_plain(name)}"',
            "x-content-type-options": "nosniff",
            "cache-control": "no-store",
        }
        await self._send({"type": "http.response.start", "status": 200, "headers": _raw(headers)})
        self._begun.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._begun.wait()
        if data:
            await self._send({"type": "http.response.body", "body": bytes(data), "more_body": True})

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def _tasks(form: str, send: Send) -> None:
    if form not in ("text", "json"):
        raise _RefusalError(400, "format is text or json")
    tree = describe()
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    if form == "json":
        data, headers["content-type"] = json.dumps(tree).encode(), "application/json"
    else:
        text = "\n".join(lines(tree)) + "\n"
        data, headers["content-type"] = text.encode(), "text/plain; charset=utf-8"
    await _respond(send, data, 200, headers)


async def _respond(send: Send, data: bytes, status: int, headers: dict[str, str]) -> None:
    raw = _raw({**headers, "content-length": str(len(data))})
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": data})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _live(receive: Receive, send: Send) -> None:
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= LONGEST:
        raise _RefusalError(400, f"seconds is a number above 0 and up to {LONGEST:g}")
    return seconds


def _plain(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
