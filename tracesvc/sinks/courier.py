"""The part of a push sink that lives in its own thread and trio run: it delivers, and does not give up easily."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from tracesvc.events import LossCause
from tracesvc.format import Frame
from tracesvc.recorder.exchanges import exchanges
from tracesvc.sinks.errors import SinkError
from tracesvc.sinks.threads import Resolver
from tracesvc.sinks.timekeeper import Timekeeper
from tracesvc.sinks.window import PIECE, Piece, Window

if TYPE_CHECKING:
    import httpx2

__all__ = ["Courier"]

logger: Final = logging.getLogger("tracesvc")

PATIENCE: Final = 1.0
"""seconds that frames wait for others to go with them"""
FIRST_BACKOFF: Final = 0.25
"""seconds"""
LONGEST_RETRY_AFTER: Final = 300.0
"""seconds that a service may ask us to stay away"""
REFUSALS: Final = 3
"""times that the service may refuse the same bytes"""
LEAVE_WITHIN: Final = 2.0
"""seconds for the spool at the end"""

_AGAIN: Final = {408, 413, 425, 429, 500, 502, 503, 504, 507}
_WHY: Final = {
    401: "the token is missing or wrong",
    403: "the token does not allow it",
    404: "there is no tracesvc service at this URL",
}


class Courier:
    """Sends the frames it is given, in order, until the service has acknowledged them.

    `give`, `finish`, `cancel` and `held` are for the other thread; `run` is to be run here.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        window: Window,
        stored: Callable[[int, int, int], None],
        max_backoff: float,
    ) -> None:
        self.error: SinkError | None = None
        """why `run` ended before all was delivered"""
        self.over_quota = False
        """whether the service takes no more for now, because there is a limit to what we may send"""
        self.on_room: Callable[[], None] = lambda: None
        """called in this thread whenever `held` has shrunk"""
        self._url, self._token = url, token
        self._window, self._stored, self._max_backoff = window, stored, max_backoff
        # Each of these is written by one of the two threads only.
        self._inbox: Final[deque[list[Frame]]] = deque()
        self._given = self._taken = 0
        self._finished = self._cancelled = False
        self._trio: trio.lowlevel.TrioToken | None = None
        # From here on: this thread only.
        self._timekeeper: Final = Timekeeper(exchanges.add)
        self._scope: Final = trio.CancelScope()
        self._arrived: Final = trio.lowlevel.ParkingLot()
        self._changed: Final = trio.lowlevel.ParkingLot()
        self._complete = False
        """all that was given is in the window"""
        self._due = 0.0
        """when the unsealed frames in the window are to go"""
        self._limit = 4 * PIECE
        self._failures = self._refusals = 0

    # --- for the other thread ----------------------------------------------------------------------

    @property
    def held(self) -> int:
        """Bytes in memory that were given and are not acknowledged."""
        return self._given - self._taken + self._window.in_memory

    def give(self, frames: list[Frame]) -> None:
        self._given += sum(len(frame.data) for frame in frames)
        self._inbox.append(frames)
        self._poke(self._arrived.unpark_all)

    def finish(self) -> None:
        """Nothing follows: `run` ends once all is delivered."""
        self._finished = True
        self._poke(self._arrived.unpark_all)

    def cancel(self) -> None:
        """`run` is to end now."""
        self._cancelled = True
        self._poke(self._scope.cancel)

    def _poke(self, function: Callable[[], object]) -> None:
        # Without a token `run` has not begun, and will look for itself.
        if self._trio is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._trio.run_sync_soon(function, idempotent=True)

    # --- in this thread ----------------------------------------------------------------------------

    async def run(self) -> None:
        self._trio = trio.lowlevel.current_trio_token()
        trio.socket.set_custom_hostname_resolver(Resolver())
        if self._cancelled:
            self._scope.cancel()
        with self._scope:
            async with self._client() as client, trio.open_nursery() as nursery:
                nursery.start_soon(self._collect)
                nursery.start_soon(self._timekeeper.ask, client, self._url)
                try:
                    await self._deliver(client)
                except SinkError as exc:
                    self.error = exc
                nursery.cancel_scope.cancel()
        if self._window:
            with trio.move_on_after(LEAVE_WITHIN):
                await self._window.leave_behind()

    async def _collect(self) -> None:
        """Inbox to window."""
        while True:
            while self._inbox:
                frames = self._inbox.popleft()
                for frame in frames:
                    if not self._window.unsealed:
                        self._due = trio.current_time() + PATIENCE
                    await self._window.add(frame)
                self._taken += sum(len(frame.data) for frame in frames)
                self._changed.unpark_all()
                self.on_room()
                await trio.lowlevel.checkpoint()
            if self._finished and not self._inbox:
                self._complete = True
                self._changed.unpark_all()
            await self._arrived.park()

    def _client(self) -> httpx2.AsyncClient:
        import httpx2

        headers = {"content-type": "application/vnd.tracesvc"}
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        return httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30.0, connect=10.0))

    async def _deliver(self, client: httpx2.AsyncClient) -> None:
        """Window to service, one request at a time.

        Raises:
          SinkError: the service refuses for good.
        """
        import httpx2

        while (piece := await self._next()) is not None:
            try:
                await self._send(client, piece)
            except httpx2.TransportError as exc:
                await self._back_off(f"{type(exc).__name__}: {exc}", 0.0)
                with contextlib.suppress(httpx2.TransportError):
                    await self._resync(client)
            except OSError as exc:
                raise SinkError(f"the spool cannot be read back: {exc}") from exc

    async def _next(self) -> Piece | None:
        """The piece to send; None: all is delivered."""
        while True:
            if self._window.first is not None:
                return self._window.first
            waits = self._window.unsealed
            if waits and (self._complete or trio.current_time() >= self._due):
                self._window.seal()
            elif self._complete:
                return None
            else:
                with trio.move_on_at(self._due if waits else float("inf")):
                    await self._changed.park()

    async def _send(self, client: httpx2.AsyncClient, piece: Piece) -> None:
        offset, data = piece.acknowledged, await piece.rest(self._limit)
        response = await self._timekeeper.post(
            client,
            f"{self._url}/v1/sessions/{self._window.session}/frames",
            params={"offset": offset},
            content=data,
        )
        status, durable = response.status_code, _offset(response)
        if durable is not None:
            await self._acknowledge(durable)
        if self._window.start > offset:
            if self._failures:
                logger.warning("tracesvc: %s takes the trace again", self._url)
            self._failures = self._refusals = 0
            self.over_quota = False
        elif status == 200:
            raise SinkError(f"{self._url} does not answer like a tracesvc service")
        elif status == 413 and _answer(response).get("code") == "session-full":
            raise SinkError(f"{self._url} takes no more: {_reason(response)}", LossCause.QUOTA)
        elif status in _AGAIN:
            self.over_quota = status == 429
            if status == 413:
                self._limit = max(len(data) // 2, 1)
            await self._back_off(_reason(response), _retry_after(response))
        elif status in (409, 422):
            # Our bytes are good: something between us and the store may have damaged them, once.
            self._refusals += 1
            if self._refusals >= REFUSALS:
                raise SinkError(f"{self._url} refuses the trace: {_reason(response)}")
            await self._back_off(_reason(response), 0.0)
        else:
            why = _WHY.get(status, _reason(response))
            raise SinkError(f"{self._url} refuses the trace (HTTP {status}): {why}")

    async def _resync(self, client: httpx2.AsyncClient) -> None:
        """Ask the service how far it got: the answer to the last request may have been lost."""
        response = await client.get(f"{self._url}/v1/sessions/{self._window.session}")
        if response.status_code == 200:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                await self._acknowledge(int(response.json()["bytes"]))

    async def _acknowledge(self, offset: int) -> None:
        try:
            done = await self._window.acknowledge(offset)
        except ValueError:
            raise SinkError(
                f"{self._url} has this session up to byte {offset}, but acknowledged {self._window.start} "
                f"of the {self._window.end} sent: it has lost data, or another program uses the same session"
            ) from None
        for piece in done:
            self._stored(piece.frames, piece.events, piece.size)
        if done:
            self.on_room()

    async def _back_off(self, reason: str, at_least: float) -> None:
        delay = min(FIRST_BACKOFF * 2**self._failures, self._max_backoff) * random.uniform(0.5, 1.0)  # noqa: S311
        if not self._failures:
            logger.warning(
                "tracesvc: %s does not take the trace, trying again: %s", self._url, reason
            )
        self._failures = min(self._failures + 1, 30)
        await trio.sleep(max(delay, min(at_least, LONGEST_RETRY_AFTER)))


def _answer(response: httpx2.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _offset(response: httpx2.Response) -> int | None:
    """The durable offset that an answer tells; most refusals tell it too."""
    offset = _answer(response).get("offset")
    return offset if type(offset) is int else None


def _reason(response: httpx2.Response) -> str:
    detail = _answer(response).get("detail")
    return f"HTTP {response.status_code}, {detail or response.reason_phrase}"


def _retry_after(response: httpx2.Response) -> float:
    """Seconds; 0 where the answer does not say."""
    text = response.headers.get("retry-after", "")
    with contextlib.suppress(ValueError, TypeError):
        if text.isdigit():
            return float(text)
        from email.utils import parsedate_to_datetime

        return parsedate_to_datetime(text).timestamp() - time.time()
    return 0.0
