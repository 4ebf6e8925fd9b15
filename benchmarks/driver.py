"""Clients of a service, all in one trio run: programs that push, followers, people who ask; and what they saw."""

from __future__ import annotations

import json
import random
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from benchmarks.pushing import Program, Scene

__all__ = ["SCENES", "Client", "Driver", "Pushed", "percentile"]

SCENES: Final = (4000, 1000, 250, 60, 15)
"""events of the pieces that posts are put together of"""
LEVEL: Final = 1
"""of the compression: the programs' processor is not what is measured"""
QUESTIONS: Final = (
    *("/v1/sessions?limit=50",) * 6,
    *("/v1/sessions/{session}",) * 6,
    *("/v1/sessions/{session}/summary",) * 3,
    *("/v1/sessions/{session}/tasks", "/v1/sessions/{session}/latency?of=step"),
    *("/v1/sessions/{session}/outline", "/", "/app.js"),
)
"""what people ask, as often as it stands here"""


def percentile(values: Sequence[float], share: float) -> float:
    """Of values in order; 0 where there are none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


class Client:
    """A keep-alive connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    @classmethod
    async def to(cls, port: int) -> Client:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        return cls(stream)

    async def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """(status, body).

        Raises:
          OSError, trio.BrokenResourceError: the connection is lost.
        """
        await self.stream.send_all(self.head(method, path, len(body)) + body)
        answer, wanted = b"", 0
        while not wanted or len(answer) < wanted:
            part = await self.stream.receive_some(1 << 16)
            if not part:
                raise ConnectionError(f"the service hung up after {answer[:100]!r}")
            answer += part
            end = answer.find(b"\r\n\r\n")
            if end >= 0 and not wanted:
                length = answer[:end].lower().partition(b"content-length:")[2].split(b"\r\n")[0]
                wanted = end + 4 + int(length)
        return int(answer[9:12]), answer[answer.find(b"\r\n\r\n") + 4 :]

    @staticmethod
    def head(method: str, path: str, length: int) -> bytes:
        return (
            f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/vnd.tracesvc\r\n"
            f"content-length: {length}\r\n\r\n"
        ).encode()


@dataclass(slots=True)
class Pushed:
    """A session as its program knows it."""

    program: Program
    acknowledged: int = 0
    crc: int = 0
    ended: bool = False
    live: bool = True


@dataclass
class Driver:
    """What all clients share."""

    port: int
    seed: int = 1
    level: int | None = LEVEL
    sessions: dict[str, Pushed] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """that answers took, by what was asked"""

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.scenes = [Scene(n, i) for i, n in enumerate(SCENES)]
        self._clients: dict[str, Client] = {}

    # --- programs --------------------------------------------------------------------------------

    async def begin(self, name: str) -> Pushed:
        """A session starts."""
        session = (
            f"{self.chance.getrandbits(32):08x}-0000-4000-8000-{self.chance.getrandbits(48):012x}"
        )
        wall = time.time_ns()
        pushed = Pushed(Program(self.scenes, name, session, wall=wall, level=self.level))
        await self.push(pushed, pushed.program.begin())
        self.sessions[session] = pushed
        self.counts["sessions"] += 1
        return pushed

    async def push(self, pushed: Pushed, body: bytes, *, broken: bool = False) -> None:
        """The next piece, until it is acknowledged; ``broken``: at first the connection breaks in the middle of it."""
        session, offset = pushed.program.session, pushed.acknowledged
        path = f"/v1/sessions/{session}/frames?offset={offset}"
        if broken:
            client = await self._client(session)
            await client.stream.send_all(
                Client.head("POST", path, len(body)) + body[: len(body) // 2]
            )
            await self.hang_up(session)
            self.counts["broken off"] += 1
        while True:
            began = trio.current_time()
            try:
                client = await self._client(session)
                status, content = await client.request("POST", path, body)
            except (OSError, trio.BrokenResourceError):
                await self.hang_up(session)
                self.counts["connections lost"] += 1
                await trio.sleep(0.1)
                continue
            if status in (429, 503):
                self.counts[f"answered {status}"] += 1
                await trio.sleep(0.5)
                continue
            if status != 200:
                raise RuntimeError(f"a post was answered with {status}: {content[:300]!r}")
            break
        if int(content[11:-1]) != offset + len(body):
            raise RuntimeError(f"acknowledged: {content!r}, not {offset + len(body)}")
        pushed.acknowledged = offset + len(body)
        pushed.crc = zlib.crc32(body, pushed.crc)
        self.seconds["post"].append(trio.current_time() - began)
        self.counts["posts"] += 1
        self.counts["bytes"] += len(body)

    async def finish(self, pushed: Pushed, *, crashed: bool) -> None:
        """The session is over."""
        if not crashed:
            await self.push(pushed, pushed.program.end())
            pushed.ended = True
        pushed.live = False
        self.counts["events"] += pushed.program.events
        await self.hang_up(pushed.program.session)

    async def _client(self, session: str) -> Client:
        client = self._clients.get(session)
        if client is None:
            client = self._clients[session] = await Client.to(self.port)
        return client

    async def hang_up(self, session: str) -> None:
        client = self._clients.pop(session, None)
        if client is not None:
            await client.stream.aclose()

    # --- readers ---------------------------------------------------------------------------------

    def some_session(self, *, live: bool) -> str | None:
        """One of those that there are; the newest are asked about most."""
        names = [name for name, pushed in self.sessions.items() if pushed.live or not live][-200:]
        return self.chance.choice(names) if names else None

    async def follow(self, seconds: float, *, stalled: bool = False) -> None:
        """Follow a live session, or read nothing of it, for so long."""
        session = self.some_session(live=True)
        if session is None:
            return
        which = self.chance.choice(("frames?follow=true", "live", "live?plain=true"))
        self.counts["followers"] += 1
        try:
            with trio.move_on_after(seconds):
                client = await Client.to(self.port)
                async with client.stream as stream:
                    path = f"/v1/sessions/{session}/{which}"
                    await stream.send_all(Client.head("GET", path, 0))
                    if stalled:
                        await trio.sleep_forever()
                    while part := await stream.receive_some(1 << 16):
                        self.counts["bytes followed"] += len(part)
        except (OSError, trio.BrokenResourceError):
            self.counts["followers hung up on"] += 1

    async def ask(self) -> None:
        """One question of those that people ask."""
        session = self.some_session(live=False)
        if session is None:
            return
        question = self.chance.choice(QUESTIONS)
        await self.get(question.rpartition("/")[2].partition("?")[0] or "page", question, session)

    async def get(self, name: str, path: str, session: str = "") -> None:
        """Ask over a connection of its own."""
        began = trio.current_time()
        try:
            client = await Client.to(self.port)
            async with client.stream:
                status, _ = await client.request("GET", path.format(session=session))
        except (OSError, trio.BrokenResourceError):
            self.counts["questions hung up on"] += 1
            return
        self.counts["questions"] += 1
        if status >= 500 and status != 503:
            raise RuntimeError(f"{path} was answered with {status}")
        if status != 200:
            self.counts[f"questions answered {status}"] += 1
        self.seconds[name].append(trio.current_time() - began)

    # --- the end ---------------------------------------------------------------------------------

    async def settle(self) -> list[str]:
        """Ask the service for every session; what is not as it should be."""
        wrong: list[str] = []
        client = await Client.to(self.port)
        for i, (name, pushed) in enumerate(self.sessions.items()):
            if i % 500 == 499:  # after a thousand requests the service closes a connection
                await client.stream.aclose()
                client = await Client.to(self.port)
            status, content = await client.request("GET", f"/v1/sessions/{name}")
            facts: dict[str, Any] = json.loads(content)
            if status != 200:
                wrong.append(f"{name}: {status}")
                continue
            made = pushed.program.frames, pushed.program.events, pushed.acknowledged
            if (facts["frames"], facts["events"], facts["bytes"]) != made:
                wrong.append(f"{name}: {facts} is not {made}")
            if facts["ledger"]["closed"] != pushed.ended:
                wrong.append(f"{name}: the ledger is {facts['ledger']}")
        await client.stream.aclose()
        return wrong

    def compare(self, data: Path) -> list[str]:
        """Every acknowledged byte of every session is in its files; what is not."""
        wrong = []
        for name, pushed in self.sessions.items():
            crc = size = 0
            for path in sorted((data / "sessions" / name).glob("*.trace")):
                content = path.read_bytes()
                size, crc = size + len(content), zlib.crc32(content, crc)
            if (size, crc) != (pushed.acknowledged, pushed.crc):
                wrong.append(
                    f"{name}: {size} bytes on the disk, {pushed.acknowledged} acknowledged"
                )
        return wrong

    async def every(self, seconds: float, what: Callable[[], Awaitable[None]]) -> None:
        """Again and again, whether or not the one before is over."""
        async with trio.open_nursery() as nursery:
            due = trio.current_time()
            while True:
                nursery.start_soon(what)
                due += seconds
                await trio.sleep_until(due)
