"""What a `FileStore` does before it serves: make catalogue and segment files agree.  For threads."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracesvc.format import Damage, FormatError, FrameDecoder
from tracesvc.format.frames import HEADER_SIZE
from tracesvc.store.base import BadSessionNameError, BadStreamError, session_name
from tracesvc.store.catalogue import Catalogue, Entry
from tracesvc.store.disk import Disk, has_room_behind
from tracesvc.store.intake import record_of
from tracesvc.store.ledger import Ledger
from tracesvc.store.segments import found_in, segment_name
from tracesvc.store.tables import PARQUET, found_tables

__all__ = ["chunks", "empty_trash", "open_catalogue", "recover", "rescan", "size_of"]

log = logging.getLogger("tracesvc.store")

_CHUNK: Final = 1 << 20
_ROWS: Final = 100
_MANY: Final = 64
"""sessions that are synced one by one, at most; for more, one sync of everything is quicker"""


def open_catalogue(path: Path) -> Catalogue:
    """The catalogue; an empty one where it is missing or cannot be used."""
    try:
        return Catalogue(path)
    except sqlite3.DatabaseError as exc:
        log.warning(
            "the catalogue %s cannot be used (%s): it is rebuilt from the segments", path, exc
        )
    for stale in path.parent.glob(path.name + "*"):
        stale.unlink()
    return Catalogue(path)


def empty_trash(root: Path, disk: Disk | None = None) -> None:
    """Finish what was being deleted."""
    disk = disk or Disk()
    try:
        names = list((root / "trash").iterdir())
    except FileNotFoundError:
        return
    except OSError as exc:
        log.warning("%s cannot be looked at: %s", root / "trash", exc)
        return
    for directory in names:
        try:
            disk.remove_tree(directory)
        except FileNotFoundError:
            pass  # somebody else was quicker
        except OSError as exc:  # it is out of the way; the next time
            log.warning("%s cannot be removed: %s", directory, exc)


def recover(catalogue: Catalogue, sessions: Path) -> None:
    """Read what the catalogue does not know yet, and cut what is no whole frame.

    A service that was killed leaves a catalogue that is a second late and, at the end of a session, what was never
    acknowledged: whole frames, which are kept, and at most a part of one.
    """
    known = catalogue.sizes()
    gone = set(known)
    late = []
    with os.scandir(sessions) as entries:
        for found in entries:
            try:
                session = session_name(found.name)
            except BadSessionNameError:
                log.warning("%s is not a session: left alone", found.path)
                continue
            if not found.is_dir():
                log.warning("%s is not a directory: left alone", found.path)
                continue
            size = size_of(sessions / session, trim=True)
            gone.discard(session)
            if known.get(session) != size or not size:
                late.append((session, size))
    if len(late) > _MANY:
        os.sync()
    rows = []
    for session, size in late:
        entry = rescan(sessions / session, size, catalogue.get(session), sync=len(late) <= _MANY)
        if entry is not None:
            rows.append(entry.row())
            tables = found_tables(sessions / session, entry.size)
            if tables is not None:
                catalogue.enter_tables(tables)
        elif session in known:
            gone.add(session)
        if len(rows) >= _ROWS:
            catalogue.put(rows)
            rows = []
    catalogue.put(rows)
    if gone:
        log.warning("%d sessions of the catalogue have no segment any more", len(gone))
        catalogue.remove(gone)


def size_of(directory: Path, *, trim: bool = False) -> int:
    """Offset of the end of the stream whose segments lie there.

    ``trim``: give back what a service that was killed had reserved behind them; for who has them for itself.
    """
    end = 0
    with suppress(FileNotFoundError), os.scandir(directory) as entries:
        for found in entries:
            start, dot, suffix = found.name.partition(".")
            if len(start) == 20 and start.isdigit() and dot and suffix == "trace":
                seen = found.stat()
                end = max(end, int(start) + seen.st_size)
                if trim and has_room_behind(seen):
                    with suppress(OSError):
                        os.truncate(found.path, seen.st_size)
    return end


def rescan(directory: Path, size: int, entry: Entry | None, *, sync: bool = True) -> Entry | None:
    """Read on from where the catalogue ends; None, and no directory either, where there is no good frame at all.

    ``sync``: what is read now is not durable yet, for all we know.
    """
    if entry is None or entry.size > size:
        entry = Entry(Ledger(), 0, 0)
    ledger, good = entry.ledger, entry.size
    starts = found_in(directory)
    if size:
        for end, number, record in _frames(directory, starts, good, sync=sync):
            ledger.note(number, record)
            good = end
    if good < size:
        log.warning("%s: %d bytes behind the last whole frame are cut off", directory, size - good)
        _cut(directory, starts, good)
    if not ledger.frames:
        log.warning("%s: not one good frame, removed", directory)
        for start in starts:
            (directory / segment_name(start)).unlink(missing_ok=True)
        shutil.rmtree(directory / PARQUET, ignore_errors=True)
        try:
            directory.rmdir()
        except OSError as exc:
            log.warning("%s stays: %s", directory, exc.strerror)
        return None
    ledger.session = directory.name  # its header may be damaged
    last = max((start for start in starts if not start or start < good), default=0)
    return Entry(ledger, good, (directory / segment_name(last)).stat().st_mtime_ns)


def _cut(directory: Path, starts: list[int], size: int) -> None:
    for start in reversed(starts):
        path = directory / segment_name(start)
        if start and start >= size:
            path.unlink()
        elif start + path.stat().st_size > size:
            with path.open("r+b") as file:
                file.truncate(size - start)
                os.fsync(file.fileno())


def _frames(
    directory: Path, starts: list[int], start: int, *, sync: bool
) -> Iterator[tuple[int, int, object]]:
    """(end, number, record) of every good frame from ``start`` on.

    Damage with good frames behind it is passed over and stays where it is: offsets must not move.
    """
    decoder = FrameDecoder(start)
    for chunk in chunks(directory, starts, start, sync=sync):
        decoder.feed(chunk)
        for frame in decoder:
            if isinstance(frame, Damage):
                log.warning(
                    "%s: bytes %d to %d: %s", directory, frame.start, frame.end, frame.reason
                )
                continue
            try:
                body = memoryview(frame.data)[HEADER_SIZE:]
                record = record_of(frame.kind, frame.data[7], body)
            except (BadStreamError, FormatError) as exc:
                log.warning("%s: bytes %d to %d: %s", directory, frame.offset, frame.end, exc)
                record = None
            yield frame.end, frame.number, record


def chunks(directory: Path, starts: list[int], start: int, *, sync: bool) -> Iterator[bytes]:
    """The bytes from offset ``start`` on; where some are missing before a segment, as many zeros."""
    at = start
    while starts and at < starts[0]:
        yield bytes(min(_CHUNK, starts[0] - at))
        at += min(_CHUNK, starts[0] - at)
    for first, after in zip(starts, [*starts[1:], None], strict=True):
        if after is not None and after <= start:
            continue
        with (directory / segment_name(first)).open("rb", buffering=0) as file:
            if sync:
                os.fsync(file.fileno())
            # What the kernel could not write it may still show; what is on the disk is what counts.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(max(at - first, 0))
            while chunk := file.read(_CHUNK):
                if after is not None:
                    chunk = chunk[: after - at]
                yield chunk
                at += len(chunk)
        while after is not None and at < after:
            yield bytes(min(_CHUNK, after - at))
            at += min(_CHUNK, after - at)
