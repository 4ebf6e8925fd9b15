"""What the service answers when it cannot do what it was asked: RFC 9457 problem details, each with a ``code``."""

from __future__ import annotations

import http
import json
import logging
import math
from collections.abc import Mapping
from typing import Any, Final

import trio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracesvc.store import (
    BadSessionNameError,
    BadStreamError,
    LiveSessionError,
    NoTablesError,
    OffsetError,
    StoreBrokenError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    UnknownSessionError,
)

__all__ = ["HEARD_OUT", "Guard", "ProblemError", "handlers"]

LINGER: Final = 10.0
"""seconds for the rest of a body that nobody wants"""
LINGER_BYTES: Final = 64 << 20
"""of it, at most"""

log = logging.getLogger("tracesvc.service")

_STORE: Final[dict[type[StoreError], tuple[int, str]]] = {
    BadSessionNameError: (422, "bad-session-name"),
    UnknownSessionError: (404, "unknown-session"),
    NoTablesError: (404, "no-tables"),
    OffsetError: (409, "offset-mismatch"),
    LiveSessionError: (409, "session-live"),
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
        headers = {**self.headers, "tracesvc-problem": self.code}
        return Response(
            json.dumps(content), self.status, headers, media_type="application/problem+json"
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


HEARD_OUT: Final = "tracesvc.heard_out"
"""key in a scope: who reads the request's body sets it when that has come to its end"""


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
            answer = _Answer(scope, receive, send)
            try:
                await self._app(scope, receive, answer.send)
            except ClientDisconnect:
                pass  # in the middle of its request, or that was none
            except Exception:
                log.exception("%s %s failed", scope["method"], scope["path"])
                if not answer.begun:
                    why = "an internal error; the log of the service has it"
                    await ProblemError(500, "internal", why).response()(scope, receive, answer.send)
        else:
            await _live(receive, send)


class _Answer:
    """The answer to one request, on its way out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self.begun = False

    async def send(self, message: Message) -> None:
        if not self.begun:
            self.begun = True
            if HEARD_OUT not in self._scope:
                with trio.move_on_after(LINGER):
                    await self._hear_out(LINGER_BYTES)
        if HEARD_OUT in self._scope:
            await self._send(message)
            return
        # Both servers wait for room in their queue of body parts, for ever, when they want to close the connection.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hear_out, math.inf)
            await self._send(message)
            nursery.cancel_scope.cancel()

    async def _hear_out(self, most: float) -> None:
        heard = 0
        while HEARD_OUT not in self._scope and heard < most:
            message = await self._receive()
            heard += len(message.get("body", b""))
            if not message.get("more_body", False):
                self._scope[HEARD_OUT] = True


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
