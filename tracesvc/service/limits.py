"""How much one source may bring, and how much all may ask for: refused with 429, 413 or 503 and when to come back.

A source that is over its rate is told to wait; its sink keeps what it has until then, and what finds no room there is
in its trace as lost by ``quota``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from tracesvc.service.config import Config
from tracesvc.service.problems import ProblemError
from tracesvc.store import Store

__all__ = ["Bucket", "Limits"]

BURST: Final = 2.0
"""seconds' worth of its rate that a source may bring at once"""
SOURCES: Final = 10_000
"""whose rates are remembered"""


@dataclass(slots=True)
class Bucket:
    """A token bucket: holds up to `BURST` seconds of ``rate``, and may go below zero by one piece."""

    rate: float
    """per second"""
    level: float
    at: float
    """seconds, when ``level`` held"""

    def take(self, amount: float, now: float) -> float:
        """0: taken. Else the seconds until something may be taken again, and nothing was."""
        self.level = min(self.level + (now - self.at) * self.rate, self.rate * BURST)
        self.at = now
        if self.level > 0:
            self.level -= amount
            return 0.0
        return -self.level / self.rate + 1 / self.rate


class Limits:
    """What is left of them."""

    def __init__(self, config: Config, clock: Callable[[], float] = trio.current_time) -> None:
        """``clock``: seconds."""
        self._config, self._clock = config, clock
        self._posts: OrderedDict[str, Bucket] = OrderedDict()
        self._bytes: OrderedDict[str, Bucket] = OrderedDict()

    @property
    def by_source(self) -> bool:
        """Whether it matters whose a post is."""
        config = self._config
        return bool(config.source_posts or config.source_bytes or config.source_sessions)

    def admit_post(self, source: str) -> None:
        """A post of ``source`` comes.

        Raises:
          ProblemError: there are too many.
        """
        wait = self._take(self._posts, source, self._config.source_posts, 1)
        if wait:
            raise _later("quota-posts", f"{source!r} posts too often", wait)

    def admit_bytes(self, source: str, size: int, stored: int | None) -> None:
        """So many bytes of ``source`` come; ``stored``: of that session already.

        Raises:
          ProblemError: they are too many.
        """
        most = self._config.session_bytes
        if most and (stored or 0) + size > most:
            why = f"a session may have {most} bytes"
            raise ProblemError(413, "session-full", why, offset=stored)
        wait = self._take(self._bytes, source, self._config.source_bytes, size)
        if wait:
            raise _later("quota-bytes", f"{source!r} brings too much", wait, offset=stored)

    async def admit_session(self, source: str, store: Store) -> None:
        """A new session of ``source`` begins.

        Raises:
          ProblemError: it has too many that are live.
        """
        most = self._config.source_sessions
        if most and len(await store.list(source=source, state="live", limit=most)) >= most:
            why = f"{source!r} has {most} sessions that are live"
            raise _later("too-many-sessions", why, 30.0)

    def admit_follower(self, now_following: int) -> None:
        """Somebody wants to follow a session.

        Raises:
          ProblemError: too many do.
        """
        most = self._config.followers
        if most and now_following >= most:
            why = f"{most} follow sessions already"
            raise ProblemError(503, "too-many-followers", why, {"retry-after": "5"})

    def _take(
        self, buckets: OrderedDict[str, Bucket], source: str, rate: float, amount: float
    ) -> float:
        if not rate:
            return 0.0
        now = self._clock()
        bucket = buckets.get(source)
        if bucket is None:
            bucket = buckets[source] = Bucket(rate, rate * BURST, now)
            if len(buckets) > SOURCES:
                buckets.popitem(last=False)
        buckets.move_to_end(source)
        return bucket.take(amount, now)


def _later(code: str, why: str, wait: float, **extra: object) -> ProblemError:
    headers = {"retry-after": str(math.ceil(wait))}
    return ProblemError(429, code, f"{why}: come back in {wait:.1f} s", headers, **extra)
