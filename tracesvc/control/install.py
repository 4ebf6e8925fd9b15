"""`install`: make a program ready to be attached to, at the cost of one signal handler.

``tracesvc attach`` knocks with a signal, SIGURG unless told otherwise: a process that has not been prepared ignores it.
The handler starts a thread, the *door*, that listens on a socket for as long as somebody is there.  Until then there is
no thread, no socket and no file.
"""

from __future__ import annotations

import threading

from tracesvc.control.startup import SIGNAL, prepare

__all__ = ["install"]


def install(signal: int = SIGNAL) -> None:
    """Prepare this process, and what it forks, for ``tracesvc attach`` and ``tracesvc top``.

    To be called in the main thread, once; again does no harm.  A handler that the program has for that signal is called
    as before.  ``TRACESVC=attach`` in the environment does the same without a change to the program.

    Raises:
      ValueError: not in the main thread, or there is no such signal.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ValueError("install() sets a signal handler: call it in the main thread")
    prepare(signal)
