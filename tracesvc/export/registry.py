"""The formats, by name; none of their modules is imported before it is asked for."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from tracesvc.export.report import Exported

if TYPE_CHECKING:
    from tracesvc.model.reader import Source, Trace

__all__ = ["FORMATS", "Format", "export"]


@dataclass(frozen=True, slots=True)
class Format:
    """One format."""

    name: str
    module: str
    function: str
    suffix: str
    """of its files; empty: a directory"""
    what: str
    """a line for people"""
    plain: bool = False
    """it takes the trace as it is, not a replay of it"""

    @property
    def directory(self) -> bool:
        """Whether the result is a directory."""
        return not self.suffix


FORMATS: Final[dict[str, Format]] = {
    one.name: one
    for one in (
        Format("go", "go", "write", ".go.trace", "go 1.11 trace: go tool trace"),
        Format(
            "perfetto",
            "perfetto",
            "write",
            ".pftrace",
            "protobuf: ui.perfetto.dev, trace_processor",
        ),
        Format("chrome", "chrome", "write", ".json", "JSON: chrome://tracing, Perfetto"),
        Format("jsonl", "lines", "write_jsonl", ".jsonl", "a JSON object per event", plain=True),
        Format("text", "lines", "write_text", ".txt", "a line per event, for people", plain=True),
        Format(
            "pprof", "pprof", "write", ".pb.gz", "profile of running and waiting: go tool pprof"
        ),
        Format("speedscope", "speedscope", "write", ".speedscope.json", "JSON: speedscope"),
        Format(
            "parquet",
            "parquet",
            "write",
            "",
            "a directory of tables: DuckDB, Spark, pandas",
            plain=True,
        ),
        Format("otlp", "otlp", "write", ".otlp.pb", "spans for OpenTelemetry, protobuf"),
        Format("ctf", "ctf", "write", "", "a directory in the Common Trace Format: babeltrace2"),
    )
}


def export(
    source: Source | Trace, to: str, out: str | os.PathLike[str] | BinaryIO | Callable[[bytes], Any]
) -> Exported:
    """Write a trace in another format; only a chunk of it is in memory at any time.

    Damage and losses never end it: the good part is written, what is missing is shown in whatever way the format has,
    and counted in the result.

    Args:
        source: As for `tracesvc.read`.
        to: A key of `FORMATS`.
        out: A path; or, where the format is one file, a binary file or a function that takes bytes.  A file that could
            not be finished is removed; a directory must be empty, or not be there.

    Raises:
        ValueError: There is no such format, or ``out`` does not fit it.
        FormatError: The source is not a trace.
        OSError: Something cannot be read or written.
        ImportError: An extra is not installed.
    """
    from tracesvc.export.replay import Replay
    from tracesvc.model.reader import Trace, read

    if to not in FORMATS:
        raise ValueError(f"to must be one of {', '.join(FORMATS)}, not {to!r}")
    chosen = FORMATS[to]
    if chosen.directory and not isinstance(out, str | os.PathLike):
        raise ValueError(f"out must be a path: {to} is a directory of files")
    trace = source if isinstance(source, Trace) else read(source)
    try:
        what: Any = trace if chosen.plain else Replay(trace, place=_axis_of(trace))
        module = importlib.import_module(f"tracesvc.export.{chosen.module}")
        write: Callable[[Any, Any], Exported] = getattr(module, chosen.function)
        if not isinstance(out, str | os.PathLike):
            return write(what, out if callable(out) else out.write)
        path = Path(out)
        if chosen.directory:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise FileExistsError(f"{path} is there already, and not an empty directory")
            return write(what, path)
        return _to_file(what, path, write)
    finally:
        if trace is not source:
            trace.close()


def _axis_of(trace: Trace) -> Callable[[int], int] | None:
    """Turns times of a trace into those of the service that it was pushed to; None: nothing tells, or it is a pipe."""
    from tracesvc.model.axis import Axis
    from tracesvc.model.timebase import timebase_of

    try:
        trace.rewind()
    except (OSError, AttributeError):
        return None
    base = timebase_of(trace)
    return Axis.of([base]).placed[0].time if base.exchanges else None


def _to_file(what: Any, path: Path, write: Callable[[Any, Any], Exported]) -> Exported:
    regular = not path.exists() or path.is_file()
    with path.open("wb") as file:
        try:
            return write(what, file.write)
        except BaseException:
            if regular:
                with suppress(OSError):
                    path.unlink()
            raise
