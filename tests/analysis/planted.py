"""Programs with exactly one problem, and their neighbours without it; ``shape`` makes them differ.

Each maker returns an async function for `tracesvc.testing.record`; ``problem`` says whether the problem is in it.
Their time is that of trio's MockClock: a step takes as long as it lets the clock jump.
"""

from __future__ import annotations

import random

import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

import tracesvc


def works(seconds):
    """Keep the run loop for so long."""
    trio.lowlevel.current_clock().jump(seconds)


def never_yields(problem: bool, shape: random.Random):
    busy = shape.uniform(0.21, 3)
    others = shape.randrange(1, 6)
    where = shape.randrange(3)

    async def hog():
        for i in range(3):
            await trio.sleep(shape.random())
            if i == where and problem:
                works(busy)
            elif i == where:
                for _ in range(20):
                    works(busy / 20)
                    await trio.lowlevel.checkpoint()

    async def other():
        for _ in range(5):
            await trio.sleep(shape.random())

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hog)
            for _ in range(others):
                nursery.start_soon(other)

    return main


def nursery_grows(problem: bool, shape: random.Random):
    count = shape.randrange(30, 60)

    async def connection(closes: bool):
        await trio.sleep(shape.uniform(1, 3) if closes else 1e6)

    async def main():
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(connection, not problem)
                await trio.sleep(shape.uniform(0.5, 1.5))
            nursery.cancel_scope.cancel()

    return main


def worker_pool(problem: bool, shape: random.Random):
    """A neighbour of the two: many children that never end, all started at the beginning."""
    del problem
    count = shape.randrange(25, 60)

    async def worker(receive):
        async for _ in receive:
            await trio.sleep(shape.random())

    async def main():
        send, receive = trio.open_memory_channel(0)
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(worker, receive)
            for i in range(200):
                await send.send(i)
            nursery.cancel_scope.cancel()

    return main


def task_leak(problem: bool, shape: random.Random):
    count = shape.randrange(90, 140)
    every = shape.choice((2, 3))

    async def request(answered: bool):
        await trio.sleep(shape.uniform(0.1, 2))
        if not answered:
            await trio.Event().wait()

    async def main():
        async with trio.open_nursery() as nursery:
            for i in range(count):
                nursery.start_soon(request, not problem or bool(i % every))
                await trio.sleep(shape.uniform(0.5, 1.5))
            nursery.cancel_scope.cancel()

    return main


def lost_wakeup(problem: bool, shape: random.Random):
    items = shape.randrange(1, 8)
    consumers = shape.randrange(1, 4)

    async def producer(send):
        for i in range(items):
            await trio.sleep(shape.uniform(0.1, 1))
            await send.send(i)
        if not problem:
            await send.aclose()

    async def consumer(receive):
        async for _ in receive:
            await trio.lowlevel.checkpoint()

    async def ticker():
        for _ in range(300):
            await trio.sleep(1)

    async def main():
        send, receive = trio.open_memory_channel(0)
        async with trio.open_nursery() as nursery:
            for _ in range(consumers):
                nursery.start_soon(consumer, receive)
            await wait_all_tasks_blocked()
            nursery.start_soon(producer, send)
            await ticker()
            nursery.cancel_scope.cancel()

    return main


def busy_self_wake(problem: bool, shape: random.Random):
    ready = trio.Event()
    turns = shape.randrange(1010, 1100)

    async def main():
        async def spinner():
            for _ in range(turns):
                if not problem:  # it gets something done between its checkpoints
                    works(0.002)
                await trio.lowlevel.checkpoint()
            ready.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(spinner)
            await ready.wait()

    return main


def takes_turns(problem: bool, shape: random.Random):
    """A neighbour: many checkpoints, but each task lets the others run."""
    del problem
    count = shape.randrange(3, 6)

    async def worker():
        for _ in range(500):
            await trio.lowlevel.checkpoint()

    async def main():
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(worker)

    return main


def lock_convoy(problem: bool, shape: random.Random):
    count = shape.randrange(5, 9)
    rounds = shape.randrange(10, 20)
    pause = 0.0 if problem else 50.0

    async def main():
        lock = trio.Lock()

        async def worker():
            for _ in range(rounds):
                async with lock:
                    await trio.sleep(0.01)
                await trio.sleep(pause * shape.random())

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(worker)

    return main


def deadlock(problem: bool, shape: random.Random):
    """Tasks that take two locks each, in a circle; without the problem in one order."""
    count = shape.randrange(2, 6)
    tick = shape.random() < 0.5

    async def main():
        locks = [trio.Lock() for _ in range(count)]

        async def task(i):
            first, second = i, (i + 1) % count
            if not problem:
                first, second = sorted((first, second))
            async with locks[first]:
                await trio.sleep(1)
                async with locks[second]:
                    await trio.sleep(shape.random())

        async def warmer(i):
            # Each lock is handed over once: that is how a trace knows who has which.
            async with locks[i]:
                await trio.sleep(0.5)

        async def ticker():
            for _ in range(200):
                await trio.sleep(1)

        with trio.move_on_after(300):
            async with trio.open_nursery() as nursery:
                for i in range(count):
                    nursery.start_soon(warmer, i)
                await wait_all_tasks_blocked()
                for i in range(count):
                    nursery.start_soon(task, i)
                if tick:
                    nursery.start_soon(ticker)

    return main


def cancelled_still_running(problem: bool, shape: random.Random):
    count = shape.randrange(2, 8)
    turns = shape.randrange(100, 400)

    async def stubborn():
        try:
            await trio.sleep_forever()
        finally:
            if problem:
                with trio.CancelScope(shield=True):
                    for _ in range(turns):
                        await trio.sleep(shape.random())

    async def obedient():
        await trio.sleep_forever()

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stubborn)
            for _ in range(count):
                nursery.start_soon(obedient)
            await trio.sleep(shape.random())
            nursery.cancel_scope.cancel()

    return main


def own_scopes(problem: bool, shape: random.Random):
    """A neighbour: a scope within each task is cancelled by another task, and they go on as they are meant to."""
    del problem
    count = shape.randrange(2, 6)

    async def main():
        scopes = [trio.CancelScope() for _ in range(count)]

        async def worker(scope):
            with scope:
                await trio.sleep_forever()
            for _ in range(200):
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            for scope in scopes:
                nursery.start_soon(worker, scope)
            await wait_all_tasks_blocked()
            for scope in scopes:
                scope.cancel()

    return main


def slow_span(problem: bool, shape: random.Random):
    """For `why`: a span waits for a task, which waits for a task, ..., which waits for the culprit, who takes its time.

    Without the problem they all do what they do, and the span gets what it wants from somebody else.
    """
    kinds = [
        shape.choice(("lock", "event", "channel", "children")) for _ in range(shape.randrange(1, 5))
    ]
    seconds, works_for_it = shape.uniform(0.5, 20), shape.random() < 0.5

    async def main():
        locks = [trio.Lock() for _ in kinds]
        events = [trio.Event() for _ in kinds]
        channels = [trio.open_memory_channel(1) for _ in kinds]

        async def provides(i):
            """Does what link ``i`` is there for: whoever wants it waits until it has got its own."""
            if kinds[i] == "lock":
                async with locks[i]:
                    await wants(i + 1)
            else:
                await wants(i + 1)
            if kinds[i] == "event":
                events[i].set()
            elif kinds[i] == "channel":
                await channels[i][0].send(i)

        async def wants(i):
            if i == len(kinds):
                await trio.sleep(0.01 if works_for_it else seconds)
                if works_for_it:
                    works(seconds)
            elif kinds[i] == "lock":
                async with locks[i]:
                    pass
            elif kinds[i] == "event":
                await events[i].wait()
            elif kinds[i] == "channel":
                await channels[i][1].receive()
            else:
                async with trio.open_nursery() as children:
                    children.start_soon(provides, i, name=named(i))

        def named(i):
            return "culprit" if i == len(kinds) - 1 else f"link {i}"

        async def elsewhere():
            async with trio.Lock():
                await trio.sleep(0.001)

        async with trio.open_nursery() as nursery:
            for i in reversed(range(len(kinds))):
                if kinds[i] != "children" or (not i and not problem):
                    nursery.start_soon(provides, i, name=named(i))
                    await wait_all_tasks_blocked()
            with tracesvc.span("work"):
                await (wants(0) if problem else elsewhere())

    return main, kinds, round(seconds * 1e9)
