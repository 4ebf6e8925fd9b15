import errno

import pytest
from trio.testing import wait_all_tasks_blocked

from tests.store.helpers import FailingDisk, segment
from tests.streams import joined, name_of, session
from tracesvc.store import FileStore, StoreBrokenError, StoreFullError, UnknownSessionError


async def test_a_full_disk_keeps_what_was_acknowledged(tmp_path, mock_clock):
    disk = FailingDisk()
    frames = session(200, batch=10)
    name, stream = name_of(frames), joined(frames)
    half = frames[10].end
    async with FileStore.open(tmp_path, disk) as store:
        await store.append(name, 0, stream[:half])
        disk.room = 1000
        result = await store.append(name, half, stream[half:])
        assert isinstance(result.problem, StoreFullError)
        assert "free some space" in str(result.problem)
        assert result.durable == half
        assert segment(tmp_path, name).read_bytes() == stream[:half]
        assert store.trouble
        assert "no room" in store.trouble
        disk.writes = 0
        while disk.writes < 3:  # it looks again and again
            await wait_all_tasks_blocked()
            mock_clock.jump(1)
        assert store.trouble
        disk.room = None
        while store.trouble:
            await wait_all_tasks_blocked()
            mock_clock.jump(1)
        assert (await store.append(name, half, stream[half:])).problem is None
        assert (await store.ledger(name))["closed"]
    assert segment(tmp_path, name).read_bytes() == stream


async def test_a_disk_that_is_full_at_the_first_byte_leaves_no_session(tmp_path):
    disk = FailingDisk()
    disk.room = 10
    frames = session(10)
    async with FileStore.open(tmp_path, disk) as store:
        assert isinstance(
            (await store.append(name_of(frames), 0, joined(frames))).problem, StoreFullError
        )
        with pytest.raises(UnknownSessionError):
            await store.info(name_of(frames))
    async with FileStore.open(tmp_path) as store:
        assert await store.list() == []


async def test_a_failed_sync_ends_all_acknowledging(tmp_path):
    """The kernel may have dropped what it could not write, and says so once only."""
    disk = FailingDisk()
    frames, others = session(200, batch=10), session(20)
    name, stream = name_of(frames), joined(frames)
    half = frames[10].end
    async with FileStore.open(tmp_path, disk) as store:
        await store.append(name, 0, stream[:half])
        disk.sync_error = errno.EIO
        result = await store.append(name, half, stream[half:])
        assert isinstance(result.problem, StoreBrokenError)
        assert result.durable == half
        assert (await store.info(name)).bytes == half
        assert await store.read(name, half, 100) == b""
        disk.sync_error = 0
        for given in (frames, others):
            result = await store.append(name_of(given), 0, joined(given))
            assert isinstance(result.problem, StoreBrokenError)
            assert "has been started anew" in str(result.problem)
        assert result.durable == 0
        assert store.trouble
        assert await store.read(name, 0, half) == stream[:half]
    async with FileStore.open(tmp_path, disk) as store:
        assert store.trouble is None
        assert (await store.append(name, half, stream[half:])).problem is None
    assert segment(tmp_path, name).read_bytes() == stream


async def test_a_sync_for_which_there_is_no_room_may_be_tried_again(tmp_path):
    disk = FailingDisk()
    frames = session(200, batch=10)
    name, stream = name_of(frames), joined(frames)
    async with FileStore.open(tmp_path, disk) as store:
        disk.sync_error = errno.ENOSPC
        assert isinstance((await store.append(name, 0, stream)).problem, StoreFullError)
        disk.sync_error = 0
        assert (await store.append(name, 0, stream)).problem is None
        assert segment(tmp_path, name).read_bytes() == stream


async def test_what_could_not_be_cut_at_once_is_cut_before_the_next_write(tmp_path):
    disk = FailingDisk()
    frames = session(200, batch=10)
    name, stream = name_of(frames), joined(frames)
    half, more = frames[10].end, frames[11].end
    async with FileStore.open(tmp_path, disk) as store:
        await store.append(name, 0, stream[:half])
        disk.sync_error, disk.cut_error = errno.ENOSPC, errno.EIO
        await store.append(name, half, stream[half:])
        disk.sync_error = 0
        result = await store.append(name, half, stream[half:more])
        assert isinstance(result.problem, StoreBrokenError)
        disk.cut_error = 0
        await store.append(name, half, stream[half:more])
        assert segment(tmp_path, name).read_bytes() == stream[:more]
