import uuid

import pytest
import trio

from tests.store.helpers import keep
from tests.streams import session
from tracesvc.format import Header, SessionWriter
from tracesvc.store import FileStore


@pytest.fixture
async def store(tmp_path):
    async with FileStore.open(tmp_path) as opened:
        yield opened


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


async def test_ten_thousand_sessions_are_listed_quickly(tmp_path):
    root = tmp_path / "sessions"
    root.mkdir()
    for i in range(10_000):
        name = str(uuid.uuid4())
        header = SessionWriter().header(Header(name, {"name": "made"}, 0, 10**18 + i, events=[]))
        (root / name).mkdir()
        (root / name / "00000000000000000000.trace").write_bytes(header.data)
    async with FileStore.open(tmp_path) as store:
        started = trio.current_time()
        seen = list(await store.list(limit=1000))
        first = trio.current_time() - started
        while page := await store.list(limit=1000, before=(seen[-1].started, seen[-1].session)):
            seen += page
        whole = trio.current_time() - started
        assert len({info.session for info in seen}) == 10_000
        print(f"10,000 sessions: first page {first * 1e3:.0f} ms, all {whole * 1e3:.0f} ms")
        assert first < 0.5
    async with FileStore.open(tmp_path) as store:  # nothing to read again
        assert len(await store.list(limit=10)) == 10
