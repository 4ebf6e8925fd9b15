import fcntl
import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tests.store.helpers import keep, segment
from tests.streams import joined, name_of, session
from tracesvc.store import FileStore, StoreError


def catalogue(root):
    return sqlite3.connect(root / "catalogue.sqlite")


async def test_a_new_start_finds_everything(tmp_path):
    frames = session(300, procs=3, lost=4)
    async with FileStore.open(tmp_path) as store:
        name = await keep(store, frames)
        before = await store.info(name), await store.ledger(name), await store.list()
    async with FileStore.open(tmp_path) as store:
        assert (await store.info(name), await store.ledger(name), await store.list()) == before


@pytest.mark.parametrize("damage", ["missing", "garbage", "late", "old version"])
async def test_the_catalogue_is_rebuilt(tmp_path, damage, caplog):
    async with FileStore.open(tmp_path) as store:
        names = [await keep(store, session(100, lost=3)) for _ in range(5)]
        before = {name: await store.ledger(name) for name in names}
    file = tmp_path / "catalogue.sqlite"
    if damage == "missing":
        file.unlink()
    elif damage == "garbage":
        file.write_bytes(b"this is no database" * 1000)
    else:
        with catalogue(tmp_path) as db:
            if damage == "late":
                db.execute("DELETE FROM sessions WHERE session = ?", (names[0],))
                db.execute("UPDATE sessions SET bytes = bytes + 1 WHERE session = ?", (names[1],))
            else:
                db.execute("PRAGMA user_version = 99")
        db.close()
    async with FileStore.open(tmp_path) as store:
        assert {name: await store.ledger(name) for name in names} == before
        assert len(await store.list()) == 5
        assert all(
            info.bytes == segment(tmp_path, info.session).stat().st_size
            for info in await store.list()
        )


async def test_only_what_is_new_is_read_again(tmp_path, caplog):
    """Damage where the catalogue has been before is not even looked at; the rest of the stream is entered."""
    frames = session(200, batch=10)
    name, half = name_of(frames), frames[20].end
    async with FileStore.open(tmp_path) as store:
        await store.append(name, 0, joined(frames)[:half])
    with segment(tmp_path, name).open("ab") as file:
        file.write(joined(frames)[half:])
    async with FileStore.open(tmp_path) as store:
        assert (await store.ledger(name))["closed"]
        assert (await store.info(name)).bytes == len(joined(frames))


@settings(max_examples=40)
@given(st.data())
async def test_a_torn_tail_is_cut_after_the_last_whole_frame(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("store")
    frames = session(60, batch=20)
    stream, name = joined(frames), name_of(frames)
    cut = data.draw(st.integers(0, len(stream)))
    known = data.draw(st.sampled_from([0, *(f.end for f in frames if f.end <= cut)]))
    async with FileStore.open(root) as store:
        if known:
            await store.append(name, 0, stream[:known])
    segment(root, name).parent.mkdir(exist_ok=True)
    segment(root, name).write_bytes(stream[:cut])
    whole = max([0, *(f.end for f in frames if f.end <= cut)])
    async with FileStore.open(root) as store:
        if not whole:
            assert await store.list() == []
            assert not segment(root, name).exists()
        else:
            assert segment(root, name).read_bytes() == stream[:whole]
            assert (await store.info(name)).bytes == whole
        result = await store.append(name, whole, stream[whole:])
        assert result.problem is None
        assert (await store.ledger(name))["closed"]


async def test_damage_in_the_middle_stays_where_it_is(tmp_path, caplog):
    frames = session(200, batch=10)
    name = name_of(frames)
    async with FileStore.open(tmp_path) as store:
        await keep(store, frames)
    (tmp_path / "catalogue.sqlite").unlink()
    data = bytearray(joined(frames))
    data[frames[9].end - 3] ^= 1
    segment(tmp_path, name).write_bytes(data)
    async with FileStore.open(tmp_path) as store:
        assert (await store.info(name)).bytes == len(data)
        assert not (await store.ledger(name))["closed"]
    assert segment(tmp_path, name).read_bytes() == data
    assert f"bytes {frames[9].offset} to {frames[9].end}" in caplog.text


async def test_foreign_directories_are_left_alone(tmp_path, caplog):
    (tmp_path / "sessions" / "notes").mkdir(parents=True)
    async with FileStore.open(tmp_path) as store:
        assert await store.list() == []
    assert (tmp_path / "sessions" / "notes").exists()


async def test_a_session_removed_by_hand_is_forgotten(tmp_path, caplog):
    async with FileStore.open(tmp_path) as store:
        name = await keep(store, session(10))
    segment(tmp_path, name).unlink()
    segment(tmp_path, name).parent.rmdir()
    async with FileStore.open(tmp_path) as store:
        assert await store.list() == []


async def test_two_stores_on_one_directory(tmp_path):
    async with FileStore.open(tmp_path):
        with pytest.raises(
            StoreError, match=rf"in use by another service \(process {os.getpid()}\)"
        ):
            async with FileStore.open(tmp_path):
                pass
    async with FileStore.open(tmp_path):
        pass


async def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be written.*choose another one"):
        async with FileStore.open(tmp_path / "file"):
            pass


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become somebody else for a while")
async def test_a_directory_of_somebody_else(tmp_path):
    os.seteuid(65534)
    try:
        with pytest.raises(StoreError, match=r"cannot be written \(Permission denied\)"):
            async with FileStore.open(tmp_path):
                pass
    finally:
        os.seteuid(0)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_nothing_stays_open(tmp_path):
    before = open_files()
    async with FileStore.open(tmp_path) as store:
        for _ in range(10):
            await keep(store, session(10))
    assert open_files() == before
    with (tmp_path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_idle_sessions_are_closed_and_found_again(tmp_path, mock_clock):
    frames = session(100, batch=10)
    name, half = name_of(frames), frames[9].end
    async with FileStore.open(tmp_path) as store:
        await store.append(name, 0, joined(frames)[:half])
        while store._sessions:
            await wait_all_tasks_blocked()
            mock_clock.jump(30)
        assert (await store.append(name, half, joined(frames)[half:])).problem is None
        assert (await store.ledger(name))["closed"]
