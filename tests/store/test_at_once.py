import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.store.helpers import GatedDisk, keep
from tests.streams import joined, name_of, session
from tracesvc.store import FileStore, StoreClosedError
from tracesvc.store.disk import Disk


@pytest.fixture
async def store(tmp_path):
    async with FileStore.open(tmp_path) as opened:
        yield opened


async def test_what_arrives_during_a_sync_is_synced_together(tmp_path, nursery):
    disk = GatedDisk()
    frames = session(200, batch=10)
    name = name_of(frames)
    results = {}
    async with FileStore.open(tmp_path, disk) as store:

        async def append(frame):
            results[frame.number] = await store.append(name, frame.offset, frame.data)

        for frame in frames:
            nursery.start_soon(append, frame)
            while not disk.waiting:
                await wait_all_tasks_blocked()
            await wait_all_tasks_blocked()
        assert results == {}
        disk.gate.set()
        while len(results) < len(frames):
            await wait_all_tasks_blocked()
        assert disk.syncs == 2
        assert all(result.problem is None for result in results.values())
        assert await store.read(name, 0, 1 << 20) == joined(frames)


async def test_sessions_do_not_wait_for_each_other(tmp_path, nursery):
    class OneHangs(Disk):
        def __init__(self):
            self.gate = threading.Event()
            self.first = True

        def sync(self, fd):
            if self.first:
                self.first = False
                self.gate.wait()

    disk = OneHangs()
    async with FileStore.open(tmp_path, disk) as store:
        stuck = session(10)
        nursery.start_soon(store.append, name_of(stuck), 0, joined(stuck))
        while disk.first:
            await wait_all_tasks_blocked()
        await keep(store, session(10))
        disk.gate.set()


async def test_a_cancelled_append_harms_nobody(tmp_path, nursery):
    disk = GatedDisk()
    frames = session(10)
    name = name_of(frames)
    async with FileStore.open(tmp_path, disk) as store:
        scopes = []

        async def append(data):
            with trio.CancelScope() as scope:
                scopes.append(scope)
                await store.append(name, 0, data)

        for _ in range(3):
            nursery.start_soon(append, joined(frames))
            while not disk.waiting:
                await wait_all_tasks_blocked()
        for scope in scopes:
            scope.cancel()
        await wait_all_tasks_blocked()
        disk.gate.set()
        assert (await store.append(name, 0, joined(frames))).problem is None
        assert await store.read(name, 0, 1 << 20) == joined(frames)


async def test_followers_are_woken_and_read_from_the_file(store, nursery):
    frames = session(100, batch=10)
    name = name_of(frames)
    await store.append(name, 0, frames[0].data)
    got = dict.fromkeys(range(50), b"")

    async def follow(i):
        while True:
            part = await store.read(name, len(got[i]), 1000 + i)
            if part:
                got[i] += part
            elif await store.wait_durable(name, len(got[i])) <= len(got[i]):
                return

    async with trio.open_nursery() as followers:
        for i in got:
            followers.start_soon(follow, i)
        for frame in frames[1:]:
            await store.append(name, frame.offset, frame.data)
    assert set(got.values()) == {joined(frames)}


async def test_leaving_waits_for_what_is_being_written(tmp_path):
    disk = GatedDisk()
    frames = session(10)
    problems = []

    async def append(store):
        problems.append((await store.append(name_of(frames), 0, joined(frames))).problem)

    async with trio.open_nursery() as nursery, FileStore.open(tmp_path, disk) as store:
        nursery.start_soon(append, store)
        while not disk.waiting:
            await wait_all_tasks_blocked()
        nursery.start_soon(append, store)
        await wait_all_tasks_blocked()
        store._closing = True
        disk.gate.set()
    assert problems[0] is None
    assert isinstance(problems[1], StoreClosedError)
    with pytest.raises(StoreClosedError):
        await store.list()
