"""What many follow is read once, encoded once, and handed to all who are at the same place in the session."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import trio

from tracesvc.store import Store

__all__ = ["CHUNK", "Encode", "Relay", "Relays"]

CHUNK: Final = 64 << 10
"""bytes read at once; what a follower that does not read has on its way to it is no more"""
KEEP: Final = 16 << 20
"""bytes that are kept for the next one who asks, of all sessions together"""
WAVE: Final = 32
"""followers that are woken at once: what else the run loop has to do waits for no more of them"""

Encode: TypeAlias = Callable[[bytes, int], tuple[bytes, int]]
"""(bytes of the stream, their offset) to (what is sent, of how many of the bytes; 0: they are too few)"""
_Key: TypeAlias = tuple[str, Encode, int]


class Relays:
    """One `Relay` for each session that is followed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._relays: dict[str, Relay] = {}
        self._kept = _Kept()

    @contextmanager
    def of(self, session: str) -> Iterator[Relay]:
        """To follow it by."""
        relay = self._relays.get(session)
        if relay is None:
            relay = self._relays[session] = Relay(self._store, session, self._kept)
        relay.users += 1
        try:
            yield relay
        finally:
            relay.users -= 1
            if not relay.users:
                del self._relays[session]


class Relay:
    """One session, for all who follow it.

    There is no task that does it: whoever needs something first sees to it, for all, and if that one goes away the
    next does.
    """

    def __init__(self, store: Store, session: str, kept: _Kept) -> None:
        self.users = 0
        self._store, self._session, self._kept = store, session, kept
        self._durable = 0
        self._over: int | None = None
        """where the session ended"""
        self._watched = False
        self._waiting = trio.lowlevel.ParkingLot()
        self._due = 0
        """of those who wait: how many are to be woken still"""
        self._woken = 0
        """of those who waited: how many have just been woken; the last of them wakes the next ones"""
        self._being_read: dict[_Key, trio.Event] = {}

    async def more(self, offset: int) -> bool:
        """Wait for bytes behind ``offset``; False: there will be none, the session has ended.

        Raises:
          StoreError: it cannot be said.
        """
        while self._durable <= offset:
            if self._over is not None and offset >= self._over:
                return False
            if self._watched:
                await self._waiting.park()
                self._woken -= 1
                if not self._woken:
                    self._roll()
            else:
                await self._watch(offset)
        return True

    async def piece(self, offset: int, encode: Encode) -> tuple[bytes, int]:
        """What is to be sent of the bytes from ``offset`` on, and the offset behind them.

        Raises:
          StoreError: they cannot be read.
        """
        key = self._session, encode, offset
        while True:
            found = self._kept.find(key)
            # Who is far behind is not to go the many small steps that those made who were there when it came.
            if found is not None and 2 * (found[1] - offset) >= min(self._durable - offset, CHUNK):
                await trio.lowlevel.checkpoint_if_cancelled()
                return found
            reading = self._being_read.get(key)
            if reading is None:
                break
            await reading.wait()
        self._being_read[key] = done = trio.Event()
        try:
            found = await self._read(offset, encode)
            if found[1] > offset:
                self._kept.keep(key, found)
            else:
                self._durable = min(self._durable, offset)  # the store is to be asked again
            return found
        finally:
            del self._being_read[key]
            done.set()

    async def _read(self, offset: int, encode: Encode) -> tuple[bytes, int]:
        most = CHUNK
        while True:
            part = await self._store.read(self._session, offset, most)
            data, used = encode(part, offset)
            if used:
                return data, offset + used
            if len(part) < most:
                return b"", offset + len(part)  # damage of the disk, or nothing there
            most *= 4  # a large frame

    async def _watch(self, offset: int) -> None:
        """Wait for all."""
        self._watched = True
        heard = False
        try:
            durable = await self._store.wait_durable(self._session, offset)
            heard = True
            self._durable = max(self._durable, durable)
            if durable <= offset:
                self._over = durable
        finally:
            self._watched = False
            # Where this one was called off, one of the others watches.
            self._due = len(self._waiting) if heard else max(self._due, 1)
            if not self._woken:
                self._roll()

    def _roll(self) -> None:
        """Wake some of those who are due."""
        self._woken = min(WAVE, self._due, len(self._waiting))
        self._due = self._due - self._woken if self._woken else 0
        self._waiting.unpark(count=self._woken)


class _Kept:
    """What was read last, up to `KEEP` bytes."""

    def __init__(self) -> None:
        self._found: OrderedDict[_Key, tuple[bytes, int]] = OrderedDict()
        self._size = 0

    def find(self, key: _Key) -> tuple[bytes, int] | None:
        found = self._found.get(key)
        if found is not None:
            self._found.move_to_end(key)
        return found

    def keep(self, key: _Key, found: tuple[bytes, int]) -> None:
        before = self._found.pop(key, None)
        if before is not None:
            self._size -= len(before[0])
        self._found[key] = found
        self._size += len(found[0])
        while self._size > KEEP:
            _, (data, _) = self._found.popitem(last=False)
            self._size -= len(data)
