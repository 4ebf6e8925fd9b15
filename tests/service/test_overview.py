"""The first picture of a session, kept beside it: it is what the index says, and may be damaged."""

import random

import msgpack
import pytest
import trio

from tests.service.helpers import running
from tests.traces import program
from tracesvc.analysis.timeline import Index
from tracesvc.analysis.timeline.outline import outline
from tracesvc.analysis.timeline.window import all_rows, window
from tracesvc.service import timeline
from tracesvc.service.overview import FILE, HEAD, Overview, OverviewError, main, make
from tracesvc.service.overviews import Overviews


def indexed(data):
    index = Index()
    index.feed(data)
    index.settle()
    return index


@pytest.fixture(scope="module")
def stream():
    return program(7, events=1500)


@pytest.fixture
def kept(stream, tmp_path):
    index = indexed(stream.data)
    path = tmp_path / FILE
    make(index, path)
    return index, path


def test_it_is_what_the_index_says(kept, stream, tmp_path):
    index, path = kept
    assert [one.name for one in tmp_path.iterdir()] == [FILE]
    overview = Overview(path, len(stream.data))
    assert overview.outline == msgpack.unpackb(msgpack.packb(outline(index)))
    rows = list(all_rows(index))
    found = overview.window([*rows, "t999999", "nonsense"])
    whole = window(index, index.began, index.ended, found["width"], rows)
    assert found == msgpack.unpackb(msgpack.packb(whole))
    assert overview.first_rows() == rows[:200]


def test_of_another_length_or_version_it_is_none(kept, stream):
    _, path = kept
    with pytest.raises(OverviewError, match="changed"):
        Overview(path, len(stream.data) + 1)
    path.write_bytes(path.read_bytes().replace(HEAD, HEAD.replace(b"version 1", b"version 2")))
    with pytest.raises(OverviewError, match="version"):
        Overview(path, len(stream.data))
    path.unlink()
    with pytest.raises(OverviewError):
        Overview(path, len(stream.data))


def test_damage_is_noticed_wherever_it_is(kept, stream):
    index, path = kept
    good, dice, rows = path.read_bytes(), random.Random(1), list(all_rows(index))
    wanted = Overview(path, len(stream.data)).window(rows)
    places = [dice.randrange(len(HEAD), len(good)) for _ in range(150)]
    for at, cut in [(at, False) for at in places] + [(at, True) for at in places[:50]]:
        path.write_bytes(good[:at] if cut else good[:at] + bytes([good[at] ^ 16]) + good[at + 1 :])
        try:
            found = Overview(path, len(stream.data)).window(rows)
        except OverviewError:
            continue
        assert found == wanted  # a bit that says nothing


def answered(answer):
    assert answer.status_code == 200, answer.text
    return msgpack.unpackb(answer.content)


async def test_it_answers_until_the_session_is_indexed(stream, tmp_path):
    async with running(tmp_path, overview_events=1) as service:
        await service.post(stream.session, 0, stream.data)
        directory = await service.store.beside(stream.session)
        await trio.to_thread.run_sync(main, [str(directory), str(len(stream.data))])
        at, index = f"/v1/sessions/{stream.session}", indexed(stream.data)
        rough = answered(await service.get(f"{at}/outline?rough=true"))
        assert (rough["rough"], rough["indexed"]) == (True, 0)
        part = answered(await service.get(f"{at}/timeline?rough=true&rows=t1&start=5&end=6"))
        assert part["rough"]
        assert (part["start"], part["end"]) == (0, index.ended - index.began)
        exact = answered(await service.get(f"{at}/outline"))
        assert "rough" not in exact
        again = answered(await service.get(f"{at}/outline?rough=true"))
        assert (again["rough"], again["indexed"]) == (False, 1)
        assert {k: v for k, v in rough.items() if k not in ("rough", "indexed")} == exact


async def test_damage_leads_to_the_index(stream, tmp_path):
    async with running(tmp_path, overview_events=1) as service:
        await service.post(stream.session, 0, stream.data)
        path = await service.store.beside(stream.session) / FILE
        make(indexed(stream.data), path)
        good = path.read_bytes()
        path.write_bytes(good[:-400] + bytes(400))
        rows = ",".join(list(all_rows(indexed(stream.data)))[-10:])
        answer = await service.get(f"/v1/sessions/{stream.session}/timeline?rough=true&rows={rows}")
        found = answered(answer)
        assert (found["rough"], found["indexed"]) == (False, 1)
        assert not path.exists()


async def test_without_one_there_is_what_is_indexed_by_now(stream, tmp_path, monkeypatch):
    for name in ("PATIENCE", "HASTE", "LONGEST"):
        monkeypatch.setattr(timeline, name, 1e-9)
    monkeypatch.setattr(timeline, "PIECE", 4000)
    monkeypatch.setattr(timeline, "FRESH", 0)
    async with running(tmp_path) as service:
        await service.post(stream.session, 0, stream.data)
        at, seen = f"/v1/sessions/{stream.session}", []
        while not seen or seen[-1]["indexed"] < 1:
            seen.append(answered(await service.get(f"{at}/outline?rough=true")))
            part = answered(await service.get(f"{at}/timeline?rough=true&rows=t1,r1"))
            assert part["indexed"] == seen[-1]["indexed"]  # who looks at it does not wait for more
            assert part["ended"] == seen[-1]["ended"]
        assert len(seen) > 3
        events = [one["events"] for one in seen]
        assert events == sorted(events)
        whole = outline(indexed(stream.data))
        for column in ("task", "begin", "end", "flags"):
            assert seen[-1]["tasks"][column] == whole["tasks"][column]
        assert events[-1] == whole["events"]


async def test_they_are_made_of_large_sessions_that_are_over(tmp_path):
    large, small = program(8, events=900), program(9, events=200)
    async with running(tmp_path) as service:
        made = Overviews(service.store, 500)
        for stream in (large, small):
            await service.post(stream.session, 0, stream.data)
            made.heard(stream.session)
        growing = program(10, events=900)
        await service.post(growing.session, 0, growing.data[: len(growing.data) // 2])
        made.heard(growing.session)
        await made.look()
        assert await made.get(await service.store.info(large.session)) is not None
        for stream in (small, growing):
            assert not (await service.store.beside(stream.session) / FILE).exists()
        path = await service.store.beside(large.session) / FILE
        assert path.stat().st_mode & 0o007 == 0
        await service.store.delete(large.session)
        assert not path.exists()


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(SystemExit):
        main([str(tmp_path / "none"), "5"])
    (tmp_path / "00000000000000000000.trace").write_bytes(b"no trace at all" * 10)
    with pytest.raises(SystemExit):
        main([str(tmp_path), "150"])
    (tmp_path / "00000000000000000000.trace").write_bytes(program(1, events=50).data)
    with pytest.raises(SystemExit, match="shorter"):
        main([str(tmp_path), "500000"])
    assert not (tmp_path / FILE).exists()
