"""Calls that may block, in threads; also at the very end of a program, when there are none to be had.

The threads come from a cache of our own.  From trio's, which belongs to the whole process, we would borrow the
program's threads the moment it is done with them, and rename them under its eyes; and a forked child of a program that
uses none would find ours there.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import trio

from tracesvc.recorder.own_threads import note_own_thread
from tracesvc.recorder.pacer import is_shutdown

__all__ = ["Resolver", "in_thread", "start_thread_soon"]

T = TypeVar("T")

NAMES: Final = "tracesvc names"
"""of threads that look up host names"""


class _Threads:
    start: Callable[..., None]
    """as `trio.lowlevel.start_thread_soon`"""

    @classmethod
    def renew(cls) -> None:
        """Begin with no threads; in a forked child there are none."""
        kind = getattr(getattr(trio._core, "_thread_cache", None), "ThreadCache", None)
        cls.start = trio.lowlevel.start_thread_soon if kind is None else kind().start_thread_soon


_Threads.renew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Threads.renew)


def start_thread_soon(
    function: Callable[[], object], deliver: Callable[[Any], object], name: str
) -> None:
    """As `trio.lowlevel.start_thread_soon`, in a thread of our own."""

    def noted() -> object:
        note_own_thread()
        return function()

    _Threads.start(noted, deliver, name)


async def in_thread(function: Callable[..., T], *args: Any, name: str) -> T:
    """Call ``function`` in a thread; cancelling this leaves it behind there.

    From Python 3.12 on no thread can be started once the main thread is over, in functions registered with `atexit` for
    one.  By then there is nobody left who could be kept waiting, and the call is made right here.
    """
    token, done = trio.lowlevel.current_trio_token(), trio.Event()
    results: list[Any] = []

    def deliver(result: Any) -> None:
        results.append(result)
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(done.set)

    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        start_thread_soon(partial(function, *args), deliver, name)
    except RuntimeError as exc:
        if not is_shutdown(exc):
            raise
        await trio.lowlevel.cancel_shielded_checkpoint()
        return function(*args)
    await done.wait()
    result: T = results[0].unwrap()
    return result


class Resolver(trio.abc.HostnameResolver):
    """Looks up host names as trio does itself, and at the end of a program too."""

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        """As `socket.getaddrinfo`."""
        return await in_thread(partial(socket.getaddrinfo, *args, **kwargs), name=NAMES)

    async def getnameinfo(self, *args: Any) -> Any:
        """As `socket.getnameinfo`."""
        return await in_thread(socket.getnameinfo, *args, name=NAMES)
