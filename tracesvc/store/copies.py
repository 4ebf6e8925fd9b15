"""Sessions as local files, for questions: copies that grow with them, and are thrown away when room is needed."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import trio

from tracesvc.store.base import StoreBrokenError
from tracesvc.store.segments import segment_name

__all__ = ["Copies"]

ROOM: Final = 4 << 30
"""bytes of all copies, about"""
AT_ONCE: Final = 1 << 20


class Copies:
    """A directory that is emptied at the first use: what lies there may be of another fleet."""

    def __init__(self, root: Path, read: Callable[[str, int, int], Awaitable[bytes]]) -> None:
        self._root, self._read = root, read
        self._locks: dict[str, trio.Lock] = {}
        self._sizes: dict[str, int] = {}
        """of the copies, the one used longest ago first"""
        self._clean = False

    async def path(self, session: str, size: int) -> Path:
        """A file with the first ``size`` bytes of the session, or more."""
        async with self._locks.setdefault(session, trio.Lock()):
            if not self._clean:
                self._clean = True
                await trio.to_thread.run_sync(self._empty)
            path = self._root / session / segment_name(0)
            have = self._sizes.pop(session, 0)
            self._sizes[session] = have
            try:
                await trio.to_thread.run_sync(_begin, path, have)
                while have < size:
                    data = await self._read(session, have, min(AT_ONCE, size - have))
                    if not data:
                        raise StoreBrokenError(f"session {session} ends at {have}, not {size}")
                    await trio.to_thread.run_sync(_add, path, data)
                    have += len(data)
                    self._sizes[session] = have
            except OSError as exc:
                self._sizes.pop(session, None)
                raise StoreBrokenError(f"cannot copy to {path}: {exc.strerror or exc}") from exc
        await self._make_room(session)
        return path

    def forget(self, session: str) -> None:
        """It is deleted: what comes under its name later is another stream."""
        self._sizes.pop(session, None)

    def _empty(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    async def _make_room(self, besides: str) -> None:
        """Remove the copies used longest ago; who is reading one has it open."""
        for session in list(self._sizes):
            if sum(self._sizes.values()) <= ROOM or session == besides:
                return
            lock = self._locks.setdefault(session, trio.Lock())
            async with lock:
                self._sizes.pop(session, None)
                directory = self._root / session
                await trio.to_thread.run_sync(partial(shutil.rmtree, directory, ignore_errors=True))
            if not lock.statistics().tasks_waiting:
                self._locks.pop(session, None)


def _begin(path: Path, size: int) -> None:
    """Whatever lies behind ``size`` is of an attempt that was broken off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.truncate(size)


def _add(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
