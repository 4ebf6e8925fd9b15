"""Tables of what a fleet has archived: made from a copy, and put beside the segments in the bucket."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import trio

from tracesvc.store.base import StoreBrokenError, StoreError
from tracesvc.store.compaction import Compact, Compaction, in_child
from tracesvc.store.tables import PARQUET, Compacted, found_tables

if TYPE_CHECKING:
    from tracesvc.store.archive import Archive
    from tracesvc.store.jetstream import JetStreamStore

__all__ = ["SharedCompaction"]


class SharedCompaction(Compaction):
    """Runs where the keeper runs; should two do the same, objects are created once."""

    def __init__(
        self,
        store: JetStreamStore,
        archive: Archive,
        how: Compact,
        place: Path,
        mine: Callable[[], bool],
    ) -> None:
        """``place``: a directory for what is being made; ``mine``: whether it is this replica that does it now."""
        super().__init__(how)
        self._store, self._archive, self._place, self._mine = store, archive, place, mine

    async def begin(self) -> None:
        await trio.to_thread.run_sync(partial(shutil.rmtree, self._place, ignore_errors=True))

    async def without(self, settled: int, silent: int, limit: int) -> Sequence[tuple[str, int]]:
        """Of those that the bucket has as a whole."""
        if not self._mine():
            await trio.lowlevel.checkpoint()
            return []
        feed = self._store.feed
        work = partial(feed.catalogue.without_tables, settled, silent, limit + len(feed.open))
        found = cast("list[tuple[str, int]]", await feed.ask(work))
        return [
            (session, size)
            for session, size in found
            if (entry := feed.open.get(session)) is None or entry.archived >= size
        ]

    async def find(self, session: str, size: int) -> Compacted | None:
        return await self._archive.tables(session, size)

    async def make(self, session: str, size: int, memory: int) -> str | None:
        own = self._place / "sessions" / session
        try:
            await trio.to_thread.run_sync(partial(own.mkdir, parents=True, exist_ok=True))
            path = await self._store.path(session)
            why = await in_child(path, session, size, own, memory)
            if why is not None:
                return why
            made = await trio.to_thread.run_sync(found_tables, own, size)
            if made is None:
                return "they are not there, though they were made"
            await self._archive.create_tables(own / PARQUET / made.name, made)
        except StoreBrokenError:
            raise
        except (StoreError, OSError) as exc:
            return str(exc)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(partial(shutil.rmtree, own, ignore_errors=True))
        return None

    async def enter(self, found: Compacted) -> None:
        stored = await self._store.take(found.session)
        try:
            async with stored.lock:
                if stored.known:
                    stored.tables = found.pack()
                    await self._store.enter(stored)
        finally:
            self._store.give_back(stored)

    async def room(self) -> int:
        def free() -> int:
            place = self._place.parent
            return shutil.disk_usage(place).free if place.is_dir() else 0

        return await trio.to_thread.run_sync(free)
