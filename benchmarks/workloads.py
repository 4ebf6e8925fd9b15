"""What the benchmarks run: three pieces of trio by itself, and an HTTP server with a client in another process."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import tracesvc

__all__ = [
    "SERVERS",
    "VARIED",
    "Variant",
    "round_trips",
    "run_seeded",
    "serve_http",
    "serve_http_at",
    "spawns",
    "steps",
]

Variant = Callable[[], contextlib.AbstractAsyncContextManager[Any]]
"""opens the tracer around a workload, or nothing"""
SERVERS: Final = ("hypercorn", "anycorn")
VARIED: Final = ("/", "/channel", "/sleep", "/lock", "/thread", "/nursery", "/annotated")
"""paths of `application` that between them use most of what trio has"""


def run_seeded(
    main: Callable[[], Coroutine[Any, Any, Any]], instruments: list[trio.abc.Instrument]
) -> Any:
    """`trio.run` with a scheduler that makes the same choices every time."""
    getattr(trio._core._run, "_r").seed(0)  # noqa: B009
    return trio.run(main, instruments=instruments)


# --- trio by itself ------------------------------------------------------------------------------


async def steps(n: int) -> None:
    """n checkpoints, by 100 tasks at once."""

    async def worker() -> None:
        for _ in range(n // 100):
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(worker)


async def round_trips(n: int) -> None:
    """n times there and back over two memory channels without buffers."""
    there_send, there_receive = trio.open_memory_channel[int](0)
    back_send, back_receive = trio.open_memory_channel[int](0)

    async def here() -> None:
        for i in range(n):
            await there_send.send(i)
            await back_receive.receive()

    async def there() -> None:
        for _ in range(n):
            await back_send.send(await there_receive.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(here)
        nursery.start_soon(there)


async def spawns(n: int) -> None:
    """n tasks that do nothing, 100 at a time."""

    async def nothing() -> None:
        pass

    for _ in range(n // 100):
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(nothing)


# --- HTTP ----------------------------------------------------------------------------------------


class _Application:
    """Starlette; `finished` is set when ``requests`` have been answered."""

    def __init__(self, requests: int) -> None:
        self._left = requests
        self.finished: Final = trio.Event()
        self._lock: Final = trio.Lock()
        self.starlette: Final = Starlette(
            routes=[
                Route("/", self._plain),
                Route("/channel", self._channel),
                Route("/sleep", self._sleep),
                Route("/lock", self._with_lock),
                Route("/thread", self._thread),
                Route("/nursery", self._nursery),
                Route("/annotated", self._annotated),
            ]
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.starlette(scope, receive, send)
        if scope["type"] == "http":
            self._left -= 1
            if not self._left:
                self.finished.set()

    async def _plain(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse("hello, world")

    async def _channel(self, request: Request) -> PlainTextResponse:
        send, receive = trio.open_memory_channel[int](0)

        async def produce() -> None:
            async with send:
                for i in range(5):
                    await send.send(i)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            total = sum([i async for i in receive])
        return PlainTextResponse(str(total))

    async def _sleep(self, request: Request) -> PlainTextResponse:
        await trio.sleep(0.002)
        return PlainTextResponse("slept")

    async def _with_lock(self, request: Request) -> PlainTextResponse:
        async with self._lock:
            await trio.sleep(0.0005)
        return PlainTextResponse("locked")

    async def _thread(self, request: Request) -> PlainTextResponse:
        def query() -> int:
            with contextlib.closing(sqlite3.connect(":memory:")) as connection:
                return int(connection.execute("select 6 * 7").fetchone()[0])

        return PlainTextResponse(str(await trio.to_thread.run_sync(query)))

    async def _nursery(self, request: Request) -> PlainTextResponse:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.lowlevel.checkpoint)
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        return PlainTextResponse("cancelled")

    async def _annotated(self, request: Request) -> PlainTextResponse:
        with tracesvc.span("request", path=request.url.path):
            with tracesvc.region("render"):
                await trio.lowlevel.checkpoint()
            tracesvc.log("rendered", level="debug")
            tracesvc.counter("rendered.bytes", 42.0)
        return PlainTextResponse("annotated")


async def serve_http(
    server: str,
    requests: int,
    *,
    connections: int = 1,
    paths: tuple[str, ...] = ("/",),
    rate: float = 0,
) -> list[float]:
    """Serve that many requests over loopback, to a client in another process; returns the seconds each took, sorted.

    ``requests`` is rounded down to a multiple of ``connections``; ``rate`` is requests per second, 0: at once.
    """
    each = requests // connections
    application = _Application(each * connections)
    async with _server(server, application) as port:
        command = [sys.executable, "-I", str(Path(__file__).with_name("client.py"))]
        command += map(str, (port, ",".join(paths), connections, each, rate))
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
        try:
            await application.finished.wait()
        except BaseException:
            client.kill()
            raise
    output, _ = client.communicate()
    if client.returncode:
        raise RuntimeError(f"the client ended with exit code {client.returncode}")
    return list(map(float, output.split()))


async def serve_http_at(server: str, tell: Callable[[int], None]) -> None:
    """Serve without end, at the port that ``tell`` is called with."""
    async with _server(server, _Application(0)) as port:
        tell(port)
        await trio.sleep_forever()


@contextlib.asynccontextmanager
async def _server(name: str, application: Any) -> AsyncIterator[int]:
    """The port of an HTTP server that runs in this process."""
    config: Any
    if name == "hypercorn":
        from hypercorn.config import Config as HypercornConfig
        from hypercorn.trio import serve as serve_hypercorn

        config, serve = HypercornConfig(), serve_hypercorn
    else:
        from anycorn import Config as AnycornConfig
        from anycorn import serve as serve_anycorn

        config, serve = AnycornConfig(), serve_anycorn  # type: ignore[assignment,unused-ignore]
    config.bind, config.errorlog, config.keep_alive_max_requests = ["127.0.0.1:0"], None, 10**9
    config.graceful_timeout = 0.1
    stop = trio.Event()

    async def run(task_status: trio.TaskStatus[Any]) -> None:
        await serve(application, config, shutdown_trigger=stop.wait, task_status=task_status)

    async with trio.open_nursery() as nursery:
        urls = await nursery.start(run)
        yield int(urls[0].rsplit(":", 1)[1])
        stop.set()
