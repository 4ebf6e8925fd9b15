"""What the service answers when it cannot do what it was asked: RFC 9457 problem details, each with a ``code``."""

from __future__ import annotations

import http
import json
import logging
from collections.abc import Mapping
from typing import Any, Final

import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracesvc.store import (
    BadSessionNameError,
    BadStreamError,
    OffsetError,
    StoreBrokenError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    UnknownSessionError,
)

__all__ = ["Guard", "ProblemError", "handlers"]

LINGER: Final = 10.0
"""seconds for the rest of a body that nobody wants"""
LINGER_BYTES: Final = 64 << 20
"""of it, at most"""

log = logging.getLogger("tracesvc.service")

_STORE: Final[dict[type[StoreError], tuple[int, str]]] = {
    BadSessionNameError: (422, "bad-session-name"),
    UnknownSessionError: (404, "unknown-session"),
    OffsetError: (409, "offset-mismatch"),
    StoreFullError: (507, "no-space"),
    StoreBrokenError: (503, "store-broken"),
    StoreClosedError: (503, "stopping"),
}
_RETRY_AFTER: Final = {"no-space": "10", "store-broken": "10", "stopping": "2"}
_HTTP: Final = {404: "not-found", 405: "method-not-allowed", 413: "body-too-large"}


class ProblemError(Exception):
    """Answered with ``status``; ``code`` names it for programs, ``detail`` tells people, ``extra`` goes in as it is."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers, self.extra = dict(headers or {}), extra

    @classmethod
    def of(cls, exc: StoreError, **extra: Any) -> ProblemError:
        """What a store's refusal is in HTTP."""
        if isinstance(exc, BadStreamError):
            return cls(422, exc.code, str(exc), **extra)
        status, code = _STORE.get(type(exc), (503, "store-broken"))
        if isinstance(exc, OffsetError):
            extra["offset"] = exc.durable
        retry = _RETRY_AFTER.get(code)
        return cls(status, code, str(exc), {"retry-after": retry} if retry else None, **extra)

    def response(self) -> Response:
        content = {
            "title": http.HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            **self.extra,
        }
        return Response(
            json.dumps(content), self.status, self.headers, media_type="application/problem+json"
        )


async def _problem(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ProblemError)
    return exc.response()


async def _store_error(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, StoreError)
    return ProblemError.of(exc).response()


async def _http_error(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    code = _HTTP.get(exc.status_code, "refused")
    return ProblemError(exc.status_code, code, exc.detail, exc.headers).response()


handlers: Final = {ProblemError: _problem, StoreError: _store_error, HTTPException: _http_error}
"""for Starlette"""


class Guard:
    """The outermost layer, around every request.

    Whatever escapes from the service is logged, and the client gets a plain 500.  A client that is still sending when
    the answer is ready is heard out, for a while: most read nothing before they have sent everything.  And it answers
    the server's lifespan calls: Starlette would turn a cancellation of the server into a failure.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            exchange = _Exchange(receive, send)
            try:
                await self._app(scope, exchange.receive, exchange.send)
            except Exception:
                log.exception("%s %s failed", scope["method"], scope["path"])
                if not exchange.answered:
                    why = "an internal error; the log of the service has it"
                    answer = ProblemError(500, "internal", why).response()
                    await answer(scope, exchange.receive, exchange.send)
        else:
            await _live(receive, send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._heard_out = False
        self.answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self._heard_out = True
        return message

    async def send(self, message: Message) -> None:
        if not self.answered:
            self.answered = True
            with trio.move_on_after(LINGER):
                heard = 0
                while not self._heard_out and heard < LINGER_BYTES:
                    heard += len((await self.receive()).get("body", b""))
        if self._heard_out:
            await self._send(message)
            return
        # Both servers wait for room in their queue of body parts, for ever, when they want to close the connection.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_hearing)
            await self._send(message)
            nursery.cancel_scope.cancel()

    async def _keep_hearing(self) -> None:
        while not self._heard_out:
            await self.receive()


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
