"""The one clock of a trace."""

import contextlib
import hashlib
import time
from functools import cache
from pathlib import Path

__all__ = ["clock_name", "now", "wall"]

now = time.monotonic_ns
"""ns of ``CLOCK_MONOTONIC``: one for all threads and processes of a machine"""

wall = time.time_ns
"""ns since the epoch"""


@cache
def clock_name() -> str:
    """A name for what `now` reads: where it is the same, the clock is the same. Empty: there is no way to tell.

    It is made of the kernel's boot id and of what the time namespace adds, if it does (``man 7 time_namespaces``), so
    all containers of a machine have one name.
    """
    offsets = ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        with contextlib.suppress(FileNotFoundError):  # before Linux 5.6
            offsets = Path("/proc/self/timens_offsets").read_text("ascii")
    except (OSError, UnicodeError):
        return ""
    added = next((line.split()[1:] for line in offsets.splitlines() if "monotonic" in line), [])
    shift = "" if not any(map(int, added)) else " ".join(added)
    return hashlib.blake2b(f"{boot} {shift}".encode(), digest_size=8).hexdigest()
