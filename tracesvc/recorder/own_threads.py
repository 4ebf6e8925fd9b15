"""Which threads are the tracer's own: what they use of the processor is its cost, and no part of the program."""

from __future__ import annotations

import threading
from typing import Final

__all__ = ["OWN_THREADS", "note_own_thread"]

OWN_THREADS: Final[set[int]] = set()
"""numbers that the operating system has for them; some may have ended"""


def note_own_thread() -> None:
    """The current thread is one of them, whatever it is called."""
    OWN_THREADS.add(threading.get_native_id())
