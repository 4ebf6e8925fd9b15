"""Every request is asked who it is, before anything else looks at it.

The rules are one table, and what is not in it is for administrators.  A token may be bound to sources by the beginning
of their names; then a session of another source is not there for it.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Final

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tracesvc.format import FormatError, Header, StreamDecoder
from tracesvc.format.stream import Item
from tracesvc.service.parameters import json_object
from tracesvc.service.problems import ProblemError
from tracesvc.service.tokens import Scope as Right
from tracesvc.service.tokens import Token, TokenBook, TokenError, TokenFile
from tracesvc.store import Store, StoreError, UnknownSessionError

__all__ = [
    "Access",
    "AccessControl",
    "Gate",
    "access_of",
    "demand_source",
    "login",
    "logout",
    "source_of",
    "whoami",
]

log = logging.getLogger("tracesvc.service")

COOKIE: Final = "tracesvc"
KEY: Final = "tracesvc.access"
GATE: Final = "tracesvc.gate"
MAX_BODY: Final = 4096
WEEK: Final = 7 * 86400
"""seconds that a browser keeps the cookie"""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

OPEN: Final = None
_SESSION: Final = re.compile(r"/v1/sessions/([^/]+)")
_SOURCE: Final = re.compile(r"/v1/sources/([^/]+)/")
_OTHERS: Final = ("before", "with", "session")
"""parameters that name sessions"""
_READS: Final = ("GET", "HEAD")
RULES: Final[tuple[tuple[tuple[str, ...], re.Pattern[str], Right | None], ...]] = (
    (("POST",), re.compile(r"/v1/sessions/[^/]+/frames"), Right.INGEST),
    (_READS, re.compile(r"/v1/sessions(/.*)?"), Right.READ),
    (_READS, re.compile(r"/v1/clock"), Right.INGEST),
    (_READS, re.compile(r"/v1/fleet"), Right.READ),
    (_READS, re.compile(r"/v1/sources"), Right.READ),
    (_READS, re.compile(r"/v1/sources/[^/]+/agent"), Right.INGEST),
    (("POST",), re.compile(r"/v1/agents/[^/]+"), Right.INGEST),
    (("POST",), re.compile(r"/v1/sources/[^/]+/commands"), Right.CONTROL),
    (_READS, re.compile(r"/metrics"), Right.READ),
    (_READS, re.compile(r"/healthz|/readyz|/openapi\.json|/v1/whoami"), OPEN),
    (("POST",), re.compile(r"/v1/(login|logout)"), OPEN),
    (_READS, re.compile(r"/[^/]*"), OPEN),  # the page's files
)
"""(methods, path, what it takes), the first that fits; `Right.ADMIN` for what is not here"""


@dataclass(frozen=True, slots=True)
class Access:
    """What a request may do."""

    rights: frozenset[Right]
    prefix: str = ""
    """of the names of sources"""

    def may(self, right: Right) -> bool:
        return right in self.rights or Right.ADMIN in self.rights

    def covers(self, source: str) -> bool:
        return source.startswith(self.prefix)


EVERYTHING: Final = Access(frozenset(Right))


def access_of(request: Request) -> Access:
    """What the request may do."""
    access: Access = request.scope.get(KEY, EVERYTHING)
    return access


class Gate:
    """Knows the tokens.

    ``open_without``: whether everybody may do everything for as long as there is no token at all.
    """

    def __init__(self, tokens: TokenFile, *, open_without: bool) -> None:
        self._tokens, self._open_without = tokens, open_without

    def _book(self) -> TokenBook:
        try:
            return self._tokens.look(time.monotonic())
        except TokenError as exc:  # what held before holds on
            log.error("the tokens cannot be read: %s", exc)
            return self._tokens.book

    @property
    def closed(self) -> bool:
        """Whether a token is wanted."""
        return not self._open_without or len(self._book()) > 0

    def find(self, text: str) -> Token | None:
        """The token with this text, if it holds now."""
        return self._book().find(text, time.time())


class AccessControl:
    """The layer around the application; without a gate everybody may do everything."""

    def __init__(self, app: ASGIApp, gate: Gate | None, store: Store) -> None:
        self._app, self._gate, self._store = app, gate, store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gate = self._gate
        if gate is None or scope["type"] != "http" or not gate.closed:
            await self._app(scope, receive, send)
            return
        scope[GATE] = gate
        try:
            await self._admit(scope, gate)
        except ProblemError as problem:
            await problem.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, gate: Gate) -> None:
        method, path = scope["method"], scope["path"]
        right = next(
            (
                needed
                for methods, pattern, needed in RULES
                if method in methods and pattern.fullmatch(path)
            ),
            Right.ADMIN,
        )
        text = _presented(scope)
        token = None if text is None else gate.find(text)
        if token is not None:
            scope[KEY] = Access(token.scopes, token.prefix)
        if right is OPEN:
            return
        if token is None:
            code, why = ("token-wanted", "a token is wanted: Authorization: Bearer ...")
            if text is not None:
                code, why = "bad-token", "this token is unknown, revoked or expired"
            raise ProblemError(401, code, why, {"www-authenticate": "Bearer"})
        access: Access = scope[KEY]
        if not access.may(right):
            raise ProblemError(403, "scope-missing", f"that takes a token with the scope {right}")
        if access.prefix:
            await self._within(access, path, right)
            query = QueryParams(scope["query_string"])
            for other in [o for name in _OTHERS for o in query.getlist(name)]:
                await self._demand_session(access, other, new=False)

    async def _within(self, access: Access, path: str, right: Right) -> None:
        """The session, or the source, that the path names is one of the token's."""
        if found := _SESSION.match(path):
            await self._demand_session(access, found[1], new=right is Right.INGEST)
        elif (found := _SOURCE.match(path)) and found[1] != "*" and not access.covers(found[1]):
            why = f"this token is for sources that begin with {access.prefix!r}"
            raise ProblemError(403, "source-forbidden", why)

    async def _demand_session(self, access: Access, session: str, *, new: bool) -> None:
        try:
            info = await self._store.info(session)
        except UnknownSessionError as exc:
            if not new:  # a new one is looked at when its header is there
                raise ProblemError.of(exc) from None
        except StoreError as exc:
            raise ProblemError.of(exc) from None
        else:
            if not access.covers(str(info.source.get("name", ""))):
                why = f"there is no session {session}"
                raise ProblemError.of(UnknownSessionError(why))


def _presented(scope: Scope) -> str | None:
    """The token that comes with a request, in a header or in the page's cookie."""
    cookie = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, text = value.decode("latin-1").partition(" ")
            return str(text).strip() if kind.lower() == "bearer" else ""
        if name == b"cookie":
            try:
                morsel = SimpleCookie(value.decode("latin-1")).get(COOKIE)
            except CookieError:
                continue
            cookie = morsel.value if morsel is not None else cookie
    return cookie


def demand_source(access: Access, source: str | None) -> None:
    """A stream of ``source`` (None: it does not say) is one that the token is for.

    Raises:
      ProblemError: it is not.
    """
    if access.prefix and (source is None or not access.covers(source)):
        why = f"this token is for sources whose names begin with {access.prefix!r}"
        raise ProblemError(403, "source-forbidden", why)


def source_of(data: bytes | bytearray) -> str | None:
    """Whose stream it is that begins so; None: it has no header."""
    decoder = StreamDecoder()
    decoder.feed(bytes(data))
    try:
        first = next(iter(decoder), None)
    except FormatError:
        return None
    header = first.record if isinstance(first, Item) else None
    return str(header.source.get("name", "")) if isinstance(header, Header) else None


# --- the page ------------------------------------------------------------------------------------


async def login(request: Request) -> Response:
    """``POST /v1/login`` with ``{"token": ...}``: keep it in a cookie that no script sees."""
    gate: Gate | None = request.scope.get(GATE)
    text = (await json_object(request, MAX_BODY)).get("token")
    if not isinstance(text, str) or _CONTROL.search(text):
        raise ProblemError(422, "bad-json", 'the body is to be {"token": "..."}')
    if gate is None:
        return Response(status_code=204)
    if gate.find(text) is None:
        raise ProblemError(401, "bad-token", "this token is unknown, revoked or expired")
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE,
        text,
        max_age=WEEK,
        httponly=True,
        samesite="strict",
        secure=request.scope["scheme"] == "https",
    )
    return response


async def logout(_request: Request) -> Response:
    """``POST /v1/logout``: forget it."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response


async def whoami(request: Request) -> Response:
    """``GET /v1/whoami``: what the request may do; ``tokens`` says whether the service wants any."""
    wanted = GATE in request.scope
    access = request.scope.get(KEY, None if wanted else EVERYTHING)
    return JSONResponse(
        {
            "tokens": wanted,
            "scopes": [] if access is None else sorted(access.rights),
            "prefix": "" if access is None else access.prefix,
        }
    )
