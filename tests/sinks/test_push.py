import json
import logging
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.streams import Maker, joined, name_of, session
from tracesvc.events import LossCause
from tracesvc.format import Batch, Item, StreamDecoder
from tracesvc.service import Config, make_app, serve, server
from tracesvc.sinks import FrameQueue, PushSink, SinkError
from tracesvc.sinks.window import PIECE
from tracesvc.store import FileStore

# anyio, which anycorn stands on, wants a trio that keeps the reason for a cancellation
SERVER = "anycorn" if hasattr(trio.Cancelled, "reason") else "hypercorn"


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert "tracesvc push" not in {thread.name for thread in threading.enumerate()}


def finished(frames):
    q = FrameQueue(1 << 30)
    for frame in frames:
        q.put(frame)
    q.finish()
    return q


def long_session(megabytes, **options):
    """A session that does not compress to nothing, with a frame of some 128 KiB after the other."""
    made = Maker(text="x" * 1000, **options)
    frames = made.start()
    for _ in range(megabytes * 8):
        frames += made.events(128, number=20)
    return [*frames, *made.end()]


class Script:
    """An application around the service that does something else to the first requests.

    Each step is a status to answer without asking the service, "lose" (the service takes it, but nobody hears of that),
    "drop" (the connection ends) or "hang".
    """

    def __init__(self, *steps, headers=(), content=b"", app=None):
        self.steps = list(steps)
        self.headers, self.content = list(headers), content
        self.app = app
        self.requests: list[tuple[str, str, int, dict[bytes, bytes]]] = []
        self.hanging = trio.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["path"] == "/v1/clock":  # asked for at any time, and not needed
            await self.app(scope, receive, send)
            return
        step = self.steps.pop(0) if self.steps else "pass"
        size = 0

        async def counting():
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            return message

        async def mute(message):
            pass

        async def answer(message):
            if message["type"] == "http.response.body" and not message.get("more_body"):
                # before the client has the answer, and may look
                self.requests.append((scope["method"], scope["path"], size, headers))
            await send(message)

        headers = dict(scope["headers"])
        if step == "pass":
            await self.app(scope, counting, answer)
        elif step == "hang":
            self.hanging.set()
            await trio.sleep_forever()
        else:
            if step == "lose":
                await self.app(scope, counting, mute)
                step = 503
            else:
                while (await counting()).get("more_body"):
                    pass
            if step == "drop":
                raise ConnectionAbortedError
            await answer({"type": "http.response.start", "status": step, "headers": self.headers})
            await answer({"type": "http.response.body", "body": self.content})


@asynccontextmanager
async def service(root, script=None, port=0):
    """(url, store) of a service, behind a script."""
    stopping = trio.Event()
    listener = server.listen("127.0.0.1", port)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with FileStore.open(root) as store, trio.open_nursery() as nursery:
        app = make_app(store, Config(root), stopping)
        if script is not None:
            script.app = app
        await nursery.start(
            lambda task_status: server.run(
                script or app,
                listener,
                stopping,
                grace=0.1,
                server=SERVER,
                task_status=task_status,
            )
        )
        yield url, store
        nursery.cancel_scope.cancel()


def pusher(url, **options):
    return PushSink(url, **{"compression": None, "max_backoff": 0.02, **options})


async def stored(store, name):
    return await store.read(name, 0, 1 << 30)


# --- when all is well ----------------------------------------------------------------------------


async def test_the_service_has_the_stream(tmp_path):
    frames = session(3000, procs=3, lost=5)
    async with service(tmp_path) as (url, store):
        sink = pusher(url + "/")
        await sink.run(finished(frames))
        assert await stored(store, name_of(frames)) == joined(frames)
        assert (await store.ledger(name_of(frames)))["closed"]
    statistics = sink.statistics()
    assert statistics.name == f"push {url}"
    assert statistics.frames == len(frames)
    assert statistics.bytes == len(joined(frames))
    assert statistics.events == 9000
    assert statistics.lost == {}


async def test_compressed_frames_say_the_same(tmp_path):
    frames = session(3000)
    async with service(tmp_path) as (url, store):
        sink = pusher(url, compression="auto")
        await sink.run(finished(frames))
        data = await stored(store, name_of(frames))
        assert (await store.ledger(name_of(frames)))["closed"]
    assert len(data) == sink.statistics().bytes < len(joined(frames))


async def test_what_is_queued_goes_in_few_requests(tmp_path):
    script = Script()
    frames = long_session(4)
    async with service(tmp_path, script) as (url, _):
        await pusher(url).run(finished(frames))
    sizes = [size for _, _, size, _ in script.requests]
    assert sum(sizes) == len(joined(frames))
    assert all(size >= PIECE for size in sizes[:-1])


async def test_little_goes_out_within_a_second_or_so(tmp_path):
    frames = session(100)
    async with service(tmp_path) as (url, store):
        q, sink = FrameQueue(), pusher(url)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.run, q)
            for frame in frames[:-1]:
                q.put(frame)
            q.tick()
            began = time.monotonic()
            with trio.fail_after(20):
                while not sink.statistics().frames:
                    await trio.lowlevel.checkpoint()
            assert time.monotonic() - began < 10
            assert (await store.info(name_of(frames))).bytes == frames[-1].offset
            q.put(frames[-1])
            q.finish()


async def test_the_token_is_sent(tmp_path):
    script = Script()
    async with service(tmp_path, script) as (url, _):
        await pusher(url, token="secret").run(finished(session(10)))
    assert script.requests[0][3][b"authorization"] == b"Bearer secret"


async def test_a_session_of_nothing_needs_no_service():
    q = FrameQueue()
    q.finish()
    await pusher("http://127.0.0.1:1").run(q)


async def test_a_program_that_is_over_at_once(tmp_path):
    """It is sent when Python, from 3.12 on, starts no more threads; and host names are looked up in threads."""
    script = tmp_path / "program.py"
    script.write_text("import trio\ntrio.run(trio.sleep, 0)\n")
    async with service(tmp_path / "data") as (url, store):
        to = ["--push", url.replace("127.0.0.1", "localhost")]
        command = [sys.executable, "-m", "tracesvc", "run", *to, str(script)]
        done = await trio.run_process(command, capture_stderr=True, cwd=tmp_path)
        (info,) = await store.list()
        assert info.state == "ended", done.stderr.decode()
        assert info.events > 0


@contextmanager
def service_in_a_thread(root):
    """In a run of its own, for a program whose clock is not real."""
    urls: queue.SimpleQueue[str] = queue.SimpleQueue()
    stops: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    async def main():
        token, stopping = trio.lowlevel.current_trio_token(), trio.Event()
        stops.put(lambda: token.run_sync_soon(stopping.set))
        async with trio.open_nursery() as nursery:
            urls.put(
                await nursery.start(
                    partial(serve, Config(root, port=0, server=SERVER), stopping=stopping)
                )
            )

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    try:
        yield urls.get()
    finally:
        stops.get()()
        thread.join()


def test_the_clock_of_the_program_does_not_matter(tmp_path):
    """Seven virtual days beside a push to a real service."""
    frames = session(3000)

    async def program(url):
        q, sink = FrameQueue(), pusher(url)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.run, q)
            for i, frame in enumerate(frames):
                q.put(frame)
                await trio.sleep(7 * 86400 / len(frames))
                if i % 10 == 0:
                    q.tick()
            q.finish()
        return sink.statistics()

    with service_in_a_thread(tmp_path) as url:
        began = time.monotonic()
        statistics = trio.run(program, url, clock=MockClock(autojump_threshold=0))
        assert time.monotonic() - began < 30
    assert statistics.events == 6000
    assert statistics.lost == {}


# --- when it is not ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        [503, 503, 503],
        [429, 507, 500, 502, 504, 408],
        ["lose", "lose", "lose"],
        ["drop", "drop"],
        ["pass", "lose", "pass", "drop", 503, "lose"],
    ],
    ids=lambda steps: "-".join(map(str, steps)),
)
async def test_it_tries_again_and_nothing_is_stored_twice(tmp_path, steps, caplog):
    frames = long_session(2)
    async with service(tmp_path, Script(*steps)) as (url, store):
        sink = pusher(url)
        await sink.run(finished(frames))
        assert await stored(store, name_of(frames)) == joined(frames)
        assert (await store.ledger(name_of(frames)))["closed"]
    assert sink.statistics().frames == len(frames)
    assert sink.statistics().lost == {}
    assert "trying again" in caplog.text
    assert "takes the trace again" in caplog.text


async def test_a_service_that_comes_later(tmp_path, caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    frames = long_session(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pusher(f"http://127.0.0.1:{port}").run, finished(frames))
        while "trying again" not in caplog.text:
            await trio.lowlevel.checkpoint()
        async with service(tmp_path, port=port) as (_, store):
            while nursery.child_tasks:
                await trio.lowlevel.checkpoint()
            assert await stored(store, name_of(frames)) == joined(frames)


async def test_a_service_that_is_started_again(tmp_path):
    frames = long_session(3)
    q = FrameQueue()
    async with trio.open_nursery() as nursery:
        async with service(tmp_path) as (url, store):
            sink = pusher(url)
            nursery.start_soon(sink.run, q)
            for frame in frames[:20]:
                q.put(frame)
            q.tick()
            while not sink.statistics().frames:
                await trio.lowlevel.checkpoint()
        for frame in frames[20:]:
            q.put(frame)
        q.finish()
        async with service(tmp_path, port=int(url.rpartition(":")[2])) as (_, store):
            while nursery.child_tasks:
                await trio.lowlevel.checkpoint()
            assert await stored(store, name_of(frames)) == joined(frames)


async def test_it_stays_away_as_long_as_it_is_asked_to(tmp_path):
    script = Script(429, headers=[(b"retry-after", b"1")])
    async with service(tmp_path, script) as (url, _):
        began = time.monotonic()
        await pusher(url).run(finished(session(10)))
        assert 1 <= time.monotonic() - began < 10


async def test_too_large_a_body_is_sent_in_smaller_ones(tmp_path):
    class Small(Script):
        async def __call__(self, scope, receive, send):
            length = (
                int(dict(scope["headers"]).get(b"content-length", 0)) if "headers" in scope else 0
            )
            self.steps = [413] if length > 200_000 else []
            await super().__call__(scope, receive, send)

    script, frames = Small(), long_session(2)
    async with service(tmp_path, script) as (url, store):
        await pusher(url).run(finished(frames))
        assert await stored(store, name_of(frames)) == joined(frames)
    assert 1 <= sum(size > 200_000 for _, _, size, _ in script.requests) <= 3


@pytest.mark.parametrize(
    "status, why",
    [
        (400, "HTTP 400"),
        (401, "token is missing or wrong"),
        (403, "token does not allow"),
        (404, "no tracesvc service at this URL"),
        (301, "HTTP 301"),
        (415, "HTTP 415"),
        (200, "does not answer like a tracesvc service"),
    ],
)
async def test_a_refusal_for_good(tmp_path, status, why):
    q = finished(session(10))
    async with service(tmp_path, Script(*[status] * 9)) as (url, _):
        sink = pusher(url)
        with pytest.raises(SinkError, match=why):
            await sink.run(q)
    assert sink.statistics().events == 0
    assert sink.statistics().lost == {LossCause.SINK_FAILED: 20}


async def test_the_same_bytes_refused_again_and_again(tmp_path):
    content = json.dumps({"detail": "the checksum of frame 7 does not match", "offset": 0}).encode()
    async with service(tmp_path, Script(*[422] * 9, content=content)) as (url, _):
        with pytest.raises(SinkError, match="checksum of frame 7"):
            await pusher(url).run(finished(session(10)))


async def test_a_service_that_lost_what_it_had_acknowledged(tmp_path):
    content = json.dumps({"offset": 0}).encode()
    async with service(tmp_path, Script("pass", 409, content=content)) as (url, _):
        with pytest.raises(SinkError, match="it has lost data"):
            await pusher(url).run(finished(long_session(2)))


async def test_a_stream_begins_with_its_header():
    sink = pusher("http://127.0.0.1:1")
    with pytest.raises(SinkError, match="header"):
        await sink.run(finished(session(10)[1:]))
    assert sink.statistics().lost == {LossCause.SINK_FAILED: 20}


@pytest.mark.parametrize("megabytes", [0, 3])
async def test_cancelling_ends_it_at_once_and_counts_what_is_lost(tmp_path, megabytes):
    script = Script(*["hang"] * 9)
    frames = long_session(megabytes)
    async with service(tmp_path, script) as (url, _):
        sink = pusher(url)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sink.run, finished(frames))
                await script.hanging.wait()
                began = time.monotonic()
                scope.cancel()
        assert time.monotonic() - began < 2
        assert scope.cancelled_caught
    events = sum(frame.count for frame in frames)
    assert sink.statistics().events == 0
    assert sink.statistics().lost == ({LossCause.SINK_FAILED: events} if events else {})


@pytest.mark.parametrize("moment", range(0, 60, 3))
async def test_cancelling_at_any_moment(tmp_path, moment):
    async with service(tmp_path) as (url, _):
        sink, q = pusher(url), finished(long_session(1))
        with trio.move_on_after(5) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sink.run, q)
                for _ in range(moment):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
    statistics = sink.statistics()
    assert statistics.events + sum(statistics.lost.values()) == q.taken_events


# --- bounds --------------------------------------------------------------------------------------


def account(data):
    """(events stored, events lost by cause) of a stream without damage."""
    decoder, events = StreamDecoder(), 0
    lost: dict[int, int] = {}
    decoder.feed(data)
    for item in decoder:
        assert isinstance(item, Item)
        if isinstance(item.record, Batch):
            events += item.record.count
        for row in getattr(item.record, "rows", []):
            if hasattr(row, "cause"):
                lost[row.cause] = lost.get(row.cause, 0) + row.last - row.first + 1
    return events, lost


async def test_memory_is_bounded(tmp_path):
    script, made = Script("hang"), Maker(text="x" * 1000)
    async with service(tmp_path, script) as (url, _):
        sink, q = pusher(url, max_bytes=1 << 20), FrameQueue(1 << 19)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.run, q)
            for frame in made.start():
                q.put(frame)
            q.tick()
            await script.hanging.wait()
            for _ in range(10):
                for _ in range(8):
                    for frame in made.events(128, number=20):
                        q.put(frame)
                    await wait_all_tasks_blocked()
                for frame in made.generation():
                    q.put(frame)
            assert q.queued_bytes <= 1 << 19
            assert q.taken_events * 1000 <= (1 << 20) + (1 << 19)
            assert q.lost[LossCause.SINK_FULL] > 0
            nursery.cancel_scope.cancel()
    q.close()
    assert sum(sink.statistics().lost.values()) == made.emitted[0]


async def test_a_slow_service_gets_a_stream_whose_ledger_closes(tmp_path):
    """The q drops while the service hangs; when it answers again the stream goes on and says what it lacks."""
    release = trio.Event()

    class Slow(Script):
        async def __call__(self, scope, receive, send):
            if scope["type"] == "http" and len(self.requests) >= 1:
                await release.wait()
            await super().__call__(scope, receive, send)

    made, script = Maker(text="x" * 1000), Slow()
    async with service(tmp_path, script) as (url, store):
        sink, q = pusher(url, max_bytes=1 << 20), FrameQueue(1 << 19)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.run, q)
            frames = made.start()
            for i in range(100):
                frames += made.events(128, number=20)
                if i % 20 == 19:
                    frames += made.generation()
            for frame in frames:
                q.put(frame)
                q.tick()
                await wait_all_tasks_blocked()
            assert q.lost[LossCause.SINK_FULL] > 0
            release.set()
            while q.queued_bytes:
                q.tick()
                await trio.lowlevel.checkpoint()
            for frame in [*made.generation(), *made.events(10), *made.end()]:
                q.put(frame)
            q.finish()
        ledger = await store.ledger(made.session)
        events, lost = account(await stored(store, made.session))
    assert ledger["closed"]
    assert lost == {LossCause.SINK_FULL: made.emitted[0] - events}
    assert 0 < events < made.emitted[0]
    assert sink.statistics().events == events
    assert sink.statistics().lost == lost


# --- the spool -----------------------------------------------------------------------------------


async def test_what_memory_does_not_hold_goes_to_the_spool_and_comes_back(tmp_path):
    script = Script("hang")
    spool = tmp_path / "spool"
    frames = long_session(6)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    sink = pusher(f"http://127.0.0.1:{port}", spool=spool, max_bytes=1 << 20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.run, finished(frames))
        size = 0
        while size < 5 << 20:
            await trio.lowlevel.checkpoint()
            size = sum(file.stat().st_size for file in spool.glob("*")) if spool.exists() else 0
        async with service(tmp_path / "data", port=port) as (_, store):
            while nursery.child_tasks:
                await trio.lowlevel.checkpoint()
            assert await stored(store, name_of(frames)) == joined(frames)
    assert list(spool.iterdir()) == []
    assert sink.statistics().frames == len(frames)
    del script


async def test_what_could_not_be_delivered_stays_in_the_spool(tmp_path):
    script = Script("pass", *["hang"] * 9)
    spool = tmp_path / "spool"
    frames = long_session(3)
    async with service(tmp_path / "data", script) as (url, store):
        sink, q = pusher(url, spool=spool, max_bytes=1 << 20), finished(frames)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sink.run, q)
                await script.hanging.wait()
                while q.queued_bytes:
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        delivered = await stored(store, name_of(frames))
    files = sorted(spool.iterdir())
    assert files[0].name == f"{name_of(frames)}-{len(delivered):020}.trace"
    left = b"".join(file.read_bytes() for file in files)
    assert joined(frames).startswith(delivered + left)
    assert len(left) > 1 << 20


async def test_a_spool_that_cannot_be_written_is_done_without(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    (tmp_path / "spool").touch()
    frames = long_session(2)
    script = Script(*[503] * 5)
    async with service(tmp_path / "data", script) as (url, store):
        await pusher(url, spool=tmp_path / "spool", max_bytes=8 << 20).run(finished(frames))
        assert await stored(store, name_of(frames)) == joined(frames)


async def test_a_full_spool_bounds_the_rest(tmp_path):
    spool = tmp_path / "spool"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    q, made = FrameQueue(1 << 19), Maker(text="x" * 1000)
    sink = pusher(url, spool=spool, max_bytes=1 << 20, spool_bytes=1 << 20)
    size = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.run, q)
        frames = made.start()
        while size < 3 << 18 or not q.lost:
            for frame in [*frames, *made.events(128, number=20), *made.generation()]:
                q.put(frame)
            frames = []
            q.tick()
            await trio.lowlevel.checkpoint()
            size = sum(file.stat().st_size for file in spool.glob("*"))
            assert size <= 1 << 20
        nursery.cancel_scope.cancel()


# --- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, names",
    [
        ({"url": "127.0.0.1:7070"}, "url"),
        ({"url": "ftp://x"}, "url"),
        ({"url": "http://"}, "url"),
        ({"max_bytes": 10}, "max_bytes"),
        ({"spool_bytes": -1}, "spool_bytes"),
        ({"compression": "gzip"}, "compression"),
        ({"max_backoff": 0}, "max_backoff"),
        ({"token": "a\nb"}, "token"),
    ],
    ids=range(8),
)
def test_a_wrong_argument_is_named(arguments, names):
    with pytest.raises(ValueError, match=f"^{names}"):
        PushSink(**{"url": "http://x", **arguments})


def test_a_password_in_the_url_is_not_shown():
    assert PushSink("http://me:secret@host:1/x").name == "push http://host:1/x"
