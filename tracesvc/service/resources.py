"""What sessions there are, and how the service is."""

from __future__ import annotations

import base64
import json
from typing import Any, Final, get_args

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tracesvc.service.access import access_of
from tracesvc.service.parameters import boolean, integer
from tracesvc.service.problems import ProblemError
from tracesvc.store import SessionInfo, State, Store, session_name

__all__ = ["health", "ready", "session", "sessions"]

PAGE: Final = 100
LARGEST_PAGE: Final = 1000


async def sessions(request: Request) -> Response:
    """``GET /v1/sessions?source=NAME&state=live|ended|broken&since=T&until=T&tables=true&limit=N&cursor=C``.

    The youngest first; ``since`` and ``until`` are ns since the epoch.  With ``tables`` each one has what is known of
    its tables, null where it has none.  ``next`` is the cursor of the next page, null on the last one.
    """
    store: Store = request.app.state.store
    limit = integer(request, "limit", PAGE, least=1, most=LARGEST_PAGE)
    state: Any = request.query_params.get("state")
    if state is not None and state not in get_args(State):
        raise ProblemError(400, "bad-parameter", f"state is one of {', '.join(get_args(State))}")
    cursor = request.query_params.get("cursor")
    found = await store.list(
        source=request.query_params.get("source"),
        prefix=access_of(request).prefix,
        state=state,
        before=None if cursor is None else _position(cursor),
        since=integer(request, "since", 0),
        until=integer(request, "until", 1 << 62),
        tables=(tables := boolean(request, "tables")),
        limit=limit + 1,
    )
    page = found[:limit]
    more = len(found) > limit
    facts = [_facts(info) for info in page]
    if tables:
        for one, info in zip(facts, page, strict=True):
            one["tables"] = None if info.tables is None else json.loads(info.tables.pack())
    return JSONResponse({"sessions": facts, "next": _cursor(page[-1]) if more else None})


async def session(request: Request) -> Response:
    """``GET /v1/sessions/{session}``: what is known of it, with the ledger; ``DELETE``: forget it."""
    store: Store = request.app.state.store
    name = request.path_params["session"]
    if request.method == "DELETE":
        await store.delete(name)
        return Response(status_code=204)
    info = await store.info(name)
    return JSONResponse({**_facts(info), "ledger": await store.ledger(name)})


async def health(_request: Request) -> Response:
    """``GET /healthz``: the process answers."""
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> Response:
    """``GET /readyz``: it can take traces; 503 while it cannot."""
    store: Store = request.app.state.store
    if request.app.state.stopping.is_set():
        raise ProblemError(503, "stopping", "the service is shutting down")
    if store.trouble is not None:
        raise ProblemError(503, "not-writable", store.trouble, {"retry-after": "10"})
    return JSONResponse({"status": "ready"})


def _facts(info: SessionInfo) -> dict[str, Any]:
    return {
        "session": info.session,
        "source": info.source,
        "state": info.state,
        "started": info.started,
        "updated": info.updated,
        "bytes": info.bytes,
        "frames": info.frames,
        "events": info.events,
        "lost": info.lost,
        "clock": None if info.clock is None else info.clock._asdict(),
    }


def _cursor(info: SessionInfo) -> str:
    return base64.urlsafe_b64encode(json.dumps([info.started, info.session]).encode()).decode()


def _position(cursor: str) -> tuple[int, str]:
    try:
        match json.loads(base64.urlsafe_b64decode(cursor)):
            case [int(started), str(name)] if abs(started) < 1 << 62:
                return started, session_name(name)
    except (ValueError, RecursionError):
        pass
    raise ProblemError(400, "bad-parameter", "cursor is what the page before gave as next")
