"""Tracing a program from outside of its trio runs: the reader and the sinks live in a helper thread.

The program's runs, in whatever thread, consecutive or at once, are procs of one session; handing over a full buffer is
safe between threads.
"""

from __future__ import annotations

import contextlib
import threading
from types import FunctionType
from typing import Final

import trio

from tracesvc.recorder.tracer import Tracer
from tracesvc.sinks.base import Sink
from tracesvc.sinks.delivery import deliver

__all__ = ["OutsideTracer"]


class OutsideTracer:
    """Records every trio run of this process that begins between `start` and `stop`, into ``sinks``."""

    def __init__(self, *sinks: Sink, name: str | None = None, drain_timeout: float = 10.0) -> None:
        self.tracer: Final = Tracer(name=name)
        self.tracer.joinable = True
        self._sinks: Final = sinks
        self._drain_timeout: Final = drain_timeout
        self._ready: Final = threading.Event()
        self._stop: trio.Event | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._failure: BaseException | None = None
        # a daemon: a program that ends without a word must not hang on its tracer
        self._thread: Final = threading.Thread(
            target=self._run, name="tracesvc reader", daemon=True
        )

    def start(self) -> None:
        """Not from within a trio run.

        Raises:
          TracerBusyError: a tracer runs in this process already.
        """
        self.tracer.start()
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """End the session, wait until the sinks have it or ``drain_timeout`` is over. A second call does nothing."""
        if self._token is not None and self._stop is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop.set)
            self._thread.join(self._drain_timeout + 5.0)
            self._token = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _run(self) -> None:
        try:
            trio.run(self._deliver)
        except BaseException as exc:  # it is for stop() to raise it, where somebody sees it
            self._failure = exc
        finally:
            self._ready.set()

    async def _deliver(self) -> None:
        _stand_apart()
        self._token, self._stop = trio.lowlevel.current_trio_token(), trio.Event()
        async with deliver(self.tracer, *self._sinks, drain_timeout=self._drain_timeout):
            # The program may be over in no time, and then (see `in_thread`) it is too late for threads: sinks come to
            # start theirs first.
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            self._ready.set()
            await self._stop.wait()


def _stand_apart() -> None:
    """Give the current run's I/O manager its own copy of its methods.

    A program that replaces methods of trio's classes for a while, as trio's own tests do, must not take the tracer's
    run with it.  Where this trio looks different, that protection is missing and nothing else.
    """
    manager = getattr(getattr(trio.lowlevel.current_task(), "_runner", None), "io_manager", None)
    if manager is not None:
        kind = type(manager)
        methods = {
            name: value for name, value in vars(kind).items() if isinstance(value, FunctionType)
        }
        with contextlib.suppress(TypeError):
            manager.__class__ = type(kind.__name__, (kind,), {**methods, "__slots__": ()})
