"""What once went wrong in a store, or could have: each stays mended."""

import errno
import os
import sqlite3

import pytest
import trio
import trio.testing

from tests.store.helpers import keep, segment
from tests.streams import Maker, joined, name_of, session
from tracesvc.store import (
    FileStore,
    Keep,
    StoreBrokenError,
    UnknownSessionError,
    intake,
    segments,
)
from tracesvc.store.catalogue import Catalogue
from tracesvc.store.copies import Copies
from tracesvc.store.disk import Disk
from tracesvc.store.retention import superfluous


async def all_of(store, name):
    data, size = b"", (await store.info(name)).bytes
    while len(data) < size:
        part = await store.read(name, len(data), 1 << 18)
        assert part, "a reader that gets nothing waits for what never comes"
        data += part
    return data


async def test_a_damaged_header_costs_no_session_that_the_catalogue_does_not_know(tmp_path):
    frames = session(100)
    async with FileStore.open(tmp_path) as store:
        name = await keep(store, frames)
    path = segment(tmp_path, name)
    damaged = bytearray(path.read_bytes())
    damaged[30] ^= 1
    path.write_bytes(damaged)
    (tmp_path / "catalogue.sqlite").unlink()
    async with FileStore.open(tmp_path) as store:
        info = await store.info(name)
        assert (info.session, info.bytes, info.events) == (name, len(damaged), 200)
        assert [one.session for one in await store.list()] == [name]
        assert await all_of(store, name) == damaged


@pytest.mark.parametrize("lost", [0, 1])
async def test_a_segment_that_is_missing_costs_no_other_one_and_stops_no_reader(
    tmp_path, monkeypatch, lost
):
    monkeypatch.setattr(segments, "SEGMENT", 2_000)
    frames = session(2000, batch=20)
    async with FileStore.open(tmp_path) as store:
        name = await keep(store, frames)
    parts = sorted((tmp_path / "sessions" / name).glob("*.trace"))
    assert len(parts) > 3
    starts = [int(part.stem) for part in parts]
    parts[lost].unlink()
    (tmp_path / "catalogue.sqlite").unlink()
    whole = joined(frames)
    gap = slice(starts[lost], starts[lost + 1])
    expected = whole[: gap.start] + bytes(gap.stop - gap.start) + whole[gap.stop :]
    async with FileStore.open(tmp_path) as store:
        assert await all_of(store, name) == expected
        assert (await store.info(name)).state == "ended"
    assert len(list((tmp_path / "sessions" / name).iterdir())) == len(parts) - 1


async def test_what_lies_beside_a_torn_session_keeps_no_service_from_starting(tmp_path):
    async with FileStore.open(tmp_path) as store:
        name = await keep(store, session(10))
    (tmp_path / "sessions" / name / "notes.txt").write_text("mine")
    segment(tmp_path, name).write_bytes(b"")
    (tmp_path / "sessions" / "00000000-0000-4000-8000-000000000000").write_text("a file")
    async with FileStore.open(tmp_path) as store:
        assert await store.list() == []
        with pytest.raises(UnknownSessionError):
            await store.info(name)
    assert (tmp_path / "sessions" / name / "notes.txt").read_text() == "mine"


class Stubborn(Disk):
    """Removes nothing; a directory may refuse to be synced, too."""

    def __init__(self, sync_error=0):
        self.sync_error = sync_error

    def remove_tree(self, path):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def sync_directory(self, path):
        if self.sync_error and path.name == "sessions" and any(path.parent.glob("trash/*")):
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        super().sync_directory(path)


async def test_a_session_is_deleted_twice_though_the_trash_cannot_be_emptied(tmp_path):
    frames = session(10)
    async with FileStore.open(tmp_path, Stubborn()) as store:
        for _ in range(2):
            await store.delete(await keep(store, frames))
        assert await store.list() == []
    assert len(list((tmp_path / "trash").iterdir())) == 2


async def test_a_deletion_that_fails_halfway_leaves_nothing_to_append_to(tmp_path):
    frames = session(10)
    name = name_of(frames)
    async with FileStore.open(tmp_path, Stubborn(errno.EIO)) as store:
        await keep(store, frames)
        with pytest.raises(StoreBrokenError):
            await store.delete(name)
        with pytest.raises(UnknownSessionError):
            await store.info(name)
        gap = await store.append(name, len(joined(frames)), b"")
        assert gap.durable == 0, "what is in the trash is not what a client may go on from"


async def test_a_catalogue_that_cannot_forget_a_session_does_so_later(tmp_path, monkeypatch):
    frames = session(10)
    removed = Catalogue.remove

    def fail(self, sessions):
        raise sqlite3.OperationalError("disk I/O error")

    async with FileStore.open(tmp_path) as store:
        name = await keep(store, frames)
        await store.list()
        monkeypatch.setattr(Catalogue, "remove", fail)
        await store.delete(name)
        with pytest.raises(UnknownSessionError):
            await store.info(name)
        monkeypatch.setattr(Catalogue, "remove", removed)
        assert await store.list() == []
        assert await keep(store, frames) == name
        assert [one.session for one in await store.list()] == [name]


async def test_a_check_that_breaks_acknowledges_nothing(tmp_path, monkeypatch):
    made = Maker()
    first, second, third = joined(made.start()), joined(made.events(10)), joined(made.events(10))
    async with FileStore.open(tmp_path) as store:
        assert (await store.append(made.session, 0, first)).durable == len(first)
        monkeypatch.setattr("tracesvc.store.session.check", _breaks_after(1))
        results = {}

        async def append(number, offset, data):
            results[number] = await store.append(made.session, offset, data)

        stored = await store._take(made.session)
        stored.writing = True  # both wait, and are checked together
        async with trio.open_nursery() as nursery:
            nursery.start_soon(append, 1, len(first), second)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(append, 2, len(first) + len(second), third)
            await trio.testing.wait_all_tasks_blocked()
            await store._write(stored)
        store._give_back(stored)
        assert [results[n].durable for n in (1, 2)] == [len(first)] * 2
        assert all(isinstance(results[n].problem, StoreBrokenError) for n in (1, 2))


def _breaks_after(n):
    left = n

    def check(data, tail, *, light):
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("a bug")
        return intake.check(data, tail, light=light)

    return check


def test_of_what_is_too_much_the_oldest_goes_whatever_its_size(tmp_path):
    class Sizes:
        def sizes_by_source(self, now):
            rows = [("young", 6), ("older", 6), ("oldest", 3)]
            return [(name, "shop", 0, size, True) for name, size in rows]

    assert superfluous(Sizes(), Keep(source_bytes=10), 1) == ["older", "oldest"]


async def test_a_copy_of_what_was_deleted_is_no_copy_of_what_comes_after(tmp_path):
    content = b"first"

    async def read(session, offset, n):
        return content[offset : offset + n]

    copies = Copies(tmp_path / "copies", read)
    assert (await copies.path("one", 5)).read_bytes() == b"first"
    content = b"other"
    copies.forget("one")
    assert (await copies.path("one", 5)).read_bytes() == b"other"


async def test_locks_of_copies_that_made_room_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("tracesvc.store.copies.ROOM", 10)

    async def read(session, offset, n):
        return bytes(n)

    copies = Copies(tmp_path / "copies", read)
    for i in range(20):
        await copies.path(f"session {i}", 6)
    assert len(copies._locks) == len(copies._sizes) <= 2
