"""A small web shop on Starlette and anycorn, as anybody might write one; only tracesvc's lines are unusual.

Run as a process of its own: ``python -m tracesvc.demo.shop --push URL``.  It prints two lines when it is up, its
URL and its session, and one line of JSON when it has ended: how many events the tracer saw and lost.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from anycorn import Config, serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import tracesvc
from tracesvc.sinks.push import PushSink

__all__ = ["Shop", "main"]

WORKERS: Final = 4

Reply = trio.MemorySendChannel[float]
Order = tuple[str, int, Reply]


class Shop:
    """Orders go through a memory channel to workers; the books are a SQLite file behind a thread."""

    def __init__(self) -> None:
        self._orders, self._inbox = trio.open_memory_channel[Order](16)
        self._till = trio.Lock()
        self._sold = 0
        self._books = sqlite3.connect(":memory:", check_same_thread=False)
        self._books.execute("create table sales (item text, count integer, price real)")
        self._books_limiter = trio.CapacityLimiter(1)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Run the workers while the shop is open."""
        async with trio.open_nursery() as nursery:
            for number in range(WORKERS):
                nursery.start_soon(self._work, self._inbox.clone(), name=f"worker {number}")
            yield
            nursery.cancel_scope.cancel()
        self._books.close()

    async def _work(self, inbox: trio.MemoryReceiveChannel[Order]) -> None:
        async with inbox:
            async for item, count, reply in inbox:
                with tracesvc.span("fill order", item=item, count=count):
                    with tracesvc.region("pack"):
                        await trio.sleep(0.001 * random.randrange(1, 5))
                    price = await self._in_books(self._enter_sale, item, count)
                    async with self._till:
                        self._sold += count
                        tracesvc.counter("shop.sold", self._sold)
                        await trio.lowlevel.checkpoint()
                    await reply.send(price)

    async def _in_books(self, function: Callable[..., Any], *args: Any) -> Any:
        return await trio.to_thread.run_sync(function, *args, limiter=self._books_limiter)

    def _enter_sale(self, item: str, count: int) -> float:
        with tracesvc.region("sql insert"):
            price = 1.5 * count
            self._books.execute("insert into sales values (?, ?, ?)", (item, count, price))
            # the books of the day, not of all days: a demo may run for long
            self._books.execute("delete from sales where rowid < last_insert_rowid() - 1000")
            self._books.commit()
            return price

    def _add_up(self) -> list[tuple[str, int, float]]:
        query = "select item, sum(count), sum(price) from sales group by item order by item"
        return self._books.execute(query).fetchall()

    async def order(self, request: Request) -> Response:
        """``POST /order/{item}``: wait for a worker to fill it."""
        send, receive = trio.open_memory_channel[float](0)
        async with send, receive:
            await self._orders.send((request.path_params["item"], random.randrange(1, 4), send))
            return JSONResponse({"price": await receive.receive()})

    async def report(self, request: Request) -> Response:
        """``GET /report``: from the books, in a thread."""
        return JSONResponse(await self._in_books(self._add_up))

    async def quote(self, request: Request) -> Response:
        """``GET /quote``: ask three suppliers at once, take the first answer, cancel the others."""
        answers: list[float] = []

        async def ask(supplier: str, delay: float) -> None:
            with tracesvc.span("ask supplier", supplier=supplier):
                await trio.sleep(delay)
                answers.append(delay)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for supplier in ("ada", "grace", "barbara"):
                nursery.start_soon(ask, supplier, 0.002 + 0.02 * random.random())
        return JSONResponse({"price": round(min(answers), 6)})

    async def stock(self, request: Request) -> Response:
        """``GET /stock``: a warning now and then."""
        left = max(0, 100_000 - self._sold)
        if left % 7 == 0:
            tracesvc.log("stock is getting low", level="warning", left=left)
        return JSONResponse({"left": left})

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/order/{item}", self.order, methods=["POST"]),
            Route("/report", self.report),
            Route("/quote", self.quote),
            Route("/stock", self.stock),
        ]


def traced(app: Any) -> Callable[..., Awaitable[None]]:
    """A span around each request."""

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        with tracesvc.span(f"{scope['method']} /{scope['path'].split('/')[1]}", path=scope["path"]):
            await app(scope, receive, send)

    return middleware


async def main(push: str) -> None:
    """Serve until SIGTERM, traced into the service at ``push``."""
    sink = PushSink(push)
    async with tracesvc.open_tracer(sink, name="shop") as tracer:
        shop = Shop()
        config = Config()
        config.bind, config.errorlog, config.graceful_timeout = ["127.0.0.1:0"], None, 2.0
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

            async def stopped() -> None:
                await anext(signals)

            async with shop.open(), trio.open_nursery() as nursery:
                app: Any = traced(Starlette(routes=shop.routes))

                async def run(*, task_status: trio.TaskStatus[Any]) -> None:
                    await serve(app, config, shutdown_trigger=stopped, task_status=task_status)

                urls = await nursery.start(run)
                print(urls[0], flush=True)
                print(tracer.statistics().session, flush=True)
    seen, pushed = tracer.statistics(), sink.statistics()
    lost = sum(seen.lost.values()) + sum(pushed.lost.values())
    print(
        json.dumps({"events": seen.events, "lost": lost, "acknowledged": pushed.events}), flush=True
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--push", required=True, help="URL of a tracesvc service")
    trio.run(main, parser.parse_args().push)
