"""Work on what is stored of a session, in threads: what it may cost, and what is kept of it.

The answer to a question takes one of a few threads, reads the session as far as it is durable when the question comes,
and ends early when the client has gone or the time is up: whatever reads a trace comes by here for every piece of it.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import trio
import trio.from_thread
from starlette.requests import Request
from starlette.responses import Response

from tracesvc.model.source import open_trace
from tracesvc.service.config import Config
from tracesvc.service.problems import HEARD_OUT, ProblemError
from tracesvc.store import SessionInfo

if TYPE_CHECKING:
    from tracesvc.model import Trace

__all__ = ["Answers", "Stored", "as_json", "opened", "time_of"]

THREADS: Final = 2
"""questions that are answered at once"""
QUEUE: Final = 16
"""questions that wait for that, at most"""
KEPT: Final = 16 << 20
"""bytes of answers that are kept, in case somebody asks again"""

T = TypeVar("T")


class Stored:
    """A session to work on: its file, as far as it was durable when the question came."""

    def __init__(self, info: SessionInfo, path: Path) -> None:
        self.info, self.path = info, path


class _Part:
    """The first ``size`` bytes of a file; reading ends the work that nobody waits for any more."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left, self._size = file, size, size

    def read(self, n: int = -1) -> bytes:
        trio.from_thread.check_cancelled()
        data = self._file.read(self._left if n < 0 else min(n, self._left))
        self._left -= len(data)
        return data

    def seek(self, position: int) -> int:
        self._left = self._size - position
        return self._file.seek(position)


@contextmanager
def opened(stored: Stored) -> Iterator[Trace]:
    """The trace of a session, for work in a thread."""
    # not at the top: NumPy takes a while to load, and who only collects traces never needs it
    from tracesvc.model import read

    with open_trace(stored.path) as file:
        yield read(_Part(file, stored.info.bytes))


def time_of(trace: Trace, name: str, text: str | None) -> int | None:
    """The time that the parameter ``name`` is, in ns by the clock of the trace; None where it was not given.

    Raises:
      ProblemError: it is none.
    """
    from tracesvc.model.times import Clock

    if text is None:
        return None
    try:
        return Clock(trace).parse(text[:40])
    except ValueError as exc:
        raise ProblemError(400, "bad-parameter", f"{name}: {exc}") from None


def as_json(answer: Any) -> bytes:
    """An answer of the analysis; numbers that JSON does not have become null."""
    content = answer.as_dict()
    try:
        return json.dumps(content, allow_nan=False, default=repr).encode()
    except ValueError:
        return json.dumps(_finite(content), allow_nan=False, default=repr).encode()


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    return value


class Answers:
    """Answers questions, a few at a time, and keeps the last answers."""

    def __init__(self, config: Config) -> None:
        self._limiter = trio.CapacityLimiter(THREADS)
        self._waiting = 0
        self._timeout = config.question_timeout
        self._known: OrderedDict[Hashable, bytes] = OrderedDict()
        self._kept = 0

    async def json(self, request: Request, key: Hashable, work: Callable[[], bytes]) -> Response:
        """The answer as JSON: the one that is kept under ``key``, or else that of ``work``, which runs in a thread.

        Raises:
          ProblemError: what ``work`` raised; 503 where too many wait already, or it took too long.
        """
        known = self._known.get(key)
        if known is None:
            known = await self.run(request, work)
            self._keep(key, known)
        else:
            self._known.move_to_end(key)
        return Response(known, media_type="application/json")

    async def run(self, request: Request, work: Callable[[], T]) -> T:
        """Run ``work`` in a thread as long as the client waits for it, and not too long.

        Raises:
          ProblemError: see `json`.
        """
        if self._waiting >= QUEUE:
            why = f"{self._waiting} questions wait already"
            raise ProblemError(503, "busy", why, {"retry-after": "2"})
        outcome: list[T] = []
        problem: Exception | None = None
        self._waiting += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, request, nursery.cancel_scope)
                nursery.cancel_scope.deadline = trio.current_time() + self._timeout
                try:
                    outcome.append(
                        await trio.to_thread.run_sync(
                            work, thread_name="tracesvc question", limiter=self._limiter
                        )
                    )
                except (ProblemError, ImportError) as exc:
                    problem = exc
                nursery.cancel_scope.cancel()
        finally:
            self._waiting -= 1
        if isinstance(problem, ProblemError):
            raise problem
        if problem is not None:
            raise ProblemError(501, "not-installed", str(problem))
        if not outcome:
            why = f"that takes more than {self._timeout:g} seconds; fetch the session and ask there"
            raise ProblemError(503, "too-long", why)
        return outcome[0]

    @staticmethod
    async def _watch(request: Request, scope: trio.CancelScope) -> None:
        while (message := await request.receive())["type"] != "http.disconnect":
            if not message.get("more_body", False):
                request.scope[HEARD_OUT] = True
        scope.cancel()

    def _keep(self, key: Hashable, answer: bytes) -> None:
        if len(answer) > KEPT // 4 or key in self._known:
            return
        self._known[key] = answer
        self._kept += len(answer)
        while self._kept > KEPT:
            self._kept -= len(self._known.popitem(last=False)[1])
