"""What ``TRACESVC`` in the environment asks for, and the signal handler that `tracesvc.install` sets.

``TRACESVC=attach`` prepares that program, and all it starts, without a change to any of them.  A wheel has a copy of
this module beside the package, and a ``.pth`` file that calls `start` at the start of every Python: so it imports
nothing of tracesvc, or of trio, before somebody knocks.
"""

import _thread
import os
import signal as signals
import sys
from types import FrameType
from typing import Any, Final

__all__ = ["SIGNAL", "Knocked", "prepare", "start"]

SIGNAL: Final = signals.SIGURG
"""what ``tracesvc attach`` sends; by default a process ignores it"""


class Knocked:
    """The handler: opens the door."""

    def __init__(self, before: Any) -> None:
        self._before: Final = before

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # Not threading.Thread: its locks may be held by what this interrupts.
        _thread.start_new_thread(_open_door, ())
        if callable(self._before):
            self._before(number, frame)


def prepare(signal: int) -> None:
    """Set the handler, once."""
    before = signals.getsignal(signal)
    if type(before).__name__ != Knocked.__name__:  # there may be two of this module
        signals.signal(signal, Knocked(before))


def _open_door() -> None:
    from tracesvc.control.door import open_door

    open_door()


def start() -> None:
    """Do what the environment asks for; a program must not fail for it, so a failure is one line on standard error."""
    wanted = os.environ.get("TRACESVC", "")
    try:
        if wanted == "attach":
            prepare(SIGNAL)
        elif wanted:
            sys.stderr.write(f"tracesvc: TRACESVC can be 'attach', not {wanted!r}\n")
    except Exception as exc:
        sys.stderr.write(f"tracesvc: TRACESVC={wanted} is not done: {exc}\n")
