"""A data directory looked at, and put right, while no service uses it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tracesvc.format import Damage, FormatError, FrameDecoder
from tracesvc.format.frames import HEADER_SIZE
from tracesvc.store.base import BadSessionNameError, BadStreamError, StoreError, session_name
from tracesvc.store.catalogue import Catalogue, Entry
from tracesvc.store.intake import record_of
from tracesvc.store.ledger import Ledger
from tracesvc.store.recovery import chunks, empty_trash, open_catalogue, rescan, size_of
from tracesvc.store.segments import found_in
from tracesvc.store.tables import PARQUET, faults, found_tables

__all__ = ["Finding", "Found", "inspect", "repair", "sessions_in"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be."""

    what: str
    mendable: bool
    """`repair` puts it right, and nothing that was acknowledged is lost by that"""


@dataclass(frozen=True, slots=True)
class Found:
    """A session, or another thing in the data directory, as it was found."""

    name: str
    bytes: int
    frames: int
    findings: tuple[Finding, ...]


def sessions_in(root: Path) -> list[Path]:
    """Everything that lies where sessions lie.

    Raises:
      StoreError: that is no data directory.
    """
    try:
        return sorted((root / "sessions").iterdir())
    except OSError as exc:
        raise StoreError(f"{root} is no data directory of a service: {exc.strerror}") from exc


def inspect(root: Path) -> Iterator[Found]:
    """Read every byte of every session and compare it with the catalogue; nothing is changed.

    Raises:
      StoreError: that is no data directory.
      OSError: it cannot be read.
    """
    directories = sessions_in(root)
    known, unusable = _catalogue(root / "catalogue.sqlite")
    if unusable is not None:
        yield Found("catalogue.sqlite", 0, 0, (Finding(unusable, mendable=True),))
    for directory in directories:
        yield _inspect(directory, known.pop(directory.name, None), catalogued=unusable is None)
    for name in known:
        yield Found(name, 0, 0, (Finding("in the catalogue, but not on the disk", mendable=True),))
    leftovers = len(list((root / "trash").iterdir())) if (root / "trash").is_dir() else 0
    if leftovers:
        what = f"{leftovers} sessions that were being deleted"
        yield Found("trash", 0, 0, (Finding(what, mendable=True),))


def repair(root: Path) -> None:
    """Put right what can be: torn ends are cut, the catalogue is made anew where it is not what the segments say.

    Damage in the middle of a session stays where it is, for offsets must not move.

    Raises:
      StoreError: that is no data directory.
      OSError: it cannot be read or written.
    """
    directories = sessions_in(root)
    empty_trash(root)
    catalogue = open_catalogue(root / "catalogue.sqlite")
    try:
        listed = catalogue.sizes()
        for directory in directories:
            listed.pop(directory.name, None)
            if not _is_session(directory):
                continue
            found = _inspect(directory, catalogue.get(directory.name), catalogued=True)
            if any(finding.mendable for finding in found.findings):
                entry = rescan(directory, size_of(directory), None)
                if entry is None:
                    catalogue.remove([directory.name])
                    continue
                catalogue.put([entry.row()])
                _mend_tables(directory, catalogue, entry.size)
        catalogue.remove(listed)
    finally:
        catalogue.close()


def _catalogue(path: Path) -> tuple[dict[str, Entry], str | None]:
    """What it says, and why it cannot be used."""
    if not path.exists():
        return {}, "missing: it is made again from the segments"
    try:
        catalogue = Catalogue(path)
        try:
            names = catalogue.sizes()
            return {name: entry for name in names if (entry := catalogue.get(name))}, None
        finally:
            catalogue.close()
    except (sqlite3.DatabaseError, ValueError, TypeError) as exc:
        return {}, f"cannot be used: {exc}"


def _is_session(directory: Path) -> bool:
    try:
        session_name(directory.name)
    except BadSessionNameError:
        return False
    return directory.is_dir()


def _tables_findings(directory: Path, size: int) -> list[Finding]:
    """What is wrong with its tables; that there are none yet is not wrong."""
    place = directory / PARQUET
    if not place.is_dir():
        return []
    found = found_tables(directory, size)
    if found is None:
        what = "its tables are not whole, or not of all of it: they are made again"
        return [Finding(what, mendable=True)]
    wrong = [f"{PARQUET}/{what}: made again" for what in faults(directory, found)]
    others = [path.name for path in place.iterdir() if path.name != found.name]
    wrong += [f"{PARQUET}/{name}: belongs to nothing" for name in others]
    return [Finding(what, mendable=True) for what in wrong]


def _mend_tables(directory: Path, catalogue: Catalogue, size: int) -> None:
    """Keep what is as it should be, and have all else made again."""
    if _tables_findings(directory, size):
        shutil.rmtree(directory / PARQUET, ignore_errors=True)
    found = found_tables(directory, size)
    if found is None:
        catalogue.forget_tables([directory.name])
    else:
        catalogue.enter_tables(found)


def _inspect(directory: Path, entry: Entry | None, *, catalogued: bool) -> Found:
    if not _is_session(directory):
        return Found(directory.name, 0, 0, (Finding("no session: left alone", mendable=False),))
    findings: list[Finding] = []
    ledger, good, size = Ledger(), 0, size_of(directory)
    decoder = FrameDecoder()

    def look() -> None:
        nonlocal good
        for frame in decoder:
            if isinstance(frame, Damage):
                if frame.end < size or good >= frame.end:
                    what = f"bytes {frame.start} to {frame.end}: {frame.reason}"
                    findings.append(Finding(what, mendable=False))
                continue
            record: object = None
            try:
                body = memoryview(frame.data)[HEADER_SIZE:]
                record = record_of(frame.kind, frame.data[7], body)
            except (BadStreamError, FormatError) as exc:
                what = f"bytes {frame.offset} to {frame.end}: {exc}"
                findings.append(Finding(what, mendable=False))
            ledger.note(frame.number, record)
            good = frame.end

    for part in chunks(directory, found_in(directory), 0, sync=False):
        decoder.feed(part)
        look()
    decoder.close()
    look()
    ledger.session = ledger.session or directory.name
    findings += _tables_findings(directory, good)
    if good < size:
        what = f"{size - good} bytes behind the last whole frame, at {good}"
        findings.append(Finding(what, mendable=True))
    if catalogued and entry is None:
        findings.append(Finding("not in the catalogue", mendable=True))
    elif entry is not None and (entry.size, entry.ledger.pack()) != (good, ledger.pack()):
        findings.append(Finding("the catalogue says something else", mendable=True))
    return Found(directory.name, size, ledger.frames, tuple(findings))
