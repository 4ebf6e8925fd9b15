"""What this process has learned of other clocks: exchanges with services, which sinks have, and streams tell of.

It is of the process and not of a session, as the clock is: a session that begins later, or is over in no time, knows
it too.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from tracesvc.format.clocks import Exchange

__all__ = ["AGAIN", "Exchanges", "exchanges"]

KEPT: Final = 64
"""what comes quicker than a stream tells of it pushes out the oldest"""
AGAIN: Final = 2
"""of the last ones, that every generation tells, for it decodes alone"""


class Exchanges:
    """The last of them; any thread."""

    def __init__(self) -> None:
        self._rows: Final[deque[Exchange]] = deque(maxlen=KEPT)
        self._count = 0
        self._lock: Final = threading.Lock()

    @property
    def count(self) -> int:
        """How many there have been."""
        return self._count

    def add(self, exchange: Exchange) -> None:
        with self._lock:
            self._rows.append(exchange)
            self._count += 1

    def since(self, count: int, again: int = 0) -> tuple[list[Exchange], int]:
        """Those after the first ``count``, and at least the last ``again``; how many there have been."""
        with self._lock:
            wanted = min(max(self._count - count, again), len(self._rows))
            return list(self._rows)[len(self._rows) - wanted :], self._count


exchanges: Final = Exchanges()
