"""Parquet: a directory with a file for each table of `tracesvc.model.schema`: those that `tracesvc query` asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tracesvc.export.report import Exported
from tracesvc.model.parquet import write_tables
from tracesvc.model.reader import Trace

__all__ = ["write"]


def write(trace: Trace, directory: Path) -> Exported:
    """Write all of a trace into a directory, which is made.

    Raises:
      ImportError: PyArrow is not installed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    about = {b"tracesvc": json.dumps(_about(trace), default=repr).encode()}
    try:
        done = write_tables(trace, directory, about)
    except ImportError as exc:
        raise ImportError("Parquet needs PyArrow: pip install 'tracesvc[analysis]'") from exc
    report = Exported()
    report.written.update({name: rows for name, rows in done.rows.items() if rows})
    report.events, report.lost = done.rows["events"], done.lost
    return report


def _about(trace: Trace) -> dict[str, Any]:
    """What the files say of their trace; ``wall`` is a moment by both clocks: (monotonic, wall), ns."""
    session = trace.session
    if session is None:
        return {}
    wall = None if session.started is None else (session.monotonic, session.started)
    return {"session": session.id, "source": session.source, "wall": wall}
