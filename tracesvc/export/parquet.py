"""Parquet: a directory with a file for each table of `tracesvc.model.schema`: those that `tracesvc query` asks."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tracesvc.export.report import Exported
from tracesvc.model.reader import Trace
from tracesvc.model.schema import TABLES
from tracesvc.model.tables import Tables

__all__ = ["write"]

GROUP: Final = 1 << 17
"""rows that are written together, at least"""


def write(trace: Trace, directory: Path) -> Exported:
    """Write all of a trace into a directory, which is made.

    Raises:
      ImportError: PyArrow is not installed.
    """
    try:
        from pyarrow import parquet

        from tracesvc.model.arrow import parts, schema_of
    except ImportError as exc:
        raise ImportError("Parquet needs PyArrow: pip install 'tracesvc[analysis]'") from exc
    directory.mkdir(parents=True, exist_ok=True)
    report, maker = Exported(), Tables(trace)
    about = {b"tracesvc": json.dumps(_about(trace), default=repr).encode()}
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(
                parquet.ParquetWriter(
                    directory / f"{name}.parquet",
                    schema_of(name).with_metadata(about),
                    compression="zstd",
                )
            )
            for name in TABLES
        }
        for name, rows in parts(maker, GROUP):
            files[name].write_table(rows)
            report.written[name] += rows.num_rows
    books = maker.replay.walk.books
    report.events = report.written["events"]
    report.lost = books.missing + sum(lost.events for lost in books.lost.values())
    return report


def _about(trace: Trace) -> dict[str, Any]:
    """What the files say of their trace; ``wall`` is a moment by both clocks: (monotonic, wall), ns."""
    session = trace.session
    if session is None:
        return {}
    wall = None if session.started is None else (session.monotonic, session.started)
    return {"session": session.id, "source": session.source, "wall": wall}
