"""`ShownFiles`: trace files that lie somewhere, as a store that takes nothing: what `tracesvc view` serves.

A file may grow meanwhile, be damaged, or begin in the middle of its session; what can be read of it is shown.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Unpack, get_args

import trio

from tracesvc.format.frames import HEADER_SIZE, Frame, FrameDecoder
from tracesvc.model.reader import read
from tracesvc.store.base import (
    Appended,
    BadStreamError,
    NoTablesError,
    SessionInfo,
    State,
    StoreError,
    UnknownSessionError,
    Which,
    session_name,
)
from tracesvc.store.intake import record_of
from tracesvc.store.ledger import Ledger
from tracesvc.store.tables import TableFile

__all__ = ["ShownFiles"]

PIECE: Final = 1 << 20
LOOK: Final = 0.2
"""seconds between two looks at a file that may grow"""
FRESH: Final = 10.0
"""seconds since the last change of a file without an end mark, after which its program is taken to be gone"""


class _Shown:
    """A file, as far as it has been looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = Ledger()
        self.lock = trio.Lock()
        self._decoder = FrameDecoder()
        with read(path) as trace:
            session = trace.session
        self.name = session.id if session is not None else _made_up(path)

    @property
    def durable(self) -> int:
        return self._decoder.offset

    def look(self) -> None:
        """Take in what has come since the last look."""
        with self.path.open("rb") as file:
            file.seek(self._decoder.offset + self._decoder.pending)
            while data := file.read(PIECE):
                self._decoder.feed(data)
                for frame in self._decoder:
                    if isinstance(frame, Frame):
                        self._note(frame)

    def _note(self, frame: Frame) -> None:
        flags = frame.data[7]
        try:
            record = record_of(frame.kind, flags, memoryview(frame.data)[HEADER_SIZE:])
        except (BadStreamError, ValueError):
            return  # the page says where a trace is damaged
        self.ledger.note(frame.number, record)

    def info(self) -> SessionInfo:
        """What is known of it."""
        status = self.path.stat()
        state: State = "broken"
        if self.ledger.ended:
            state = "ended"
        elif time.time() - status.st_mtime < FRESH:
            state = "live"
        ledger = self.ledger
        source = ledger.source or {"name": self.path.name}
        started = ledger.started or status.st_mtime_ns
        lost = dict(ledger.lost)
        return SessionInfo(
            self.name,
            source,
            started,
            max(status.st_mtime_ns, started),
            self.durable,
            ledger.frames,
            ledger.events,
            lost,
            state,
            ledger.offset,
        )


class ShownFiles:
    """A `tracesvc.store.Store` of files; nothing can be added to it."""

    trouble: str | None = "these are files that are shown; nothing is stored here"

    def __init__(self, paths: Sequence[Path]) -> None:
        """Look at the files.

        Raises:
          OSError: one cannot be read.
          FormatError: one is no trace.
        """
        self._shown: dict[str, _Shown] = {}
        for shown in map(_Shown, paths):
            if shown.name in self._shown:  # a second file of the same session
                shown.name = _made_up(shown.path)
            self._shown[shown.name] = shown

    @property
    def sessions(self) -> list[str]:
        """Names of the sessions in the files."""
        return list(self._shown)

    async def _of(self, session: str) -> _Shown:
        shown = self._shown.get(session_name(session))
        if shown is None:
            raise UnknownSessionError(f"there is no session {session}")
        async with shown.lock:
            if not shown.ledger.ended:
                try:
                    await trio.to_thread.run_sync(shown.look)
                except FileNotFoundError:
                    raise UnknownSessionError(f"{shown.path} is there no longer") from None
        return shown

    async def append(self, session: str, offset: int, data: bytes | bytearray) -> Appended:
        """Refused."""
        del session, offset, data
        raise StoreError(self.trouble)

    async def delete(self, session: str) -> None:
        """Refused."""
        del session
        raise StoreError(self.trouble)

    async def info(self, session: str) -> SessionInfo:
        return (await self._of(session)).info()

    async def ledger(self, session: str) -> dict[str, Any]:
        return (await self._of(session)).ledger.as_dict()

    async def totals(self) -> dict[str, dict[str, int]]:
        infos = [(await self._of(name)).info() for name in self._shown]
        lost: Counter[str] = Counter()
        for info in infos:
            lost.update(info.lost)
        return {
            "sessions": {s: sum(info.state == s for info in infos) for s in get_args(State)},
            "stored": {
                what: sum(getattr(info, what) for info in infos)
                for what in ("bytes", "frames", "events")
            },
            "lost_events": dict(lost),
        }

    async def list(self, **which: Unpack[Which]) -> Sequence[SessionInfo]:
        source, state, before = which.get("source"), which.get("state"), which.get("before")
        until = which.get("until")
        infos = [await self.info(name) for name in self._shown]
        chosen = [
            info
            for info in sorted(infos, key=lambda info: (info.started, info.session), reverse=True)
            if source in (None, info.source.get("name"))
            and str(info.source.get("name", "")).startswith(which.get("prefix", ""))
            and state in (None, info.state)
            and (before is None or (info.started, info.session) < before)
            and info.updated >= which.get("since", 0)
            and (until is None or info.started <= until)
        ]
        return chosen[: which.get("limit", 100)]

    async def read(self, session: str, offset: int, max_bytes: int) -> bytes:
        shown = await self._of(session)
        size = min(max_bytes, shown.durable - offset)
        return await trio.to_thread.run_sync(partial(_read, shown.path, offset, size))

    async def table(self, session: str, table: str) -> TableFile:
        """There is none: whoever has the file asks it with `tracesvc query`."""
        await self._of(session)
        raise NoTablesError(f"{table} of {session}: these are files, `tracesvc query` asks them")

    async def read_table(self, session: str, table: str, offset: int, max_bytes: int) -> bytes:
        """There is none."""
        del offset, max_bytes
        await self.table(session, table)
        return b""

    async def wait_durable(self, session: str, offset: int) -> int:
        while True:
            shown = await self._of(session)
            if shown.durable > offset or shown.info().state != "live":
                return shown.durable
            await trio.sleep(LOOK)

    async def path(self, session: str) -> Path:
        return (await self._of(session)).path

    async def beside(self, session: str) -> Path | None:
        """None: what lies beside a file is somebody else's."""
        await self._of(session)
        return None


def _made_up(path: Path) -> str:
    """A name for what has none of its own."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, str(path)))


def _read(path: Path, offset: int, size: int) -> bytes:
    if size <= 0:
        return b""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)
