"""``GET /v1/sessions/{session}/parquet/{table}``: a table of a finished session, a Parquet file.

The service executes no SQL: what that costs is not known beforehand.  Whoever asks reads what the query needs, by
ranges, and sees the sessions that its token is for.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from tracesvc.service.problems import ProblemError
from tracesvc.service.streams import CHUNK, StreamResponse
from tracesvc.store import NoTablesError, Store

__all__ = ["parquet"]

MEDIA_TYPE: Final = "application/vnd.apache.parquet"
_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


async def parquet(request: Request) -> Response:
    """The file, or one range of it.  ``If-Match`` with its ETag: that very file, or 412."""
    store: Store = request.app.state.store
    session, table = request.path_params["session"], request.path_params["table"]
    file = await store.table(session, table)
    tag = f'"{file.crc32:08x}"'
    if request.headers.get("if-match", tag) not in (tag, "*"):
        raise ProblemError(412, "changed", "the table has been made anew", {"etag": tag})
    wanted = _range(request.headers.get("range"), file.bytes)
    start, end = wanted or (0, file.bytes)
    headers = {"etag": tag, "accept-ranges": "bytes"}
    if wanted:
        headers["content-range"] = f"bytes {start}-{end - 1}/{file.bytes}"

    async def body(send: Callable[[bytes], Awaitable[None]]) -> None:
        at = start
        while at < end:
            data = await store.read_table(session, table, at, min(CHUNK, end - at))
            if not data:
                raise NoTablesError(f"{table} of {session} is shorter than it was")
            await send(data)
            at += len(data)

    status = 206 if wanted else 200
    return StreamResponse(body, request, headers, MEDIA_TYPE, end - start, status=status)


def _range(text: str | None, size: int) -> tuple[int, int] | None:
    """(start, end) of what is wanted; None, for all, where nothing is said, or more than one range.

    Raises:
      ProblemError: there is nothing there.
    """
    found = None if text is None else _RANGE.fullmatch(text.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, end = max(0, size - int(found[2])), size
    else:
        start, end = int(found[1]), min(int(found[2]) + 1 if found[2] else size, size)
    if start >= end:
        headers = {"content-range": f"bytes */{size}"}
        raise ProblemError(416, "no-such-range", f"the file has {size} bytes", headers)
    return start, end
