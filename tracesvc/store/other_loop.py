"""Calls into a library that wants asyncio, from trio: its event loop has a thread of its own.

Nothing global is patched, and neither loop ever waits for the other.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import trio

__all__ = ["OtherLoop"]

T = TypeVar("T")


class OtherLoop:
    """An asyncio event loop in a thread; made by `open`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._token = trio.lowlevel.current_trio_token()

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[OtherLoop]:
        """Run the loop; at the end what still runs in it is cancelled."""
        other = cls()
        ended = trio.Event()
        thread = threading.Thread(
            target=other._run, args=(ended,), name="tracesvc asyncio", daemon=True
        )
        thread.start()
        try:
            yield other
        finally:
            other._loop.call_soon_threadsafe(other._loop.stop)
            with trio.move_on_after(5, shield=True):
                await ended.wait()

    def _run(self, ended: trio.Event) -> None:
        loop = self._loop
        try:
            loop.run_forever()
            loop.run_until_complete(_end_all())
        finally:
            loop.close()
            self.tell(ended.set)

    def tell(self, function: Callable[[], object]) -> None:
        """Have ``function`` called in the trio run; for callbacks in the other loop."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function)

    async def call(
        self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any, **kw: Any
    ) -> T:
        """Await a coroutine function there.

        If cancelled, the call there is cancelled too, and its end is awaited: `asyncio.run_coroutine_threadsafe` would
        not wait for that.
        """
        done = trio.Event()
        tasks: list[asyncio.Task[T]] = []

        def start() -> None:
            tasks.append(self._loop.create_task(function(*args, **kw)))
            tasks[0].add_done_callback(lambda _: self.tell(done.set))

        def cancel() -> None:  # by then it has started
            tasks[0].cancel()

        self._loop.call_soon_threadsafe(start)
        try:
            await done.wait()
        except trio.Cancelled:
            self._loop.call_soon_threadsafe(cancel)
            with trio.move_on_after(2, shield=True):
                await done.wait()
            raise
        if tasks[0].cancelled():
            raise ConnectionAbortedError("cancelled by the library itself")
        return tasks[0].result()


async def _end_all() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
