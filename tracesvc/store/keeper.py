"""Moves finished segments from the stream to the bucket, and looks after what nobody else does.

One replica at a time does it, by a lease, but only to save work: objects are created once and never changed, so that
two at the same time do no harm.  The stream forgets a frame only after the object that has it was created.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Final, cast
from uuid import uuid4

import msgpack
import trio

from tracesvc.store import segments
from tracesvc.store.base import StoreError
from tracesvc.store.link import ConflictError
from tracesvc.store.retention import superfluous, tidied
from tracesvc.store.shared import SharedEntry, SharedSession, breaks

if TYPE_CHECKING:
    from tracesvc.store.archive import Archive
    from tracesvc.store.jetstream import JetStreamStore

__all__ = ["Keeper"]

log = logging.getLogger("tracesvc.store")

EVERY: Final = 2.0
"""seconds between two rounds"""
LEASE: Final = 10 * 10**9
"""ns after its last round that a keeper's place is free"""
STALE: Final = 10 * 10**9
"""ns without news after which a session is looked at: who wrote to it may have died before it could say so"""
LOOK_AGAIN: Final = 60.0
TIDY_EVERY: Final = 60.0
MORE: Final = 16 << 20
"""bytes beyond the size of a segment within which a generation should begin"""
GONE_FOR: Final = 3600 * 10**9
"""ns that a deletion is remembered"""


class Keeper:
    """`run` is its task."""

    def __init__(self, store: JetStreamStore) -> None:
        self._store = store
        self._me = str(uuid4())
        self._looked: dict[str, float] = {}
        self._tidied = trio.current_time()
        self._erased: set[str] = set()
        self._swept: dict[str, int] = {}
        self._sought = False
        self._until = 0
        """ns since the epoch until which this replica holds the lease"""

    def at_work(self) -> bool:
        """Whether it is this replica that keeps, as far as it knows."""
        return time.time_ns() < self._until

    async def run(self) -> None:
        """Go round for ever."""
        while True:
            await trio.sleep(EVERY)
            try:
                if await self._holds_the_lease():
                    await self._round()
            except StoreError as exc:
                log.warning("archiving: %s", exc)

    async def _holds_the_lease(self) -> bool:
        store, now = self._store, time.time_ns()
        subject = f"{store.fleet.stream}.keeper"
        last = await store.link.last(store.entries, subject)
        if last is not None:
            owner, until = msgpack.unpackb(last.data)
            if owner != self._me and until > now:
                return False
        mine = msgpack.packb([self._me, now + LEASE])
        try:
            await store.link.publish(
                subject,
                mine,
                expected=0 if last is None else last.seq,
                headers={"Nats-Msg-Id": str(uuid4())},
            )
        except ConflictError:
            return False
        self._until = now + LEASE
        return True

    async def _round(self) -> None:
        store = self._store
        if not self._sought:
            await self._seek()
            self._sought = True
        for name, entry in list(store.feed.open.items()):
            if self._due(name, entry):
                try:
                    await self._keep(name)
                except StoreError as exc:
                    log.warning("archiving session %s: %s", name, exc)
        for name in self._looked.keys() - store.feed.open.keys():
            del self._looked[name]
            self._swept.pop(name, None)
        now = time.time_ns()
        self._erased &= store.feed.gone.keys()  # what has come again may go again
        for name, entry in list(store.feed.gone.items()):
            if name not in self._erased:
                await store.erase(name)
                self._erased.add(name)
            if entry.updated < now - GONE_FOR:
                await store.forget_gone(name)
                self._erased.discard(name)
        if store.keep.limited and trio.current_time() >= self._tidied + TIDY_EVERY:
            self._tidied = trio.current_time()
            await self.tidy()

    async def _seek(self) -> None:
        """Enter sessions that have no entry: its writer died at once, or the stream of the entries was lost."""
        store = self._store
        known = cast("dict[str, int]", await store.feed.ask(store.feed.catalogue.sizes))
        prefix = store.subject_of("")
        subjects = await store.link.subjects(store.frames, prefix + "*")
        found = {subject.removeprefix(prefix) for subject in subjects}
        if store.archive is not None and not known:  # to list a bucket takes long
            found |= set(await store.archive.sessions())
        for name in sorted(found - known.keys() - store.feed.gone.keys()):
            stored = await store.take(name)
            try:
                async with stored.lock:
                    if stored.known and stored.entered < 0:
                        await store.enter(stored)
                        log.warning("session %s had no entry", name)
            finally:
                store.give_back(stored)

    def _due(self, name: str, entry: SharedEntry) -> bool:
        archive = self._store.archive is not None
        age = time.time_ns() - entry.updated
        left = entry.size - entry.archived
        if archive and (left >= segments.SEGMENT or (entry.ended and left)):
            return True
        if entry.ended:
            return archive and age > self._store.fleet.forget_after * 1e9
        stale = age > STALE or (
            archive and left > 0 and age > self._store.fleet.archive_after * 1e9
        )
        return stale and self._looked.get(name, 0.0) < trio.current_time() - LOOK_AGAIN

    async def _keep(self, name: str) -> None:
        store = self._store
        self._looked[name] = trio.current_time()
        stored = await store.take(name)
        try:
            async with stored.lock:
                if not stored.known:
                    return
                before = (stored.size, stored.archived, stored.whole)
                await store.follow(stored)
                if store.archive is not None:
                    await self._archive(stored, store.archive)
                if (stored.size, stored.archived, stored.whole) != before or (
                    stored.entered != stored.size
                ):
                    await store.enter(stored)
        finally:
            store.give_back(stored)

    async def _archive(self, stored: SharedSession, archive: Archive) -> None:
        fleet, age = self._store.fleet, time.time_ns() - stored.updated
        over = stored.ended or age > fleet.archive_after * 1e9
        stored.segments = await archive.segments(stored.name)
        stored.archived = stored.segments[-1][1] if stored.segments else 0
        while stored.archived < stored.size:
            if not over and stored.size - stored.archived < segments.SEGMENT:
                break
            data = await self._gather(stored, over=over)
            if not data:
                break
            start = stored.archived
            if await archive.create(stored.name, start, data):
                stored.segments = [*stored.segments, (start, start + len(data))]
            else:  # another one was quicker, and has perhaps cut elsewhere
                stored.segments = await archive.segments(stored.name)
            archived = stored.segments[-1][1] if stored.segments else 0
            if archived <= start:
                raise StoreError(f"the bucket does not show the segment of {start}")
            stored.archived = archived
        await self._forget(stored, age)

    async def _gather(self, stored: SharedSession, *, over: bool) -> bytes:
        """The next segment: up to the first generation that begins behind its size; nothing if that is to come."""
        data = bytearray()
        wanted = segments.SEGMENT + MORE
        at = stored.archived
        while at + len(data) < stored.size and len(data) < wanted:
            data += await self._store.contents.read(stored, at + len(data), 1 << 20)
        frames = breaks(bytes(data))
        for begin, generation in frames:
            if generation and begin >= segments.SEGMENT:
                return bytes(data[:begin])
        if len(data) < wanted:
            return bytes(data) if over else b""
        return bytes(data[: frames[-1][0]] if len(frames) > 1 else data)

    async def _forget(self, stored: SharedSession, age: int) -> None:
        """Have the stream forget what the bucket has.

        The last message stays until nothing can follow it any more: appending compares with it.
        """
        store = self._store
        if stored.ended and stored.archived >= stored.size:
            if age > store.fleet.forget_after * 1e9:
                await store.link.forget(store.frames, store.subject_of(stored.name), None)
                stored.whole = True
                stored.chunks.clear()
            return
        if not stored.archived:
            return
        below = stored.seq
        if stored.archived < stored.size:
            chunk = await store.contents.locate(stored, stored.archived)
            if chunk is None:
                return
            below = chunk.seq
        if self._swept.get(stored.name) != below:
            await store.link.forget(store.frames, store.subject_of(stored.name), below)
            self._swept[stored.name] = below
            stored.chunks[:] = [chunk for chunk in stored.chunks if chunk.seq >= below]

    async def tidy(self) -> None:
        """Delete what is not to be kept any longer."""
        store = self._store
        feed = store.feed
        await feed.look()
        names = await feed.ask(partial(superfluous, feed.catalogue, store.keep, time.time_ns()))
        await tidied(cast("list[str]", names), store.delete)
