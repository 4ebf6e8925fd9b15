"""Questions about sessions, and about the service itself."""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tracesvc.service.parameters import integer
from tracesvc.service.problems import ProblemError
from tracesvc.store import SessionInfo, State, Store, session_name

__all__ = ["Summaries", "health", "ready", "session", "sessions", "summary"]

PAGE: Final = 100
LARGEST_PAGE: Final = 1000


async def sessions(request: Request) -> Response:
    """``GET /v1/sessions?source=NAME&state=live|ended|broken&limit=N&cursor=C``, the youngest first.

    ``next`` is the cursor of the next page, null on the last one.
    """
    store: Store = request.app.state.store
    limit = integer(request, "limit", PAGE, least=1, most=LARGEST_PAGE)
    state: Any = request.query_params.get("state")
    if state is not None and state not in get_args(State):
        raise ProblemError(400, "bad-parameter", f"state is one of {', '.join(get_args(State))}")
    cursor = request.query_params.get("cursor")
    found = await store.list(
        source=request.query_params.get("source"),
        state=state,
        before=None if cursor is None else _position(cursor),
        limit=limit + 1,
    )
    page = found[:limit]
    more = len(found) > limit
    return JSONResponse(
        {"sessions": [_facts(info) for info in page], "next": _cursor(page[-1]) if more else None}
    )


async def session(request: Request) -> Response:
    """``GET /v1/sessions/{session}``: what is known of it, with the ledger; ``DELETE``: forget it."""
    store: Store = request.app.state.store
    name = request.path_params["session"]
    if request.method == "DELETE":
        await store.delete(name)
        return Response(status_code=204)
    info = await store.info(name)
    return JSONResponse({**_facts(info), "ledger": await store.ledger(name)})


async def summary(request: Request) -> Response:
    """``GET /v1/sessions/{session}/summary``: the analysis of what is stored of it."""
    store: Store = request.app.state.store
    summaries: Summaries = request.app.state.summaries
    name = request.path_params["session"]
    info = await store.info(name)
    return JSONResponse(await summaries.get(info, await store.path(name)))


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


class Summaries:
    """Computes summaries in threads, two at a time, and keeps the last few."""

    def __init__(self, keep: int = 16) -> None:
        self._keep = keep
        self._limiter = trio.CapacityLimiter(2)
        self._known: OrderedDict[str, tuple[int, dict[str, Any]]] = OrderedDict()

    async def get(self, info: SessionInfo, path: Path) -> dict[str, Any]:
        size, known = self._known.get(info.session, (-1, {}))
        if size != info.bytes:
            known = await trio.to_thread.run_sync(
                partial(_summarize, path), thread_name="tracesvc summary", limiter=self._limiter
            )
            self._known[info.session] = info.bytes, known
        self._known.move_to_end(info.session)
        if len(self._known) > self._keep:
            self._known.popitem(last=False)
        return known


def _summarize(path: Path) -> dict[str, Any]:
    # not at the top: NumPy takes a while to load, and who only collects traces never needs it
    from tracesvc.analysis import summarize
    from tracesvc.model import read

    result: dict[str, Any] = summarize(read(path)).as_dict()
    return result


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
