"""Files that show how far they have been read."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from tracesvc.model.source import open_trace, trace_size

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["advancing", "watched"]

PATIENCE: Final = 1.0
"""seconds before a bar appears"""


class _Bar:
    """A bar on standard error that appears only on a terminal, and only if the work takes its time."""

    def __init__(self, what: str, total: float) -> None:
        self._what, self._total, self._done = what, total, 0.0
        self._start = time.monotonic()
        self._bar: Progress | None = None

    def __call__(self, more: float) -> None:
        self._done += more
        if self._bar is None:
            if not sys.stderr.isatty() or time.monotonic() - self._start < PATIENCE:
                return
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._what, total=self._total)
            self._bar.start()
        self._bar.update(self._task, completed=self._done)

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def advancing(what: str, total: float) -> Iterator[_Bar]:
    """A function to call with each piece of work that is done; all of them together are ``total``."""
    bar = _Bar(what, total)
    try:
        yield bar
    finally:
        bar.stop()


class _File:
    def __init__(self, file: BinaryIO, bar: _Bar) -> None:
        self._file, self._bar = file, bar

    def read(self, n: int = -1) -> bytes:
        data = self._file.read(n)
        self._bar(len(data))
        return data

    def seek(self, position: int) -> int:
        return self._file.seek(position)


@contextmanager
def watched(path: str | Path) -> Iterator[BinaryIO]:
    """A trace open for reading, with a bar where that takes more than a second."""
    with (
        open_trace(Path(path)) as file,
        advancing(f"reading {Path(path).name}", trace_size(Path(path))) as bar,
    ):
        source: Any = _File(file, bar)
        yield cast(BinaryIO, source)
