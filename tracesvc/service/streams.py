"""Streams going out: raw frames, and the same as server-sent events for browsers.

A follower costs a few tasks, one chunk of memory and its socket's buffer, however slow it is: everything it gets is
read from the store when it is ready for it, once for all who are at the same place (`tracesvc.service.relay`).
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tracesvc.format.errors import FormatError
from tracesvc.format.frames import HEADER_SIZE, parse_header, uncompress
from tracesvc.service.config import Config
from tracesvc.service.ingest import MEDIA_TYPE
from tracesvc.service.parameters import boolean, integer
from tracesvc.service.problems import ProblemError
from tracesvc.service.relay import Relays
from tracesvc.store import SessionInfo, Store

__all__ = ["CHUNK", "Followers", "StreamResponse", "frames", "live"]

CHUNK: Final = 256 << 10
"""bytes read and sent at once of what is durable when it is asked for"""

Body = Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]]


class StreamResponse(Response):
    """A response whose body is a function that is given ``send``, and runs as long as client and service want it.

    When the client goes away, or the service stops, the function is cancelled; its clean-up always runs, awaits
    included, which nothing guarantees for an async generator.  At a stop a body that is ``resumable`` ends in good
    order: the client goes on later, from where it got to.  One that is not, or whose size is known, is given the time
    that is left.
    """

    def __init__(
        self,
        body: Body,
        request: Request,
        headers: Mapping[str, str],
        media_type: str,
        size: int | None = None,
        *,
        status: int = 200,
        resumable: bool = True,
        follows: bool = True,
    ) -> None:
        super().__init__(None, status, {"cache-control": "no-store", **headers}, media_type)
        del self.headers["content-length"]
        if size is not None:
            self.headers["content-length"] = str(size)
        self._body = body
        self._stopping: trio.Event = request.app.state.stopping
        self._endless = size is None and resumable
        self._follows = follows and self._endless
        self._followers: Followers = request.app.state.followers
        if self._follows:
            request.app.state.limits.admit_follower(self._followers.count)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = False

        async def send_part(part: bytes) -> None:
            await send({"type": "http.response.body", "body": part, "more_body": True})

        async def watch_client() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            gone = True
            nursery.cancel_scope.cancel()

        async def watch_service() -> None:
            await self._stopping.wait()
            nursery.cancel_scope.cancel()

        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        if scope["method"] != "HEAD":
            with self._counted(scope):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(watch_client)
                    if self._endless:
                        nursery.start_soon(watch_service)
                    await self._body(send_part)
                    nursery.cancel_scope.cancel()
        if not gone:
            await send({"type": "http.response.body", "body": b""})

    def _counted(self, scope: Scope) -> AbstractContextManager[Any]:
        """Counts as a follower while it lasts."""
        scope["tracesvc.endless"] = self._endless
        if not self._follows:
            return nullcontext()
        return self._followers.one_more()


class Followers:
    """How many streams follow a session."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """While it lasts."""
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


async def frames(request: Request) -> Response:
    """``GET /v1/sessions/{session}/frames?from=OFFSET&follow=true``: the raw stream from any offset on.

    Without ``follow``: what is durable now.  With it: that, and what comes, until the session has ended.
    """
    store: Store = request.app.state.store
    relays: Relays = request.app.state.relays
    info = await store.info(request.path_params["session"])
    start = _start(integer(request, "from", 0), info)

    async def body(send: Callable[[bytes], Awaitable[None]]) -> None:
        offset = start
        while offset < info.bytes:
            part = await store.read(info.session, offset, min(CHUNK, info.bytes - offset))
            if not part:
                return  # deleted meanwhile
            await send(part)
            offset += len(part)

    async def follow(send: Callable[[bytes], Awaitable[None]]) -> None:
        offset = start
        with relays.of(info.session) as relay:
            while await relay.more(offset):
                part, offset = await relay.piece(offset, _as_it_is)
                await send(part)

    if boolean(request, "follow"):
        return StreamResponse(follow, request, _headers(start, info), MEDIA_TYPE)
    return StreamResponse(body, request, _headers(start, info), MEDIA_TYPE, info.bytes - start)


async def live(request: Request) -> Response:
    """``GET /v1/sessions/{session}/live?from=OFFSET&plain=true``: the same as server-sent events.

    ``frames``: whole frames, base64; its id is the offset behind them.  ``end``: the session has ended.  A browser that
    comes back sends the last id, and goes on there.  ``plain``: frames that are compressed are sent as they were
    before, for who has no zstd; offsets stay those of the stored stream.
    """
    store: Store = request.app.state.store
    config: Config = request.app.state.config
    info = await store.info(request.path_params["session"])
    last = request.headers.get("last-event-id", "")
    start = _start(
        int(last) if last.isascii() and last.isdigit() else integer(request, "from", 0), info
    )
    head = await store.read(info.session, start, HEADER_SIZE)
    if head and parse_header(head) is None:
        raise ProblemError(416, "not-a-frame", f"no frame begins at {start}", offset=info.bytes)

    encode = _plain_event if boolean(request, "plain") else _event
    relays: Relays = request.app.state.relays

    async def body(send: Callable[[bytes], Awaitable[None]]) -> None:
        offset = start
        await send(b"retry: 1000\n\n")
        with relays.of(info.session) as relay:
            while True:
                more = None
                with trio.move_on_after(config.heartbeat):
                    more = await relay.more(offset)
                if more is None:
                    await send(b": still here\n\n")
                elif more:
                    part, offset = await relay.piece(offset, encode)
                    await send(part)
                else:
                    await send(b'id: %d\nevent: end\ndata: {"offset": %d}\n\n' % (offset, offset))
                    return

    return StreamResponse(body, request, _headers(start, info), "text/event-stream")


def _as_it_is(data: bytes, _offset: int) -> tuple[bytes, int]:
    return data, len(data)


def _event(data: bytes, offset: int) -> tuple[bytes, int]:
    """The whole frames in it as one event."""
    whole = _whole_frames(data)
    return (_told(memoryview(data)[:whole], offset + whole), whole) if whole else (b"", 0)


def _plain_event(data: bytes, offset: int) -> tuple[bytes, int]:
    whole = _whole_frames(data)
    return (_told(_plain(data[:whole]), offset + whole), whole) if whole else (b"", 0)


def _told(data: bytes | memoryview, end: int) -> bytes:
    return b"id: %d\nevent: frames\ndata: %b\n\n" % (end, base64.b64encode(data))


def _start(offset: int, info: SessionInfo) -> int:
    if offset > info.bytes:
        why = f"the session has {info.bytes} bytes so far"
        headers = {"content-range": f"bytes */{info.bytes}"}
        raise ProblemError(416, "offset-past-end", why, headers, offset=info.bytes)
    return offset


def _headers(start: int, info: SessionInfo) -> dict[str, str]:
    return {
        "tracesvc-session": info.session,
        "tracesvc-offset": str(start),
        "tracesvc-durable": str(info.bytes),
        "tracesvc-state": info.state,
    }


def _whole_frames(data: bytes) -> int:
    """Bytes of the whole frames at the beginning of ``data``; damage (of the disk) counts as one with what follows."""
    at = 0
    while len(data) - at >= HEADER_SIZE:
        head = parse_header(data[at : at + HEADER_SIZE])
        if head is None:
            return len(data)
        end = at + HEADER_SIZE + head[-1]
        if end > len(data):
            break
        at = end
    return at


def _plain(data: bytes) -> bytes:
    """Whole frames, uncompressed; what is no frame, or does not decompress, stays as it is."""
    parts: list[bytes] = []
    at = 0
    while len(data) - at >= HEADER_SIZE and (head := parse_header(data, at)) is not None:
        frame = data[at : at + HEADER_SIZE + head[-1]]
        at += len(frame)
        try:
            parts.append(uncompress(frame))
        except FormatError:
            parts.append(frame)
    return b"".join([*parts, data[at:]])
