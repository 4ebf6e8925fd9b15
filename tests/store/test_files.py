import errno
import fcntl
import itertools
import os
import sqlite3
import threading
import uuid
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tests.streams import Maker, joined, session
from tracesvc.events import FrameKind
from tracesvc.format import Header
from tracesvc.format.frames import encode_frame
from tracesvc.store import (
    BadSessionNameError,
    BadStreamError,
    FileStore,
    OffsetError,
    StoreBrokenError,
    StoreError,
    StoreFullError,
    UnknownSessionError,
)
from tracesvc.store.disk import Disk


def name_of(frames):
    return Header.unpack(frames[0].body()).session


@pytest.fixture
async def store(tmp_path):
    async with FileStore.open(tmp_path) as opened:
        yield opened


async def keep(store, frames):
    """Append all of it; the session's name."""
    name = name_of(frames)
    result = await store.append(name, 0, joined(frames))
    assert (result.durable, result.rest, result.problem) == (len(joined(frames)), 0, None)
    return name


def segment(root, name):
    return Path(root) / "sessions" / name / "00000000000000000000.trace"


# --- appending -----------------------------------------------------------------------------------


async def test_the_segment_is_the_stream(store):
    frames = session(500, procs=3, lost=7)
    name = await keep(store, frames)
    assert segment(store.root, name).read_bytes() == joined(frames)
    assert await store.path(name) == segment(store.root, name)
    info = await store.info(name)
    assert info.source["name"] == "made"
    assert info.started == 1_700_000_000 * 10**9
    assert (info.bytes, info.frames, info.events) == (len(joined(frames)), len(frames), 1500)
    assert info.lost == {"queue_full": 21}
    assert info.state == "ended"
    ledger = await store.ledger(name)
    assert ledger["closed"]
    assert ledger["procs"]["1"] == {
        "name": "proc 1",
        "emitted": 507,
        "stored": 500,
        "lost": {"queue_full": 7},
    }


CUTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4000)), max_size=20)


@settings(max_examples=60)
@given(CUTS)
async def test_any_cuts_and_repetitions_give_the_same_stream(tmp_path_factory, cuts):
    """Each cut goes back by some frames from what is durable, and gives so many bytes from there."""
    frames = session(60, batch=20)
    stream, name = joined(frames), name_of(frames)
    ends = [0, *(frame.end for frame in frames)]
    durable = 0
    async with FileStore.open(tmp_path_factory.mktemp("store")) as store:
        for back, size in cuts:
            start = ends[max(0, ends.index(durable) - back)]
            end = min(len(stream), start + size)
            result = await store.append(name, start, stream[start:end])
            assert result.problem is None
            assert result.rest == end - max(e for e in ends if e <= end)
            assert result.durable == max(durable, end - result.rest)
            durable = result.durable
        result = await store.append(name, durable, stream[durable:])
        assert (result.durable, result.problem) == (len(stream), None)
        assert await store.read(name, 0, len(stream)) == stream
        assert (await store.ledger(name))["closed"]


@pytest.mark.parametrize("offset", [1, 10**6])
async def test_bytes_beyond_the_end_are_refused(store, offset):
    frames = session(10)
    result = await store.append(name_of(frames), offset, joined(frames))
    assert isinstance(result.problem, OffsetError)
    assert result.problem.durable == 0
    with pytest.raises(UnknownSessionError):
        await store.info(name_of(frames))


async def test_an_overlap_is_passed_over_at_frame_boundaries_only(store):
    frames = session(100, batch=10)
    stream, name = joined(frames), name_of(frames)
    end = frames[7].end
    assert (await store.append(name, 0, stream[:end])).durable == end
    for start in (frames[3].offset + 1, frames[3].offset + 30):
        result = await store.append(name, start, stream[start:])
        assert isinstance(result.problem, OffsetError)
    other = joined(session(100, batch=9))
    result = await store.append(name, 0, other)
    assert isinstance(result.problem, OffsetError)
    assert result.problem.durable == result.durable == end
    result = await store.append(name, frames[3].offset, stream[frames[3].offset :])
    assert (result.durable, result.problem) == (len(stream), None)
    assert await store.read(name, 0, 1 << 20) == stream


def damaged(frames, number, change):
    data = bytearray(joined(frames))
    frame = frames[number]
    change(data, frame)
    return bytes(data)


def flip(data, frame):
    data[frame.end - 1] ^= 1


def no_marker(data, frame):
    data[frame.offset] ^= 1


def too_large(data, frame):
    data[frame.offset + 19 : frame.offset + 23] = (600 << 10).to_bytes(4, "big")


@pytest.mark.parametrize(
    "change, code",
    [(flip, "wrong-checksum"), (no_marker, "bad-frame"), (too_large, "frame-too-large")],
)
async def test_the_good_frames_before_a_bad_one_are_kept(store, change, code):
    frames = session(100, batch=10)
    name = name_of(frames)
    result = await store.append(name, 0, damaged(frames, 9, change))
    assert isinstance(result.problem, BadStreamError)
    assert result.problem.code == code
    assert result.durable == frames[9].offset
    result = await store.append(name, result.durable, joined(frames)[result.durable :])
    assert result.problem is None
    assert (await store.ledger(name))["closed"]


def renumbered(frame, number):
    return encode_frame(FrameKind(frame.kind), number, frame.body())


@pytest.mark.parametrize(
    "make, code",
    [
        (lambda f: joined(f[1:]), "no-header"),
        (lambda f: joined([f[0], f[0]]), "no-header"),
        (lambda f: joined(f) + renumbered(f[-1], 999), "after-end"),
        (lambda f: joined(f[:5]) + f[3].data, "frame-order"),
        (lambda f: joined(f[:1]) + joined(session(10)[1:]), "wrong-session"),
        (lambda f: f[0].data + encode_frame(FrameKind.EVENTS, 5, [0, 0, 0]), "bad-frame"),
        (lambda f: f[0].data + encode_frame(FrameKind.LOSS, 5, [[0, 9, 3, 1, 0, 0]]), "bad-numbers"),
        (lambda f: f[0].data + encode_frame(FrameKind.PROCS, 5, [[0, 1, "", 0, -1, 0, True]]), "bad-numbers"),
    ],
    ids=lambda value, n=itertools.count(): str(next(n)),
)
async def test_what_cannot_be_a_session_is_refused(store, make, code):
    frames = session(50, batch=10)
    result = await store.append(name_of(frames), 0, make(frames))
    assert isinstance(result.problem, BadStreamError)
    assert result.problem.code == code


async def test_a_session_goes_under_its_own_name_only(store):
    frames = session(10)
    other = str(uuid.uuid4())
    result = await store.append(other, 0, joined(frames))
    assert isinstance(result.problem, BadStreamError)
    assert result.problem.code == "wrong-session"
    assert not segment(store.root, other).parent.exists()


async def test_a_session_has_a_bounded_number_of_procs(store, monkeypatch):
    monkeypatch.setattr("tracesvc.store.intake.MAX_PROCS", 5)
    frames = session(10, procs=6)
    result = await store.append(name_of(frames), 0, joined(frames))
    assert isinstance(result.problem, BadStreamError)
    assert result.problem.code == "too-many-procs"


async def test_frames_of_a_kind_not_known_yet_are_kept(store):
    made = Maker()
    start = made.start()
    data = start[0].data + encode_frame(42, 1, {"a": [1]})  # type: ignore[arg-type]
    result = await store.append(made.session, 0, data)
    assert (result.durable, result.problem) == (len(data), None)


@pytest.mark.parametrize(
    "name",
    ["", "..", "../../etc/passwd", "a" * 36, "%2e%2e", str(uuid.uuid4()).upper() + "x", "{" + str(uuid.uuid4())],
)
async def test_only_a_uuid_is_a_name(store, name):
    with pytest.raises(BadSessionNameError):
        await store.append(name, 0, b"")
    with pytest.raises(BadSessionNameError):
        await store.read(name, 0, 1)


# --- at once -------------------------------------------------------------------------------------


class GatedDisk(Disk):
    """Counts syncs, and holds them back until `gate` is set."""

    def __init__(self):
        self.gate = threading.Event()
        self.waiting = False
        self.syncs = 0

    def sync(self, fd):
        self.waiting = True
        self.gate.wait()
        self.syncs += 1
        super().sync(fd)


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
    got = {i: b"" for i in range(50)}

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


# --- when the disk fails -------------------------------------------------------------------------


class FailingDisk(Disk):
    """Fails at the nth write or sync; a write leaves half of it behind."""

    def __init__(self):
        self.room: int | None = None
        self.writes = 0
        self.sync_error = 0
        self.cut_error = 0

    def write(self, fd, data, offset):
        self.writes += 1
        if self.room is not None:
            if len(data) > self.room:
                super().write(fd, data[: self.room], offset)
                self.room = 0
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room -= len(data)
        super().write(fd, data, offset)

    def sync(self, fd):
        if self.sync_error:
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        super().sync(fd)

    def cut(self, fd, size):
        if self.cut_error:
            raise OSError(self.cut_error, os.strerror(self.cut_error))
        super().cut(fd, size)


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
        assert isinstance((await store.append(name_of(frames), 0, joined(frames))).problem, StoreFullError)
        with pytest.raises(UnknownSessionError):
            await store.info(name_of(frames))
    async with FileStore.open(tmp_path) as store:
        assert await store.list() == []


async def test_nothing_is_acknowledged_whose_sync_failed(tmp_path):
    disk = FailingDisk()
    frames = session(200, batch=10)
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
        await store.append(name, half, stream[half:])
        assert segment(tmp_path, name).read_bytes() == stream


async def test_what_could_not_be_cut_at_once_is_cut_before_the_next_write(tmp_path):
    disk = FailingDisk()
    frames = session(200, batch=10)
    name, stream = name_of(frames), joined(frames)
    half, more = frames[10].end, frames[11].end
    async with FileStore.open(tmp_path, disk) as store:
        await store.append(name, 0, stream[:half])
        disk.sync_error = disk.cut_error = errno.EIO
        await store.append(name, half, stream[half:])
        disk.sync_error = 0
        result = await store.append(name, half, stream[half:more])
        assert isinstance(result.problem, StoreBrokenError)
        disk.cut_error = 0
        await store.append(name, half, stream[half:more])
        assert segment(tmp_path, name).read_bytes() == stream[:more]


# --- the list ------------------------------------------------------------------------------------


async def test_listing_filters_and_pages(store, mock_clock):
    for i in range(7):
        frames = session(5, procs=1, name="odd" if i % 2 else "even", start_wall=10**18 + i)
        await keep(store, frames[:-1] if i == 3 else frames)
    everything = await store.list()
    assert [info.started - 10**18 for info in everything] == [6, 5, 4, 3, 2, 1, 0]
    assert [info.started - 10**18 for info in await store.list(source="odd")] == [5, 3, 1]
    assert [info.started - 10**18 for info in await store.list(state="live")] == [3]
    assert len(await store.list(state="ended")) == 6
    assert await store.list(state="broken") == []
    first = await store.list(limit=4)
    last = first[-1]
    rest = await store.list(limit=4, before=(last.started, last.session))
    assert [*first, *rest] == everything


async def test_a_session_that_stopped_without_an_end_is_broken_after_a_minute(store, monkeypatch):
    name = await keep(store, session(5)[:-1])
    assert (await store.info(name)).state == "live"
    now = (await store.info(name)).updated
    monkeypatch.setattr("tracesvc.store.files.time.time_ns", lambda: now + 61 * 10**9)
    assert (await store.info(name)).state == "broken"
    assert [info.session for info in await store.list(state="broken")] == [name]


# --- one start after another ---------------------------------------------------------------------


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
    names = []
    async with FileStore.open(tmp_path) as store:
        for _ in range(5):
            names.append(await keep(store, session(100, lost=3)))
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
        assert all(info.bytes == segment(tmp_path, info.session).stat().st_size for info in await store.list())


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
        with pytest.raises(StoreError, match=rf"in use by another service \(process {os.getpid()}\)"):
            async with FileStore.open(tmp_path):
                pass
    async with FileStore.open(tmp_path):
        pass


async def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written.*choose another one"):
        async with FileStore.open(tmp_path / "file"):
            pass


async def test_nothing_stays_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    async with FileStore.open(tmp_path) as store:
        for _ in range(10):
            await keep(store, session(10))
    assert len(os.listdir("/proc/self/fd")) == before
    with (tmp_path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_idle_sessions_are_closed_and_found_again(tmp_path, autojump_clock):
    frames = session(100, batch=10)
    name, half = name_of(frames), frames[9].end
    async with FileStore.open(tmp_path) as store:
        await store.append(name, 0, joined(frames)[:half])
        await trio.sleep(3600)
        assert store._segments == {}
        assert (await store.append(name, half, joined(frames)[half:])).problem is None
        assert (await store.ledger(name))["closed"]


async def test_leaving_waits_for_what_is_being_written(tmp_path):
    disk = GatedDisk()
    frames = session(10)
    results = []

    async def append(store):
        results.append(await store.append(name_of(frames), 0, joined(frames)))

    async with trio.open_nursery() as nursery:
        async with FileStore.open(tmp_path, disk) as store:
            nursery.start_soon(append, store)
            nursery.start_soon(append, store)
            while not disk.waiting:
                await wait_all_tasks_blocked()
            await wait_all_tasks_blocked()
            disk.gate.set()
    assert [result.problem for result in results] == [None, None]


async def test_ten_thousand_sessions_are_listed_quickly(tmp_path):
    root = tmp_path / "sessions"
    for i in range(10_000):
        made = Maker(start_wall=10**18 + i)
        directory = root / made.session
        directory.mkdir(parents=True)
        directory.joinpath("00000000000000000000.trace").write_bytes(joined(made.start()))
    async with FileStore.open(tmp_path) as store:
        started = trio.current_time()
        seen = list(await store.list(limit=1000))
        first = trio.current_time() - started
        for _ in itertools.repeat(None):
            page = await store.list(limit=1000, before=(seen[-1].started, seen[-1].session))
            if not page:
                break
            seen += page
        whole = trio.current_time() - started
        assert len({info.session for info in seen}) == 10_000
        print(f"10,000 sessions: first page {first * 1e3:.0f} ms, all {whole * 1e3:.0f} ms")
        assert first < 0.5
    async with FileStore.open(tmp_path) as store:  # nothing to read again
        assert len(await store.list(limit=10)) == 10
