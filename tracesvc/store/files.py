"""Sessions as files: a directory each, with a segment file that is a valid trace file, and a catalogue beside them."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from tracesvc.store.base import (
    Appended,
    SessionInfo,
    State,
    StoreBrokenError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    UnknownSessionError,
    session_name,
)
from tracesvc.store.catalogue import Catalogue, state_of
from tracesvc.store.disk import Disk
from tracesvc.store.recovery import open_catalogue, recover
from tracesvc.store.segment import Append, Segment

__all__ = ["FileStore"]

log = logging.getLogger("tracesvc.store")
T = TypeVar("T")

WRITERS: Final = 16
"""threads that write and sync at once"""
READERS: Final = 16
"""threads that read at once"""
FLUSH_EVERY: Final = 1.0
"""seconds that the catalogue may be late"""
IDLE: Final = 60.0
"""seconds after which a session that nobody uses is closed"""
CLOSE_WITHIN: Final = 5.0
"""seconds for the catalogue at shutdown"""


class FileStore:
    """See `tracesvc.store.Store`; made by `open`.

    Layout below ``root``: ``sessions/<uuid>/00000000000000000000.trace``, ``catalogue.sqlite``, ``lock``.
    """

    _nursery: trio.Nursery
    """of the tasks that write; whoever leaves `open` waits for them"""

    def __init__(self, root: Path, disk: Disk, catalogue: Catalogue) -> None:
        self.root = root
        self._disk = disk
        self._catalogue = catalogue
        self._segments: dict[str, Segment] = {}
        self._dirty: set[Segment] = set()
        self._trouble: str | None = None
        self._closing = False
        self._writers = trio.CapacityLimiter(WRITERS)
        self._readers = trio.CapacityLimiter(READERS)
        self._one_at_a_time = trio.CapacityLimiter(1)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, root: str | os.PathLike[str], disk: Disk | None = None
    ) -> AsyncIterator[FileStore]:
        """Open the store below ``root``, and make it where there is none.

        Raises:
          StoreError: the directory cannot be written, or another service uses it.
        """
        lock, catalogue = await trio.to_thread.run_sync(_open, Path(root))
        async with trio.open_nursery() as nursery:
            store = cls(Path(root), disk or Disk(), catalogue)
            nursery.start_soon(store._keep_house)
            try:
                async with trio.open_nursery() as store._nursery:
                    yield store
                    store._closing = True  # what is pending now is written still
            finally:
                store._closing = True
                with trio.move_on_after(CLOSE_WITHIN, shield=True):
                    for segment in store._segments.values():
                        while segment.writing:
                            await segment.moved.park()
                    await store._flush()
                    await store._in_catalogue(catalogue.close)
                for segment in store._segments.values():
                    segment.close()
                os.close(lock)
                nursery.cancel_scope.cancel()

    @property
    def trouble(self) -> str | None:
        return self._trouble

    # --- writing -----------------------------------------------------------------------------------

    async def append(self, session: str, offset: int, data: bytes | bytearray) -> Appended:
        """See `tracesvc.store.Store.append`.

        If cancelled, the bytes may or may not be appended.
        """
        segment = await self._take(session)
        try:
            append = Append(offset, data)
            if self._closing:
                await trio.lowlevel.checkpoint()
                _refuse([append])
                return append.result()
            segment.pending.append(append)
            if segment.writing:
                await append.done.wait()
            else:
                # Nobody else writes: it is done at once, without the detour over a task.
                segment.writing = True
                await self._write(segment)
            return append.result()
        finally:
            self._give_back(segment)

    async def _write(self, segment: Segment) -> None:
        """Append what has arrived, with one sync for all that wait; a task goes on with what arrived meanwhile."""
        try:
            appends, segment.pending = segment.pending, []
            await self._commit(segment, appends)
        finally:
            if segment.pending and not self._closing:
                self._nursery.start_soon(self._write, segment, name=f"write {segment.session}")
            else:
                refused, segment.pending, segment.writing = segment.pending, [], False
                _refuse(refused)

    async def _commit(self, segment: Segment, appends: list[Append]) -> None:
        before = segment.durable
        try:
            # What takes a fraction of a millisecond is done here: in a thread it would take longer, in turns with the
            # run loop for the interpreter's lock.
            found = segment.examine(appends, light=True)
            if found is not None and found.end == found.start:
                await trio.lowlevel.checkpoint()
            else:
                await trio.to_thread.run_sync(
                    segment.commit,
                    appends,
                    found,
                    thread_name="tracesvc write",
                    limiter=self._writers,
                )
        except trio.Cancelled:
            _refuse(appends)
            raise
        except Exception:
            log.exception("appending to %s failed", segment.path)
            for append in appends:
                append.problem = StoreBrokenError("an internal error; the service's log has it")
        segment.publish(appends)
        if segment.durable > before:
            self._dirty.add(segment)
            self._trouble = None
        for append in appends:
            if isinstance(append.problem, StoreFullError | StoreBrokenError):
                self._trouble = str(append.problem)

    # --- reading -----------------------------------------------------------------------------------

    async def info(self, session: str) -> SessionInfo:
        segment = await self._take_known(session)
        try:
            ledger = segment.ledger
            state = state_of(segment.updated, time.time_ns(), ended=segment.ended)
            return SessionInfo(
                session,
                dict(ledger.source),
                ledger.started,
                segment.updated,
                segment.durable,
                ledger.frames,
                ledger.events,
                dict(ledger.lost),
                state,
            )
        finally:
            self._give_back(segment)

    async def ledger(self, session: str) -> dict[str, Any]:
        segment = await self._take_known(session)

        def read() -> dict[str, Any]:
            with segment.lock:
                return segment.ledger.as_dict()

        try:
            return await trio.to_thread.run_sync(read, limiter=self._readers)
        finally:
            self._give_back(segment)

    async def list(
        self,
        *,
        source: str | None = None,
        state: State | None = None,
        before: tuple[int, str] | None = None,
        limit: int = 100,
    ) -> Sequence[SessionInfo]:
        await self._flush()
        return await self._in_catalogue(
            partial(
                self._catalogue.list,
                time.time_ns(),
                source=source,
                state=state,
                before=before,
                limit=limit,
            )
        )

    async def read(self, session: str, offset: int, max_bytes: int) -> bytes:
        segment = await self._take_known(session)
        try:
            if offset >= segment.durable:
                await trio.lowlevel.checkpoint()
                return b""
            return await trio.to_thread.run_sync(
                segment.read, offset, max_bytes, thread_name="tracesvc read", limiter=self._readers
            )
        finally:
            self._give_back(segment)

    async def wait_durable(self, session: str, offset: int) -> int:
        segment = await self._take_known(session)
        try:
            while segment.durable <= offset and not segment.ended:
                await segment.moved.park()
            return segment.durable
        finally:
            self._give_back(segment)

    async def path(self, session: str) -> Path:
        segment = await self._take_known(session)
        self._give_back(segment)
        return segment.path

    # --- inside ------------------------------------------------------------------------------------

    async def _take(self, session: str) -> Segment:
        """A session to use until `_give_back`; there may be nothing stored of it."""
        segment = self._segments.get(session)
        if segment is None:
            directory = self.root / "sessions" / session_name(session)
            entry = await self._in_catalogue(partial(self._catalogue.get, session))
            segment = self._segments.setdefault(session, Segment(directory, self._disk, entry))
        segment.users += 1
        return segment

    async def _take_known(self, session: str) -> Segment:
        segment = await self._take(session)
        if not segment.known:
            self._give_back(segment)
            raise UnknownSessionError(f"there is no session {session}")
        return segment

    def _give_back(self, segment: Segment) -> None:
        segment.users -= 1
        segment.last_used = trio.current_time()
        if not (segment.users or segment.writing or segment.known):
            self._segments.pop(segment.session, None)

    async def _keep_house(self) -> None:
        """Keep the catalogue up to date, close what is idle, notice when there is room again."""
        while True:
            await trio.sleep(FLUSH_EVERY)
            await self._flush()
            idle_since = trio.current_time() - IDLE
            for session, segment in list(self._segments.items()):
                used = segment.users or segment.writing or segment in self._dirty
                if not used and segment.last_used < idle_since:
                    segment.close()
                    del self._segments[session]
            if self._trouble is not None:
                await trio.to_thread.run_sync(self._probe)

    async def _flush(self) -> None:
        """Bring the catalogue up to date."""
        dirty, self._dirty = self._dirty, set()
        if not dirty:
            return

        def save() -> None:
            rows = []
            for segment in dirty:
                try:
                    with segment.lock:
                        rows.append(segment.entry().row())
                except Exception:  # one session that cannot be entered must not keep the others out
                    log.exception("%s cannot be entered into the catalogue", segment.path)
            self._catalogue.put(rows)

        try:
            await self._in_catalogue(save)
        except StoreBrokenError as exc:
            log.warning("%s; it is late", exc)
            self._dirty |= dirty
        except BaseException:
            self._dirty |= dirty
            raise

    async def _in_catalogue(self, function: Callable[[], T]) -> T:
        """Call it in a thread, one at a time."""
        try:
            return await trio.to_thread.run_sync(
                function, thread_name="tracesvc catalogue", limiter=self._one_at_a_time
            )
        except sqlite3.ProgrammingError as exc:
            raise StoreClosedError("the store is closed") from exc
        except sqlite3.Error as exc:
            raise StoreBrokenError(f"the catalogue of {self.root} cannot be used: {exc}") from exc

    def _probe(self) -> None:
        """Can something be stored again? For a thread."""
        path = self.root / "probe"
        try:
            fd = self._disk.open(path, create=True)
            try:
                self._disk.write(fd, memoryview(bytes(1 << 16)), 0)
                self._disk.sync(fd)
            finally:
                self._disk.close(fd)
                path.unlink()
        except OSError as exc:
            self._trouble = f"{self.root} cannot be written: {exc.strerror or exc}"
        else:
            self._trouble = None


def _refuse(appends: list[Append]) -> None:
    """They come too late."""
    for append in appends:
        append.problem = StoreClosedError("the store is shutting down")
        append.done.set()


def _open(root: Path) -> tuple[int, Catalogue]:
    """Take the lock and recover; for a thread."""
    try:
        (root / "sessions").mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as exc:
        raise StoreError(
            f"the data directory {root} cannot be written ({exc.strerror}): choose another one, "
            "or make it writable for the user that the service runs as"
        ) from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        catalogue = open_catalogue(root / "catalogue.sqlite")
        try:
            recover(catalogue, root / "sessions")
        except BaseException:
            catalogue.close()
            raise
    except BlockingIOError:
        owner = os.pread(lock, 20, 0).decode(errors="replace").strip()
        os.close(lock)
        raise StoreError(
            f"the data directory {root} is in use by another service (process {owner or 'unknown'})"
        ) from None
    except (OSError, sqlite3.Error) as exc:
        os.close(lock)
        raise StoreError(f"the data directory {root} cannot be used: {exc}") from exc
    return lock, catalogue
