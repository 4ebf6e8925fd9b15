"""The tables of a trace as Parquet: a file each. Needs PyArrow: ``pip install 'tracesvc[analysis]'``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from tracesvc.model.schema import OF_SESSION, SESSIONS, TABLES

__all__ = ["Written", "write_session", "write_tables"]

GROUP: Final = 1 << 17
"""rows that are written together, at least"""
SYNC_EVERY: Final = 1 << 20
"""bytes"""
_RISING: Final = {
    *("time", "seq", "start", "end", "duration", "created", "ended", "first", "last", "started")
}
"""columns whose values are close to those before: as differences they take a third of the room"""


@dataclass(slots=True)
class Written:
    """What became of a trace."""

    rows: Counter[str] = field(default_factory=Counter)
    """of each table"""
    lost: int = 0
    """events that are not in the trace, as far as it tells"""
    gaps: int = 0
    """places where they are missing"""
    last: int | None = None
    """time of the last event, ns; None: there is none"""


def write_tables(
    trace: Any,
    directory: Path,
    about: Mapping[bytes, bytes],
    session: tuple[str, str] | None = None,
) -> Written:
    """Write all tables of a `tracesvc.read`, to its present end, into a directory that is there.

    ``about``: what the files say of themselves.  ``session``: (UUID, source) for the columns in front, where the tables
    are to be one with those of other sessions; tables without a row are left out then.

    Raises:
      ImportError: PyArrow is not installed.
      OSError: the files cannot be written.
      FormatError: it is no trace.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import parquet

    from tracesvc.model.arrow import arrow_schema, parts
    from tracesvc.model.tables import Tables

    maker, done = Tables(trace), Written()
    front = () if session is None else OF_SESSION
    files: dict[str, Any] = {}
    outputs: dict[str, BinaryIO] = {}
    synced: Counter[str] = Counter()
    with ExitStack() as stack:

        def begin(name: str) -> Any:
            schema = arrow_schema((*front, *TABLES[name])).with_metadata(dict(about))
            file = stack.enter_context((directory / f"{name}.parquet").open("wb"))
            outputs[name] = file
            settings = _settings(schema)
            return stack.enter_context(parquet.ParquetWriter(file, schema, **settings))

        if session is None:
            files = {name: begin(name) for name in TABLES}
        for name, rows in parts(maker, GROUP):
            if name == "events":
                last = pc.max(rows["time"]).as_py()
                done.last = last if done.last is None else max(done.last, last)
            for i, (column, value) in enumerate(zip(front, session or (), strict=True)):
                rows = rows.add_column(i, column.name, pa.repeat(value, rows.num_rows))
            if name not in files:
                files[name] = begin(name)
            files[name].write_table(rows)
            if session is not None and outputs[name].tell() > synced[name] + SYNC_EVERY:
                # Little by little: else a sync of something else, in the same file system, waits for all of it.
                synced[name] = outputs[name].tell()
                outputs[name].flush()
                os.fdatasync(outputs[name].fileno())
            done.rows[name] += rows.num_rows
    books = maker.replay.walk.books
    done.lost = books.missing + sum(lost.events for lost in books.lost.values())
    done.gaps = maker.replay.walk.gaps
    return done


def write_session(row: Mapping[str, Any], path: Path) -> None:
    """Write a table ``sessions`` with one row.

    Raises:
      OSError: it cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    from tracesvc.model.arrow import arrow_schema

    table = pa.Table.from_pylist([dict(row)], schema=arrow_schema(SESSIONS))
    parquet.write_table(table, path, **_settings(table.schema))


def _settings(schema: Any) -> dict[str, Any]:
    rising = {one.name for one in schema if one.name in _RISING and str(one.type) == "int64"}
    return {
        "compression": "zstd",
        "write_page_checksum": True,
        "use_dictionary": [name for name in schema.names if name not in rising],
        "column_encoding": dict.fromkeys(rising, "DELTA_BINARY_PACKED"),
    }
