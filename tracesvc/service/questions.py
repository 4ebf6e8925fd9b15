"""Questions about a session: ``GET /v1/sessions/{session}/{question}``, answered as by the command of that name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tracesvc.service.answers import Answers, Stored, as_json, opened, time_of
from tracesvc.service.parameters import boolean, choices, integer, number, span_of_time
from tracesvc.service.problems import ProblemError
from tracesvc.store import Store, session_name

if TYPE_CHECKING:
    from tracesvc.model import Trace

__all__ = ["fleet", "question_routes"]

Ask: TypeAlias = "Callable[[Trace], Any]"
"""asks a trace, in a thread; gives an answer of `tracesvc.analysis`"""

KINDS: Final = ("span", "region", "task", "step", "queue", "wait")
MOST_SESSIONS: Final = 20
"""that one question may be about"""
LONGEST: Final = 1000
"""of a list that has no natural end"""


def _summary(_request: Request) -> Ask:
    def ask(trace: Trace) -> Any:
        from tracesvc.analysis import summarize

        return summarize(trace)

    return ask


def _tasks(request: Request) -> Ask:
    at = request.query_params.get("at")

    def ask(trace: Trace) -> Any:
        from tracesvc.analysis import tasks_at

        return tasks_at(trace, time_of(trace, "at", at))

    return ask


def _why(request: Request) -> Ask:
    parameters = request.query_params
    span, start, end = (parameters.get(name) for name in ("span", "from", "to"))
    task = integer(request, "task", 0, least=1) if "task" in parameters else None
    if (start is None) != (end is None):
        raise ProblemError(400, "bad-parameter", "a window has both from and to")
    if span is not None and start is not None:
        raise ProblemError(400, "bad-parameter", "a span or a window, not both")
    if task is not None and start is None:
        raise ProblemError(400, "bad-parameter", "task goes with a window")

    def ask(trace: Trace) -> Any:
        from tracesvc.analysis import NotFoundError, why, why_window

        low, high = time_of(trace, "from", start), time_of(trace, "to", end)
        try:
            if low is None or high is None:
                number = span is not None and span.isascii() and span.isdigit() and len(span) < 19
                return why(trace, int(span) if span is not None and number else span)
            if high < low:
                raise ProblemError(400, "bad-parameter", "to is before from")
            return why_window(trace, low, high, task)
        except NotFoundError as exc:
            raise ProblemError(404, "not-found", str(exc)) from None

    return ask


def _stalls(request: Request) -> Ask:
    over = span_of_time(request, "over", 10_000_000)
    most = integer(request, "most", 20, least=1, most=LONGEST)

    def ask(trace: Trace) -> Any:
        from tracesvc.analysis import stalls

        return stalls(trace, over, most)

    return ask


def _latency(request: Request) -> Ask:
    of = choices(request, "of", KINDS)

    def ask(trace: Trace) -> Any:
        from tracesvc.analysis import Of, latencies

        return latencies(trace, *map(Of, of))

    return ask


def _lint(request: Request) -> Ask:
    step = span_of_time(request, "step", 200_000_000)
    patience = span_of_time(request, "patience", 5_000_000_000)
    tasks = integer(request, "tasks", 20, least=2)
    only, own = request.query_params.getlist("only"), boolean(request, "own")

    def ask(trace: Trace) -> Any:
        from tracesvc.analysis import Limits, lint

        limits = Limits(step=step, patience=patience, tasks=tasks, cancelled=patience)
        try:
            return lint(trace, limits, only, own=own)
        except ValueError as exc:
            raise ProblemError(400, "bad-parameter", str(exc)) from None

    return ask


QUESTIONS: Final[Mapping[str, Callable[[Request], Ask]]] = {
    "summary": _summary,
    "tasks": _tasks,
    "why": _why,
    "stalls": _stalls,
    "latency": _latency,
    "lint": _lint,
}


async def _question(ask_of: Callable[[Request], Ask], request: Request) -> Response:
    ask = ask_of(request)
    stored = await _stored(request, request.path_params["session"])

    def work() -> bytes:
        with opened(stored) as trace:
            return as_json(_readable(ask, trace))

    answers: Answers = request.app.state.answers
    key = request.url.path, request.url.query, stored.info.bytes
    return await answers.json(request, key, work)


async def _diff(request: Request) -> Response:
    """``GET .../diff?before=SESSION``: what became slower since then."""
    ratio = number(request, "ratio", 1.25, least=1)
    time = span_of_time(request, "time", 100_000)
    count = integer(request, "count", 5, least=1)
    if "before" not in request.query_params:
        raise ProblemError(400, "bad-parameter", "before is the session to compare this one with")
    after = await _stored(request, request.path_params["session"])
    before = await _stored(request, session_name(request.query_params["before"]))

    def work() -> bytes:
        from tracesvc.analysis import Thresholds, diff

        with opened(before) as old, opened(after) as new:
            thresholds = Thresholds(ratio, time, count)
            return as_json(_readable(lambda trace: diff(old, trace, thresholds), new))

    answers: Answers = request.app.state.answers
    key = request.url.path, request.url.query, before.info.bytes, after.info.bytes
    return await answers.json(request, key, work)


async def _why_with(request: Request) -> Response:
    """``GET .../why?span=...&with=SESSION``: the spans around it, too, in those sessions as well."""
    names = request.query_params.getlist("with")
    if not names:
        return await _question(_why, request)
    if "from" in request.query_params:
        raise ProblemError(400, "bad-parameter", "with goes with a span")
    ask = _why(request)
    stored = await _stored(request, request.path_params["session"])
    others = await _sessions(request, names)

    def work() -> bytes:
        from tracesvc.analysis import ancestors

        with ExitStack() as stack:
            trace = stack.enter_context(opened(stored))
            more = [stack.enter_context(opened(other)) for other in others]
            found = _readable(ask, trace)
            around: dict[str, Any] = {}
            with suppress(LookupError):  # its begin may be lost
                around = _readable(lambda one: ancestors(one, found.span, more), trace).as_dict()
            return as_json(_Both(found.as_dict() | around))

    answers: Answers = request.app.state.answers
    sizes = tuple(one.info.bytes for one in (stored, *others))
    return await answers.json(request, (request.url.path, request.url.query, sizes), work)


async def fleet(request: Request) -> Response:
    """``GET /v1/fleet?session=A&session=B``: sessions on one axis of time."""
    sessions = await _sessions(request, request.query_params.getlist("session"))
    if not sessions:
        raise ProblemError(400, "bad-parameter", "session is one that is to be on the axis")

    def work() -> bytes:
        from tracesvc.analysis import fleet
        from tracesvc.format import FormatError

        with ExitStack() as stack:
            try:
                return as_json(fleet([stack.enter_context(opened(one)) for one in sessions]))
            except FormatError as exc:
                raise ProblemError(500, "unreadable", str(exc)) from None

    answers: Answers = request.app.state.answers
    sizes = tuple(one.info.bytes for one in sessions)
    return await answers.json(request, (request.url.path, request.url.query, sizes), work)


class _Both:
    """An answer made of two."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content

    def as_dict(self) -> dict[str, Any]:
        return self._content


async def _sessions(request: Request, names: list[str]) -> list[Stored]:
    if len(names) > MOST_SESSIONS or len(set(names)) < len(names):
        why = f"at most {MOST_SESSIONS} sessions, each once"
        raise ProblemError(400, "bad-parameter", why)
    return [await _stored(request, session_name(name)) for name in names]


async def _stored(request: Request, name: str) -> Stored:
    store: Store = request.app.state.store
    return Stored(await store.info(name), await store.path(name))


def _readable(ask: Ask, trace: Trace) -> Any:
    from tracesvc.format import FormatError

    try:
        return ask(trace)
    except FormatError as exc:  # of the disk: what is no trace was never taken
        raise ProblemError(500, "unreadable", str(exc)) from None


def question_routes(at: str) -> list[Route]:
    """Routes below the path of a session."""
    routes = [Route(f"{at}/{name}", partial(_question, ask)) for name, ask in QUESTIONS.items()]
    return [Route(f"{at}/why", _why_with), *routes, Route(f"{at}/diff", _diff)]
