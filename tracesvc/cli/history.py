"""Where the tables of many sessions lie, for `tracesvc query --data`: a data directory, a service, a bucket.

Each place tells which sessions it has, with tables or without, and gives files to read; nothing is copied that is not
asked for.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol, cast

import click

if TYPE_CHECKING:
    from tracesvc.cli.remote import Service
    from tracesvc.store import Compacted

__all__ = ["Bucket", "Directory", "Known", "Place", "Remote", "Selection", "place_of"]

SMALL: Final = 1 << 20
"""bytes of a file that is fetched as a whole"""
HEAD: Final = 64 << 10
"""bytes in which a session's header is"""
REQUESTS: Final = 16
"""at once"""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which sessions; times in ns since the epoch."""

    source: str | None = None
    """name of the program; with ``*`` at the end what names begin with"""
    since: int | None = None
    until: int | None = None

    def takes(self, source: str, started: int | None, ended: int | None) -> bool:
        """What is not known counts as within."""
        wanted = self.source
        if wanted is not None:
            if wanted.endswith("*"):
                if not source.startswith(wanted[:-1]):
                    return False
            elif source != wanted:
                return False
        if self.since is not None and ended is not None and ended < self.since:
            return False
        return self.until is None or started is None or started <= self.until


@dataclass(frozen=True, slots=True)
class Known:
    """A session that there is."""

    session: str
    size: int
    """bytes of its stream"""
    tables: Compacted | None


class Place(Protocol):
    """Where they lie."""

    def sessions(self, which: Selection) -> list[Known]:
        """Those that are meant; what has tables is judged by what they say."""
        ...

    def open(self, tables: Compacted, table: str) -> str | BinaryIO:
        """A path, or a file."""
        ...

    def gone(self, tables: Compacted) -> bool:
        """Whether they are there no longer."""
        ...

    @contextmanager
    def stream(self, known: Known) -> Iterator[BinaryIO]:
        """What is stored of a session, as a file to read from front to back."""
        ...


def place_of(text: str) -> Place:
    """``DIR``, ``http://...`` or ``s3://BUCKET/PREFIX``."""
    from tracesvc.cli.remote import Service, is_url

    if is_url(text):
        return Remote(Service(text))
    if "://" in text:
        return Bucket(text)
    return Directory(Path(text))


class Directory:
    """The data directory of a service, which may be running."""

    def __init__(self, root: Path) -> None:
        self._sessions = root / "sessions"
        if not self._sessions.is_dir():
            raise click.ClickException(f"{root} is no data directory of a service")

    def sessions(self, which: Selection) -> list[Known]:
        from tracesvc.store import BadSessionNameError, session_name
        from tracesvc.store.recovery import size_of
        from tracesvc.store.tables import found_tables

        found = []
        for path in sorted(self._sessions.iterdir()):
            try:
                session_name(path.name)
            except BadSessionNameError:
                continue
            size = size_of(path)
            tables = found_tables(path, size)
            facts = _facts(path) if tables is None else _told(tables)
            if size and which.takes(*facts):
                found.append(Known(path.name, size, tables))
        return found

    def open(self, tables: Compacted, table: str) -> str:
        return str(self._path(tables) / f"{table}.parquet")

    def gone(self, tables: Compacted) -> bool:
        return not self._path(tables).is_dir()

    @contextmanager
    def stream(self, known: Known) -> Iterator[BinaryIO]:
        from tracesvc.model.source import open_trace

        with open_trace(self._sessions / known.session) as file:
            yield file

    def _path(self, tables: Compacted) -> Path:
        from tracesvc.store.tables import PARQUET

        return self._sessions / tables.session / PARQUET / tables.name


def _told(tables: Compacted) -> tuple[str, int | None, int | None]:
    return tables.source, tables.started, tables.ended


def _facts(directory: Path) -> tuple[str, int | None, int | None]:
    """(source, started, last changed) of a session that has no tables."""
    from tracesvc.format import FormatError
    from tracesvc.model.reader import read

    try:
        with read(directory) as trace:
            session = trace.session
        changed = max(path.stat().st_mtime_ns for path in directory.glob("*.trace"))
    except (OSError, FormatError, ValueError):
        return "", None, None
    if session is None:
        return "", None, changed
    return str(session.source.get("name", "")), session.started, changed


class Remote:
    """A service, of which a token may show a part only."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._gone: set[str] = set()

    def sessions(self, which: Selection) -> list[Known]:
        from tracesvc.store import Compacted

        query: dict[str, Any] = {"tables": "true"}
        if which.source is not None and not which.source.endswith("*"):
            query["source"] = which.source
        for name, value in (("since", which.since), ("until", which.until)):
            if value is not None:
                query[name] = str(value)
        found = []
        for facts in self._service.sessions(**query):
            told = facts.get("tables")
            tables = None if told is None else Compacted.unpack(json.dumps(told))
            name = str(facts["source"].get("name", ""))
            span = (facts["started"], facts["updated"])
            if which.takes(name, *(span if tables is None else _told(tables)[1:])):
                found.append(Known(facts["session"], facts["bytes"], tables))
        return found

    def open(self, tables: Compacted, table: str) -> BinaryIO:
        def fetch(start: int, n: int) -> bytes:
            data = self._service.table(tables.session, table, tables.tables[table].crc32, start, n)
            if data is None:
                self._gone.add(tables.session)
                raise FileNotFoundError(f"the service has the tables of {tables.session} no longer")
            return data

        return ranged(fetch, tables.tables[table].bytes)

    def gone(self, tables: Compacted) -> bool:
        return tables.session in self._gone

    @contextmanager
    def stream(self, known: Known) -> Iterator[BinaryIO]:
        with self._service.opened(known.session) as file:
            yield file


class Bucket:
    """What a fleet has archived; of its stream nothing is known here."""

    def __init__(self, url: str) -> None:
        from tracesvc.store import StoreError
        from tracesvc.store.archive import Objects

        self._gone: set[str] = set()
        try:
            self._objects = Objects(url)
        except StoreError as exc:
            raise click.ClickException(str(exc)) from None

    def sessions(self, which: Selection) -> list[Known]:
        from concurrent.futures import ThreadPoolExecutor

        from tracesvc.store import StoreError

        def look(session: str) -> Known | None:
            size = ends[session]
            tables = self._objects.tables(session, size)
            facts = self._facts(session) if tables is None else _told(tables)
            return Known(session, size, tables) if which.takes(*facts) else None

        try:
            ends: dict[str, int] = {}
            for session, start, size in sorted(self._objects.segments()):
                if start == ends.get(session, 0):
                    ends[session] = start + size
            with ThreadPoolExecutor(REQUESTS) as pool:
                return [known for known in pool.map(look, ends) if known is not None]
        except StoreError as exc:
            raise click.ClickException(str(exc)) from None

    def open(self, tables: Compacted, table: str) -> BinaryIO:
        from tracesvc.store.archive import table_key

        def fetch(start: int, n: int) -> bytes:
            try:
                return self._objects.read(table_key(tables, table), start, n)
            except FileNotFoundError:
                self._gone.add(tables.session)
                raise

        return ranged(fetch, tables.tables[table].bytes)

    def gone(self, tables: Compacted) -> bool:
        return tables.session in self._gone

    @contextmanager
    def stream(self, known: Known) -> Iterator[BinaryIO]:
        yield ranged(lambda start, n: self._part(known.session, start, n), known.size)

    def _part(self, session: str, offset: int, n: int) -> bytes:
        """Some of the bytes of a session from ``offset`` on."""
        from tracesvc.store.archive import segment_key

        found = self._objects.segments(f"sessions/{session}/")
        _, start, size = max(one for one in found if one[1] <= offset)
        n = min(n, start + size - offset)
        return self._objects.read(segment_key(session, start), offset - start, n)

    def _facts(self, session: str) -> tuple[str, int | None, int | None]:
        from tracesvc.format import FormatError
        from tracesvc.model.reader import read

        try:
            with read(self._part(session, 0, HEAD)) as trace:
                found = trace.session
        except (FormatError, FileNotFoundError):
            found = None
        return (
            ("", None, None)
            if found is None
            else (str(found.source.get("name", "")), found.started, None)
        )


class _Ranged(io.RawIOBase):
    """A file elsewhere, of which parts are fetched as they are read."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch, self._size, self._at = fetch, size, 0
        self._all: bytes | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        n = min(len(buffer), self._size - self._at)
        if n <= 0:
            return 0
        if self._size <= SMALL:
            if self._all is None:
                self._all = self._fetch(0, self._size)
            data = self._all[self._at : self._at + n]
        else:
            data = self._fetch(self._at, n)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def ranged(fetch: Callable[[int, int], bytes], size: int) -> BinaryIO:
    """A file of ``size`` bytes, of which ``fetch(start, n)`` gives parts."""
    return cast(BinaryIO, _Ranged(fetch, size))


def compacted(place: Place, known: Known, directory: Path) -> Compacted:
    """Make tables of a session here and now, below ``directory``.

    Raises:
      OSError: it cannot be read, or there is no room.
      FormatError: it is no trace.
    """
    from tracesvc.store.compacting import compact

    own = directory / "sessions" / known.session
    own.mkdir(parents=True)
    path = own / "copy"
    with place.stream(known) as source, path.open("wb") as file:
        shutil.copyfileobj(source, file)
    made = compact(path, known.session, path.stat().st_size, own)
    path.unlink()
    return made
