"""Sessions in several files."""

import pytest

import tracesvc
from tests.store.helpers import FailingDisk, keep, segment
from tests.streams import Maker, joined, name_of, session
from tracesvc.model.source import open_trace, trace_size
from tracesvc.model.verify import verify
from tracesvc.store import FileStore

LIMIT = 5000


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr("tracesvc.store.segments.SEGMENT", LIMIT)


def frames_of_many_generations():
    frames = session(2000, batch=10, lost=3)
    assert len(joined(frames)) > 10 * LIMIT
    return frames


def files(root, name):
    return sorted((root / "sessions" / name).iterdir())


@pytest.mark.parametrize("piece", [700, 3000, 20_000, 1 << 20])
async def test_a_long_session_is_cut_where_generations_begin(tmp_path, piece):
    frames = frames_of_many_generations()
    name, stream = name_of(frames), joined(frames)
    async with FileStore.open(tmp_path) as store:
        at = 0
        while at < len(stream):
            result = await store.append(name, at, stream[at : at + max(piece, 1)])
            assert result.problem is None
            if result.durable == at:  # not one whole frame
                piece *= 2
            at = result.durable
        parts = files(tmp_path, name)
        assert len(parts) > 5
        assert b"".join(part.read_bytes() for part in parts) == stream
        where = 0
        for part in parts:
            assert int(part.stem) == where
            where += part.stat().st_size
            with tracesvc.read(part) as trace:
                assert sum(1 for _ in trace) > 0
                assert not trace.damage
                assert trace.session.id == name
        got = b""
        while data := await store.read(name, len(got), 1777):
            got += data
        assert got == stream
        path = await store.path(name)
    with tracesvc.read(path) as trace:
        assert sum(1 for _ in trace) == 4000
        trace.rewind()
        assert sum(1 for _ in trace) == 4000
    assert verify(path).ok
    async with FileStore.open(tmp_path) as store:  # and when it is found again
        assert (await store.info(name)).bytes == len(stream)
        result = await store.append(name, 0, stream)  # the same again: passed over
        assert (result.durable, result.problem) == (len(stream), None)


async def test_the_catalogue_is_rebuilt_from_many_segments(tmp_path):
    frames = frames_of_many_generations()
    name, stream = name_of(frames), joined(frames)
    async with FileStore.open(tmp_path) as store:
        await store.append(name, 0, stream[:-9])
        before = await store.ledger(name)
    (tmp_path / "catalogue.sqlite").unlink()
    with files(tmp_path, name)[-1].open("ab") as file:
        file.write(stream[-30:-9])  # torn
    async with FileStore.open(tmp_path) as store:
        assert await store.ledger(name) == before
        durable = (await store.info(name)).bytes
        assert (await store.append(name, durable, stream[durable:])).problem is None
        assert (await store.ledger(name))["closed"]
    assert b"".join(part.read_bytes() for part in files(tmp_path, name)) == stream


async def test_a_last_segment_with_nothing_whole_in_it_goes(tmp_path):
    frames = frames_of_many_generations()
    name, stream = name_of(frames), joined(frames)
    async with FileStore.open(tmp_path) as store:
        await store.append(name, 0, stream)
    last = files(tmp_path, name)[-1]
    start = int(last.stem)
    last.write_bytes(last.read_bytes()[:20])
    async with FileStore.open(tmp_path) as store:
        assert (await store.info(name)).bytes == start
        assert not last.exists()
        assert (await store.append(name, start, stream[start:])).problem is None
    assert b"".join(part.read_bytes() for part in files(tmp_path, name)) == stream


async def test_a_segment_that_is_missing_is_a_hole_and_no_more(tmp_path, caplog):
    frames = frames_of_many_generations()
    name, stream = name_of(frames), joined(frames)
    async with FileStore.open(tmp_path) as store:
        await store.append(name, 0, stream)
    (tmp_path / "catalogue.sqlite").unlink()
    files(tmp_path, name)[2].unlink()
    async with FileStore.open(tmp_path) as store:
        info = await store.info(name)
        assert (info.bytes, info.state) == (len(stream), "ended")
        assert not (await store.ledger(name))["closed"]
        path = await store.path(name)
    report = verify(path)
    assert not report.ok


async def test_a_failure_in_the_second_file_takes_the_whole_round_back(tmp_path):
    frames = frames_of_many_generations()
    name, stream = name_of(frames), joined(frames)
    disk = FailingDisk()
    async with FileStore.open(tmp_path, disk) as store:
        await store.append(name, 0, stream[: frames[5].end])
        disk.room = 3 * LIMIT
        result = await store.append(name, frames[5].end, stream[frames[5].end :])
        assert result.problem is not None
        assert result.durable == frames[5].end
        assert [part.stat().st_size for part in files(tmp_path, name)] == [frames[5].end]
        disk.room = None
        assert (await store.append(name, frames[5].end, stream[frames[5].end :])).problem is None
    assert b"".join(part.read_bytes() for part in files(tmp_path, name)) == stream


async def test_a_short_session_is_one_file(tmp_path):
    made = Maker()
    frames = [*made.start(), *made.events(10), *made.end()]
    async with FileStore.open(tmp_path) as store:
        await store.append(made.session, 0, joined(frames))
        assert await store.path(made.session) == segment(tmp_path, made.session)


async def test_segments_are_sought_in_like_a_file(tmp_path):
    frames = frames_of_many_generations()
    stream = joined(frames)
    async with FileStore.open(tmp_path) as store:
        name = await keep(store, frames)
    with open_trace(tmp_path / "sessions" / name) as file:
        for position in (0, 1, LIMIT - 1, 3 * LIMIT + 17, len(stream) - 1, len(stream), 5):
            assert file.seek(position) == position
            got = b""
            while data := file.read(999):
                got += data
            assert got == stream[position:]
    assert trace_size(tmp_path / "sessions" / name) == len(stream)


def test_a_directory_without_segments_is_no_trace(tmp_path):
    with pytest.raises(FileNotFoundError, match="no trace"):
        tracesvc.read(tmp_path)


async def test_a_directory_is_read_while_it_grows(tmp_path):
    frames = frames_of_many_generations()
    name, stream = name_of(frames), joined(frames)
    half = frames[len(frames) // 2].end
    async with FileStore.open(tmp_path) as store:
        await store.append(name, 0, stream[:half])
        with tracesvc.read(tmp_path / "sessions" / name) as trace:
            first = sum(1 for _ in trace)
            await store.append(name, half, stream[half:])
            assert 0 < first < 4000
            assert first + sum(1 for _ in trace) == 4000
