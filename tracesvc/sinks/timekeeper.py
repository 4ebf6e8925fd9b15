"""How the clock of this process relates to that of the service that a sink pushes to: every answer tells.

The service says by its own clock when a request arrived and when it answered (`tracesvc-clock`); this end knows when
the request left and when the answer was there.  What the four times bound is told in `Exchange`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from tracesvc.format.clocks import MAX_CLOCK_NAME, Exchange, drift

if TYPE_CHECKING:
    import httpx2

__all__ = ["HEADER", "PROBES", "Timekeeper"]

HEADER: Final = "tracesvc-clock"
PROBES: Final = 3
"""requests at the beginning that ask for nothing but the time: the first one finds caches cold"""
WORTH: Final = 0.75
"""of what is uncertain now: an exchange that leaves more of it is not worth a line in the trace"""


class Timekeeper:
    """Of one service; in the thread that pushes.

    Args:
      learn: called with each exchange that says more than those before it.
      now: ns of the session's clock.
    """

    def __init__(
        self, learn: Callable[[Exchange], None], now: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._learn, self._now = learn, now
        self._last: Exchange | None = None

    async def post(self, client: httpx2.AsyncClient, url: str, **options: Any) -> httpx2.Response:
        """A POST whose answer may tell the time."""
        return await self._request(client, "POST", url, options)

    async def ask(self, client: httpx2.AsyncClient, url: str) -> None:
        """Ask a service for the time; nothing comes of it where it cannot be reached, or does not tell."""
        import httpx2

        try:
            for _ in range(PROBES):
                answer = await self._request(client, "GET", f"{url}/v1/clock", {})
                if answer.status_code != 200:
                    return
        except httpx2.HTTPError:
            return  # whoever pushes will see, and say so

    async def _request(
        self, client: httpx2.AsyncClient, method: str, url: str, options: dict[str, Any]
    ) -> httpx2.Response:
        sent = received = 0

        async def see(event: str, _info: object) -> None:
            # Not the making of a connection, nor the work of the client: they would be taken for the network's.
            nonlocal sent, received
            if event.endswith("send_request_headers.started"):
                sent = self._now()
            elif event.endswith("receive_response_headers.complete"):
                received = self._now()

        answer = await client.request(method, url, extensions={"trace": see}, **options)
        told = _parse(answer.headers.get(HEADER, ""))
        if told is not None and sent:
            clock, arrived, answered, wall = told
            self.note(Exchange(sent, arrived, answered, received, wall, clock))
        return answer

    def note(self, exchange: Exchange) -> None:
        """Tell of it, if that makes the difference of the clocks more certain."""
        last = self._last
        if not exchange.possible():
            return
        if last is not None and last.clock == exchange.clock:
            low = last.low - drift(exchange.received - last.received)
            high = last.high + drift(exchange.sent - last.sent)
            left = min(high, exchange.high) - max(low, exchange.low)
            if 0 <= left > WORTH * (high - low):
                return
        self._last = exchange
        self._learn(exchange)


def _parse(text: str) -> tuple[str, int, int, int] | None:
    """Name of the clock, ns of arrival and answer, and the time of day then; None: it does not say."""
    parts = text.split(" ")
    numbers = parts[1:]
    if len(parts) != 4 or not 0 < len(parts[0]) <= MAX_CLOCK_NAME:
        return None
    if not all(part.isascii() and part.isdigit() and len(part) < 20 for part in numbers):
        return None
    arrived, answered, wall = map(int, numbers)
    return (parts[0], arrived, answered, wall) if arrived <= answered < 1 << 62 else None
