"""Messages of a stream that were read or written last, in memory; who asks for one that is on its way waits for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import trio

__all__ = ["Payloads"]

SIZE: Final = 64 << 20
"""bytes that are kept, at most"""


class Payloads:
    """By place in the stream."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._size = 0
        self._coming: dict[int, trio.Event] = {}

    def keep(self, seq: int, data: bytes) -> None:
        """Remember it, and forget what was used longest ago."""
        if seq in self._kept:
            self._kept.move_to_end(seq)
            return
        self._kept[seq] = data
        self._size += len(data)
        while self._size > SIZE:
            self._size -= len(self._kept.popitem(last=False)[1])

    async def get(self, seq: int, fetch: Callable[[int], Awaitable[bytes | None]]) -> bytes | None:
        """The message, fetched where it is not here, once for all that ask."""
        while True:
            data = self._kept.get(seq)
            if data is not None:
                self._kept.move_to_end(seq)
                return data
            coming = self._coming.get(seq)
            if coming is None:
                break
            await coming.wait()
        self._coming[seq] = trio.Event()
        try:
            data = await fetch(seq)
            if data is not None:
                self.keep(seq, data)
            return data
        finally:
            self._coming.pop(seq).set()
