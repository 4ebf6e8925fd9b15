"""The catalogue of a `FileStore`: one row per session, in SQLite.  For threads; one call at a time.

It holds nothing that is not in the segment files as well, so that it may be late, or be lost.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgpack

from tracesvc.format import Exchange
from tracesvc.store.base import SessionInfo, State
from tracesvc.store.ledger import Ledger
from tracesvc.store.offset import ClockOffset, offset_of
from tracesvc.store.tables import Compacted

__all__ = ["LIVE_FOR", "Catalogue", "Entry", "state_of"]

LIVE_FOR: Final = 60 * 10**9
"""ns after the last append for which a session without an end mark counts as live"""

_VERSION: Final = 3
_FROM_2: Final = "ALTER TABLE sessions ADD COLUMN clock BLOB NOT NULL DEFAULT x''"
_SCHEMA: Final = """
CREATE TABLE sessions (
  session TEXT PRIMARY KEY,
  name TEXT NOT NULL,      -- of the source
  started INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  frames INTEGER NOT NULL,
  events INTEGER NOT NULL,
  ended INTEGER NOT NULL,
  source BLOB NOT NULL,
  lost BLOB NOT NULL,
  ledger BLOB NOT NULL,
  clock BLOB NOT NULL      -- of the ledger
) WITHOUT ROWID;
CREATE INDEX by_start ON sessions (started, session);
CREATE INDEX by_name ON sessions (name, started, session);
"""
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS compacted (
  session TEXT PRIMARY KEY,
  made_of INTEGER NOT NULL,  -- bytes of the stream
  room INTEGER NOT NULL,     -- bytes of the files
  manifest BLOB NOT NULL
) WITHOUT ROWID
"""
_STATES: Final = {
    "ended": "ended",
    "live": "NOT ended AND updated > ?",
    "broken": "NOT ended AND updated <= ?",
}
_COLUMNS: Final = "session, source, started, updated, bytes, frames, events, lost, ended, clock"
_MANIFEST: Final = (
    "(SELECT manifest FROM compacted c WHERE c.session = s.session AND c.made_of = s.bytes)"
)


def state_of(updated: int, now: int, *, ended: bool) -> State:
    """The state of a session at ``now``; both times in ns since the epoch."""
    if ended:
        return "ended"
    return "live" if updated > now - LIVE_FOR else "broken"


@dataclass(frozen=True, slots=True)
class Entry:
    """A session as the catalogue has it."""

    ledger: Ledger
    size: int
    """bytes of whole frames"""
    updated: int

    def info(self, now: int) -> SessionInfo:
        """What it says at ``now``, ns since the epoch."""
        ledger = self.ledger
        return SessionInfo(
            ledger.session,
            dict(ledger.source),
            ledger.started,
            self.updated,
            self.size,
            ledger.frames,
            ledger.events,
            dict(ledger.lost),
            state_of(self.updated, now, ended=ledger.ended),
            ledger.offset,
        )

    def row(self) -> tuple[object, ...]:
        """For `Catalogue.put`."""
        ledger = self.ledger
        return (
            ledger.session,
            str(ledger.source.get("name", "")),
            ledger.started,
            self.updated,
            self.size,
            ledger.frames,
            ledger.events,
            ledger.ended,
            msgpack.packb(ledger.source),
            msgpack.packb(ledger.lost),
            ledger.pack(),
            msgpack.packb(ledger.clock),
        )


def _offset(source: dict[str, Any], started: int, clock: bytes) -> ClockOffset | None:
    if not clock:
        return None
    monotonic, rows = msgpack.unpackb(clock)
    return offset_of(source, monotonic, started, [Exchange(*row) for row in rows])


class Catalogue:
    """One connection.

    Raises:
      sqlite3.Error: the file is not a usable catalogue (of this version): delete it and make a new one.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT")
            elif version == _VERSION - 1:
                self._db.executescript(
                    f"BEGIN; {_FROM_2}; PRAGMA user_version = {_VERSION}; COMMIT"
                )
            elif version != _VERSION:
                raise sqlite3.DatabaseError(f"catalogue of version {version}")  # noqa: TRY301
            self._db.execute(_TABLES)
            self._db.execute("SELECT count(*) FROM sessions").fetchone()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def sizes(self) -> dict[str, int]:
        """Size of every session, in bytes."""
        return dict(self._db.execute("SELECT session, bytes FROM sessions"))

    def sizes_by_source(self, now: int) -> list[tuple[str, str, int, int, bool]]:
        """(session, name of its source, last append, bytes, whether it is over), the one begun last first.

        The bytes of its tables count, too.
        """
        rows = self._db.execute(
            "SELECT session, name, updated, bytes + coalesce(room, 0), ended OR updated <= ? "
            "FROM sessions LEFT JOIN compacted USING (session) ORDER BY started DESC, session DESC",
            (now - LIVE_FOR,),
        )
        return [
            (session, name, updated, size, bool(over))
            for session, name, updated, size, over in rows
        ]

    def get(self, session: str) -> Entry | None:
        row = self._db.execute(
            "SELECT ledger, bytes, updated FROM sessions WHERE session = ?", (session,)
        ).fetchone()
        return None if row is None else Entry(Ledger.unpack(row[0]), row[1], row[2])

    def put(self, rows: Iterable[tuple[object, ...]]) -> None:
        """Insert or replace `Entry.row`s, all or none."""
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
            )

    def remove(self, sessions: Iterable[str]) -> None:
        with self._transaction():
            rows = [(session,) for session in sessions]
            for table in ("sessions", "compacted"):
                self._db.executemany(f"DELETE FROM {table} WHERE session = ?", rows)  # noqa: S608

    # --- tables ------------------------------------------------------------------------------------

    def tables(self, session: str) -> Compacted | None:
        """Those of a session; it may have gone on since."""
        row = self._db.execute(
            "SELECT manifest FROM compacted WHERE session = ?", (session,)
        ).fetchone()
        return None if row is None else Compacted.unpack(row[0])

    def enter_tables(self, found: Compacted) -> None:
        """They are there."""
        row = (found.session, found.size, found.room, found.pack())
        self._db.execute("INSERT OR REPLACE INTO compacted VALUES (?, ?, ?, ?)", row)

    def forget_tables(self, sessions: Iterable[str]) -> None:
        """They are not there."""
        with self._transaction():
            self._db.executemany(
                "DELETE FROM compacted WHERE session = ?", [(session,) for session in sessions]
            )

    def compacted(self) -> list[tuple[str, int]]:
        """(session, bytes of the stream that its tables were made of)."""
        return self._db.execute("SELECT session, made_of FROM compacted").fetchall()

    def without_tables(self, settled: int, silent: int, limit: int) -> list[tuple[str, int]]:
        """(session, bytes) of those without tables that ended before ``settled``, or were heard of before ``silent``.

        Both in ns since the epoch; the one longest silent first.
        """
        return self._db.execute(
            "SELECT session, bytes FROM sessions LEFT JOIN compacted USING (session) "
            "WHERE ((ended AND updated <= ?) OR updated <= ?) AND made_of IS NOT bytes "
            "ORDER BY updated LIMIT ?",
            (settled, silent, limit),
        ).fetchall()

    def totals(self, now: int) -> dict[str, dict[str, int]]:
        """As `tracesvc.store.Store.totals` promises; ``now``: ns since the epoch."""
        states = {
            state: self._db.execute(
                f"SELECT count(*) FROM sessions WHERE {where}",  # noqa: S608
                [] if state == "ended" else [now - LIVE_FOR],
            ).fetchone()[0]
            for state, where in _STATES.items()
        }
        sums = "coalesce(sum(bytes), 0), coalesce(sum(frames), 0), coalesce(sum(events), 0)"
        row = self._db.execute(f"SELECT {sums} FROM sessions").fetchone()  # noqa: S608
        lost: dict[str, int] = {}
        for (packed,) in self._db.execute("SELECT lost FROM sessions WHERE length(lost) > 1"):
            for cause, count in msgpack.unpackb(packed).items():
                lost[cause] = lost.get(cause, 0) + count
        (room,) = self._db.execute("SELECT coalesce(sum(room), 0) FROM compacted").fetchone()
        names = ("bytes", "frames", "events", "parquet")
        stored = dict(zip(names, (*row, room), strict=True))
        return {"sessions": states, "stored": stored, "lost_events": lost}

    def list(
        self,
        now: int,
        *,
        source: str | None = None,
        prefix: str = "",
        state: State | None = None,
        before: tuple[int, str] | None = None,
        since: int = 0,
        until: int | None = None,
        tables: bool = False,
        limit: int = 100,
    ) -> Sequence[SessionInfo]:
        """See `tracesvc.store.base.Which`; ``now``: ns since the epoch."""
        where: list[str] = ["1"]
        values: list[object] = []
        if source is not None:
            where.append("name = ?")
            values.append(source)
        if prefix:
            where.append("substr(name, 1, ?) = ?")
            values += [len(prefix), prefix]
        if before is not None:
            where.append("(started, session) < (?, ?)")
            values += before
        if state is not None:
            where.append(_STATES[state])
            values += [] if state == "ended" else [now - LIVE_FOR]
        if since:
            where.append("updated >= ?")
            values.append(since)
        if until is not None:
            where.append("started <= ?")
            values.append(until)
        rows = self._db.execute(
            f"SELECT {_COLUMNS}, {_MANIFEST if tables else 'NULL'} FROM sessions s WHERE {' AND '.join(where)} "  # noqa: S608
            "ORDER BY started DESC, session DESC LIMIT ?",
            [*values, limit],
        )
        return [
            SessionInfo(
                session,
                facts := msgpack.unpackb(source_, strict_map_key=False),
                started,
                updated,
                size,
                frames,
                events,
                msgpack.unpackb(lost),
                state_of(updated, now, ended=bool(ended)),
                _offset(facts, started, clock),
                None if manifest is None else Compacted.unpack(manifest),
            )
            for session, source_, started, updated, size, frames, events, lost, ended, clock, manifest in rows
        ]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
