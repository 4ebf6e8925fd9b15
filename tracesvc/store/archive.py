"""Segments as objects in a bucket: what no stream need keep any longer.

The layout is that of a `FileStore`: ``sessions/<uuid>/<offset>.trace``.  An object is created whole and never changed,
so that whoever comes second finds that it is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

import trio

from tracesvc.store.base import StoreBrokenError, StoreError
from tracesvc.store.segments import segment_name

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["Archive"]

T = TypeVar("T")
THREADS: Final = 16
_NAME: Final = re.compile("sessions/([0-9a-f-]{36})/([0-9]{20})[.]trace")


class Archive:
    """Any number of archives of one bucket may work at once, in any number of processes."""

    def __init__(self, url: str) -> None:
        """``url``: ``s3://BUCKET/PREFIX``; keys, region and endpoint come from the environment (``AWS_...``).

        Raises:
          StoreError: it is no URL of a bucket.
        """
        try:
            from obstore.store import from_url
        except ImportError:
            raise StoreError("a bucket needs obstore: pip install 'tracesvc[s3]'") from None
        self.url = url
        options: dict[str, Any] = {}
        if url.startswith("s3:"):
            options = {
                "client_options": {"timeout": "30s", "connect_timeout": "5s", "allow_http": True},
                "retry_config": {"max_retries": 5, "retry_timeout": _seconds(30)},
            }
        try:
            self._bucket: ObjectStore = from_url(url, **options)
        except Exception as exc:  # obstore raises a dozen classes
            raise StoreError(f"{url} is no bucket that can be used: {_first(exc)}") from exc
        self._limiter = trio.CapacityLimiter(THREADS)
        self.trouble: str | None = None

    async def try_out(self) -> None:
        """See whether it can be written, and refuses to write what is there already.

        Raises:
          StoreError: it does not.
        """
        from obstore import delete, put
        from obstore.exceptions import AlreadyExistsError

        path = f"probe/{uuid4()}"

        def work() -> bool:
            put(self._bucket, path, b"", mode="create", use_multipart=False)
            try:
                put(self._bucket, path, b"", mode="create", use_multipart=False)
            except AlreadyExistsError:
                return True
            finally:
                delete(self._bucket, path)
            return False

        if not await self._in_thread(work):
            raise StoreError(
                f"{self.url} overwrites what is there: take an object store that knows If-None-Match: *"
            )

    async def create(self, session: str, start: int, data: bytes) -> bool:
        """Write a segment, durably; False where there is one with that start already, which stays as it is."""
        from obstore import put
        from obstore.exceptions import AlreadyExistsError

        def work() -> bool:
            try:
                put(self._bucket, _key(session, start), data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

        return await self._in_thread(work)

    async def segments(self, session: str) -> list[tuple[int, int]]:
        """(start, end) of what lies there of a session, in order, without a gap from offset 0 on."""
        found = await self._in_thread(lambda: self._found(f"sessions/{session}/"))
        whole: list[tuple[int, int]] = []
        for _, start, size in sorted(found):
            if start == (whole[-1][1] if whole else 0):
                whole.append((start, start + size))
        return whole

    async def sessions(self) -> list[str]:
        """All that something lies there of."""
        found = await self._in_thread(lambda: self._found("sessions/"))
        return sorted({session for session, _, _ in found})

    async def read(self, session: str, start: int, offset: int, n: int) -> bytes:
        """``n`` bytes of the stream from ``offset`` on, out of the segment that begins at ``start``."""
        from obstore import get_range

        def work() -> bytes:
            at = offset - start
            return bytes(get_range(self._bucket, _key(session, start), start=at, length=n))

        return await self._in_thread(work)

    async def delete(self, session: str) -> None:
        """Remove all of a session, the first segment last, so that what is left is never taken for a whole."""
        from obstore import delete

        def work() -> None:
            for _, start, _ in sorted(self._found(f"sessions/{session}/"), reverse=True):
                delete(self._bucket, _key(session, start))

        await self._in_thread(work)

    def _found(self, prefix: str) -> list[tuple[str, int, int]]:
        from obstore import list as objects

        names = []
        for page in objects(self._bucket, prefix=prefix):
            for meta in page:
                name = _NAME.fullmatch(meta["path"])
                if name is not None:
                    names.append((name[1], int(name[2]), int(meta["size"])))
        return names

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            result = await trio.to_thread.run_sync(
                work, thread_name="tracesvc objects", limiter=self._limiter
            )
        except Exception as exc:  # obstore raises a dozen classes, FileNotFoundError among them
            self.trouble = f"{self.url}: {_first(exc)}"
            raise StoreBrokenError(self.trouble) from exc
        self.trouble = None
        return result


def _key(session: str, start: int) -> str:
    return f"sessions/{session}/{segment_name(start)}"


def _first(exc: Exception) -> str:
    """The first line: what follows is for the makers of the library."""
    return str(exc).partition("\n")[0]


def _seconds(n: int) -> Any:
    from datetime import timedelta

    return timedelta(seconds=n)
