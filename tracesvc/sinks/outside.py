"""Tracing a program from outside of its trio runs: the reader and the sinks live in a helper thread.

The program's runs, in whatever thread, consecutive or at once, are procs of one session; handing over a full buffer is
safe between threads.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Final

import trio

from tracesvc.recorder import own_run
from tracesvc.recorder.tracer import Tracer
from tracesvc.sinks.base import Sink
from tracesvc.sinks.delivery import deliver

__all__ = ["OutsideTracer"]


class OutsideTracer:
    """Records every trio run of this process that begins between `start` and `stop`, into ``sinks``."""

    def __init__(
        self,
        *sinks: Sink,
        name: str | None = None,
        black_box: str | os.PathLike[str] | bool = False,
        drain_timeout: float = 10.0,
    ) -> None:
        """For ``black_box`` see `tracesvc.recorder.options.Options`.

        Raises:
          BlackBoxError: there is no room for one.
        """
        self.tracer: Final = Tracer(name=name, black_box=black_box)
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
            own_run.run(self._deliver)
        except BaseException as exc:  # it is for stop() to raise it, where somebody sees it
            self._failure = exc
        finally:
            self._ready.set()

    async def _deliver(self) -> None:
        self._token, self._stop = trio.lowlevel.current_trio_token(), trio.Event()
        async with deliver(self.tracer, *self._sinks, drain_timeout=self._drain_timeout):
            # The program may be over in no time, and then (see `in_thread`) it is too late for threads: sinks come to
            # start theirs first.
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            self._ready.set()
            await self._stop.wait()
