"""Drive the shop and follow its trace; prove that the program, the service and the follower saw the same events."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import trio

from tracesvc.format import Batch, Damage, StreamDecoder

__all__ = ["DemoResult", "drive", "process", "show"]

CLIENTS = 8
Progress = Callable[[float, int, int], None]
"""called with seconds gone, requests answered and events followed"""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What was seen in the three places."""

    session: str
    file: Path
    """the stored session, a trace file"""
    requests: int
    failed: int
    """requests that did not get a 200"""
    program: int
    """events that the tracer in the program counted"""
    lost: int
    """of them, by its account"""
    stored: int
    """events in the service's store, by its ledger"""
    followed: int
    """events that came out of the live stream"""
    ledger: dict[str, Any]
    service_exit: int

    @property
    def ok(self) -> bool:
        """All saw the same, nothing was lost, all ended well."""
        same = self.program == self.stored == self.followed
        return (
            same
            and not self.lost
            and not self.failed
            and bool(self.requests)
            and self.service_exit == 0
        )


class _Follower:
    """Counts the events of a session as they come out of the streaming endpoint."""

    def __init__(self, url: str, session: str) -> None:
        self._url = f"{url}/v1/sessions/{session}/frames"
        self.events = 0

    async def run(self) -> None:
        decoder = StreamDecoder()
        async with httpx2.AsyncClient(timeout=None) as client:
            while True:  # the session may not be there yet
                parameters = {"from": str(decoder.offset + decoder.pending), "follow": "true"}
                async with client.stream("GET", self._url, params=parameters) as response:
                    if response.status_code == 200:
                        async for part in response.aiter_raw():
                            decoder.feed(part)
                            self._count(decoder)
                        return
                await trio.sleep(0.05)

    def _count(self, decoder: StreamDecoder) -> None:
        for item in decoder:
            if isinstance(item, Damage):
                raise RuntimeError(f"the live stream is damaged: {item}")
            if isinstance(item.record, Batch):
                self.events += item.record.count


@asynccontextmanager
async def process(*command: str) -> AsyncIterator[tuple[trio.Process, Callable[[], Any]]]:
    """A child process, and a function that awaits its next line of output; it is gone when the block is left."""
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            lambda task_status: trio.run_process(
                [sys.executable, "-m", *command],
                stdout=subprocess.PIPE,
                check=False,
                task_status=task_status,
            )
        )
        buffer = bytearray()

        async def line() -> str:
            assert process.stdout is not None
            while b"\n" not in buffer:
                part = await process.stdout.receive_some(4096)
                if not part:
                    raise RuntimeError(
                        f"{' '.join(command)} ended unexpectedly, with {process.returncode}"
                    )
                buffer.extend(part)
            text, _, rest = bytes(buffer).partition(b"\n")
            buffer[:] = rest
            return text.decode()

        yield process, line
        nursery.cancel_scope.cancel()


async def drive(
    url: str,
    seconds: float,
    tally: list[int],
    tick: Callable[[float], None],
    pause: float = 0.0,
) -> None:
    """Real requests, ``CLIENTS`` at a time; ``tally`` counts those answered, and those that were not 200.

    Each client pauses for ``pause`` seconds after a request.
    """

    async def client() -> None:
        while True:
            kind = random.random()
            if kind < 0.5:
                response = await session.post(f"/order/{random.choice(['tea', 'coffee', 'cake'])}")
            else:
                path = "/quote" if kind < 0.7 else "/stock" if kind < 0.95 else "/report"
                response = await session.get(path)
            tally[0] += 1
            tally[1] += response.status_code != 200
            await trio.sleep(pause)

    # one for all: making a client takes a tenth of a second, for its certificates
    async with httpx2.AsyncClient(base_url=url, timeout=10) as session:
        start = trio.current_time()
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(client)
                while True:
                    tick(trio.current_time() - start)
                    await trio.sleep(0.1)


async def show(data: Path, seconds: float, progress: Progress) -> DemoResult:
    """The whole demo; ``data`` is the service's directory.

    Raises:
      RuntimeError: the service or the shop did not start, or ended on its own.
    """
    async with process("tracesvc", "serve", "--listen", "127.0.0.1:0", "--data", str(data)) as (
        service,
        says,
    ):
        url = (await says()).rsplit(" ", 1)[1]
        async with process("tracesvc.demo.shop", "--push", url) as (shop, shop_says):
            shop_url, session = await shop_says(), await shop_says()
            follower, tally = _Follower(url, session), [0, 0]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(follower.run)
                await drive(
                    shop_url, seconds, tally, lambda gone: progress(gone, tally[0], follower.events)
                )
                shop.send_signal(signal.SIGTERM)
                seen = json.loads(await shop_says())
                with trio.move_on_after(10):
                    await shop.wait()
        async with httpx2.AsyncClient(base_url=url, timeout=10) as client:
            stored = (await client.get(f"/v1/sessions/{session}")).json()
        service.send_signal(signal.SIGTERM)
        with trio.move_on_after(10):
            await service.wait()
        ledger = stored["ledger"]
        return DemoResult(
            session=session,
            file=next((data / "sessions" / session).glob("*.trace")),
            requests=tally[0],
            failed=tally[1],
            program=seen["events"],
            lost=seen["lost"],
            stored=sum(proc["stored"] for proc in ledger["procs"].values()),
            followed=follower.events,
            ledger=ledger,
            service_exit=service.returncode if service.returncode is not None else -1,
        )
