"""How much one source may bring: rates, sizes, numbers; refusals that say when to come back; losses by ``quota``."""

import pytest
import trio

from tests.service.helpers import TRACE, problem, running
from tests.sinks.test_push import account
from tests.streams import Maker, joined, name_of, session
from tracesvc.events import LossCause
from tracesvc.service.config import Config
from tracesvc.service.limits import BURST, Bucket, Limits
from tracesvc.service.problems import ProblemError
from tracesvc.sinks import FrameQueue, PushSink, SinkError


async def push(service, frames, offset=0):
    return await service.post(name_of(frames), offset, joined(frames)[offset:], **TRACE)


def test_a_bucket_gives_its_rate_and_no_more():
    bucket = Bucket(10.0, 20.0, 0.0)
    taken = [t for t in range(1000) if not bucket.take(1, t / 50)]  # asked for 50 a second
    assert len(taken) == pytest.approx(20 + 10 * 20, abs=2)
    late = Bucket(10.0, 20.0, 0.0)
    assert not late.take(100, 0)  # one piece may be larger than what is there
    wait = late.take(1, 0)
    assert wait > 8
    assert not late.take(1, wait + 0.001)


def test_a_source_does_not_use_up_what_is_anothers(tmp_path):
    now = 0.0
    limits = Limits(Config(tmp_path, source_posts=1), lambda: now)
    for _ in range(int(BURST)):
        limits.admit_post("shop")
    with pytest.raises(ProblemError, match="'shop' posts too often"):
        limits.admit_post("shop")
    limits.admit_post("bank")
    now = 2.0
    limits.admit_post("shop")


async def test_too_many_posts_are_told_to_wait(tmp_path):
    async with running(tmp_path, source_posts=1.0) as service:
        frames = session(20, procs=1, name="shop")
        await service.keep(frames)
        answers = [await push(service, frames, len(joined(frames))) for _ in range(5)]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert refused
        for answer in refused:
            content = problem(answer, 429, "quota-posts")
            assert int(answer.headers["retry-after"]) >= 1
        assert content["detail"].startswith("'shop' posts too often")
        other = session(20, procs=1, name="bank")
        assert (await push(service, other)).status_code == 200
        text = (await service.get("/metrics")).text
        assert f'tracesvc_refusals_total{{code="quota-posts"}} {len(refused)}.0' in text


async def test_a_session_may_be_full(tmp_path):
    frames = session(2000, procs=1, name="shop")
    half = len(joined(frames)) // 2
    async with running(tmp_path, session_bytes=half) as service:
        answer = await push(service, frames)
        problem(answer, 413, "session-full")
        sink, queue = PushSink(service.url, compression=None, max_backoff=0.02), FrameQueue()
        for frame in frames:
            queue.put(frame)
        queue.finish()
        with pytest.raises(SinkError, match="a session may have") as raised:
            await sink.run(queue)
        assert raised.value.cause is LossCause.QUOTA


async def test_so_many_live_sessions_of_a_source(tmp_path):
    async with running(tmp_path, source_sessions=2) as service:
        live = [session(20, procs=1, name="shop")[:-1] for _ in range(3)]
        for frames in live[:2]:
            assert (await push(service, frames)).status_code == 200
        answer = await push(service, live[2])
        problem(answer, 429, "too-many-sessions")
        assert (await push(service, session(20, procs=1, name="bank"))).status_code == 200
        assert (await push(service, live[0])).status_code == 200  # that one is there already


async def test_so_many_followers(tmp_path):
    async with running(tmp_path, followers=2) as service:
        name = await service.keep(session(20, procs=1, name="shop")[:-1])
        request = f"GET /v1/sessions/{name}/frames?follow=true HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        async with await service.raw(request) as first, await service.raw(request) as second:
            for stream in (first, second):
                await stream.receive_some()
            for path in ("frames?follow=true", "live"):
                answer = await service.get(f"/v1/sessions/{name}/{path}")
                problem(answer, 503, "too-many-followers")
                assert answer.headers["retry-after"] == "5"
            assert (await service.get(f"/v1/sessions/{name}/frames")).status_code == 200


async def test_half_a_head_is_hung_up_on(tmp_path):
    async with running(tmp_path, idle_timeout=0.2) as service:
        async with await service.raw(b"GET /healthz HTT") as stream:
            with trio.fail_after(20):
                while await stream.receive_some():
                    pass


async def test_what_a_source_brings_too_quickly_is_lost_by_quota_and_says_so(tmp_path):
    """Its sink waits and drops; when it may send again, the stored trace tells what it lacks and why."""
    made = Maker(text="x" * 1000, name="shop")
    async with running(tmp_path, source_bytes=float(1 << 20)) as service:
        sink = PushSink(service.url, compression=None, max_backoff=0.02, max_bytes=1 << 20)
        queue = FrameQueue(1 << 19)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.run, queue)
            frames = made.start()
            for frame in frames:
                queue.put(frame)
            while not queue.lost[LossCause.QUOTA]:
                for frame in [*made.generation(), *made.events(128, number=20)]:
                    queue.put(frame)
                queue.tick()
                await trio.lowlevel.checkpoint()
            while queue.queued_bytes:
                queue.tick()
                await trio.lowlevel.checkpoint()
            for frame in [*made.generation(), *made.events(10), *made.end()]:
                queue.put(frame)
            queue.finish()
        events, lost = account((await service.get(f"/v1/sessions/{made.session}/frames")).content)
        facts = (await service.get(f"/v1/sessions/{made.session}")).json()
    assert lost[LossCause.QUOTA] > 0
    assert events + sum(lost.values()) == made.emitted[0]
    assert facts["lost"]["quota"] == lost[LossCause.QUOTA]
    assert facts["ledger"]["closed"]
