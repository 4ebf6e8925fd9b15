"""Pictures of a session: its rows, a window of them, one place, all tasks at an instant.

All of it is asked of an `Index`, which is made when somebody asks first and kept while there is room.  Making one takes
about a second per million events; a request works on it for a while and, if it is not done by then, answers 202 with
how far it has got: ask again.  So nothing is computed that nobody waits for, and a session that grows is indexed as
it does.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgpack
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tracesvc.service.parameters import integer
from tracesvc.service.problems import ProblemError
from tracesvc.store import SessionInfo, Store

if TYPE_CHECKING:
    from tracesvc.analysis.timeline import Index

__all__ = ["Indexes", "picture_routes"]

PIECE: Final = 1 << 20
"""bytes indexed at once"""
PATIENCE: Final = 0.5
"""seconds that a request works on an index before it says how far it has got"""
TIDY: Final = 4 << 20
"""bytes of a stream, after which memory is given back"""
HELD: Final = 1 << 30
"""bytes of all indexes together; the one asked for last is kept whatever it takes"""
IDLE: Final = 120.0
"""seconds after which an index that nobody asks for goes: a page that is open asks far more often"""
LOOK: Final = 20.0
"""seconds between two looks at which those are"""


class _Kept:
    """An index and where it stands."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.lock = trio.Lock()
        self.users = 0
        self.asked = trio.current_time()
        self.tidied = 0
        """bytes of the stream that it had when memory was given back last"""


class Indexes:
    """Makes indexes, and keeps those that were asked for last."""

    def __init__(self, held: int = HELD) -> None:
        self._held = held
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._limiter = trio.CapacityLimiter(2)

    async def ask(
        self, store: Store, session: str, question: Callable[[Index], Any]
    ) -> tuple[Any, float]:
        """(answer, 1.0), or (None, how much of the session is indexed); ``question`` is asked in a thread."""
        info = await store.info(session)
        kept = self._kept.get(info.session)
        if kept is None:
            # not at the top: NumPy takes a while to load, and who only collects traces never needs it
            from tracesvc.analysis.timeline import Index

            kept = self._kept.setdefault(info.session, _Kept(Index(self._held)))
        self._kept.move_to_end(info.session)
        kept.users += 1
        try:
            async with kept.lock:
                done = await self._extend(kept.index, store, info)
                if done < 1:
                    return None, done
                answer = await self._in_thread(partial(_ask, kept.index, question))
                if kept.index.fed - kept.tidied > TIDY:
                    kept.tidied = kept.index.fed
                    await self._in_thread(_give_back)
                return answer, 1.0
        except BaseException:
            self._kept.pop(info.session, None)  # half fed: begin anew
            raise
        finally:
            kept.users -= 1
            kept.asked = trio.current_time()
            self._make_room()

    async def let_go(self) -> None:
        """Until cancelled: drop what nobody has asked for of late, that of deleted sessions with it."""
        while True:
            await trio.sleep(LOOK)
            since = trio.current_time() - IDLE
            idle = [
                session
                for session, kept in self._kept.items()
                if not kept.users and kept.asked < since
            ]
            for session in idle:
                del self._kept[session]
            if idle:
                await self._in_thread(_give_back)

    async def _extend(self, index: Index, store: Store, info: SessionInfo) -> float:
        deadline = trio.current_time() + PATIENCE
        while index.fed < info.bytes:
            size = min(PIECE, info.bytes - index.fed)
            data = await store.read(info.session, index.fed, size)
            if not data:
                break
            await self._in_thread(partial(index.feed, data))
            if trio.current_time() >= deadline and index.fed < info.bytes:
                return index.fed / info.bytes
        return 1.0

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        return await trio.to_thread.run_sync(
            call, thread_name="tracesvc timeline", limiter=self._limiter
        )

    def _make_room(self) -> None:
        total = sum(kept.index.nbytes for kept in self._kept.values())
        for session in list(self._kept)[:-1]:
            kept = self._kept[session]
            if total <= self._held:
                return
            if not kept.users:
                total -= kept.index.nbytes
                del self._kept[session]


def _give_back() -> None:
    """Have glibc return what is free: else half of what it takes to make an index stays with the process."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _ask(index: Index, question: Callable[[Index], Any]) -> Any:
    index.settle()
    return question(index)


async def _answer(request: Request, question: Callable[[Index], Any]) -> Response:
    """The answer as msgpack; 202 while the session is being indexed."""
    indexes: Indexes = request.app.state.indexes
    answer, done = await indexes.ask(
        request.app.state.store, request.path_params["session"], question
    )
    if done < 1:
        return JSONResponse({"indexed": done}, 202, {"retry-after": "1"})
    if answer is None:
        raise ProblemError(404, "nothing-there", "there is nothing at that place of the trace")
    return Response(
        msgpack.packb(answer),
        media_type="application/msgpack",
        headers={"cache-control": "no-store"},
    )


async def outline(request: Request) -> Response:
    """``GET /v1/sessions/{session}/outline``: which rows there are: tasks, runs, threads, spans, counters."""
    from tracesvc.analysis.timeline.outline import outline

    return await _answer(request, outline)


async def timeline(request: Request) -> Response:
    """``GET /v1/sessions/{session}/timeline?start&end&width&rows=t1,t2,r1``: what is on the rows of a window.

    ``start`` and ``end``: ns by the clock of the trace; by default all of it.  Without ``rows`` the first 200.
    """
    from tracesvc.analysis.timeline.window import MAX_ROWS, WIDEST, first_rows, window

    start = integer(request, "start", 0)
    end = integer(request, "end", 0)
    width = integer(request, "width", 1024, least=1, most=WIDEST)
    given = request.query_params.get("rows")
    rows = None if given is None else [row for row in given.split(",") if row]
    if rows is not None and len(rows) > MAX_ROWS:
        raise ProblemError(400, "bad-parameter", f"rows: at most {MAX_ROWS} of them")

    def question(index: Index) -> Any:
        begin = start or index.began
        until = max(end or index.ended, begin + 1)
        return window(index, begin, until, width, first_rows(index) if rows is None else rows)

    return await _answer(request, question)


async def sums(request: Request) -> Response:
    """``GET /v1/sessions/{session}/sums?start&end&tasks=1,2``: how long the tasks were in which state, exactly.

    Without ``tasks``: all of them.
    """
    from tracesvc.analysis.timeline.window import sums

    start, end = integer(request, "start", 0), integer(request, "end", 1 << 62)
    given = request.query_params.get("tasks")
    tasks = None if given is None else _numbers("tasks", given)
    return await _answer(request, lambda index: sums(index, start, end, tasks))


async def phase(request: Request) -> Response:
    """``GET /v1/sessions/{session}/phase?task&time``: what a task did at a time, why, until when, who woke it."""
    from tracesvc.analysis.timeline.place import phase

    task, time = integer(request, "task", 0), integer(request, "time", 0)
    return await _answer(request, lambda index: phase(index, task, time))


async def piece(request: Request) -> Response:
    """``GET /v1/sessions/{session}/piece?kind=span|region&id``: a span or a region, with its family and attributes."""
    from tracesvc.analysis.timeline.place import piece

    kind = request.query_params.get("kind", "span")
    if kind not in ("span", "region"):
        raise ProblemError(400, "bad-parameter", "kind is span or region")
    number = integer(request, "id", 0)
    return await _answer(request, lambda index: piece(index, kind, number))


async def search(request: Request) -> Response:
    """``GET /v1/sessions/{session}/search?text``: spans, regions and messages that have it in their name or text."""
    from tracesvc.analysis.timeline.place import search

    text = request.query_params.get("text", "")
    if not 0 < len(text) <= 200:
        raise ProblemError(400, "bad-parameter", "text has 1 to 200 characters")
    return await _answer(request, lambda index: search(index, text))


async def instances(request: Request) -> Response:
    """``GET /v1/sessions/{session}/instances?kind&name&low&high``: the longest of a kind and name.

    ``low`` and ``high`` (ns) choose those of a bucket of a histogram.
    """
    from tracesvc.analysis.timeline.place import KINDS, instances

    kind, name = request.query_params.get("kind", "span"), request.query_params.get("name", "")
    if kind not in KINDS:
        raise ProblemError(400, "bad-parameter", f"kind is one of {', '.join(KINDS)}")
    low, high = integer(request, "low", 0), integer(request, "high", 1 << 62)
    return await _answer(request, lambda index: instances(index, kind, name, low, high))


async def instant(request: Request) -> Response:
    """``GET /v1/sessions/{session}/instant?at=NS``: all tasks that live at a time, and what they are in; columns.

    ``at``: by the clock of the trace; by default its present end.
    """
    from tracesvc.analysis.timeline.place import everyone

    at = integer(request, "at", 0)
    return await _answer(request, lambda index: everyone(index, at or index.ended))


def _numbers(name: str, text: str) -> list[int]:
    found = [part for part in text.split(",") if part]
    if all(part.isascii() and part.isdigit() and len(part) < 19 for part in found):
        return [int(part) for part in found]
    raise ProblemError(400, "bad-parameter", f"{name} are numbers with commas between")


def picture_routes(at: str) -> list[Route]:
    """Routes below the path of a session."""
    return [
        Route(f"{at}/{answer.__name__}", answer)
        for answer in (timeline, outline, sums, phase, piece, search, instances, instant)
    ]
