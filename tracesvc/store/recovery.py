"""What a `FileStore` does before it serves: make catalogue and segment files agree.  For threads."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tracesvc.format import Damage, FormatError, FrameDecoder
from tracesvc.format.frames import HEADER_SIZE
from tracesvc.store.base import BadSessionNameError, BadStreamError, session_name
from tracesvc.store.catalogue import Catalogue, Entry
from tracesvc.store.intake import record_of
from tracesvc.store.ledger import Ledger
from tracesvc.store.segment import FIRST_SEGMENT

__all__ = ["open_catalogue", "recover"]

log = logging.getLogger("tracesvc.store")

_CHUNK: Final = 1 << 20
_ROWS: Final = 100


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


def recover(catalogue: Catalogue, sessions: Path) -> None:
    """Read what the catalogue does not know yet, and cut what is no whole frame.

    A service that was killed leaves a catalogue that is a second late and, at the end of a segment, at most a part of
    a frame that was never acknowledged.
    """
    known = catalogue.sizes()
    rows = []
    for directory in sorted(sessions.iterdir()):
        try:
            session = session_name(directory.name)
        except BadSessionNameError:
            log.warning("%s is not a session: left alone", directory)
            continue
        segment = directory / FIRST_SEGMENT
        size = segment.stat().st_size if segment.exists() else 0
        if known.pop(session, None) != size or not size:
            entry = _rescan(segment, size, catalogue.get(session))
            if entry is not None:
                rows.append(entry.row())
        if len(rows) >= _ROWS:
            catalogue.put(rows)
            rows = []
    catalogue.put(rows)
    if known:
        log.warning("%d sessions of the catalogue have no segment any more", len(known))
        catalogue.remove(known)


def _rescan(segment: Path, size: int, entry: Entry | None) -> Entry | None:
    """Read on from where the catalogue ends; None, and no directory either, where there is no good frame at all."""
    if entry is None or entry.size > size:
        entry = Entry(Ledger(), 0, 0)
    ledger, good = entry.ledger, entry.size
    if size:
        for end, number, record in _frames(segment, good):
            ledger.note(number, record)
            good = end
    if good < size:
        log.warning("%s: %d bytes behind the last whole frame are cut off", segment, size - good)
        with segment.open("r+b") as file:
            file.truncate(good)
    if not ledger.session:
        log.warning("%s: not one good frame, removed", segment.parent)
        segment.unlink(missing_ok=True)
        segment.parent.rmdir()
        return None
    return Entry(ledger, good, segment.stat().st_mtime_ns)


def _frames(segment: Path, start: int) -> Iterator[tuple[int, int, object]]:
    """(end, number, record) of every good frame from ``start`` on.

    Damage with good frames behind it is passed over and stays where it is: offsets must not move.
    """
    decoder = FrameDecoder(start)
    with segment.open("rb", buffering=0) as file:
        file.seek(start)
        while chunk := file.read(_CHUNK):
            decoder.feed(chunk)
            for frame in decoder:
                if isinstance(frame, Damage):
                    log.warning(
                        "%s: bytes %d to %d: %s", segment, frame.start, frame.end, frame.reason
                    )
                    continue
                try:
                    body = memoryview(frame.data)[HEADER_SIZE:]
                    record = record_of(frame.kind, frame.data[7], body)
                except (BadStreamError, FormatError) as exc:
                    log.warning("%s: bytes %d to %d: %s", segment, frame.offset, frame.end, exc)
                    record = None
                yield frame.end, frame.number, record
