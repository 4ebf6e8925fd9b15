"""Makes tables of one session: `compact`; and, as a program, that in a process of low priority and bounded memory.

Written aside, synced, and renamed as a whole: whoever finds the tables finds all of them, whatever happened.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from tracesvc.model.parquet import Written, write_session, write_tables
from tracesvc.model.reader import read
from tracesvc.model.source import open_trace
from tracesvc.store.tables import (
    MANIFEST,
    PARQUET,
    PART,
    Compacted,
    TableFile,
    checksum,
    clear,
    tables_name,
)

__all__ = ["compact"]

CPU: Final = 3600
"""seconds of processor for one session: a hundred times what one of 64 MiB takes"""


class _First:
    """The first ``size`` bytes of a file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self._left = file, size, size

    def read(self, n: int = -1) -> bytes:
        data = self._file.read(self._left if n < 0 else min(n, self._left))
        self._left -= len(data)
        return data

    def seek(self, position: int) -> int:
        self._left = self._size - position
        return self._file.seek(position)


def compact(source: Path, session: str, size: int, directory: Path) -> Compacted:
    """Make the tables of the session whose first ``size`` bytes lie at ``source``, in ``directory/parquet``.

    What was there of other sizes goes.

    Raises:
      ImportError: PyArrow is not installed.
      OSError: files cannot be read, or written.
      FormatError: it is no trace.
    """
    place = directory / PARQUET
    part, whole = place / PART, place / tables_name(size)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o750, parents=True)
    try:
        made = _write(source, session, size, part)
        (part / MANIFEST).write_bytes(made.pack())
        for path in part.iterdir():
            _sync(path)
        _sync(part)
        for other in place.iterdir():  # before the new ones are there: no moment shows both
            if other != part:
                shutil.rmtree(other)
        part.rename(whole)
    except BaseException:
        clear(directory)
        raise
    _sync(place)
    _sync(directory)
    return made


def _write(source: Path, session: str, size: int, part: Path) -> Compacted:
    with open_trace(source) as file:
        first: Any = _First(file, size)
        trace = read(first)
        told = trace.session
        facts = {} if told is None else told.source
        name = str(facts.get("name", ""))
        done = write_tables(trace, part, {}, (session, name))
        clock = (
            None
            if told is None or told.started is None or told.monotonic is None
            else told.started - told.monotonic
        )
        last = trace.end.monotonic if trace.end is not None else done.last
        ended = None if clock is None or last is None else last + clock
        started = None if told is None else told.started
        row = {
            **_facts(facts),
            **_figures(done),
            "session": session,
            "source": name,
            "started": started,
            "ended": ended,
            "clock": clock,
            "bytes": size,
            "whole": trace.end is not None,
        }
    write_session(row, part / "sessions.parquet")
    done.rows["sessions"] = 1
    tables = {}
    for table, rows in done.rows.items():
        path = part / f"{table}.parquet"
        tables[table] = TableFile(rows, path.stat().st_size, checksum(path))
    return Compacted(session, name, started, ended, size, done.gaps, tables)


def _facts(source: dict[str, Any]) -> dict[str, Any]:
    host, pid = source.get("host"), source.get("pid")
    return {
        "host": host if isinstance(host, str) else None,
        "pid": pid if isinstance(pid, int) else None,
    }


def _figures(done: Written) -> dict[str, int]:
    return {"events": done.rows["events"], "lost": done.lost, "gaps": done.gaps}


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# --- as a program --------------------------------------------------------------------------------


def _stand_back(memory: int) -> None:
    """Run only when nobody else wants to, and never with more than so many bytes of memory, or for ever."""
    os.nice(19)
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU))


def _end_with_parent() -> None:
    """When whoever started us is gone, however that came, so are we: standard input ends then."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(source: str, session: str, size: str, directory: str, memory: str) -> None:
    """Exit code 0, or 1 and why on standard error."""
    _end_with_parent()
    _stand_back(int(memory))
    try:
        import pyarrow as pa

        pa.set_cpu_count(1)
        compact(Path(source), session, int(size), Path(directory))
    except MemoryError:
        raise SystemExit(f"it takes more than {int(memory) >> 20} MiB of memory") from None
    except Exception as exc:
        raise SystemExit(f"{type(exc).__name__}: {exc}") from None


if __name__ == "__main__":
    main(*sys.argv[1:])
