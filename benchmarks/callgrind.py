"""Instructions between two marks of a program, counted by ``valgrind --tool=callgrind``, all threads included."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["counts", "mark"]

MARK: Final = "hdestroy"
"""a function of the C library that nobody else calls: callgrind writes out its counts there"""

mark: Final[Callable[[], object]] = getattr(ctypes.CDLL(None), MARK)
"""to be called, before and after what is to be counted, by the program that is"""


def counts(arguments: list[str], marks: int) -> list[int]:
    """Instructions before the first mark, between it and the second, and so on, of ``python`` with these arguments."""
    with tempfile.TemporaryDirectory(prefix="tracesvc-bench-") as directory:
        command = [
            "valgrind",
            "--tool=callgrind",
            f"--dump-before=*{MARK}*",
            "--callgrind-out-file=counts",
            "--quiet",
            sys.executable,
            *arguments,
        ]
        root = str(Path(__file__).parent.parent)
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": root}
        done = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"counting {arguments} failed:\n{done.stdout}")
        return [_total(Path(directory, f"counts.{i + 1}")) for i in range(marks)]


def _total(path: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", path.read_text(), re.MULTILINE)
    assert found is not None, f"callgrind left no total in {path}"
    return int(found[1])
