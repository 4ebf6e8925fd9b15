"""Sessions on NATS JetStream and in a bucket: any number of replicas share them, and none has anything of its own.

What is true of a session is what its messages and its objects say.  A message is appended only if the one before it is
the last that this replica knows of (a compare-and-set of the server's), so that two replicas that are sent the same
session cannot interleave; whoever comes second reads what the other one wrote, and goes on from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Unpack, cast
from uuid import uuid4

import trio

from tracesvc.store.archive import Archive
from tracesvc.store.base import (
    Appended,
    LiveSessionError,
    OffsetError,
    SessionInfo,
    State,
    StoreBrokenError,
    StoreClosedError,
    StoreError,
    UnknownSessionError,
    Which,
    no_tables,
    session_name,
)
from tracesvc.store.catalogue import Entry, state_of
from tracesvc.store.compaction import Compact
from tracesvc.store.contents import TIME, Contents
from tracesvc.store.copies import Copies
from tracesvc.store.feed import Feed
from tracesvc.store.intake import Piece
from tracesvc.store.keeper import Keeper
from tracesvc.store.link import ConflictError, Link, Stream
from tracesvc.store.retention import Keep
from tracesvc.store.shared import OFFSET, Chunk, SharedEntry, SharedSession, frame_id, slices
from tracesvc.store.shared_compaction import SharedCompaction
from tracesvc.store.tables import Compacted, TableFile

__all__ = ["Fleet", "JetStreamStore"]

log = logging.getLogger("tracesvc.store")

LOOK: Final = 1.0
"""seconds between two looks at a session that somebody follows, where nothing is heard of it"""
FLUSH_EVERY: Final = 2.0
"""seconds that an entry may be late"""
FEED_EVERY: Final = 0.5
IDLE: Final = 60.0
"""seconds after which a session that nobody uses is forgotten here"""
CONFLICTS: Final = 10
"""times that others may be quicker, in one append"""
CLOSE_WITHIN: Final = 5.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """What replicas have in common.  Times in seconds, sizes in bytes."""

    servers: str
    """``nats://HOST:PORT``, or several with commas between"""
    bucket: str | None = None
    """``s3://BUCKET/PREFIX``: where finished segments go; None: the stream keeps all"""
    stream: str = "tracesvc"
    """the streams are named after it, so that several fleets can share servers"""
    replicas: int = 3
    """servers that have each message, where the streams are made"""
    stream_bytes: int = -1
    """of the frames' stream: when it is full nothing is taken; -1: what the servers have"""
    credentials: str | None = None
    """file with the credentials of a NATS user"""
    patience: float = 20.0
    """for NATS to answer, leaders being elected or not"""
    archiver: bool = True
    """whether this replica may be the one that archives"""
    archive_after: float = 60.0
    """without news until a session that has no end is archived as far as it goes"""
    forget_after: float = 60.0
    """since the last frame of a session that is archived as a whole, until the stream forgets it"""


class JetStreamStore:
    """See `tracesvc.store.Store`; made by `open`."""

    def __init__(
        self, fleet: Fleet, link: Link, archive: Archive | None, cache: Path, keep: Keep
    ) -> None:
        self.fleet = fleet
        self.archive = archive
        self.keep = keep
        self.frames, self.entries = f"{fleet.stream}-frames", f"{fleet.stream}-sessions"
        self.link = link
        self.contents = Contents(link, archive, self.frames, self.subject_of, fleet.forget_after)
        self.feed = Feed(link, self.entries, f"{fleet.stream}.session.", self._told)
        self._sessions: dict[str, SharedSession] = {}
        self._dirty: set[SharedSession] = set()
        self._listening: dict[str, Callable[[], Awaitable[None]] | None] = {}
        self._copies = Copies(cache, self.read)
        self._closing = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        fleet: Fleet,
        cache: Path,
        keep: Keep = Keep(),  # noqa: B008  # it is frozen
        compact: Compact | None = None,
    ) -> AsyncIterator[JetStreamStore]:
        """Connect, and make the streams where there are none.  ``cache``: directory for copies of what is asked about.

        ``compact``: how sessions that are archived become tables; None: they do not.

        Raises:
          StoreError: no server answers, or what there is cannot be used.
        """
        archive = None if fleet.bucket is None else Archive(fleet.bucket)
        try:
            await trio.Path(cache).mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StoreError(f"the directory {cache} cannot be made: {exc.strerror}") from exc
        if archive is not None:
            await archive.try_out()
        else:
            log.warning(
                "no bucket is given: the stream keeps every frame until its session is deleted"
            )
        async with Link.open(fleet.servers, fleet.credentials, fleet.patience) as link:
            store = cls(fleet, link, archive, cache, keep)
            frames, prefix = f"{fleet.stream}.frames.*", fleet.stream
            await link.have(Stream(store.frames, [frames], fleet.replicas, fleet.stream_bytes))
            entries = [f"{prefix}.session.*", f"{prefix}.keeper"]
            await link.have(Stream(store.entries, entries, fleet.replicas, -1, newest_only=True))
            await store.feed.begin()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store._keep_house)
                nursery.start_soon(store._follow_feed)
                if fleet.archiver:
                    keeper = Keeper(store)
                    nursery.start_soon(keeper.run)
                    if compact is not None and archive is not None:
                        place, mine = cache.with_name(f"{cache.name}-tables"), keeper.at_work
                        tabler = SharedCompaction(store, archive, compact, place, mine)
                        nursery.start_soon(tabler.run)
                try:
                    yield store
                finally:
                    store._closing = True
                    with trio.move_on_after(CLOSE_WITHIN, shield=True):
                        await store.flush()
                    nursery.cancel_scope.cancel()

    @property
    def trouble(self) -> str | None:
        return self.link.trouble

    # --- writing -----------------------------------------------------------------------------------

    async def append(self, session: str, offset: int, data: bytes | bytearray) -> Appended:
        """See `tracesvc.store.Store.append`.

        If cancelled, the bytes may or may not be appended.
        """
        if self._closing:
            raise StoreClosedError("the store is shutting down")
        stored = await self.take(session)
        try:
            async with stored.lock:
                return await self._append(stored, offset, memoryview(data))
        finally:
            self.give_back(stored)

    async def _append(self, stored: SharedSession, offset: int, data: memoryview) -> Appended:
        try:
            for _ in range(CONFLICTS):
                if stored.gone:
                    raise StoreClosedError("the session has just been deleted")
                if stored.unsure:
                    await self.follow(stored)
                if offset > stored.size:
                    await self._confirm(stored, offset)
                if offset > stored.size:
                    why = f"the stream ends at {stored.size}, this begins at {offset}"
                    return Appended(stored.size, 0, OffsetError(stored.size, why))
                overlap = min(stored.size - offset, len(data))
                if (
                    overlap
                    and await self.contents.exactly(stored, offset, overlap) != data[:overlap]
                ):
                    why = f"what is stored from {offset} on is not what was sent"
                    return Appended(stored.size, 0, OffsetError(stored.size, why))
                try:
                    return await self._publish(stored, data[overlap:])
                except ConflictError:
                    stored.unsure = True  # somebody was quicker: see what they wrote
            raise StoreBrokenError("others write to the same session all the time")
        except StoreError as exc:
            return Appended(stored.size, 0, exc)

    async def _publish(self, stored: SharedSession, data: memoryview) -> Appended:
        """Send the good frames in messages, each of which follows the one before."""
        done, problem = 0, None
        for part in slices(data):
            piece = await self.contents.examine(stored, part)
            if piece.size:
                await self._publish_one(stored, bytes(part[: piece.size]), piece)
                done += piece.size
            problem = piece.problem
            if problem is not None or piece.size < len(part):
                break
        if (
            stored.size and stored.entered < 0
        ):  # whoever is told that it is there can find it everywhere
            await self.enter(stored)
        rest = 0 if problem is not None else len(data) - done
        return Appended(stored.size, rest, problem)

    async def _publish_one(self, stored: SharedSession, data: bytes, piece: Piece) -> None:
        name, start, now = stored.name, stored.size, time.time_ns()
        born = f"/{stored.born}" if stored.born else ""
        headers = {
            "Nats-Msg-Id": frame_id(name, start, data) + born,
            OFFSET: str(start),
            TIME: str(now),
        }
        stored.unsure = True
        seq = await self.link.publish(
            self.subject_of(name), data, expected=stored.seq, headers=headers
        )
        if seq <= stored.seq:  # what is called a duplicate is older than what we know of: look
            raise ConflictError
        stored.unsure = False
        stored.advance(piece, now)
        stored.seq = seq
        stored.place(Chunk(start, stored.size, seq))
        self.contents.keep(seq, data)
        self._dirty.add(stored)
        stored.moved.unpark_all()
        await self.link.hint(f"{self.fleet.stream}.moved.{name}", b"%d" % stored.size)

    async def _confirm(self, stored: SharedSession, offset: int) -> None:
        """A client says that there is more than this replica knows of: find out, beyond doubt.

        A server that was cut off may for some seconds take itself for the leader, and show what was true before; a
        client that is told of too small an offset would give up what it was told is safe.  An empty message is
        accepted by a majority only, and only as the successor of the last one.

        Raises:
          StoreBrokenError: there is more, but it cannot be seen yet.
        """
        give_up = trio.current_time() + self.fleet.patience
        await self.follow(stored)
        while stored.size < offset and not stored.ended and not stored.gone:
            headers = {"Nats-Msg-Id": str(uuid4()), OFFSET: str(stored.size), TIME: "0"}
            subject = self.subject_of(stored.name)
            try:
                seq = await self.link.publish(subject, b"", expected=stored.seq, headers=headers)
            except ConflictError:
                if trio.current_time() > give_up:
                    why = f"there is more of {stored.name} than the servers show: try again"
                    raise StoreBrokenError(why) from None
                await trio.sleep(0.2)
                await self.follow(stored)
            else:
                if stored.size:
                    stored.seq = seq
                else:
                    await self.link.forget(self.frames, subject, seq + 1)
                return

    async def enter(self, stored: SharedSession) -> None:
        """Write its entry, for all to see; call with the session's lock held."""
        entry = stored.entry()
        for _ in range(CONFLICTS):
            try:
                stored.revision = await self.link.publish(
                    self._entry_subject(stored.name),
                    entry.pack(),
                    expected=stored.revision,
                    headers={"Nats-Msg-Id": str(uuid4())},
                )
            except ConflictError:
                last = await self.link.last(self.entries, self._entry_subject(stored.name))
                stored.revision = 0 if last is None else last.seq
                if last is not None:
                    theirs = SharedEntry.unpack(last.data)
                    if theirs.gone and not stored.gone:
                        stored.gone = True
                        stored.moved.unpark_all()
                        raise StoreClosedError("the session has just been deleted") from None
                    entry = stored.entry().joined(theirs)
                continue
            stored.entered = entry.size
            stored.archived = max(stored.archived, entry.archived)
            self._dirty.discard(stored)
            await self.feed.put(stored.name, entry, stored.revision)
            return
        raise StoreBrokenError(f"others write the entry of {stored.name} all the time")

    async def flush(self) -> None:
        """Write the entries that are late."""
        for stored in list(self._dirty):
            async with stored.lock:
                if stored.gone:
                    self._dirty.discard(stored)
                elif stored in self._dirty:
                    try:
                        await self.enter(stored)
                    except StoreError as exc:
                        log.warning("the entry of %s is late: %s", stored.name, exc)
                        return

    # --- reading -----------------------------------------------------------------------------------

    async def info(self, session: str) -> SessionInfo:
        stored = await self._take_known(session)
        try:
            await self._freshen(stored)
            return Entry(stored.ledger, stored.size, stored.updated).info(time.time_ns())
        finally:
            self.give_back(stored)

    async def ledger(self, session: str) -> dict[str, Any]:
        stored = await self._take_known(session)
        try:
            await self._freshen(stored)
            return stored.ledger.as_dict()
        finally:
            self.give_back(stored)

    async def list(self, **which: Unpack[Which]) -> Sequence[SessionInfo]:
        """See `tracesvc.store.Store.list`; of sessions that other replicas write it is a few seconds late."""
        await self.flush()
        await self.feed.look()
        found = await self.feed.ask(partial(self.feed.catalogue.list, time.time_ns(), **which))
        return cast("Sequence[SessionInfo]", found)

    async def totals(self) -> Mapping[str, Mapping[str, int]]:
        await self.flush()
        await self.feed.look()
        found = await self.feed.ask(partial(self.feed.catalogue.totals, time.time_ns()))
        return cast("Mapping[str, Mapping[str, int]]", found)

    async def read(self, session: str, offset: int, max_bytes: int) -> bytes:
        stored = await self._take_known(session)
        try:
            return await self.contents.read(stored, offset, max_bytes)
        finally:
            self.give_back(stored)

    async def wait_durable(self, session: str, offset: int) -> int:
        stored = await self._take_known(session)
        try:
            await self._listen(stored)
            while stored.size <= offset and not (stored.ended or stored.gone):
                if stored.heard <= stored.size:
                    with trio.move_on_after(LOOK):
                        await stored.moved.park()
                asked = trio.current_time()
                if stored.size > offset:
                    break
                if stored.heard > stored.size or asked >= stored.looked + LOOK:
                    try:
                        await self._freshen(stored, asked)
                    except StoreError:  # the servers will come back, and whoever waits, waits
                        await trio.sleep(LOOK)
            return stored.size
        finally:
            self.give_back(stored)

    async def path(self, session: str) -> Path:
        """A copy that this replica has made, as far as the session goes."""
        info = await self.info(session)
        return await self._copies.path(session, info.bytes)

    async def beside(self, session: str) -> Path | None:
        """None: a replica has nothing of its own."""
        await self.info(session)
        return None

    # --- tables ------------------------------------------------------------------------------------

    async def table(self, session: str, table: str) -> TableFile:
        return (await self._tables(session, table)).tables[table]

    async def read_table(self, session: str, table: str, offset: int, max_bytes: int) -> bytes:
        found = await self._tables(session, table)
        n = min(max_bytes, found.tables[table].bytes - offset)
        if self.archive is None or n <= 0:
            return b""
        try:
            return await self.archive.read_table(found, table, offset, n)
        except FileNotFoundError:
            raise no_tables(session, table) from None

    async def _tables(self, session: str, table: str) -> Compacted:
        stored = await self._take_known(session)
        try:
            found = None if stored.tables is None else Compacted.unpack(stored.tables)
        except ValueError:  # of another version
            found = None
        finally:
            self.give_back(stored)
        if found is None or found.size != stored.size or table not in found.tables:
            raise no_tables(session, table)
        return found

    # --- following ---------------------------------------------------------------------------------

    async def _freshen(self, stored: SharedSession, asked: float | None = None) -> None:
        """Look at the stream, unless somebody has since ``asked``."""
        if stored.whole or stored.ended:
            await trio.lowlevel.checkpoint()
            return
        asked = trio.current_time() if asked is None else asked
        async with stored.lock:
            if stored.looked <= asked:
                await self.follow(stored)

    async def follow(self, stored: SharedSession) -> None:
        """Take in what others have appended; call with the session's lock held."""
        if await self.contents.follow(stored):
            self._dirty.add(stored)

    async def _load(self, stored: SharedSession) -> None:
        """See what there is of it."""
        last = await self.link.last(self.entries, self._entry_subject(stored.name))
        if last is not None:
            entry = SharedEntry.unpack(last.data)
            if entry.gone:
                stored.revision = stored.born = last.seq
                await self.erase(stored.name)
                stored.loaded = True
                return
            stored.load(entry, last.seq)
        if not stored.whole:
            await self.follow(stored)
            if not stored.size:
                await self.contents.take_archived(stored, None)
        stored.loaded = True

    # --- deleting ----------------------------------------------------------------------------------

    async def delete(self, session: str) -> None:
        stored = await self._take_known(session)
        try:
            await self._freshen(stored)
            async with stored.lock:
                if self._state(stored) == "live":
                    raise LiveSessionError(
                        f"session {session} is live: it can be deleted a minute after its last frame"
                    )
                stored.gone, stored.updated = True, time.time_ns()
                # Whether all see it or not: who asks for it from here on looks anew.
                self._sessions.pop(session, None)
                self._dirty.discard(stored)
                self._copies.forget(session)
                stored.moved.unpark_all()
                await self.enter(stored)
                await self.erase(session)
        finally:
            self.give_back(stored)

    async def erase(self, session: str) -> None:
        """Remove the bytes of a session whose entry says that it is gone; what was begun, the next one ends."""
        await self.link.forget(self.frames, self.subject_of(session), None)
        if self.archive is not None:
            await self.archive.delete(session)

    async def forget_gone(self, session: str) -> None:
        """Nobody need know any longer that there was such a session."""
        await self.link.forget(self.entries, self._entry_subject(session), None)
        self.feed.gone.pop(session, None)

    # --- inside ------------------------------------------------------------------------------------

    def subject_of(self, session: str) -> str:
        """Of its frames."""
        return f"{self.fleet.stream}.frames.{session}"

    def _entry_subject(self, session: str) -> str:
        return f"{self.fleet.stream}.session.{session}"

    def _state(self, stored: SharedSession) -> State:
        return state_of(stored.updated, time.time_ns(), ended=stored.ended)

    def _told(self, session: str, entry: SharedEntry, revision: int) -> None:
        """Another replica, or this one, has written an entry."""
        stored = self._sessions.get(session)
        if stored is None or revision <= stored.revision:
            return
        if entry.gone and stored.loaded:
            stored.gone = True
            self._copies.forget(session)
            self._sessions.pop(session, None)
        stored.archived = max(stored.archived, entry.archived)
        stored.tables = entry.tables or stored.tables
        stored.heard = max(stored.heard, entry.size)
        stored.moved.unpark_all()

    async def take(self, session: str) -> SharedSession:
        """A session to use until `give_back`; there may be nothing stored of it."""
        stored = self._sessions.get(session)
        if stored is None:
            stored = self._sessions[session_name(session)] = SharedSession(session)
        stored.users += 1
        try:
            if not stored.loaded:
                async with stored.lock:
                    if not stored.loaded:
                        await self._load(stored)
        except BaseException:
            self.give_back(stored)
            raise
        return stored

    async def _take_known(self, session: str) -> SharedSession:
        stored = await self.take(session)
        if not stored.known:
            try:
                await self._freshen(stored)
            except BaseException:
                self.give_back(stored)
                raise
        if not stored.known:
            self.give_back(stored)
            raise UnknownSessionError(f"there is no session {session}")
        return stored

    def give_back(self, stored: SharedSession) -> None:
        """It is not used any longer, by this task."""
        stored.users -= 1
        stored.last_used = trio.current_time()
        nothing = not stored.loaded or not stored.known
        if not stored.users and nothing and self._sessions.get(stored.name) is stored:
            del self._sessions[stored.name]

    async def _listen(self, stored: SharedSession) -> None:
        """Be told by other replicas when there is more of it."""
        name = stored.name
        if name in self._listening or stored.ended:
            return
        self._listening[name] = None

        def heard(_subject: str, data: bytes) -> None:
            if data.isdigit() and (here := self._sessions.get(name)) is not None:
                here.heard = max(here.heard, int(data))
                here.moved.unpark_all()

        try:
            leave = await self.link.listen(f"{self.fleet.stream}.moved.{name}", heard)
        except StoreError:
            del self._listening[name]
        except BaseException:
            self._listening.pop(name, None)
            raise
        else:
            self._listening[name] = leave

    async def _keep_house(self) -> None:
        """Bring entries up to date, and forget here what nobody uses."""
        while True:
            await trio.sleep(FLUSH_EVERY)
            await self.flush()
            idle_since = trio.current_time() - IDLE
            for name, stored in list(self._sessions.items()):
                used = stored.users or stored in self._dirty or stored.lock.locked()
                if not used and stored.last_used < idle_since:
                    del self._sessions[name]
            for name, leave in list(self._listening.items()):
                if leave is not None and name not in self._sessions:
                    del self._listening[name]
                    await leave()

    async def _follow_feed(self) -> None:
        while True:
            await trio.sleep(FEED_EVERY)
            try:
                await self.feed.look()
            except StoreError as exc:
                log.warning("the list of sessions is late: %s", exc)
