"""`tracesvc.watch`: the state of channels, locks, semaphores, limiters and conditions, at the moment it changes."""

from __future__ import annotations

import gc

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import tracesvc
from tests.recorder.recording import trace
from tracesvc.events import Reason
from tracesvc.recorder import objects

CLASSES = (
    trio.MemorySendChannel,
    trio.MemoryReceiveChannel,
    *trio.Lock.__mro__,
    trio.Semaphore,
    trio.CapacityLimiter,
)


def counters(recording, name: str) -> list[float]:
    found = [e for e in recording.of("counter") if e.name == name]
    return [e.value for e in sorted(found, key=lambda e: e.time)]


def test_a_memory_channel_at_either_end():
    async def main() -> None:
        send, receive = trio.open_memory_channel[int](2)
        tracesvc.watch(send, name="jobs")
        send.send_nowait(1)
        await send.send(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send.send, 3)
            await wait_all_tasks_blocked()
            for _ in range(3):
                await receive.receive()
            nursery.start_soon(receive.receive)
            await wait_all_tasks_blocked()
            send.send_nowait(4)

    recording = trace(main)
    assert counters(recording, "jobs.depth") == [0, 1, 2, 1, 0]
    assert counters(recording, "jobs.senders") == [0, 1, 0]
    assert counters(recording, "jobs.receivers") == [0, 1, 0]
    (name,) = recording.of("object_name")
    assert (name.kind, name.name) == (Reason.CHANNEL_RECEIVE, "jobs")
    blocks = recording.of("step_block")
    assert name.object in {e.object for e in blocks if e.reason == Reason.CHANNEL_SEND}


@pytest.mark.parametrize("make", [trio.Lock, trio.StrictFIFOLock])
def test_who_owns_a_lock_and_how_many_wait(make):
    async def hold(lock: trio.Lock) -> None:
        async with lock:
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        lock = tracesvc.watch(make(), name="db")
        async with trio.open_nursery() as nursery:
            async with lock:
                for i in range(2):
                    nursery.start_soon(hold, lock, name=f"holder {i}")
                await wait_all_tasks_blocked()

    recording = trace(main)
    owners = counters(recording, "db.owner")
    names = [recording.names.get(int(owner), "") for owner in owners]
    assert names[:2] == ["", "main"]
    assert sorted(names[2:4]) == ["holder 0", "holder 1"]
    assert names[4:] == [""]
    assert counters(recording, "db.waiting") == [0, 1, 2, 1, 0]


def test_a_lock_whose_waiter_is_cancelled():
    async def main() -> None:
        lock = tracesvc.watch(trio.Lock(), name="db")
        async with lock, trio.open_nursery() as nursery:
            nursery.start_soon(lock.acquire)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    assert counters(trace(main), "db.waiting") == [0, 1, 0]


def test_a_semaphore():
    async def main() -> None:
        semaphore = tracesvc.watch(trio.Semaphore(1), name="slots")
        async with trio.open_nursery() as nursery:
            async with semaphore:
                nursery.start_soon(semaphore.acquire)
                await wait_all_tasks_blocked()
        semaphore.release()

    recording = trace(main)
    assert counters(recording, "slots.value") == [1, 0, 1]
    assert counters(recording, "slots.waiting") == [0, 1, 0]


def test_a_capacity_limiter():
    async def main() -> None:
        limiter = tracesvc.watch(trio.CapacityLimiter(1), name="threads")
        async with trio.open_nursery() as nursery:
            async with limiter:
                nursery.start_soon(limiter.acquire_on_behalf_of, "somebody")
                nursery.start_soon(limiter.acquire_on_behalf_of, "another")
                await wait_all_tasks_blocked()
            await wait_all_tasks_blocked()
            limiter.total_tokens = 2
            await wait_all_tasks_blocked()
            limiter.release_on_behalf_of("somebody")

    recording = trace(main)
    assert counters(recording, "threads.borrowed") == [0, 1, 0, 1, 2, 1]
    assert counters(recording, "threads.waiting") == [0, 1, 2, 1, 0]


def test_a_condition():
    async def wait(condition: trio.Condition) -> None:
        async with condition:
            await condition.wait()

    async def main() -> None:
        condition = tracesvc.watch(trio.Condition(), name="changed")
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(wait, condition)
            await wait_all_tasks_blocked()
            async with condition:
                condition.notify()
            await wait_all_tasks_blocked()
            async with condition:
                condition.notify_all()

    assert counters(trace(main), "changed.waiting") == [0, 1, 2, 1, 0]


def test_all_objects_where_it_is_asked_for():
    async def main() -> None:
        send, _ = trio.open_memory_channel[int](1)
        send.send_nowait(1)
        async with trio.Lock():
            pass

    recording = trace(main, watch="all")
    named = {e.name for e in recording.of("object_name")}
    assert {name.split()[0] for name in named} >= {"channel", "lock"}
    assert all(counters(recording, f"{n}.owner") for n in named if n.startswith("lock"))


def test_what_was_watched_before_is_told_at_the_start_and_is_not_kept_alive():
    lock = tracesvc.watch(trio.Lock(), name="early")
    before = dict(objects.touched)

    async def main() -> None:
        async with lock:
            pass

    for _ in range(2):
        recording = trace(main)
        assert len(counters(recording, "early.owner")) == 3
        assert [e.name for e in recording.of("object_name")].count("early") == 1
    main = lock = None  # type: ignore[assignment]
    gc.collect()
    assert len(objects.touched) < len(before)


def test_trios_classes_are_what_they_were():
    def functions() -> list[object]:
        return [cls.__dict__ | {} for cls in CLASSES]

    async def main() -> None:
        tracesvc.watch(trio.Lock(), name="db")
        assert functions() != before

    before = functions()
    trace(main, watch="all")
    assert functions() == before


def test_what_cannot_be_watched_is_refused():
    with pytest.raises(TypeError, match="channel, lock, semaphore, limiter, condition"):
        tracesvc.watch(trio.Event(), name="event")
