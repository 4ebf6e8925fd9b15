"""Files that a command writes: whole, or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = ["written"]


@contextmanager
def written(path: str) -> Iterator[Callable[[bytes], Any]]:
    """A function that takes the bytes of a file; ``-`` is standard output.

    The file appears under its name when all of it is there, so it may be one of those that are read.
    """
    if path == "-":
        yield sys.stdout.buffer.write
        return
    whole = Path(path)
    part = whole.with_name(f"{whole.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file.write
        part.replace(whole)
    finally:
        with suppress(OSError):
            part.unlink()
