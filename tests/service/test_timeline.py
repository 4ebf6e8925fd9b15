"""Pictures of a session over HTTP, and the files of the page."""

import base64
import json

import msgpack
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.service.helpers import problem, running
from tests.streams import joined, session
from tests.traces import program
from tracesvc.analysis.timeline import Index
from tracesvc.analysis.timeline.window import window
from tracesvc.format import StreamDecoder, compress
from tracesvc.service import timeline
from tracesvc.service.overviews import Overviews
from tracesvc.store import FileStore


@pytest.fixture
async def service(tmp_path):
    async with running(tmp_path) as up:
        yield up


def answered(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/msgpack"
    return msgpack.unpackb(answer.content)


def indexed(data):
    index = Index()
    index.feed(data)
    index.settle()
    return index


async def test_a_window_is_what_the_index_says(service):
    stream = program(3, events=800)
    await service.post(stream.session, 0, stream.data)
    at = f"/v1/sessions/{stream.session}"
    index = indexed(stream.data)
    rows = answered(await service.get(f"{at}/outline"))
    assert (rows["session"], int(rows["began"])) == (stream.session, index.began)
    whole = answered(await service.get(f"{at}/timeline"))
    assert whole["rows"]
    start, end = index.began + 1000, index.began + index.ended >> 1
    asked = {"start": start, "end": end, "width": 300, "rows": "t1,t2,r1,gc,nonsense,t9999999"}
    part = answered(await service.get(f"{at}/timeline", params=asked))
    assert part == window(index, start, end, 300, asked["rows"].split(","))
    everyone = answered(await service.get(f"{at}/instant", params={"at": end}))
    task = everyone["task"][0]
    one = answered(await service.get(f"{at}/phase", params={"task": task, "time": end}))
    assert one["code"] == everyone["code"][0]
    summed = answered(await service.get(f"{at}/sums", params={"start": start, "end": end}))
    assert summed["running"] > 0


async def test_a_session_that_grows_is_indexed_as_it_grows(service):
    stream = program(5, events=1200, generations=6)
    half = stream.frames[len(stream.frames) // 2].offset or len(
        b"".join(f.data for f in stream.frames[: len(stream.frames) // 2])
    )
    at = f"/v1/sessions/{stream.session}"
    await service.post(stream.session, 0, stream.data[:half])
    before = answered(await service.get(f"{at}/outline"))
    await service.post(stream.session, half, stream.data[half:])
    after = answered(await service.get(f"{at}/outline"))
    assert 0 < before["events"] < after["events"] == len(stream.events)
    assert not before["closed"]
    assert after["closed"]
    index = indexed(stream.data)
    made = answered(await service.get(f"{at}/timeline", params={"rows": "t1"}))
    assert made["rows"] == window(index, index.began, index.ended, 1024, ["t1"])["rows"]


async def test_who_asks_while_a_session_is_indexed_is_told_how_far_it_is(service, monkeypatch):
    monkeypatch.setattr(timeline, "PATIENCE", 0.0)
    monkeypatch.setattr(timeline, "PIECE", 5000)
    stream = program(5, events=1200)
    await service.post(stream.session, 0, stream.data)
    seen = []
    while (
        answer := await service.get(f"/v1/sessions/{stream.session}/outline")
    ).status_code == 202:
        seen.append(answer.json()["indexed"])
    assert seen == sorted(set(seen))
    assert 0 < seen[0] < seen[-1] < 1
    assert answered(answer)["events"] == len(stream.events)


async def test_indexes_are_let_go_of_when_they_are_too_many(service):
    indexes = timeline.Indexes(Overviews(service.store, 0), held=1)
    for seed in (1, 2):
        stream = program(seed, events=300)
        await service.post(stream.session, 0, stream.data)
        answer, done = await indexes.ask(service.store, stream.session, lambda index: index.events)
        assert (answer, done) == (len(stream.events), 1.0)
    assert list(indexes._kept) == [stream.session]


async def test_an_index_that_nobody_asks_for_is_let_go_of(tmp_path, mock_clock, nursery):
    stream = program(1, events=300)
    async with FileStore.open(tmp_path) as store:
        indexes = timeline.Indexes(Overviews(store, 0))
        await store.append(stream.session, 0, stream.data)
        nursery.start_soon(indexes.let_go)
        await indexes.ask(store, stream.session, lambda index: index.events)
        for _ in range(int(timeline.IDLE / timeline.LOOK)):
            assert list(indexes._kept) == [stream.session]
            await wait_all_tasks_blocked()
            mock_clock.jump(timeline.LOOK)
        while indexes._kept:
            await wait_all_tasks_blocked()
            mock_clock.jump(timeline.LOOK)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "query, code",
    [
        ("timeline?width=0", "bad-parameter"),
        ("timeline?width=9000", "bad-parameter"),
        ("timeline?rows=" + ",".join(f"t{i}" for i in range(600)), "bad-parameter"),
        ("timeline?start=-1", "bad-parameter"),
        ("sums?tasks=1,x", "bad-parameter"),
        ("piece?kind=thing&id=1", "bad-parameter"),
        ("search?text=", "bad-parameter"),
        ("search?text=" + "x" * 201, "bad-parameter"),
    ],
    ids=range(8),
)
async def test_bad_parameters(service, query, code):
    stream = program(1, events=200)
    await service.post(stream.session, 0, stream.data)
    problem(await service.get(f"/v1/sessions/{stream.session}/{query}"), 400, code)


@pytest.mark.parametrize("query", ["phase?task=999999999&time=5", "piece?id=999999999"])
async def test_what_is_not_there(service, query):
    stream = program(1, events=200)
    await service.post(stream.session, 0, stream.data)
    problem(await service.get(f"/v1/sessions/{stream.session}/{query}"), 404, "nothing-there")


async def test_the_live_stream_without_compression(service):
    stream = program(2, events=600)
    packed = [compress(frame.data) for frame in stream.frames]
    assert len(b"".join(packed)) < len(stream.data)
    await service.post(stream.session, 0, b"".join(packed))
    taken, ids = b"", []
    with trio.fail_after(10):
        async with service.client.stream(
            "GET", f"/v1/sessions/{stream.session}/live?plain=true"
        ) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    ids.append(int(line[4:]))
                elif line.startswith("data: ") and not line.startswith("data: {"):
                    taken += base64.b64decode(line[6:])
    assert taken == stream.data
    assert ids[-1] == len(b"".join(packed))
    decoder = StreamDecoder()
    decoder.feed(taken)
    assert not any(item.frame.compressed for item in decoder)


async def test_files_of_the_page(service):
    answer = await service.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    script = await service.get("/app.js")
    assert script.headers["content-type"].startswith("text/javascript")
    again = await service.get("/app.js", headers={"if-none-match": script.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for name in ("nothing.js", "..%2fevents.py", ".hidden", "%00"):
        problem(await service.get(f"/{name}"), 404, "not-found")


async def test_the_list_still_answers(service):
    frames = session(5, procs=1)
    name = await service.keep(frames)
    found = json.loads((await service.get("/v1/sessions")).content)["sessions"]
    assert [(each["session"], each["bytes"]) for each in found] == [(name, len(joined(frames)))]
