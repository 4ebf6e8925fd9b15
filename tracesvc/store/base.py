"""What a store is: where a service keeps the streams of sessions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypedDict, Unpack

from tracesvc.store.offset import ClockOffset
from tracesvc.store.tables import Compacted, TableFile

__all__ = [
    "Appended",
    "BadSessionNameError",
    "BadStreamError",
    "ClockOffset",
    "LiveSessionError",
    "NoTablesError",
    "OffsetError",
    "SessionInfo",
    "State",
    "Store",
    "StoreBrokenError",
    "StoreClosedError",
    "StoreError",
    "StoreFullError",
    "UnknownSessionError",
    "Which",
    "no_tables",
    "session_name",
]

State = Literal["live", "ended", "broken"]
"""live: more is expected; ended: its end mark is stored; broken: no end mark, and nothing has come for a minute"""


_UUID: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class StoreError(Exception):
    """A store cannot do what it was asked; the message says why, and what to do about it."""


class StoreFullError(StoreError):
    """No room: nothing of what was to be appended is kept, and all that was acknowledged still is."""


class StoreBrokenError(StoreError):
    """The disk reports errors."""


class StoreClosedError(StoreError):
    """The store is shutting down."""


class UnknownSessionError(StoreError):
    """There is no such session."""


class NoTablesError(StoreError):
    """The session has no such table: it has not been compacted (yet), or there is nothing to be in it."""


class LiveSessionError(StoreError):
    """Not while the session is live."""


class BadSessionNameError(StoreError):
    """Session names are UUIDs, in their usual spelling."""


class OffsetError(StoreError):
    """Bytes that do not continue the stream: it ends at ``durable``."""

    def __init__(self, durable: int, why: str) -> None:
        super().__init__(why)
        self.durable = durable


class BadStreamError(StoreError):
    """Bytes that are no good continuation of the session; ``code`` names what is wrong, for programs."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


def no_tables(session: str, table: str) -> NoTablesError:
    """Says so."""
    return NoTablesError(f"session {session} has no table {table[:40]!r} (yet)")


def session_name(text: str) -> str:
    """``text`` if it is a UUID in its usual spelling: 36 lower-case characters that are safe in any path.

    Raises:
      BadSessionNameError: it is anything else.
    """
    if _UUID.fullmatch(text):
        return text
    raise BadSessionNameError(
        "a session is named by a UUID, like 123e4567-e89b-42d3-a456-426614174000"
    )


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What a store knows of a session without reading it."""

    session: str
    source: Mapping[str, Any]
    """of the stream's header: name, host, pid, ..."""
    started: int
    """wall clock, ns since the epoch"""
    updated: int
    """wall clock of the last append, ns since the epoch"""
    bytes: int
    """of whole frames, durable"""
    frames: int
    events: int
    lost: Mapping[str, int]
    """events, by cause"""
    state: State
    clock: ClockOffset | None = None
    """how far its times are from the service's; None: nothing tells"""
    tables: Compacted | None = None
    """what SQL over many sessions reads, where it is there, and was asked for"""


class Which(TypedDict, total=False):
    """Which sessions are meant, of all that there are; times in ns since the epoch."""

    source: str | None
    prefix: str
    """of the names of sources"""
    state: State | None
    before: tuple[int, str] | None
    """(started, session) of the last one of the page before"""
    since: int
    """that got a frame then, or later"""
    until: int | None
    """that had begun by then"""
    tables: bool
    """whether to tell of their tables"""
    limit: int
    """100 where it is not said"""


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of the bytes given to `Store.append`."""

    durable: int
    """offset up to which the stream is safe now"""
    rest: int
    """bytes at the end that are the beginning of a frame: give them again, with what follows"""
    problem: StoreError | None
    """why the bytes behind ``durable`` were not taken; None: all whole frames were"""


class Store(Protocol):
    """Keeps streams.  Every method may be called from any number of tasks at once.

    Methods that take a session's name raise `BadSessionNameError` for anything but a UUID, and all but `append` raise
    `UnknownSessionError` where there is no such session.
    """

    async def append(self, session: str, offset: int, data: bytes | bytearray) -> Appended:
        """Check ``data``, bytes of the stream from ``offset`` on, and keep its whole good frames, durably.

        What lies below the durable offset already is passed over.
        """
        ...

    async def info(self, session: str) -> SessionInfo: ...

    async def ledger(self, session: str) -> dict[str, Any]:
        """``{"procs": {id: {"name", "emitted", "stored", "lost": {cause: n}}}, "closed": bool}``."""
        ...

    async def list(self, **which: Unpack[Which]) -> Sequence[SessionInfo]:
        """Sessions, the youngest first."""
        ...

    async def totals(self) -> Mapping[str, Mapping[str, int]]:
        """Sums over all sessions: ``sessions`` by state, ``stored`` (bytes, frames, events, bytes as ``parquet``),
        ``lost_events`` by cause.

        What it gives belongs to the caller.
        """
        ...

    async def read(self, session: str, offset: int, max_bytes: int) -> bytes:
        """Durable bytes from ``offset`` on; empty where there are none (yet)."""
        ...

    async def wait_durable(self, session: str, offset: int) -> int:
        """Wait for durable bytes behind ``offset``, or for the end of the session; returns the durable offset."""
        ...

    async def path(self, session: str) -> Path:
        """The file that holds the stream, or a directory with its segments; `tracesvc.read` takes either."""
        ...

    async def beside(self, session: str) -> Path | None:
        """A directory for what can be made anew of the session, and goes with it; None: there is no place for that."""
        ...

    async def table(self, session: str, table: str) -> TableFile:
        """What is known of a table of a session that has been compacted.

        Raises:
          NoTablesError: it has none, or not that one.
        """
        ...

    async def read_table(self, session: str, table: str, offset: int, max_bytes: int) -> bytes:
        """Bytes of its file, Parquet.

        Raises:
          NoTablesError: it is not there.
        """
        ...

    async def delete(self, session: str) -> None:
        """Forget a session that is over, and all its bytes.

        Raises:
          LiveSessionError: it is live.
        """
        ...

    @property
    def trouble(self) -> str | None:
        """Why nothing can be stored just now, or None."""
        ...
