"""Segments as objects in a bucket: what no stream need keep any longer.

The layout is that of a `FileStore`: ``sessions/<uuid>/<offset>.trace``, and tables in ``parquet`` beside them.  An
object is created whole and never changed, so that whoever comes second finds that it is there.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

import trio

from tracesvc.store.base import StoreBrokenError, StoreError
from tracesvc.store.segments import segment_name
from tracesvc.store.tables import MANIFEST, PARQUET, Compacted, TableFile, tables_name

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["Archive", "Objects", "segment_key", "table_key"]

T = TypeVar("T")
THREADS: Final = 16
_NAME: Final = re.compile("sessions/([0-9a-f-]{36})/([0-9]{20})[.]trace")
_MANIFEST: Final = re.compile(f"sessions/([0-9a-f-]{{36}})/{PARQUET}/([^/]+)/{re.escape(MANIFEST)}")
LARGEST: Final = 512 << 20
"""bytes of a table's file that is sent, for it is held in memory meanwhile"""


class Objects:
    """A bucket; for threads.  What goes wrong there is a `StoreBrokenError`."""

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

    def create(self, key: str, data: bytes) -> bool:
        """Write an object, durably; False where there is one of that name, which stays as it is."""
        from obstore import put
        from obstore.exceptions import AlreadyExistsError

        try:
            with self._one_error():
                put(self._bucket, key, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    def read(self, key: str, start: int = 0, n: int | None = None) -> bytes:
        """All of an object, or ``n`` bytes from ``start`` on.

        Raises:
          FileNotFoundError: there is none.
        """
        from obstore import get, get_range

        with self._one_error():
            if n is None:
                return bytes(get(self._bucket, key).bytes())
            return bytes(get_range(self._bucket, key, start=start, length=n))

    def delete(self, key: str) -> None:
        """Remove it, if it is there."""
        from obstore import delete

        with self._one_error():
            delete(self._bucket, key)

    def names(self, prefix: str) -> list[tuple[str, int]]:
        """(name, size) of all whose names begin so."""
        from obstore import list as objects

        with self._one_error():
            return [
                (str(meta["path"]), int(meta["size"]))
                for page in objects(self._bucket, prefix=prefix)
                for meta in page
            ]

    def segments(self, prefix: str = "sessions/") -> list[tuple[str, int, int]]:
        """(session, start, bytes) of what is archived."""
        return [
            (found[1], int(found[2]), size)
            for name, size in self.names(prefix)
            if (found := _NAME.fullmatch(name)) is not None
        ]

    def tables(self, session: str, size: int) -> Compacted | None:
        """Those of a session of so many bytes."""
        try:
            found = Compacted.unpack(self.read(f"{_tables(session, size)}/{MANIFEST}"))
        except (FileNotFoundError, ValueError):
            return None
        return found if (found.session, found.size) == (session, size) else None

    @contextmanager
    def _one_error(self) -> Iterator[None]:
        from obstore.exceptions import AlreadyExistsError

        try:
            yield
        except (AlreadyExistsError, FileNotFoundError):
            raise
        except Exception as exc:  # obstore raises a dozen classes
            raise StoreBrokenError(f"{self.url}: {_first(exc)}") from exc


class Archive:
    """Any number of archives of one bucket may work at once, in any number of processes."""

    def __init__(self, url: str) -> None:
        """``url``: see `Objects`."""
        self.objects = Objects(url)
        self._limiter = trio.CapacityLimiter(THREADS)
        self.trouble: str | None = None

    async def try_out(self) -> None:
        """See whether it can be written, and refuses to write what is there already.

        Raises:
          StoreError: it does not.
        """
        path = f"probe/{uuid4()}"

        def work() -> bool:
            self.objects.create(path, b"")
            try:
                return not self.objects.create(path, b"")
            finally:
                self.objects.delete(path)

        if not await self._in_thread(work):
            raise StoreError(
                f"{self.objects.url} overwrites what is there: take an object store that knows If-None-Match: *"
            )

    # --- segments ----------------------------------------------------------------------------------

    async def create(self, session: str, start: int, data: bytes) -> bool:
        """Write a segment, durably; False where there is one with that start already, which stays as it is."""
        return await self._in_thread(lambda: self.objects.create(segment_key(session, start), data))

    async def segments(self, session: str) -> list[tuple[int, int]]:
        """(start, end) of what lies there of a session, in order, without a gap from offset 0 on."""
        found = await self._in_thread(lambda: self.objects.segments(f"sessions/{session}/"))
        whole: list[tuple[int, int]] = []
        for _, start, size in sorted(found):
            if start == (whole[-1][1] if whole else 0):
                whole.append((start, start + size))
        return whole

    async def sessions(self) -> list[str]:
        """All that something lies there of."""
        found = await self._in_thread(self.objects.segments)
        return sorted({session for session, _, _ in found})

    async def read(self, session: str, start: int, offset: int, n: int) -> bytes:
        """``n`` bytes of the stream from ``offset`` on, out of the segment that begins at ``start``."""
        key = segment_key(session, start)
        try:
            return await self._in_thread(lambda: self.objects.read(key, offset - start, n))
        except FileNotFoundError as exc:
            raise StoreBrokenError(f"{self.objects.url}: {key} is not there") from exc

    async def delete(self, session: str) -> None:
        """Remove all of a session, the first segment last, so that what is left is never taken for a whole.

        The same goes for its tables, whose manifest goes first.
        """

        def work() -> None:
            names = [name for name, _ in self.objects.names(f"sessions/{session}/")]
            for name in sorted(names, key=_order, reverse=True):
                self.objects.delete(name)

        await self._in_thread(work)

    # --- tables ------------------------------------------------------------------------------------

    async def tables(self, session: str, size: int) -> Compacted | None:
        """Those of a session of so many bytes, if they are there."""
        return await self._in_thread(lambda: self.objects.tables(session, size))

    async def read_table(self, tables: Compacted, table: str, offset: int, n: int) -> bytes:
        """Bytes of a table's file.

        Raises:
          FileNotFoundError: it is not there.
        """
        key = table_key(tables, table)
        return await self._in_thread(lambda: self.objects.read(key, offset, n))

    async def create_tables(self, directory: Path, made: Compacted) -> Compacted:
        """Send what lies in ``directory``, the manifest last; what was there of another size goes before.

        Another replica may be doing the same: what it was quicker with counts.

        Raises:
          StoreError: it cannot be sent.
        """
        place = _tables(made.session, made.size)

        def work() -> Compacted:
            for name, _ in sorted(self.objects.names(f"sessions/{made.session}/{PARQUET}/")):
                if not name.startswith(f"{place}/"):
                    self.objects.delete(name)
            files: dict[str, TableFile] = {}
            for table, file in made.tables.items():
                if file.bytes > LARGEST:
                    raise StoreError(f"table {table} has {file.bytes >> 20} MiB")
                data, key = (
                    (directory / f"{table}.parquet").read_bytes(),
                    f"{place}/{table}.parquet",
                )
                if not self.objects.create(key, data):
                    data = self.objects.read(key)
                files[table] = TableFile(file.rows, len(data), zlib.crc32(data))
            sent = replace(made, tables=files)
            self.objects.create(f"{place}/{MANIFEST}", sent.pack())
            found = self.objects.tables(made.session, made.size)
            if found is None:
                raise StoreBrokenError(
                    f"{self.objects.url} does not show the tables that were sent"
                )
            return found

        return await self._in_thread(work)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            result = await trio.to_thread.run_sync(
                work, thread_name="tracesvc objects", limiter=self._limiter
            )
        except StoreError as exc:
            self.trouble = str(exc)
            raise
        self.trouble = None
        return result


def segment_key(session: str, start: int) -> str:
    """Name of the object."""
    return f"sessions/{session}/{segment_name(start)}"


def table_key(tables: Compacted, table: str) -> str:
    """Name of the object."""
    return f"{_tables(tables.session, tables.size)}/{table}.parquet"


def _tables(session: str, size: int) -> str:
    return f"sessions/{session}/{PARQUET}/{tables_name(size)}"


def _order(name: str) -> tuple[int, str]:
    """Segments by their start, then tables, then manifests."""
    if _MANIFEST.fullmatch(name):
        return 2, name
    return (0 if _NAME.fullmatch(name) else 1), name


def _first(exc: Exception) -> str:
    """The first line: what follows is for the makers of the library."""
    return str(exc).partition("\n")[0]


def _seconds(n: int) -> Any:
    from datetime import timedelta

    return timedelta(seconds=n)
