"""Calls that may block, in threads; also at the very end of a program, when there are none to be had."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import trio

from tracesvc.recorder.pacer import is_shutdown

__all__ = ["Resolver", "in_thread"]

T = TypeVar("T")

NAMES: Final = "tracesvc names"
"""of threads that look up host names"""


async def in_thread(
    function: Callable[..., T], *args: Any, name: str, limiter: trio.CapacityLimiter | None = None
) -> T:
    """Call ``function`` in a thread; cancelling this leaves it behind there.

    From Python 3.12 on no thread can be started once the main thread is over, in functions registered with `atexit` for
    one.  By then there is nobody left who could be kept waiting, and the call is made right here.
    """
    try:
        return await trio.to_thread.run_sync(
            function, *args, thread_name=name, abandon_on_cancel=True, limiter=limiter
        )
    except RuntimeError as exc:
        if not is_shutdown(exc):
            raise
    return function(*args)


class Resolver(trio.abc.HostnameResolver):
    """Looks up host names as trio does itself, and at the end of a program too."""

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        """As `socket.getaddrinfo`."""
        return await in_thread(partial(socket.getaddrinfo, *args, **kwargs), name=NAMES)

    async def getnameinfo(self, *args: Any) -> Any:
        """As `socket.getnameinfo`."""
        return await in_thread(socket.getnameinfo, *args, name=NAMES)
