"""Sessions as files: a directory each, with segment files that are valid trace files, and a catalogue beside them."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, Unpack

import trio

from tracesvc.store.base import (
    Appended,
    LiveSessionError,
    SessionInfo,
    State,
    StoreBrokenError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    UnknownSessionError,
    Which,
    no_tables,
    session_name,
)
from tracesvc.store.catalogue import Catalogue, Entry, state_of
from tracesvc.store.commits import Commits
from tracesvc.store.compaction import Compact, FileCompaction
from tracesvc.store.disk import Disk, best_disk
from tracesvc.store.recovery import empty_trash
from tracesvc.store.retention import Keep, superfluous, tidied
from tracesvc.store.root import open_root
from tracesvc.store.segments import found_in
from tracesvc.store.session import Append, Round, StoredSession, disk_error
from tracesvc.store.tables import PARQUET, Compacted, TableFile

__all__ = ["FileStore"]

log = logging.getLogger("tracesvc.store")
T = TypeVar("T")

EXAMINERS: Final = 4
"""threads that check what takes long to check"""
READERS: Final = 16
"""threads that read at once"""
FLUSH_EVERY: Final = 1.0
"""seconds that the catalogue may be late"""
TIDY_EVERY: Final = 60.0
"""seconds between two looks at what is not to be kept any longer"""
IDLE: Final = 60.0
"""seconds after which a session that nobody uses is closed"""
CLOSE_WITHIN: Final = 5.0
"""seconds for the catalogue at shutdown"""


class FileStore:
    """See `tracesvc.store.Store`; made by `open`.

    Layout below ``root``: ``sessions/<uuid>/<offset>.trace`` and beside them ``parquet/`` (`tracesvc.store.tables`),
    ``catalogue.sqlite``, ``lock``, and ``trash/`` with what is being deleted.
    """

    _nursery: trio.Nursery
    """of the tasks that write; whoever leaves `open` waits for them"""

    def __init__(
        self, root: Path, disk: Disk, catalogue: Catalogue, keep: Keep, compact: Compact
    ) -> None:
        self.root = root
        self._disk = disk
        self._catalogue = catalogue
        self._keep = keep
        self._sessions: dict[str, StoredSession] = {}
        self._dirty: set[StoredSession] = set()
        self._trouble: str | None = None
        self._unsafe: str | None = None
        self._tight: str | None = None
        self._closing = False
        self._commits = Commits(disk)
        self._examiners = trio.CapacityLimiter(EXAMINERS)
        self._readers = trio.CapacityLimiter(READERS)
        self._one_at_a_time = trio.CapacityLimiter(1)
        self._forgotten: set[str] = set()
        """deleted, but in the catalogue still"""
        self._compaction = self.compaction_of(compact)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        root: str | os.PathLike[str],
        disk: Disk | None = None,
        keep: Keep = Keep(),  # noqa: B008  # it is frozen
        compact: Compact | None = None,
    ) -> AsyncIterator[FileStore]:
        """Open the store below ``root``, and make it where there is none.

        ``compact``: how finished sessions become tables; None: they do not.

        Raises:
          StoreError: the directory cannot be written, or another service uses it.
        """
        lock, catalogue = await trio.to_thread.run_sync(open_root, Path(root))
        async with trio.open_nursery() as nursery:
            store = cls(Path(root), disk or best_disk(), catalogue, keep, compact or Compact())
            if keep.free:
                store._tight = await trio.to_thread.run_sync(store._look_for_room)
            nursery.start_soon(store._keep_house)
            nursery.start_soon(store._commits.run)
            if compact is not None:
                nursery.start_soon(store._compaction.run)
            try:
                async with trio.open_nursery() as store._nursery:
                    yield store
                    store._closing = True  # what is pending now is written still
            finally:
                store._closing = True
                with trio.move_on_after(CLOSE_WITHIN, shield=True):
                    for session in list(store._sessions.values()):
                        while session.writing:
                            await session.moved.park()
                    await store._flush()
                    await store._in_catalogue(catalogue.close)
                for session in store._sessions.values():
                    session.files.close()
                os.close(lock)
                nursery.cancel_scope.cancel()

    @property
    def trouble(self) -> str | None:
        return self._unsafe or self._tight or self._trouble

    # --- writing -----------------------------------------------------------------------------------

    async def append(self, session: str, offset: int, data: bytes | bytearray) -> Appended:
        """See `tracesvc.store.Store.append`.

        If cancelled, the bytes may or may not be appended.
        """
        stored = await self._take(session)
        try:
            append = Append(offset, data)
            refusal = self._refusal()
            if refusal is not None:
                await trio.lowlevel.checkpoint()
                append.durable, append.problem = stored.durable, refusal
                return append.result()
            stored.pending.append(append)
            if stored.writing:
                await append.done.wait()
            else:
                # Nobody else writes: it is done at once, without the detour over a task.
                stored.writing = True
                await self._write(stored)
            return append.result()
        finally:
            self._give_back(stored)

    def _refusal(self) -> StoreError | None:
        """Why nothing can be appended."""
        if self._closing:
            return StoreClosedError("the store is shutting down")
        if self._unsafe is not None:
            return StoreBrokenError(self._unsafe)
        if self._tight is not None:
            return StoreFullError(self._tight)
        return None

    async def _write(self, stored: StoredSession) -> None:
        """Append what has arrived, with one sync for all that wait; a task goes on with what arrived meanwhile."""
        try:
            appends, stored.pending = stored.pending, []
            await self._commit(stored, appends)
        finally:
            self._go_on(stored)

    def _go_on(self, stored: StoredSession) -> None:
        """With what arrived while the session was busy; or it is not busy any more."""
        refusal = self._refusal()
        if stored.pending and refusal is None:
            self._nursery.start_soon(self._write, stored, name=f"write {stored.name}")
        else:
            refused, stored.pending, stored.writing = stored.pending, [], False
            _refuse(refused, stored.durable, refusal)

    async def _commit(self, stored: StoredSession, appends: list[Append]) -> None:
        before = stored.durable
        found: Round | None = None
        try:
            # What takes a fraction of a millisecond is done here: in a thread it would take longer, in turns with the
            # run loop for the interpreter's lock.
            found = stored.examine(appends, light=True)
            if found is None:
                found = await trio.to_thread.run_sync(
                    partial(stored.examine, appends, light=False),
                    thread_name="tracesvc check",
                    limiter=self._examiners,
                )
                assert found is not None
            if found.end == found.start:
                await trio.lowlevel.checkpoint()
            else:
                await self._commits.commit(found)
        except trio.Cancelled:
            _refuse(appends, before, StoreClosedError("the store is shutting down"))
            raise
        except Exception:
            log.exception("appending to %s failed", stored.name)
            for append in appends:
                append.durable = before  # whatever the check had got to
                append.problem = StoreBrokenError("an internal error; the service's log has it")
        stored.publish(appends)
        if stored.durable > before:
            self._dirty.add(stored)
            self._trouble = None
        if found is not None and found.failure is not None:
            self._trouble = str(disk_error(found.failure, stored.files.directory))
            if found.unsafe:
                self._distrust(found.failure)

    def _distrust(self, failure: OSError) -> None:
        """A sync failed.

        The kernel may have dropped what it could not write, and will report that no second time: a later sync that
        succeeds proves nothing.  So nothing is acknowledged any more until the files have been read anew.
        """
        self._unsafe = (
            f"a sync of {self.root} failed ({failure.strerror}): nothing is taken any more until the service "
            "has been started anew; look at the disk first"
        )
        log.error("%s", self._unsafe)

    # --- reading -----------------------------------------------------------------------------------

    async def info(self, session: str) -> SessionInfo:
        stored = await self._take_known(session)
        try:
            return Entry(stored.ledger, stored.durable, stored.updated).info(time.time_ns())
        finally:
            self._give_back(stored)

    async def ledger(self, session: str) -> dict[str, Any]:
        stored = await self._take_known(session)

        def read() -> dict[str, Any]:
            with stored.lock:
                return stored.ledger.as_dict()

        try:
            return await trio.to_thread.run_sync(read, limiter=self._readers)
        finally:
            self._give_back(stored)

    async def list(self, **which: Unpack[Which]) -> Sequence[SessionInfo]:
        await self._flush()
        return await self._in_catalogue(partial(self._catalogue.list, time.time_ns(), **which))

    async def totals(self) -> Mapping[str, Mapping[str, int]]:
        await self._flush()
        return await self._in_catalogue(partial(self._catalogue.totals, time.time_ns()))

    def observe_commits(self, observe: Callable[[float], object]) -> None:
        """Have ``observe`` called with the seconds that each group commit takes."""
        self._commits.observe = observe

    async def read(self, session: str, offset: int, max_bytes: int) -> bytes:
        stored = await self._take_known(session)
        try:
            if offset >= stored.durable:
                await trio.lowlevel.checkpoint()
                return b""
            return await trio.to_thread.run_sync(
                stored.read, offset, max_bytes, thread_name="tracesvc read", limiter=self._readers
            )
        except FileNotFoundError:
            raise _unknown(session) from None
        finally:
            self._give_back(stored)

    async def wait_durable(self, session: str, offset: int) -> int:
        stored = await self._take_known(session)
        try:
            while stored.durable <= offset and not (stored.ended or stored.gone):
                await stored.moved.park()
            return stored.durable
        finally:
            self._give_back(stored)

    async def path(self, session: str) -> Path:
        stored = await self._take_known(session)
        self._give_back(stored)
        starts = stored.files.starts
        return stored.files.path(starts[0]) if len(starts) == 1 else stored.files.directory

    async def beside(self, session: str) -> Path | None:
        stored = await self._take_known(session)
        self._give_back(stored)
        return stored.files.directory

    # --- tables ------------------------------------------------------------------------------------

    def compaction_of(self, how: Compact = Compact()) -> FileCompaction:  # noqa: B008  # it is frozen
        """What makes tables of its sessions."""
        return FileCompaction(self.root, how, self._catalogue, self._in_catalogue, self._room)

    async def table(self, session: str, table: str) -> TableFile:
        return (await self._tables(session, table)).tables[table]

    async def read_table(self, session: str, table: str, offset: int, max_bytes: int) -> bytes:
        found = await self._tables(session, table)
        path = self.root / "sessions" / session / PARQUET / found.name / f"{table}.parquet"

        def read() -> bytes:
            fd = self._disk.open(path)
            try:
                return self._disk.read(fd, max_bytes, offset)
            finally:
                self._disk.close(fd)

        try:
            return await trio.to_thread.run_sync(read, limiter=self._readers)
        except FileNotFoundError:
            raise no_tables(session, table) from None
        except OSError as exc:
            raise StoreBrokenError(f"{path} cannot be read: {exc.strerror or exc}") from exc

    async def _tables(self, session: str, table: str) -> Compacted:
        stored = await self._take_known(session)
        self._give_back(stored)
        found = await self._in_catalogue(partial(self._catalogue.tables, session))
        if found is None or found.size != stored.durable or table not in found.tables:
            raise no_tables(session, table)
        return found

    # --- deleting ----------------------------------------------------------------------------------

    async def delete(self, session: str) -> None:
        stored = await self._take_known(session)
        try:
            while stored.writing and self._state(stored) != "live":
                await stored.moved.park()  # its files are being closed
            if self._state(stored) == "live":
                raise LiveSessionError(
                    f"session {session} is live: it can be deleted a minute after its last frame"
                )
            if self._closing:
                raise StoreClosedError("the store is shutting down")
            stored.writing = True  # whoever comes now waits, and then finds a session that begins
            try:
                async with self._compaction.apart(session):
                    await self._remove(stored)
            finally:
                stored.writing = False
                _refuse(stored.pending, 0, StoreClosedError("the session has just been deleted"))
                stored.pending = []
                stored.moved.unpark_all()
        finally:
            self._give_back(stored)
        await trio.to_thread.run_sync(empty_trash, self.root, self._disk)

    async def _remove(self, stored: StoredSession) -> None:
        """First it is out of the way, at one stroke; then it is forgotten, and its bytes may go."""
        sessions, trash = self.root / "sessions", self.root / "trash"

        def move() -> None:
            self._disk.make_directory(trash)
            # One of this name may lie there already, if it could not be removed.
            self._disk.rename(sessions / stored.name, trash / f"{stored.name}.{time.time_ns()}")

        try:
            await trio.to_thread.run_sync(move)
        except OSError as exc:
            raise disk_error(exc, trash) from exc
        # Whatever fails from here on, nothing of it may be read or appended to any more.
        stored.gone = True
        self._sessions.pop(stored.name, None)
        self._dirty.discard(stored)
        self._forgotten.add(stored.name)
        await self._forget()
        try:
            await trio.to_thread.run_sync(self._disk.sync_directory, sessions)
        except OSError as exc:
            raise disk_error(exc, sessions) from exc

    async def _forget(self) -> None:
        """Have the catalogue forget what is deleted, now or as soon as it can."""
        names = set(self._forgotten)
        try:
            await self._in_catalogue(partial(self._catalogue.remove, names))
        except StoreBrokenError as exc:
            log.warning("%s; it has deleted sessions still", exc)
        else:
            self._forgotten -= names

    async def tidy(self) -> Sequence[str]:
        """Delete what is not to be kept any longer; the names."""
        await self._flush()
        names = await self._in_catalogue(
            partial(superfluous, self._catalogue, self._keep, time.time_ns())
        )
        deleted = await tidied(names, self.delete)
        if deleted:
            log.info("%d sessions deleted: beyond what is to be kept", len(deleted))
        return deleted

    # --- inside ------------------------------------------------------------------------------------

    def _state(self, stored: StoredSession) -> State:
        return state_of(stored.updated, time.time_ns(), ended=stored.ended)

    async def _take(self, session: str) -> StoredSession:
        """A session to use until `_give_back`; there may be nothing stored of it."""
        stored = self._sessions.get(session)
        if stored is None:
            directory = self.root / "sessions" / session_name(session)

            def look() -> StoredSession:
                starts = found_in(directory)
                entry = self._catalogue.get(session) if starts else None
                return StoredSession(directory, self._disk, entry, starts)

            found = await self._in_catalogue(look)
            stored = self._sessions.setdefault(session, found)
        stored.users += 1
        return stored

    async def _take_known(self, session: str) -> StoredSession:
        stored = await self._take(session)
        if not stored.known or stored.gone:
            self._give_back(stored)
            raise _unknown(session)
        return stored

    def _give_back(self, stored: StoredSession) -> None:
        stored.users -= 1
        stored.last_used = trio.current_time()
        if stored.users or stored.writing:
            return
        if stored.gone:
            stored.files.close()
        elif not stored.known:
            stored.files.close()
            self._sessions.pop(stored.name, None)

    async def _keep_house(self) -> None:
        """Keep the catalogue up to date, close what is idle, delete what is old, notice when there is room again."""
        tidied = trio.current_time()
        while True:
            await trio.sleep(FLUSH_EVERY)
            await self._flush()
            idle_since = trio.current_time() - IDLE
            for stored in list(self._sessions.values()):
                if not self._used(stored) and stored.last_used < idle_since:
                    await self._put_away(stored)
            if self._trouble is not None:
                await trio.to_thread.run_sync(self._probe)
            if self._keep.free:
                self._tight = await trio.to_thread.run_sync(self._look_for_room)
            if self._keep.limited and trio.current_time() >= tidied + TIDY_EVERY:
                tidied = trio.current_time()
                try:
                    await self.tidy()
                except StoreError as exc:
                    log.warning("deleting old sessions: %s", exc)

    def _used(self, stored: StoredSession) -> bool:
        return bool(stored.users or stored.writing or stored in self._dirty)

    async def _put_away(self, stored: StoredSession) -> None:
        """Close the files; in a thread, since giving back room may take as long as a write."""
        stored.writing = True  # who comes now waits
        try:
            await trio.to_thread.run_sync(stored.files.close)
        finally:
            self._go_on(stored)
            stored.moved.unpark_all()
        if not self._used(stored):
            self._sessions.pop(stored.name, None)

    async def _flush(self) -> None:
        """Bring the catalogue up to date."""
        if self._forgotten:
            await self._forget()
        dirty, self._dirty = self._dirty, set()
        if not dirty:
            return

        def save() -> None:
            rows = []
            for stored in dirty:
                if stored.gone:
                    continue
                try:
                    with stored.lock:
                        rows.append(stored.entry().row())
                except Exception:  # one session that cannot be entered must not keep the others out
                    log.exception("%s cannot be entered into the catalogue", stored.name)
            self._catalogue.put(rows)

        try:
            await self._in_catalogue(save)
            self._forgotten -= {stored.name for stored in dirty}
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

    def _room(self) -> int:
        """Bytes that may be written beyond what is to stay free; for a thread."""
        try:
            return self._disk.free(self.root) - self._keep.free
        except OSError:
            return 0

    def _look_for_room(self) -> str | None:
        """Why nothing may be stored for want of room, or None; for a thread."""
        try:
            free = self._disk.free(self.root)
        except OSError as exc:
            return f"{self.root} cannot be looked at: {exc.strerror or exc}"
        if free >= self._keep.free:
            return None
        return (
            f"{free >> 20} MiB are free on the disk of {self.root}, {self._keep.free >> 20} MiB are to stay free: "
            "free some space"
        )


def _unknown(session: str) -> UnknownSessionError:
    return UnknownSessionError(f"there is no session {session}")


def _refuse(appends: list[Append], durable: int, why: StoreError | None) -> None:
    """They come too late."""
    for append in appends:
        append.durable, append.problem = durable, why
        append.done.set()
