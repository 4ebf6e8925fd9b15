"""``GET /v1/sessions/{session}/export/{format}``: a session in the format of another tool, as it is being made."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
import trio.from_thread
from starlette.requests import Request
from starlette.responses import Response

from tracesvc.service.answers import Answers, Stored, opened, time_of
from tracesvc.service.ingest import MEDIA_TYPE
from tracesvc.service.problems import ProblemError
from tracesvc.service.streams import StreamResponse
from tracesvc.store import Store

__all__ = ["Exports", "cut", "export"]

THREADS: Final = 2
"""exports that are made at once; each reads and writes no quicker than its client takes"""
CHUNK: Final = 256 << 10
"""bytes sent at once"""
_MEDIA_TYPES: Final = {
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".txt": "text/plain; charset=utf-8",
    ".tar": "application/x-tar",
}

Send = Callable[[bytes], Awaitable[None]]


class Exports:
    """The threads that exports are made in."""

    def __init__(self) -> None:
        self.limiter = trio.CapacityLimiter(THREADS)


async def export(request: Request) -> Response:
    """Any format of `tracesvc.export`; one that is a directory comes as a tar file.

    The body ends in good order only if it is whole: what cannot be finished is broken off.
    """
    from tracesvc.export import FORMATS

    exports: Exports = request.app.state.exports
    store: Store = request.app.state.store
    name = request.path_params["session"]
    chosen = FORMATS.get(request.path_params["format"])
    info = await store.info(name)
    if chosen is None:
        why = f"there is no such format; there are {', '.join(FORMATS)}"
        raise ProblemError(404, "unknown-format", why)
    stored = Stored(info, await store.path(name))
    if not exports.limiter.available_tokens:
        why = f"{THREADS} exports are being made already"
        raise ProblemError(503, "busy", why, {"retry-after": "5"})
    write = _directory if chosen.directory else _file

    patience: float = request.app.state.config.export_timeout

    async def body(send: Send) -> None:
        async def send_soon(part: bytes) -> None:
            with trio.fail_after(patience):
                await send(part)

        await trio.to_thread.run_sync(
            partial(write, stored, chosen.name, send_soon),
            thread_name="tracesvc export",
            limiter=exports.limiter,
        )

    suffix = chosen.suffix or ".tar"
    kind = next((kind for end, kind in _MEDIA_TYPES.items() if suffix.endswith(end)), None)
    file = f"{info.session}{'' if chosen.suffix else f'.{chosen.name}'}{suffix}"
    headers = {"content-disposition": f'attachment; filename="{file}"'}
    return StreamResponse(
        body, request, headers, kind or "application/octet-stream", resumable=False
    )


async def cut(request: Request) -> Response:
    """``GET /v1/sessions/{session}/cut?from&to``: what lies between two times, in whole generations, as a trace."""
    store: Store = request.app.state.store
    exports: Exports = request.app.state.exports
    name, parameters = request.path_params["session"], request.query_params
    times = parameters.get("from"), parameters.get("to")
    stored = Stored(await store.info(name), await store.path(name))
    answers: Answers = request.app.state.answers
    begin, end = await answers.run(request, partial(_bounds, stored, *times))
    if not exports.limiter.available_tokens:
        why = f"{THREADS} exports are being made already"
        raise ProblemError(503, "busy", why, {"retry-after": "5"})
    patience: float = request.app.state.config.export_timeout

    async def body(send: Send) -> None:
        async def send_soon(part: bytes) -> None:
            with trio.fail_after(patience):
                await send(part)

        await trio.to_thread.run_sync(
            partial(_part, stored, begin, end, send_soon),
            thread_name="tracesvc cut",
            limiter=exports.limiter,
        )

    headers = {"content-disposition": f'attachment; filename="{name}.part.trace"'}
    return StreamResponse(body, request, headers, MEDIA_TYPE, resumable=False)


class _SomethingError(Exception):
    """There is something to send."""


def _bounds(stored: Stored, begin: str | None, end: str | None) -> tuple[int | None, int | None]:
    """The times, ns by the clock of the trace, if there is something between them.

    Once the body has begun it is too late to say that there is not.
    """
    from tracesvc.rewrite import cut

    def something(_data: bytes) -> None:
        raise _SomethingError

    with opened(stored) as trace:
        low, high = time_of(trace, "from", begin), time_of(trace, "to", end)
        if low is not None and high is not None and high < low:
            raise ProblemError(400, "bad-parameter", "to is before from")
        try:
            cut(trace, something, begin=low, end=high)
        except _SomethingError:
            return low, high
        except ValueError as exc:
            raise ProblemError(404, "nothing-there", str(exc)) from None
    raise AssertionError("a cut without a byte")


def _part(stored: Stored, begin: int | None, end: int | None, send: Send) -> None:
    from tracesvc.rewrite import cut

    sender = _Sender(send)
    with opened(stored) as trace:
        cut(trace, sender.write, begin=begin, end=end)
    sender.flush()


class _Sender:
    """A file, as a format's writer sees it, whose bytes go to the client."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._parts: list[bytes] = []
        self._held = 0

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        self._held += len(data)
        if self._held >= CHUNK:
            self.flush()
        return len(data)

    def flush(self) -> None:
        if self._held:
            # Whoever does not read, or has gone, stops the work here.
            trio.from_thread.run(self._send, b"".join(self._parts))
            self._parts.clear()
            self._held = 0


def _file(stored: Stored, name: str, send: Send) -> None:
    from tracesvc.export import export

    sender = _Sender(send)
    with opened(stored) as trace:
        export(trace, name, sender.write)
    sender.flush()


def _directory(stored: Stored, name: str, send: Send) -> None:
    from tracesvc.export import export

    sender = _Sender(send)
    with tempfile.TemporaryDirectory(prefix="tracesvc-") as temporary:
        directory = Path(temporary) / name
        with opened(stored) as trace:
            export(trace, name, directory)
        file: Any = sender
        with tarfile.open(fileobj=file, mode="w|", bufsize=CHUNK) as tar:
            tar.add(directory, stored.info.session)
    sender.flush()
