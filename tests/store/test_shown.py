"""Files as a store that takes nothing."""

import pytest
import trio
import trio.testing

from tests.traces import program
from tracesvc.format import FormatError
from tracesvc.store import NoTablesError, StoreError, UnknownSessionError
from tracesvc.store.shown import ShownFiles


async def test_files_are_sessions(tmp_path):
    streams = [program(seed, events=300) for seed in (1, 2)]
    paths = []
    for i, stream in enumerate(streams):
        paths.append(tmp_path / f"{i}.trace")
        paths[-1].write_bytes(stream.data)
    store = ShownFiles(paths)
    infos = await store.list()
    assert {info.session for info in infos} == {stream.session for stream in streams}
    assert await store.list(limit=1) == infos[:1]
    assert await store.list(before=(infos[0].started, infos[0].session)) == infos[1:]
    assert await store.list(state="live") == []
    for stream in streams:
        info = await store.info(stream.session)
        assert (info.bytes, info.events) == (len(stream.data), len(stream.events))
        assert (await store.ledger(stream.session))["closed"]
        assert await store.read(stream.session, 10, 50) == stream.data[10:60]
        assert await store.wait_durable(stream.session, len(stream.data)) == len(stream.data)
    with pytest.raises(UnknownSessionError):
        await store.info("123e4567-e89b-42d3-a456-426614174000")
    with pytest.raises(StoreError):
        await store.append(streams[0].session, 0, b"")
    with pytest.raises(StoreError):
        await store.delete(streams[0].session)


async def test_a_file_that_grows_is_waited_for(tmp_path):
    stream = program(1, events=300)
    path = tmp_path / "a.trace"
    cut = len(stream.data) // 2
    path.write_bytes(stream.data[:cut])
    store = ShownFiles([path])
    durable = (await store.info(stream.session)).bytes
    assert 0 < durable <= cut  # whole frames
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:

            async def wait():
                assert await store.wait_durable(stream.session, durable) == len(stream.data)

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            path.write_bytes(stream.data)
    assert (await store.info(stream.session)).state == "ended"


async def test_a_damaged_file_is_shown_as_far_as_it_can_be_read(tmp_path):
    stream = program(1, events=600)
    data = bytearray(stream.data)
    data[len(data) // 2 : len(data) // 2 + 30] = bytes(30)
    path = tmp_path / "a.trace"
    path.write_bytes(data)
    store = ShownFiles([path])
    info = await store.info(stream.session)
    assert info.bytes == len(data)
    assert 0 < info.events < len(stream.events)


async def test_what_is_no_trace_is_refused(tmp_path):
    path = tmp_path / "a.trace"
    path.write_bytes(b"nothing of the kind " * 100)
    with pytest.raises(FormatError):
        ShownFiles([path])


async def test_two_files_of_one_session_are_both_shown_and_one_that_goes_is_unknown(tmp_path):
    stream = program(1, events=300)
    paths = [tmp_path / "whole.trace", tmp_path / "beginning.trace"]
    paths[0].write_bytes(stream.data)
    paths[1].write_bytes(stream.data[: len(stream.data) // 2])
    store = ShownFiles(paths)
    whole, beginning = store.sessions
    assert whole == stream.session != beginning
    assert (await store.info(whole)).bytes == len(stream.data)
    assert (await store.info(beginning)).bytes < len(stream.data)
    assert await store.list(since=1 << 62) == []
    with pytest.raises(NoTablesError):
        await store.table(whole, "events")
    paths[1].unlink()
    with pytest.raises(UnknownSessionError):
        await store.info(beginning)
