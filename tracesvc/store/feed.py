"""What all replicas know of all sessions: each follows the stream of their entries into a catalogue of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import trio

from tracesvc.store.catalogue import Catalogue
from tracesvc.store.link import Link, Message
from tracesvc.store.shared import SharedEntry
from tracesvc.store.tables import Compacted

__all__ = ["Feed"]

log = logging.getLogger("tracesvc.store")

WALKERS: Final = 16
"""requests at once at the start"""
FEW: Final = 256
"""entries that are put into the catalogue at once"""


class Feed:
    """`look` brings it up to date."""

    def __init__(
        self, link: Link, stream: str, prefix: str, told: Callable[[str, SharedEntry, int], None]
    ) -> None:
        """``told``: called with every entry: session, entry, revision."""
        self._link, self._stream, self._prefix, self._told = link, stream, prefix, told
        self._lock = trio.Lock()
        self._thread = trio.CapacityLimiter(1)
        self._seq = 0
        self.catalogue = Catalogue(Path(":memory:"))
        self.open: dict[str, SharedEntry] = {}
        """sessions of which the stream of frames has something still"""
        self.gone: dict[str, SharedEntry] = {}
        """what has been deleted of late"""

    async def begin(self) -> None:
        """Take in all that there is, many requests at once."""
        first, last = await self._link.bounds(self._stream)
        step = max(1, (last - first) // WALKERS + 1)
        found: list[Message] = []

        async def walk(at: int, end: int) -> None:
            while at < end and (message := await self._next(at)) and message.seq < end:
                found.append(message)
                at = message.seq + 1

        async with trio.open_nursery() as nursery:
            for at in range(first, last + 1, step):
                nursery.start_soon(walk, at, min(at + step, last + 1))
        found.sort(key=lambda message: message.seq)
        await self._enter(found)
        self._seq = max(self._seq, last)
        await self.look()

    async def look(self) -> None:
        """Take in what has come since."""
        async with self._lock:
            found: list[Message] = []
            while (message := await self._next(self._seq + 1)) is not None:
                self._seq = message.seq
                found.append(message)
                if len(found) >= FEW:
                    await self._enter(found)
                    found = []
            await self._enter(found)

    async def put(self, session: str, entry: SharedEntry, revision: int) -> None:
        """What this replica has just written itself."""
        await self._take_in({session: (entry, revision)})

    async def ask(self, function: Callable[[], object]) -> object:
        """Call it in a thread, for the catalogue may be used by one at a time only."""
        return await trio.to_thread.run_sync(function, limiter=self._thread)

    async def _next(self, at: int) -> Message | None:
        return await self._link.next(self._stream, self._prefix + "*", at)

    async def _enter(self, found: list[Message]) -> None:
        news: dict[str, tuple[SharedEntry, int]] = {}
        for message in found:
            session = message.subject.removeprefix(self._prefix)
            try:
                news[session] = SharedEntry.unpack(message.data), message.seq
            except (ValueError, TypeError) as exc:
                log.warning("the entry of session %s cannot be read: %s", session, exc)
        await self._take_in(news)

    async def _take_in(self, news: dict[str, tuple[SharedEntry, int]]) -> None:
        if not news:
            return
        rows = []
        for session, (entry, revision) in news.items():
            self.open.pop(session, None)
            self.gone.pop(session, None)
            if entry.gone:
                self.gone[session] = entry
            else:
                rows.append(entry.row())
                if not entry.whole:
                    self.open[session] = entry
            self._told(session, entry, revision)
        await self.ask(partial(self.catalogue.put, rows))
        for session, (entry, _) in news.items():
            if entry.tables is not None and not entry.gone:
                try:
                    tables = Compacted.unpack(entry.tables)
                except ValueError as exc:
                    log.debug("the tables of session %s are not for this replica: %s", session, exc)
                else:
                    await self.ask(partial(self.catalogue.enter_tables, tables))
        gone = [session for session, (entry, _) in news.items() if entry.gone]
        if gone:
            await self.ask(partial(self.catalogue.remove, gone))
