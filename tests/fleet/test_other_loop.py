"""Calls into asyncio from trio: results, exceptions, cancellation."""

import asyncio

import pytest
import trio

from tracesvc.store.other_loop import OtherLoop


async def double(n, *, plus=0):
    await asyncio.sleep(0)
    return 2 * n + plus


async def test_results_and_exceptions_come_back():
    async with OtherLoop.open() as other:
        assert await other.call(double, 4, plus=1) == 9
        with pytest.raises(asyncio.TimeoutError):
            await other.call(asyncio.wait_for, asyncio.Event().wait(), 0.01)


async def test_a_cancelled_call_is_over_there_when_it_is_here():
    over = []

    async def endless(begun):
        begun()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)  # cleaning up may take its time
            over.append("over")

    async with OtherLoop.open() as other, trio.open_nursery() as nursery:
        begun = trio.Event()
        nursery.start_soon(other.call, endless, lambda: other.tell(begun.set))
        await begun.wait()
        nursery.cancel_scope.cancel()
    assert over == ["over"]


async def test_what_still_runs_there_is_cancelled_at_the_end():
    over = []

    async def endless():
        try:
            await asyncio.Event().wait()
        finally:
            over.append("over")

    async def leave_behind():
        over.append(asyncio.ensure_future(endless()))
        await asyncio.sleep(0)

    async with OtherLoop.open() as other:
        await other.call(leave_behind)
    assert over[1:] == ["over"]
