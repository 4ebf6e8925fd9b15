"""Has an `Overview` made of each large session once it is over, and opens those that there are.

They are made one after the other, each by a process with the lowest priority: what it costs (half a second of computing
per million events, and memory for the index) never holds up who sends or reads traces.
"""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict
from itertools import islice
from typing import Final

import trio

from tracesvc.service.overview import FILE, Overview, OverviewError
from tracesvc.store import SessionInfo, Store, StoreError

__all__ = ["Overviews"]

log = logging.getLogger("tracesvc.service")

MAKE: Final = "import sys; from tracesvc.service.overview import main; main(sys.argv[1:])"
LOOK: Final = 2.0
"""seconds between two looks at who has come to an end"""
AT_ONCE: Final = 200
"""sessions that are looked at then"""
PATIENCE: Final = 900.0
"""seconds for one to be made"""
KEPT: Final = 16
"""directories of files that are kept"""


class Overviews:
    """``events``: of a session that is large enough for one; 0: none is."""

    def __init__(self, store: Store, events: int) -> None:
        self._store, self._events = store, events
        self._heard: OrderedDict[str, None] = OrderedDict()
        self._failed: set[str] = set()
        self._open: OrderedDict[tuple[str, int], Overview] = OrderedDict()

    def heard(self, session: str) -> None:
        """Something has come of a session, or somebody has looked at it."""
        if self._events:
            self._heard[session] = None

    async def get(self, info: SessionInfo) -> Overview | None:
        """That of a session as it is now, if it has been made."""
        key = info.session, info.bytes
        known = self._open.get(key)
        if known is not None:
            self._open.move_to_end(key)
            return known
        directory = await self._store.beside(info.session)
        if directory is None or not self._large(info):
            return None
        try:
            found = await trio.to_thread.run_sync(Overview, directory / FILE, info.bytes)
        except OverviewError:
            return None
        self._open[key] = found
        while len(self._open) > KEPT:
            self._open.popitem(last=False)
        return found

    async def drop(self, info: SessionInfo) -> None:
        """It is damaged."""
        self._open.pop((info.session, info.bytes), None)
        directory = await self._store.beside(info.session)
        if directory is not None:
            await trio.Path(directory / FILE).unlink(missing_ok=True)
            self.heard(info.session)

    def _large(self, info: SessionInfo) -> bool:
        return 0 < self._events <= info.events

    async def run(self) -> None:
        """Make what is wanted, until cancelled."""
        while True:
            await trio.sleep(LOOK)
            await self.look()

    async def look(self) -> None:
        """Make those of the sessions that are over by now."""
        for session in list(islice(self._heard, AT_ONCE)):
            self._heard.pop(session, None)
            try:
                await self._look_at(session)
            except (StoreError, OSError) as exc:
                log.debug("no overview of %s: %s", session, exc)

    async def _look_at(self, session: str) -> None:
        info = await self._store.info(session)
        if info.state == "live":
            self._heard[session] = None  # behind the others
            return
        wanted = self._large(info) and self._store.trouble is None and session not in self._failed
        if not wanted or await self.get(info) is not None:
            return
        directory = await self._store.beside(session)
        if directory is None:
            return
        command = [sys.executable, "-c", MAKE, str(directory), str(info.bytes)]
        outcome = None
        with trio.move_on_after(PATIENCE):
            outcome = await trio.run_process(
                command, capture_stdout=True, capture_stderr=True, check=False
            )
        if outcome is None or outcome.returncode:
            # whoever opens it waits for the index; once is enough to find that out
            self._failed.add(session)
            why = "it took too long" if outcome is None else outcome.stderr.decode().strip()[-300:]
            log.warning("no overview of session %s could be made: %s", session, why)
