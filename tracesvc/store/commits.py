"""Group commit: whatever waits is written and synced together, in one thread, while the next group gathers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import trio

from tracesvc.store.disk import Disk
from tracesvc.store.session import Round

__all__ = ["Commits"]

log = logging.getLogger("tracesvc.store")

AT_ONCE: Final = 4
"""groups that are on their way to the disk at the same time, at most: the file system joins their syncs, and one that
takes long keeps only those of its own group waiting"""


class Commits:
    """Run `run`; `commit` from any number of tasks."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.observe: Callable[[float], object] = _nobody
        """called with the seconds that writing and syncing a group took"""
        self._waiting: list[Round] = []
        self._busy = 0
        self._arrived = trio.lowlevel.ParkingLot()
        self._threads = trio.CapacityLimiter(AT_ONCE)

    async def commit(self, found: Round) -> None:
        """Returns when it is known what has become of it.

        Shielded, because others of the round wait for the same answer; it takes as long as the disk takes.
        """
        self._waiting.append(found)
        self._arrived.unpark()
        with trio.CancelScope(shield=True):
            await found.done.wait()

    async def run(self) -> None:
        """Until it is cancelled; a group that has begun is finished."""
        async with trio.open_nursery() as nursery:
            while True:
                while not self._waiting or self._busy == AT_ONCE:
                    await self._arrived.park()
                group, self._waiting = self._waiting, []
                self._busy += 1
                nursery.start_soon(self._commit, group, name="tracesvc commit")

    async def _commit(self, group: list[Round]) -> None:
        began = trio.current_time()
        try:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(
                    _commit, group, self._disk, thread_name="tracesvc write", limiter=self._threads
                )
        except Exception as exc:
            log.exception("writing failed")
            for found in group:
                if not found.kept:
                    found.session.give_up(found, OSError(0, f"an internal error: {exc!r}"))
        self.observe(trio.current_time() - began)
        for found in group:
            found.done.set()
        self._busy -= 1
        self._arrived.unpark()


def _nobody(_seconds: float) -> None:
    pass


def _commit(group: Sequence[Round], disk: Disk) -> None:
    writes = [write for found in group for write in found.prepare()]
    failures = disk.commit(writes)
    at = 0
    for found in group:
        end = at + len(found.writes)
        found.settle(failures[at:end], disk)
        at = end
