"""A finished session as tables, beside its segments: ``sessions/<uuid>/parquet/v1-<bytes>/<table>.parquet``.

The directory's name says of how many bytes of the stream the tables were made, and by which version of the schema: what
was made of fewer bytes, or by another version, is not the same thing.  ``manifest.json`` in it says what belongs there.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NamedTuple

__all__ = [
    "MANIFEST",
    "PARQUET",
    "PART",
    "VERSION",
    "Compacted",
    "TableFile",
    "checksum",
    "clear",
    "faults",
    "found_tables",
    "tables_name",
]

VERSION: Final = 1
"""of the schema: another one where what a column means changes"""
PARQUET: Final = "parquet"
MANIFEST: Final = "manifest.json"
PART: Final = "part"
"""what the tables' directory is called while they are being made"""
_PIECE: Final = 1 << 20


class TableFile(NamedTuple):
    """What is known of a file."""

    rows: int
    bytes: int
    crc32: int


@dataclass(frozen=True, slots=True)
class Compacted:
    """The tables of a session; times in ns since the epoch, None where the trace does not say."""

    session: str
    source: str
    started: int | None
    ended: int | None
    size: int
    """bytes of the stream that they were made of"""
    gaps: int
    """places where events are missing"""
    tables: Mapping[str, TableFile]
    """those that have rows"""

    @property
    def name(self) -> str:
        """Of their directory."""
        return tables_name(self.size)

    @property
    def room(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.tables.values())

    def pack(self) -> bytes:
        """As it stands in the manifest."""
        return json.dumps({"version": VERSION, **asdict(self)}).encode()

    @classmethod
    def unpack(cls, data: bytes | str) -> Compacted:
        """What `pack` made.

        Raises:
          ValueError: it is something else.
        """
        try:
            fields = json.loads(data)
            if fields.pop("version") != VERSION:
                raise ValueError("of another version")
            tables = {
                str(name): TableFile(*map(int, file)) for name, file in fields.pop("tables").items()
            }
            return cls(**fields, tables=tables)
        except (TypeError, AttributeError, KeyError) as exc:
            raise ValueError(f"no manifest: {exc}") from exc


def clear(directory: Path) -> None:
    """Remove what is left of an attempt to make tables of the session in ``directory``."""
    place = directory / PARQUET
    shutil.rmtree(place / PART, ignore_errors=True)
    with suppress(OSError):  # whole ones stay
        place.rmdir()


def tables_name(size: int) -> str:
    """Of the directory with the tables of a session of so many bytes."""
    return f"v{VERSION}-{size:020}"


def found_tables(directory: Path, size: int) -> Compacted | None:
    """The tables of the session in ``directory``, if they are there, whole, and made of ``size`` bytes.

    Whole: every file has its size; `faults` reads them, too.
    """
    place = directory / PARQUET / tables_name(size)
    try:
        found = Compacted.unpack((place / MANIFEST).read_bytes())
        whole = all(
            (place / f"{name}.parquet").stat().st_size == file.bytes
            for name, file in found.tables.items()
        )
    except (OSError, ValueError):
        return None
    return found if whole and (found.session, found.size) == (directory.name, size) else None


def faults(directory: Path, found: Compacted) -> list[str]:
    """What is wrong with the bytes of the tables of the session in ``directory``."""
    place, wrong = directory / PARQUET / found.name, []
    for name, file in found.tables.items():
        path = place / f"{name}.parquet"
        try:
            if checksum(path) != file.crc32:
                wrong.append(f"{path.name}: its bytes are not those that were written")
        except OSError as exc:
            wrong.append(f"{path.name}: {exc.strerror or exc}")
    return wrong


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while data := file.read(_PIECE):
            crc = zlib.crc32(data, crc)
    return crc
