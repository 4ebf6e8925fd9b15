"""The connection of a `JetStreamStore` to its NATS servers: a few requests, each tried again for a bounded time.

There is no consumer anywhere: every request stands for itself, so that the death of a server costs a repetition.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import trio

from tracesvc.store.base import StoreBrokenError, StoreError, StoreFullError
from tracesvc.store.other_loop import OtherLoop

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js.client import JetStreamContext

__all__ = ["ConflictError", "Link", "Message", "Stream"]

log = logging.getLogger("tracesvc.store")

WANTED: Final = (2, 12, 3)
"""nats-server from which on known ways to lose what was acknowledged are closed"""
NEEDED: Final = (2, 9, 0)
"""the first that finds the next message of a subject"""
ONE_TRY: Final = 2.0
"""seconds for an answer before the question is asked again"""
PAUSES: Final = (0.02, 0.05, 0.1, 0.2, 0.4)
"""seconds between two tries; the last one again and again"""
MIN_PAYLOAD: Final = 640 << 10
"""bytes that a message may have to have, at least: a frame and its headers"""

_WRONG_LAST: Final = {10071, 10164}
_FULL: Final = {10077, 10047, 10122, 10028, 10023}
_NO_MESSAGE: Final = 10037
_IN_USE: Final = 10058


class ConflictError(Exception):
    """Somebody else has written to the subject meanwhile."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream."""

    seq: int
    subject: str
    data: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream as it is to be."""

    name: str
    subjects: Sequence[str]
    replicas: int
    bytes: int
    """at most; -1: without bound"""
    newest_only: bool = False
    """keep one message of a subject"""


class Link:
    """Made by `open`. Every method raises `StoreBrokenError` once ``patience`` seconds were in vain."""

    def __init__(self, other: OtherLoop, client: Client, patience: float) -> None:
        self._other = other
        self._client = client
        self._js: JetStreamContext = client.jetstream(timeout=ONE_TRY)
        self._patience = patience
        self.trouble: str | None = None
        """why the last request came to nothing, or None"""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, servers: str, credentials: str | None, patience: float
    ) -> AsyncIterator[Link]:
        """Connect to one of ``servers``, URLs with commas between them.

        Raises:
          StoreError: none of them answers, or what answers is too old.
        """
        try:
            from nats.aio.client import Client
            from nats.errors import Error
        except ImportError:
            raise StoreError(
                "a store at nats:// needs nats-py: pip install 'tracesvc[nats]'"
            ) from None

        async with OtherLoop.open() as other:
            client = Client()
            await _connect(other, client, servers, credentials, patience)
            try:
                link = cls(other, client, patience)
                link._judge()
                yield link
            finally:
                with trio.move_on_after(2, shield=True):
                    with suppress(Error, OSError):  # the server may be gone
                        await other.call(client.close)

    def _judge(self) -> None:
        """Look at the server's version and limits, and say what is wrong with them."""
        version = str(self._client.connected_server_version)
        numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:3])
        text = _dotted(numbers)
        if numbers < NEEDED:
            raise StoreError(f"nats-server {text} is too old: {_dotted(NEEDED)} at the least")
        if numbers < WANTED:
            log.warning(
                "nats-server %s: production asks for %s or later, in which known ways to lose what was acknowledged "
                "are closed",
                text,
                _dotted(WANTED),
            )
        if self._client.max_payload < MIN_PAYLOAD:
            raise StoreError(
                f"the NATS servers take messages of {self._client.max_payload} bytes, and a frame may have 524,288: "
                "set max_payload to 1MB"
            )

    # --- streams -----------------------------------------------------------------------------------

    async def have(self, stream: Stream) -> None:
        """Make a stream where there is none.

        Raises:
          StoreError: there is one that forgets what it was given.
        """
        from nats.js.api import DiscardPolicy, StorageType, StreamConfig
        from nats.js.errors import APIError

        discard = DiscardPolicy.OLD if stream.newest_only else DiscardPolicy.NEW
        config = StreamConfig(
            name=stream.name,
            subjects=list(stream.subjects),
            storage=StorageType.FILE,
            num_replicas=stream.replicas,
            max_bytes=stream.bytes,
            max_msgs_per_subject=1 if stream.newest_only else -1,
            discard=discard,
            duplicate_window=120,
            allow_direct=True,
        )
        try:
            await self._ask(self._js.add_stream, config)
        except APIError as exc:
            if exc.err_code != _IN_USE:
                raise StoreError(f"stream {stream.name} cannot be made: {exc.description}") from exc
        found = (await self._ask(self._js.stream_info, stream.name)).config
        if found.max_age or found.discard != discard:
            raise StoreError(
                f"stream {stream.name} would forget what is acknowledged: it must have no max_age, and "
                f"discard {discard.value}"
            )
        replicas = found.num_replicas or 1
        if replicas < stream.replicas:
            log.warning("stream %s has %d replicas, not %d", stream.name, replicas, stream.replicas)
        if replicas == 1:
            log.warning(
                "stream %s lies on one server: set sync_interval: always there, for an acknowledged frame exists "
                "nowhere else until it is archived",
                stream.name,
            )

    async def subjects(self, stream: str, pattern: str) -> list[str]:
        """Those of a stream that have messages."""
        info = await self._ask(self._js.stream_info, stream, subjects_filter=pattern)
        return sorted(info.state.subjects or ())

    # --- messages ----------------------------------------------------------------------------------

    async def publish(
        self, subject: str, data: bytes, *, expected: int, headers: dict[str, str]
    ) -> int:
        """Append a message, if ``expected`` is the last one of its subject (0: none); its place in the stream.

        Asked again with the same headers, among them a ``Nats-Msg-Id``, it is there once.  After an error it may be
        there or not.

        Raises:
          ConflictError: it is not the last one.
          StoreFullError: the stream is full.
        """
        from nats.js.errors import APIError

        wanted = {**headers, "Nats-Expected-Last-Subject-Sequence": str(expected)}
        try:
            ack = await self._ask(self._js.publish, subject, data, headers=wanted, timeout=ONE_TRY)
        except APIError as exc:
            if exc.err_code in _WRONG_LAST:
                raise ConflictError from exc
            if exc.err_code in _FULL:
                raise StoreFullError(
                    f"the stream of the frames takes no more ({exc.description}): give it more room, or see why "
                    "nothing is archived"
                ) from exc
            raise StoreBrokenError(f"NATS refuses: {exc.description}") from exc
        return int(ack.seq)

    async def next(self, stream: str, subject: str, seq: int) -> Message | None:
        """The first message of a subject at place ``seq`` or behind it, as the stream's leader has it."""
        return await self._get(stream, seq=max(seq, 1), subject=subject, next=True)

    async def last(self, stream: str, subject: str) -> Message | None:
        """The last message of a subject, as the stream's leader has it."""
        return await self._get(stream, subject=subject)

    async def at(self, stream: str, seq: int) -> Message | None:
        """A message that is known to have been there: any server that has it may answer."""
        found = await self._get(stream, seq=seq, direct=True)
        return found or await self._get(stream, seq=seq)

    async def forget(self, stream: str, subject: str, below: int | None) -> None:
        """Remove a subject's messages before place ``below``; None: all."""
        if below is not None and below <= 1:
            return  # there are none, and servers take this for "all"
        await self._ask(self._js.purge_stream, stream, seq=below, subject=subject)

    async def _get(self, stream: str, **which: Any) -> Message | None:
        from nats.js.errors import APIError, NotFoundError

        try:
            found = await self._ask(self._js.get_msg, stream, **which)
        except NotFoundError as exc:
            if exc.err_code in (None, _NO_MESSAGE):
                return None
            raise StoreBrokenError(f"NATS: {exc.description}") from exc
        except APIError as exc:
            raise StoreBrokenError(f"NATS refuses: {exc.description}") from exc
        headers = {str(key): str(value) for key, value in (found.headers or {}).items()}
        return Message(found.seq or 0, found.subject or "", found.data or b"", headers)

    async def bounds(self, stream: str) -> tuple[int, int]:
        """Places of the first and the last message of a stream."""
        state = (await self._ask(self._js.stream_info, stream)).state
        return int(state.first_seq), int(state.last_seq)

    # --- hints -------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether a server is there to take hints."""
        return bool(self._client.is_connected)

    async def hint(self, subject: str, data: bytes) -> None:
        """Tell whoever listens just now; it may get lost."""
        from nats.errors import Error

        if self.connected:
            with suppress(Error, OSError):
                await self._other.call(self._client.publish, subject, data)

    async def listen(
        self, subject: str, heard: Callable[[str, bytes], None]
    ) -> Callable[[], Awaitable[None]]:
        """Have ``heard`` called, in the trio run, with every hint; returns what ends that."""
        from nats.errors import Error

        async def callback(message: Msg) -> None:
            found, data = message.subject, message.data
            self._other.tell(lambda: heard(found, data))

        try:
            subscription = await self._other.call(self._client.subscribe, subject, cb=callback)
        except (Error, OSError) as exc:
            raise StoreBrokenError(f"NATS cannot be listened to: {_what(exc)}") from exc

        async def leave() -> None:
            with suppress(Error, OSError):
                await self._other.call(subscription.unsubscribe)

        return leave

    # --- inside ------------------------------------------------------------------------------------

    async def _ask(self, function: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        """Ask until there is an answer; errors that are an answer are raised as they are."""
        from nats.errors import Error
        from nats.js.errors import APIError, NoStreamResponseError, ServiceUnavailableError

        give_up = trio.current_time() + self._patience
        tries = 0
        while True:
            try:
                answer = await self._other.call(function, *args, **kw)
            except (Error, OSError, TimeoutError) as exc:
                soft = isinstance(exc, NoStreamResponseError | ServiceUnavailableError)
                full = isinstance(exc, APIError) and exc.err_code in _FULL
                if full or (isinstance(exc, APIError) and not soft):
                    self.trouble = None if not full else str(exc)
                    raise
                pause = PAUSES[min(tries, len(PAUSES) - 1)]
                tries += 1
                if trio.current_time() + pause > give_up:
                    self.trouble = (
                        f"NATS gave no answer in {self._patience:g} seconds ({_what(exc)})"
                    )
                    raise StoreBrokenError(self.trouble) from exc
                await trio.sleep(pause)
            else:
                self.trouble = None
                return answer


async def _connect(
    other: OtherLoop, client: Client, servers: str, credentials: str | None, patience: float
) -> None:
    from nats.errors import Error

    async def at_error(exc: Exception) -> None:
        log.debug("NATS: %s", _what(exc))

    options: dict[str, Any] = {"user_credentials": credentials} if credentials else {}
    last: BaseException | None = None
    with trio.move_on_after(patience):
        while True:
            try:
                await other.call(
                    client.connect,
                    servers=[url.strip() for url in servers.split(",")],
                    name="tracesvc",
                    error_cb=at_error,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.1,
                    connect_timeout=2,
                    ping_interval=2,
                    max_outstanding_pings=2,
                    allow_reconnect=True,
                    **options,
                )
            except (Error, OSError, TimeoutError) as exc:
                last = exc
                await trio.sleep(0.2)
            else:
                return
    raise StoreError(f"no NATS server answers at {_without_secrets(servers)} ({_what(last)})")


def _what(exc: BaseException | None) -> str:
    return "nothing" if exc is None else f"{type(exc).__name__}: {exc}".rstrip(": ")


def _without_secrets(servers: str) -> str:
    return re.sub(r"//[^@/,]*@", "//", servers)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
