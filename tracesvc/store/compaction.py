"""Finished sessions become tables, one after the other, in a process that runs when nobody else wants to.

What there is to do is found in the catalogue, so nothing is remembered; what was interrupted is made again.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import trio

from tracesvc.store.base import StoreError
from tracesvc.store.catalogue import LIVE_FOR, Catalogue
from tracesvc.store.tables import PARQUET, Compacted, clear, faults, found_tables

__all__ = ["Compact", "Compaction", "FileCompaction", "in_child"]

log = logging.getLogger("tracesvc.store")

EVERY: Final = 5.0
"""seconds between two looks for what is to be done"""
NO_ROOM: Final = 60.0
"""seconds until it is looked again whether there is room"""
LONGEST: Final = 86400.0
"""seconds for one session; where others keep the processors busy it takes its time"""
BATCH: Final = 100
"""sessions that are looked at in one piece of work"""
TIMES: Final = 6
"""tables take two to three times what their stream takes; so much must be free"""
LEAST: Final = 16 << 20
"""bytes beyond that"""
_ALONE: Final = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""environment of the process: one thread, and memory that is given back"""


@dataclass(frozen=True, slots=True)
class Compact:
    """When, and with how much."""

    memory: int = 1 << 30
    """bytes that the process may have; a session that takes more has no tables"""
    settled: float = 10.0
    """seconds after the last frame of a session that has ended"""
    silent: float = 3600.0
    """seconds after the last frame of one that has no end mark; should it go on, the tables are made anew"""


async def in_child(
    source: Path, session: str, size: int, directory: Path, memory: int
) -> str | None:
    """Have a process make tables of the first ``size`` bytes at ``source``; why there are none, or None.

    If cancelled, the process is killed; it ends, too, when this one does.
    """
    words = [source, session, size, directory, memory]
    command = [sys.executable, "-m", "tracesvc.store.compacting", *map(str, words)]
    near, far = os.pipe()
    try:
        with trio.move_on_after(LONGEST):
            done = await trio.run_process(
                command,
                stdin=near,
                stdout=subprocess.DEVNULL,
                capture_stderr=True,
                check=False,
                deliver_cancel=_kill,
                env={**os.environ, **_ALONE},
                start_new_session=True,  # a Ctrl-C is not for it
            )
            if done.returncode == 0:
                return None
            said = done.stderr.decode(errors="replace").strip().splitlines()
            return said[-1] if said else f"the process ended with {done.returncode}"
    except OSError as exc:
        return f"no process could be started: {exc.strerror or exc}"
    finally:
        os.close(near)
        os.close(far)
    return f"it takes more than {LONGEST:g} seconds"


async def _kill(process: trio.Process) -> None:
    process.kill()


class Compaction(ABC):
    """`run` is its task; what it works on is a matter of its subclasses."""

    def __init__(self, how: Compact) -> None:
        self._how = how
        self._failed: dict[str, int] = {}
        """session -> size of what no tables could be made of"""
        self._apart: set[str] = set()
        self._now: tuple[str, trio.CancelScope, trio.Event] | None = None
        """session that is being worked on, what ends that, and that it has ended"""

    @abstractmethod
    async def without(self, settled: int, silent: int, limit: int) -> Sequence[tuple[str, int]]:
        """(session, size) of those without tables, see `tracesvc.store.catalogue.Catalogue.without_tables`."""

    @abstractmethod
    async def find(self, session: str, size: int) -> Compacted | None:
        """Tables that are there already."""

    @abstractmethod
    async def make(self, session: str, size: int, memory: int) -> str | None:
        """Make them; why there are none, or None."""

    @abstractmethod
    async def enter(self, found: Compacted) -> None:
        """Let everybody know of them."""

    @abstractmethod
    async def room(self) -> int:
        """Bytes that may be written."""

    async def begin(self) -> None:
        """Before the first session."""
        await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        """Look after it for ever."""
        if find_spec("pyarrow") is None:
            log.warning("finished sessions get no tables: pip install 'tracesvc[analysis]'")
            return
        begun = False
        while True:
            wait = EVERY
            try:
                if not begun:
                    await self.begin()
                    begun = True
                todo = await self._todo(self._how.settled, self._how.silent)
                if todo and await self._has_room(*todo[0]):
                    why = await self._one(*todo[0])
                    if why is not None:
                        log.warning("session %s gets no tables: %s", todo[0][0], why)
                    wait = 0.0
                elif todo:
                    wait = NO_ROOM
            except StoreError as exc:
                log.warning("compaction: %s", exc)
            await trio.sleep(wait)

    async def all(self, told: Callable[[str, str | None], object]) -> None:
        """Do at once what there is to do, of all sessions that are over; ``told``: session, why it has no tables."""
        while todo := await self._todo(0, LIVE_FOR / 1e9):
            for session, size in todo:
                if not await self._has_room(session, size):
                    told(session, "too little of the disk is free")
                    return
                told(session, await self._one(session, size))

    @asynccontextmanager
    async def apart(self, session: str) -> AsyncIterator[None]:
        """Nothing is done to this session meanwhile; what is being done is broken off."""
        self._apart.add(session)
        try:
            if self._now is not None and self._now[0] == session:
                self._now[1].cancel()
                await self._now[2].wait()
            yield
        finally:
            self._apart.discard(session)

    async def _todo(self, settled: float, silent: float) -> list[tuple[str, int]]:
        """(session, size) of what has no tables."""
        now = time.time_ns()
        bounds = now - int(settled * 1e9), now - int(silent * 1e9)
        found = await self.without(*bounds, BATCH + len(self._failed) + len(self._apart))
        return [
            (session, size)
            for session, size in found
            if session not in self._apart and self._failed.get(session) != size
        ]

    async def _has_room(self, session: str, size: int) -> bool:
        if await self.room() < TIMES * size + LEAST:
            log.warning("session %s gets no tables yet: too little of the disk is free", session)
            return False
        return True

    async def _one(self, session: str, size: int) -> str | None:
        """Why there are none."""
        why = None
        with trio.CancelScope() as scope:
            self._now = session, scope, trio.Event()
            try:
                found = await self.find(session, size)
                if found is None:
                    why = await self.make(session, size, self._how.memory)
                    found = await self.find(session, size)
                if found is None:
                    self._failed[session] = size
                    return why or "they are not there, though they were made"
                await self.enter(found)
            finally:
                self._now[2].set()
                self._now = None
        return "it was deleted" if scope.cancelled_caught else None


class FileCompaction(Compaction):
    """Of a `FileStore`: tables lie beside the segments."""

    def __init__(
        self,
        root: Path,
        how: Compact,
        catalogue: Catalogue,
        ask: Callable[[Callable[[], Any]], Awaitable[Any]],
        room: Callable[[], int],
    ) -> None:
        """``ask``: calls a function that uses the catalogue; ``room``: bytes that may be written, for a thread."""
        super().__init__(how)
        self._sessions = root / "sessions"
        self._catalogue, self._ask, self._room = catalogue, ask, room

    async def without(self, settled: int, silent: int, limit: int) -> Sequence[tuple[str, int]]:
        work = partial(self._catalogue.without_tables, settled, silent, limit)
        found: list[tuple[str, int]] = await self._ask(work)
        return found

    async def find(self, session: str, size: int) -> Compacted | None:
        return await trio.to_thread.run_sync(found_tables, self._sessions / session, size)

    async def make(self, session: str, size: int, memory: int) -> str | None:
        directory = self._sessions / session
        try:
            return await in_child(directory, session, size, directory, memory)
        finally:  # killed, it leaves what it was at
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(clear, directory)

    async def enter(self, found: Compacted) -> None:
        await self._ask(partial(self._catalogue.enter_tables, found))

    async def room(self) -> int:
        return await trio.to_thread.run_sync(self._room)

    async def begin(self) -> None:
        await self.look_over()

    async def look_over(self, *, check: bool = False) -> list[str]:
        """Forget tables of which something is missing, or (``check``) damaged: they are made again; whose they are."""
        known: list[tuple[str, int]] = await self._ask(self._catalogue.compacted)
        gone: list[str] = []
        for at in range(0, len(known), BATCH):
            look = partial(self._not_whole, known[at : at + BATCH], check)
            gone += await trio.to_thread.run_sync(look, thread_name="tracesvc tables")
        if gone:
            log.warning("tables of %d sessions are missing or damaged: made again", len(gone))
            await self._ask(partial(self._catalogue.forget_tables, gone))
        return gone

    def _not_whole(self, known: list[tuple[str, int]], check: bool) -> list[str]:
        gone = []
        for session, size in known:
            found = found_tables(self._sessions / session, size)
            if found is None or (check and faults(self._sessions / session, found)):
                shutil.rmtree(self._sessions / session / PARQUET, ignore_errors=True)
                gone.append(session)
        return gone
