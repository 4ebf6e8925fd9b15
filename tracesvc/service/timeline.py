"""Pictures of a session: its rows, a window of them, one place, all tasks at an instant.

All of it is asked of an `Index`, which is made when somebody asks first and kept while there is room.  Making one takes
about half a second per million events; a request works on it for a while and, if it is not done by then, answers 202
with how far it has got: ask again.  So nothing is computed that nobody waits for, and a session that grows is indexed
as it does.

Who does not want to wait says ``rough``: the outline and the timeline then come at once, from the session's `Overview`
or, where there is none, from what has been indexed by now, and say how much that is.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgpack
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tracesvc.service.overview import Overview, OverviewError
from tracesvc.service.overviews import Overviews
from tracesvc.service.parameters import boolean, integer
from tracesvc.service.problems import ProblemError
from tracesvc.store import SessionInfo, Store

if TYPE_CHECKING:
    from tracesvc.analysis.timeline import Index

__all__ = ["Indexes", "picture_routes"]

PIECE: Final = 256 << 10
"""bytes indexed at once; whoever asks meanwhile waits for so many"""
FRESH: Final = 4 << 20
"""bytes: who is in a hurry waits for them to be indexed, as those of a session that grows, but not for more"""
PATIENCE: Final = 0.5
"""seconds that a request works on an index before it says how far it has got"""
HASTE: Final = 0.15
"""seconds that a rough one works on it"""
LONGEST: Final = 3.0
"""seconds between two pictures of what has been indexed by then"""
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
        self.parts = 0
        """how often what was indexed by then has been shown"""
        self.tidied = 0
        """bytes of the stream that it had when memory was given back last"""


class Indexes:
    """Makes indexes, and keeps those that were asked for last."""

    def __init__(self, overviews: Overviews, held: int = HELD) -> None:
        self._overviews = overviews
        self._held = held
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._limiter = trio.CapacityLimiter(2)

    async def ask(
        self, store: Store, session: str, question: Callable[[Index], Any]
    ) -> tuple[Any, float]:
        """(answer, 1.0), or (None, how much of the session is indexed); ``question`` is asked in a thread."""
        info = await store.info(session)
        with self._using(info) as kept:
            done = await self._extend(kept, store, info, PATIENCE)
            if done < 1:
                return None, done
            return await self._answer(kept, question), 1.0

    async def look(
        self,
        store: Store,
        session: str,
        question: Callable[[Index], Any],
        roughly: Callable[[Overview], Any],
        *,
        hurry: bool,
    ) -> dict[str, Any]:
        """What there is by now: ``indexed`` says how much, ``rough`` whether it is the overview that answered.

        ``hurry``: it is not to work on the index for long, for something is indexed that can be shown.
        """
        info = await store.info(session)
        kept = self._kept.get(info.session)
        done = 0.0 if kept is None else min(1.0, kept.index.fed / max(info.bytes, 1))
        if done < 1:
            overview = await self._overviews.get(info)
            if overview is not None:
                try:
                    answer = await self._in_thread(partial(roughly, overview))
                except OverviewError:
                    await self._overviews.drop(info)
                else:
                    return {**answer, "indexed": done, "rough": True}
        with self._using(info) as kept:
            patience = HASTE
            if info.bytes - kept.index.fed <= FRESH:  # soon done
                patience = PATIENCE
            elif done and hurry:
                patience = 0.0
            elif done:
                # each time a part is shown costs, so it is done less and less often
                patience = min(PATIENCE * 1.5**kept.parts, LONGEST) if kept.parts else 0.0
                kept.parts += 1
            if patience:
                done = await self._extend(kept, store, info, patience)
            answer = await self._answer(kept, question, soon=done < 1)
        return {**answer, "indexed": done, "rough": False}

    async def prepare(self, store: Store, session: str) -> None:
        """Index a session that somebody is about to look at."""
        info = await store.info(session)
        with self._using(info) as kept:
            while await self._extend(kept, store, info, PATIENCE) < 1:
                pass

    @contextmanager
    def _using(self, info: SessionInfo) -> Iterator[_Kept]:
        kept = self._kept.get(info.session)
        if kept is None:
            # not at the top: NumPy takes a while to load, and who only collects traces never needs it
            from tracesvc.analysis.timeline import Index

            kept = self._kept.setdefault(info.session, _Kept(Index(self._held)))
            self._overviews.heard(info.session)  # for the next time
        self._kept.move_to_end(info.session)
        kept.users += 1
        try:
            yield kept
        except Exception:
            if self._kept.get(info.session) is kept:
                del self._kept[info.session]  # half fed: begin anew
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

    async def _extend(self, kept: _Kept, store: Store, info: SessionInfo, patience: float) -> float:
        """Work on it for a while; how much of it there is then. Others get their turn between two pieces."""
        index = kept.index
        deadline = trio.current_time() + patience
        while index.fed < info.bytes:
            async with kept.lock:
                size = min(PIECE, info.bytes - index.fed)
                data = await store.read(info.session, index.fed, size) if size > 0 else b""
                if not data:
                    break
                await self._in_thread(partial(index.feed, data))
            if trio.current_time() >= deadline and index.fed < info.bytes:
                return index.fed / info.bytes
        return 1.0

    async def _answer(
        self, kept: _Kept, question: Callable[[Index], Any], *, soon: bool = False
    ) -> Any:
        async with kept.lock:
            answer = await self._in_thread(partial(_ask, kept.index, question, soon=soon))
            if kept.index.fed - kept.tidied > TIDY:
                kept.tidied = kept.index.fed
                await self._in_thread(_give_back)
        return answer

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


def _ask(index: Index, question: Callable[[Index], Any], *, soon: bool) -> Any:
    index.settle(soon=soon)
    return question(index)


async def _answer(
    request: Request,
    question: Callable[[Index], Any],
    roughly: Callable[[Overview], Any] | None = None,
    *,
    hurry: bool = False,
) -> Response:
    """The answer as msgpack; 202 while the session is being indexed, unless what there is will do."""
    indexes: Indexes = request.app.state.indexes
    store, session = request.app.state.store, request.path_params["session"]
    if roughly is not None and boolean(request, "rough"):
        answer, done = await indexes.look(store, session, question, roughly, hurry=hurry), 1.0
    else:
        answer, done = await indexes.ask(store, session, question)
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
    """``GET /v1/sessions/{session}/outline?rough``: which rows there are: tasks, runs, threads, spans, counters."""
    from tracesvc.analysis.timeline.outline import outline

    return await _answer(request, outline, lambda overview: overview.outline)


async def timeline(request: Request) -> Response:
    """``GET /v1/sessions/{session}/timeline?start&end&width&rows=t1,t2,r1&rough``: what is on the rows of a window.

    ``start`` and ``end``: ns by the clock of the trace; by default all of it.  Without ``rows`` the first 200.
    An overview answers with all of the session, in the width that it has.
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

    def roughly(overview: Overview) -> Any:
        return overview.window(overview.first_rows() if rows is None else rows)

    return await _answer(request, question, roughly, hurry=True)


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
