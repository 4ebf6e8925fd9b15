"""Real time for the tracer: a thread, because the program's clock may be a MockClock.

trio's clock belongs to the program: with autojump a sleep of the tracer's would be over at once, or make seven virtual
days take seven days.  What the tracer needs by the clock on the wall (old buffers sealed, sinks told to write, a drain
that must end) comes from here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Final

import trio

__all__ = ["Pacer", "ResidentMemory", "is_shutdown", "real_deadline"]


logger: Final = logging.getLogger("tracesvc")


def is_shutdown(exc: RuntimeError) -> bool:
    """Whether a thread could not be started because the program is about to end: so it is from Python 3.12 on."""
    return "interpreter shutdown" in str(exc)


class Pacer:
    """Calls ``beat`` in a thread of its own, about every ``interval`` seconds, from `start` to `stop`.

    What ``beat`` returns, if not None, is the interval from then on.
    """

    def __init__(self, beat: Callable[[], float | None], interval: float = 0.25) -> None:
        self._beat: Final = beat
        self._interval = interval
        self._stop: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="tracesvc pacer", daemon=True)

    def start(self) -> None:
        """Where the program is about to end, there is no beat any more."""
        try:
            self._thread.start()
        except RuntimeError as exc:
            if not is_shutdown(exc):
                raise

    def stop(self) -> None:
        """No beat begins after this; waits for one that is under way."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                interval = self._beat()
                if interval is not None:
                    self._interval = interval
            except Exception:
                logger.exception("tracesvc: a beat failed; the tracer goes on")


@contextlib.contextmanager
def real_deadline(scope: trio.CancelScope, seconds: float) -> Iterator[None]:
    """Cancel ``scope`` after that many seconds of real time, whatever trio's clock does."""
    token = trio.lowlevel.current_trio_token()
    done = threading.Event()

    def wait() -> None:
        if not done.wait(seconds):
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(scope.cancel)

    thread = threading.Thread(target=wait, name="tracesvc deadline", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the program is about to end: its own clock is better than none
        scope.deadline = trio.current_time() + seconds
    try:
        yield
    finally:
        done.set()


class ResidentMemory:
    """Resident memory of this process.

    The file is opened once: opening one now and then, in a thread, would take numbers that a program (or its test)
    has just closed and expects to be free.
    """

    def __init__(self) -> None:
        try:
            self._file: int | None = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = None

    def read(self) -> int:
        """Bytes; 0 where they cannot be told."""
        if self._file is None:
            return 0
        try:
            return int(os.pread(self._file, 128, 0).split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return 0

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
