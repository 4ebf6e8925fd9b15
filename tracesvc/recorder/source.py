"""Who is traced: what a session's header says of the program."""

from __future__ import annotations

import os
import platform
import socket
import sys
from pathlib import Path
from typing import Any

import trio

from tracesvc.recorder.clock import clock_name

__all__ = ["program_name", "source"]


def program_name() -> str:
    """The name of the script that runs."""
    script = sys.argv[0] if sys.argv else ""
    return Path(script).name or "python"


def source(name: str) -> dict[str, Any]:
    """The program called ``name``, its process and its versions."""
    from importlib import metadata  # takes as long to import as half of the recorder

    clock = clock_name()
    try:
        version = metadata.version("tracesvc")
    except metadata.PackageNotFoundError:  # in a frozen program, or copied into one
        version = "unknown"
    return {
        "name": name,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "trio": trio.__version__,
        "tracesvc": version,
        **({"clock": clock} if clock else {}),
    }
