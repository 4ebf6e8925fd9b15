"""What is not kept: sessions deleted by hand, by age and by size, and a disk that is nearly full."""

import errno
import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.store.helpers import keep, segment
from tests.streams import joined, name_of, session
from tracesvc.store import (
    FileStore,
    Keep,
    LiveSessionError,
    StoreBrokenError,
    StoreFullError,
    UnknownSessionError,
)
from tracesvc.store.disk import Disk

SECOND = 10**9


@pytest.fixture
def later(monkeypatch):
    """Moves the wall clock of the store on, in seconds."""
    moved = [0]
    real = __import__("time").time_ns

    def move(seconds):
        moved[0] += seconds * SECOND

    for module in ("files", "session"):
        monkeypatch.setattr(f"tracesvc.store.{module}.time.time_ns", lambda: real() + moved[0])
    return move


async def test_a_deleted_session_is_gone_now_and_after_a_new_start(tmp_path):
    frames = session(50)
    async with FileStore.open(tmp_path) as store:
        name, other = await keep(store, frames), await keep(store, session(5))
        await store.delete(name)
        for ask in (store.info, store.ledger, store.path, store.delete):
            with pytest.raises(UnknownSessionError):
                await ask(name)
        assert [info.session for info in await store.list()] == [other]
        assert not segment(tmp_path, name).parent.exists()
        assert list((tmp_path / "trash").iterdir()) == []
    async with FileStore.open(tmp_path) as store:
        assert [info.session for info in await store.list()] == [other]
        await keep(store, frames)  # and may come again


async def test_a_live_session_is_not_deleted(tmp_path, later):
    frames = session(50)
    async with FileStore.open(tmp_path) as store:
        name = name_of(frames)
        await store.append(name, 0, joined(frames[:-1]))
        with pytest.raises(LiveSessionError, match="a minute after its last frame"):
            await store.delete(name)
        assert (await store.info(name)).state == "live"
        later(61)
        await store.delete(name)
        assert await store.list() == []


async def test_followers_of_a_deleted_session_are_told(tmp_path, nursery, later):
    frames = session(50)
    name = name_of(frames)
    seen = []
    async with FileStore.open(tmp_path) as store:
        await store.append(name, 0, joined(frames[:-1]))

        async def follow():
            seen.append(await store.wait_durable(name, frames[-1].offset))

        nursery.start_soon(follow)
        await wait_all_tasks_blocked()
        later(61)
        await store.delete(name)
        await wait_all_tasks_blocked()
        assert seen == [frames[-1].offset]


async def test_what_died_while_it_deleted_goes_on_at_the_next_start(tmp_path):
    async with FileStore.open(tmp_path) as store:
        name = await keep(store, session(50))
    (tmp_path / "trash").mkdir()
    (tmp_path / "sessions" / name).rename(tmp_path / "trash" / name)
    async with FileStore.open(tmp_path) as store:
        assert await store.list() == []
        assert list((tmp_path / "trash").iterdir()) == []


async def test_a_rename_that_fails_deletes_nothing(tmp_path):
    class Stuck(Disk):
        def rename(self, old, new):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    frames = session(50)
    async with FileStore.open(tmp_path, Stuck()) as store:
        name = await keep(store, frames)
        with pytest.raises(StoreBrokenError):
            await store.delete(name)
        assert await store.read(name, 0, 1 << 20) == joined(frames)
        assert (await store.ledger(name))["closed"]


async def test_old_sessions_go(tmp_path, later):
    frames = session(50)
    async with FileStore.open(tmp_path, keep=Keep(age=3600)) as store:
        old = await keep(store, session(5))
        live = name_of(frames)
        later(3000)
        young = await keep(store, session(5))
        later(601)
        await store.append(live, 0, joined(frames[:-1]))
        assert await store.tidy() == [old]
        assert {info.session for info in await store.list()} == {young, live}
        later(3602)
        assert set(await store.tidy()) == {young, live}


async def test_the_oldest_sessions_of_a_source_go_when_it_has_too_many_bytes(tmp_path):
    size = len(joined(session(200)))
    async with FileStore.open(tmp_path, keep=Keep(source_bytes=3 * size)) as store:
        names = [
            await keep(store, session(200, name="much", start_wall=10**18 + i)) for i in range(5)
        ]
        other = await keep(store, session(200, name="little", start_wall=10**18))
        assert set(await store.tidy()) == set(names[:2])
        assert {info.session for info in await store.list()} == {*names[2:], other}
        assert await store.tidy() == []


async def test_it_tidies_by_itself(tmp_path, mock_clock, later):
    async with FileStore.open(tmp_path, keep=Keep(age=10)) as store:
        await keep(store, session(5))
        later(11)
        for _ in range(3):
            mock_clock.jump(61)
            await wait_all_tasks_blocked(0.01)
        while await store.list():
            mock_clock.jump(1)
            await wait_all_tasks_blocked()


class Tight(Disk):
    def __init__(self):
        self.left = 10 << 20

    def free(self, path):
        return self.left


async def test_a_disk_that_is_nearly_full_takes_nothing_and_says_so(tmp_path, mock_clock):
    disk, frames = Tight(), session(50)
    async with FileStore.open(tmp_path, disk, keep=Keep(free=20 << 20)) as store:
        result = await store.append(name_of(frames), 0, joined(frames))
        assert isinstance(result.problem, StoreFullError)
        assert "10 MiB are free" in str(result.problem)
        assert "10 MiB are free" in store.trouble
        disk.left = 30 << 20
        while store.trouble:
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
        name = await keep(store, frames)
        disk.left = 0
        while not store.trouble:
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
        assert await store.read(name, 0, 10) == joined(frames)[:10]
        await store.delete(name)  # that makes room
        await trio.lowlevel.checkpoint()
        assert await store.list() == []
