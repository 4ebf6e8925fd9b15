import base64
import json
import random
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.service.helpers import problem, running
from tests.streams import Maker, joined, name_of, session

SERVERS = pytest.mark.parametrize("server", ["anycorn", "hypercorn"])


@pytest.fixture
async def service(tmp_path):
    async with running(tmp_path) as up:
        yield up


class Reads:
    """A store that notes what is read of it."""

    def __init__(self, store):
        self._store = store
        self.bytes = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def read(self, *arguments):
        data = await self._store.read(*arguments)
        self.bytes += len(data)
        return data


def large(events=8000):
    """A session of some 16 MB."""
    made = Maker(text="x" * 2000)
    return [*made.start(), *made.events(events, number=20), *made.end()]


async def follow(service, name, start=0, follow="true"):
    got = b""
    path = f"/v1/sessions/{name}/frames?from={start}&follow={follow}"
    async with service.client.stream("GET", path) as answer:
        assert answer.status_code == 200
        async for part in answer.aiter_bytes():
            got += part
    return got


# --- raw frames ----------------------------------------------------------------------------------


async def test_what_is_durable_now(service):
    frames = session(500)
    stream, name = joined(frames), await service.keep(frames)
    for start in (0, 1, 777, len(stream) - 1, len(stream)):
        answer = await service.get(f"/v1/sessions/{name}/frames?from={start}")
        assert answer.content == stream[start:]
        assert answer.headers["content-type"] == "application/vnd.tracesvc"
        assert answer.headers["content-length"] == str(len(stream) - start)
        assert answer.headers["tracesvc-session"] == name
        assert answer.headers["tracesvc-offset"] == str(start)
        assert answer.headers["tracesvc-durable"] == str(len(stream))
        assert answer.headers["tracesvc-state"] == "ended"


async def test_the_head_of_it(service):
    name = await service.keep(session(500))
    answer = await service.client.head(f"/v1/sessions/{name}/frames?follow=true")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_an_offset_past_the_end(service):
    frames = session(50)
    size, name = len(joined(frames)), await service.keep(frames)
    for path in (
        f"frames?from={size + 1}",
        f"frames?from={size + 1}&follow=true",
        f"live?from={size + 1}",
    ):
        answer = await service.get(f"/v1/sessions/{name}/{path}")
        assert problem(answer, 416, "offset-past-end")["offset"] == size
        assert answer.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize("query", ["from=-1", "from=x", "follow=perhaps"])
async def test_bad_parameters(service, query):
    name = await service.keep(session(5))
    problem(await service.get(f"/v1/sessions/{name}/frames?{query}"), 400, "bad-parameter")


@SERVERS
async def test_a_follower_gets_what_comes_until_the_end(tmp_path, server, nursery):
    frames = session(300, batch=10)
    stream, name = joined(frames), name_of(frames)
    async with running(tmp_path, server=server) as service:
        await service.post(name, 0, frames[0].data)
        async with service.client.stream(
            "GET", f"/v1/sessions/{name}/frames?follow=true"
        ) as answer:
            parts = answer.aiter_bytes()
            got = await anext(parts)
            for frame in frames[1:]:
                await service.post(name, frame.offset, frame.data)
                while len(got) < frame.end:  # live: before the next one is posted
                    got += await anext(parts)
                assert got == stream[: frame.end]
            assert [part async for part in parts] == []
    assert got == stream


async def test_followers_from_anywhere_at_any_time_get_the_same(service, nursery):
    frames = session(200, batch=10)
    stream, name = joined(frames), name_of(frames)
    await service.post(name, 0, frames[0].data)
    chance = random.Random(7)
    got = {}

    async def one(i, start):
        got[i] = start, await follow(service, name, start)

    async with trio.open_nursery() as followers:
        for i, frame in enumerate(frames[1:]):
            followers.start_soon(one, i, chance.randrange(frame.offset + 1))
            await service.post(name, frame.offset, frame.data)
    assert len(got) == len(frames) - 1
    assert all(part == stream[start:] for start, part in got.values())


async def test_a_hundred_followers(service):
    frames = session(300, batch=30)
    stream, name = joined(frames), name_of(frames)
    await service.post(name, 0, frames[0].data)
    got = []

    async def one():
        got.append(await follow(service, name))

    async with trio.open_nursery() as followers:
        for _ in range(100):
            followers.start_soon(one)
        for frame in frames[1:]:
            await service.post(name, frame.offset, frame.data)
    assert got == [stream] * 100


@SERVERS
async def test_a_follower_that_reads_nothing_costs_little_and_delays_nobody(tmp_path, server):
    frames = large()
    stream, name = joined(frames), name_of(frames)
    counting = []

    def make(store):
        counting.append(Reads(store))
        return counting[0]

    async with running(tmp_path, server=server, store=make) as service:
        await service.keep(frames)
        stalled = await service.raw(
            b"GET /v1/sessions/%b/frames?follow=true HTTP/1.1\r\nhost: x\r\n\r\n" % name.encode()
        )
        async with stalled:
            await stalled.receive_some(1000)
            await wait_all_tasks_blocked(0.05)
            assert counting[0].bytes < len(stream) / 2
            assert await follow(service, name) == stream
            assert len(await service.keep(session(100))) == 36


@SERVERS
async def test_a_follower_that_leaves_leaves_nothing_behind(tmp_path, server):
    frames = session(300, batch=10)
    async with running(tmp_path, server=server) as service:
        name = await service.keep(frames[:20])
        await wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        for path in (b"frames?follow=true", b"live"):
            connection = await service.raw(
                b"GET /v1/sessions/%b/%b HTTP/1.1\r\nhost: x\r\n\r\n" % (name.encode(), path)
            )
            await connection.receive_some()
            assert trio.lowlevel.current_statistics().tasks_living > before
            await connection.aclose()
        while trio.lowlevel.current_statistics().tasks_living > before:
            await wait_all_tasks_blocked()


@SERVERS
async def test_a_stop_ends_streams_in_good_order(tmp_path, server):
    frames = session(300, batch=10)
    async with running(tmp_path, server=server) as service:
        name = await service.keep(frames[:20])
        got = []

        async def one(path):
            async with service.client.stream("GET", f"/v1/sessions/{name}/{path}") as answer:
                parts = answer.aiter_bytes()
                got.append(await anext(parts))
                service.stopping.set()
                got.extend([part async for part in parts])

        await one("frames?follow=true")
        await service.stopped.wait()
    assert b"".join(got) == joined(frames[:20])


# --- server-sent events --------------------------------------------------------------------------


@asynccontextmanager
async def listening(service, path, header=""):
    """Gives the events of a stream, each as (id, event, data), comments as (None, None, text), and None at the end."""
    async with await service.raw(f"GET {path} HTTP/1.0\r\n{header}\r\n".encode()) as stream:
        buffer = b""

        async def block(end):
            """What comes before ``end``; None where the stream is over."""
            nonlocal buffer
            while end not in buffer:
                part = await stream.receive_some()
                if not part:
                    return None
                buffer += part
            found, _, buffer = buffer.partition(end)
            return found.decode()

        head = await block(b"\r\n\r\n")
        assert head.startswith("HTTP/1.1 200")
        assert "content-type: text/event-stream" in head

        async def next_event():
            while (text := await block(b"\n\n")) is not None:
                if text.startswith(":"):
                    return None, None, text
                fields = dict(line.split(": ", 1) for line in text.splitlines())
                if "event" in fields:
                    return int(fields["id"]), fields["event"], fields["data"]
            return None

        yield next_event


async def test_frames_as_events_and_on_from_the_last_id(service):
    frames = large(400)
    stream, name = joined(frames), await service.keep(frames)
    got, seen = b"", 0
    header = ""
    while True:
        async with listening(service, f"/v1/sessions/{name}/live", header) as next_event:
            number, event, data = await next_event()
        if event == "end":
            break
        assert event == "frames"
        got += base64.b64decode(data)
        assert number == len(got)
        assert number in {frame.end for frame in frames}
        header = f"Last-Event-ID: {number}\r\n"
        seen += 1
    assert (number, got) == (len(stream), stream)
    assert seen > 1


async def test_events_come_live_and_then_the_end(service):
    frames = session(100, batch=10)
    name, got = name_of(frames), b""
    await service.post(name, 0, frames[0].data)
    async with listening(service, f"/v1/sessions/{name}/live") as next_event:
        for frame in frames[1:]:
            _, event, data = await next_event()
            assert event == "frames"
            got += base64.b64decode(data)
            await service.post(name, frame.offset, frame.data)
        while (found := await next_event()) is not None:
            number, event, data = found
            if event == "frames":
                got += base64.b64decode(data)
    assert (event, number, data) == ("end", len(got), json.dumps({"offset": len(got)}))
    assert got == joined(frames)


async def test_a_frame_larger_than_a_chunk(service):
    frames = large(400)
    assert max(len(frame.data) for frame in frames) > 256 << 10
    name, got = await service.keep(frames), b""
    async with listening(service, f"/v1/sessions/{name}/live") as next_event:
        while (found := await next_event()) is not None:
            if found[1] == "frames":
                got += base64.b64decode(found[2])
    assert got == joined(frames)


async def test_events_begin_where_a_frame_begins(service):
    frames = session(100, batch=10)
    name = await service.keep(frames)
    answer = await service.get(f"/v1/sessions/{name}/live?from={frames[3].offset + 1}")
    problem(answer, 416, "not-a-frame")
    answer = await service.get(f"/v1/sessions/{name}/live?from={frames[3].offset}")
    assert answer.text.count("event: frames") == 1


async def test_a_quiet_stream_says_that_it_is_there(tmp_path):
    async with running(tmp_path, heartbeat=0.01) as service:
        frames = session(10)
        name = await service.keep(frames[:3])
        async with listening(service, f"/v1/sessions/{name}/live") as next_event:
            assert (await next_event())[1] == "frames"
            assert await next_event() == (None, None, ": still here")
            assert await next_event() == (None, None, ": still here")
