"""``POST /v1/sessions/{session}/frames``: bytes of a stream come in, and are durable when the answer goes out."""

from __future__ import annotations

import contextlib
import math
import re
from typing import Final

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tracesvc.recorder.clock import now as clock_now
from tracesvc.service.access import Access, access_of, demand_source, source_of
from tracesvc.service.clock import tell
from tracesvc.service.config import Config
from tracesvc.service.limits import Limits
from tracesvc.service.parameters import integer
from tracesvc.service.problems import HEARD_OUT, ProblemError
from tracesvc.store import Store, StoreError, UnknownSessionError, session_name

__all__ = ["MEDIA_TYPE", "Shortcut", "ingest"]

MEDIA_TYPE: Final = "application/vnd.tracesvc"
_FRAMES: Final = re.compile("/v1/sessions/(?P<session>[^/]+)/frames")
PIECE: Final = 1 << 20
"""bytes that are checked, written and synced at once; bounds what a request costs in memory"""


class Shortcut:
    """The innermost layer of the service: a POST of frames goes straight to `ingest`, past the routing.

    That is what a busy service does all day; routing and the handling of exceptions took a tenth of its time.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            found = _FRAMES.fullmatch(scope["path"])
            if found is not None:
                arrived = clock_now()
                scope["path_params"], scope["endpoint"] = found.groupdict(), ingest
                try:
                    answer = await ingest(Request(scope, receive))
                except ProblemError as exc:
                    answer = exc.response()
                except StoreError as exc:
                    answer = ProblemError.of(exc).response()
                tell(answer, arrived)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def ingest(request: Request) -> Response:
    """Keep the whole good frames of the body.

    200 with the durable offset; any refusal comes with it too, as far as there is one.  Sending bytes again that are
    stored already does no harm.
    """
    scope = request.scope
    store: Store = request.app.state.store
    config: Config = request.app.state.config
    session = session_name(scope["path_params"]["session"])
    query: bytes = scope["query_string"]
    if query[:7] == b"offset=" and query[7:].isdigit() and len(query) < 25:
        offset = int(query[7:])  # as every client of ours writes it
    else:
        offset = integer(request, "offset", 0)
    kind, encoding, length = b"", b"identity", 0
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind = value.partition(b";")[0].strip().lower()
        elif name == b"content-encoding":
            encoding = value
        elif name == b"content-length":
            length = int(value)
    if kind not in (MEDIA_TYPE.encode(), b"application/octet-stream"):
        raise ProblemError(415, "media-type", f"the body is to be {MEDIA_TYPE}")
    if encoding != b"identity":
        why = "frames are compressed by themselves, the body is not"
        raise ProblemError(415, "content-encoding", why)
    if length > config.max_body:
        raise ProblemError(413, "body-too-large", f"a body may have {config.max_body} bytes")
    limits: Limits = request.app.state.limits
    intake = _Intake(store, session, offset, access_of(request), limits)
    if limits.by_source:
        await intake.identify()
    durable = await intake.take(request, config)
    request.app.state.metrics.ingested.inc(max(0, durable - offset))
    request.app.state.overviews.heard(session)
    return Response(b'{"offset": %d}' % durable, media_type="application/json")


class _Intake:
    """One body on its way into the store, in pieces."""

    def __init__(
        self, store: Store, session: str, offset: int, access: Access, limits: Limits
    ) -> None:
        self._store, self._session, self._offset = store, session, offset
        self._access, self._limits = access, limits
        self._source: str | None = None
        """whose session it is, where that matters and is known"""
        self._parts: list[bytes] = []
        self._held = 0
        self._durable: int | None = None

    async def identify(self) -> None:
        """Of a session that is there: whose it is; and whether another post of theirs is welcome.

        Raises:
          ProblemError: it is not.
        """
        with contextlib.suppress(UnknownSessionError):
            info = await self._store.info(self._session)
            self._source, self._durable = str(info.source.get("name", "")), info.bytes
            self._limits.admit_post(self._source)

    async def take(self, request: Request, config: Config) -> int:
        """Read the body to its end; returns the durable offset.

        Raises:
          ProblemError: the body is refused, at some point; the whole good frames before that are durable.
        """
        received, wanted = 0, PIECE
        receive, parts = request.receive, self._parts
        with trio.CancelScope() as patience:
            while True:
                now = trio.current_time()
                if not now + config.body_timeout / 2 < patience.deadline < math.inf:
                    patience.deadline = now + config.body_timeout
                message = await receive()
                part = message.get("body", b"")
                received += len(part)
                self._held += len(part)
                parts.append(part)
                if not message.get("more_body", False):  # or the client is gone
                    request.scope[HEARD_OUT] = True
                    break
                if received > config.max_body:
                    break
                if self._held >= wanted:
                    await self._append()
                    wanted = self._held + PIECE
        await self._append()
        if patience.cancelled_caught:
            why = f"nothing came for {config.body_timeout:g} seconds"
            raise ProblemError(408, "body-timeout", why, offset=self._durable)
        if received > config.max_body:
            why = f"a body may have {config.max_body} bytes"
            raise ProblemError(413, "body-too-large", why, offset=self._durable)
        if self._held:
            why = f"the body ends in the middle of a frame, {self._held} bytes after its start"
            raise ProblemError(422, "truncated-frame", why, offset=self._durable)
        assert self._durable is not None
        return self._durable

    async def _append(self) -> None:
        """Give to the store what there is, and hold back the beginning of a frame."""
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if self._access.prefix or self._limits.by_source:
            await self._look_whose(data)
        self._limits.admit_bytes(self._source or "", len(data), self._durable)
        result = await self._store.append(self._session, self._offset, data)
        self._durable = result.durable
        if result.problem is not None:
            raise ProblemError.of(result.problem, offset=result.durable)
        self._offset += len(data) - result.rest
        self._parts[:] = [data[len(data) - result.rest :]] if result.rest else []
        self._held = result.rest

    async def _look_whose(self, data: bytes | bytearray) -> None:
        """At the beginning of a stream: whose it is, and whether it is welcome."""
        if self._offset or self._source is not None:
            return
        source = source_of(data)
        demand_source(self._access, source)
        if source is not None and self._limits.by_source:
            self._limits.admit_post(source)
            await self._limits.admit_session(source, self._store)
            self._source = source
