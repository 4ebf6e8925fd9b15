"""Replicas of a store on real NATS and S3 servers: what is acknowledged is there, once, wherever one asks."""

import logging
import signal
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from tests.fleet.servers import environment, nats, s3
from tests.streams import SECOND, Maker, joined, name_of, session
from tracesvc.format import Exchange
from tracesvc.model.axis import Axis
from tracesvc.model.reader import read
from tracesvc.model.timebase import timebase_of
from tracesvc.model.verify import verify
from tracesvc.store import (
    FileStore,
    Fleet,
    JetStreamStore,
    LiveSessionError,
    OffsetError,
    StoreError,
    UnknownSessionError,
    keeper,
    link,
    segments,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with nats(tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest.fixture(scope="module")
def bucket():
    with s3() as variables, environment(variables):
        yield "s3://traces"


@pytest.fixture
def fleet(server, request):
    name = request.node.name.replace("[", "-").replace("]", "")
    return Fleet(server.url, stream=name, replicas=1, patience=10, archiver=False)


@pytest.fixture
def open_store(tmp_path):
    numbers = iter(range(100))

    @asynccontextmanager
    async def opened(fleet, **options):
        cache = tmp_path / f"cache{next(numbers)}"
        async with JetStreamStore.open(fleet, cache, **options) as store:
            yield store

    return opened


async def all_of(store, name):
    data, info = b"", await store.info(name)
    while len(data) < info.bytes:
        data += await store.read(name, len(data), 1 << 18)
    return data


async def test_every_replica_knows_whose_clock_a_session_was_compared_with(fleet, open_store):
    """A program pushed to one replica, and then to another on another machine: each has a clock, and says which."""
    made = Maker()
    frames = made.start()
    for clock, ahead in (("one", SECOND), ("two", 99 * SECOND)):
        there = made.time + ahead
        row = Exchange(made.time, there, there, made.time + 900, 10**18 + there, clock)
        frames += [*made.writer.clocks([row]), *made.events(5)]
    async with open_store(fleet) as one, open_store(fleet) as two:
        await one.append(made.session, 0, joined(frames))
        told = (await two.info(made.session)).clock
        assert told == (await one.info(made.session)).clock
        assert told.clock in ("one", "two")
        assert told.uncertainty <= 451 + 20
    with read(joined(frames)) as trace:
        axis = Axis.of([timebase_of(trace)])
    assert {row.clock for row in axis.placed[0].base.exchanges} == {"one", "two"}


async def test_what_one_replica_takes_every_other_one_has(fleet, open_store):
    frames = session(2000)
    name, stream = name_of(frames), joined(frames)
    async with open_store(fleet) as one, open_store(fleet) as two:
        half = len(joined(frames[: len(frames) // 2]))
        taken = await one.append(name, 0, stream[:half])
        assert (taken.durable, taken.rest, taken.problem) == (half, 0, None)
        assert (await two.info(name)).bytes == half
        taken = await two.append(name, half, stream[half:])
        assert (taken.durable, taken.problem) == (len(stream), None)
        for store in (one, two):
            assert await all_of(store, name) == stream
            info = await store.info(name)
            assert (info.state, info.bytes, info.frames) == ("ended", len(stream), len(frames))
            assert (await store.ledger(name))["closed"]
            assert (await store.totals())["sessions"]["ended"] == 1
            assert [found.session for found in await store.list()] == [name]
            report = verify(await store.path(name))
            assert (report.ok, report.events) == (True, info.events)
        with pytest.raises(UnknownSessionError):
            await one.info("123e4567-e89b-42d3-a456-426614174000")


async def test_frames_sent_twice_through_two_replicas_at_once_are_there_once(fleet, open_store):
    frames = session(3000, batch=20)
    name, stream = name_of(frames), joined(frames)
    ends, at = [], 0
    for frame in frames:
        at += len(frame.data)
        ends.append(at)

    async def push(store, step):
        sent = 0
        for end in [*ends[step::step], len(stream)]:
            taken = await store.append(name, sent, stream[sent:end])
            assert taken.problem is None
            sent = end

    async with open_store(fleet) as one, open_store(fleet) as two:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(push, one, 7)
            nursery.start_soon(push, two, 11)
        assert await all_of(one, name) == stream
        assert await all_of(two, name) == stream
        _, last = await one.link.bounds(one.frames)
        end, seq = 0, 0
        while message := await one.link.next(one.frames, one.subject_of(name), seq + 1):
            assert int(message.headers["Tracesvc-Offset"]) == end
            end, seq = end + len(message.data), message.seq
        assert (end, seq) == (len(stream), last)


async def test_bad_bytes_are_refused_with_what_is_durable(fleet, open_store):
    frames = session(100)
    name, stream = name_of(frames), joined(frames)
    async with open_store(fleet) as store:
        taken = await store.append(name, 0, stream[:-10])
        assert (taken.durable + taken.rest, taken.problem) == (len(stream) - 10, None)
        gap = await store.append(name, len(stream) + 5, b"x")
        assert isinstance(gap.problem, OffsetError)
        assert gap.durable == taken.durable
        other = await store.append(name, 0, stream[:50] + b"x" + stream[51:])
        assert isinstance(other.problem, OffsetError)
        with pytest.raises(LiveSessionError):
            await store.delete(name)


async def test_an_offset_never_goes_back_while_a_server_shows_what_was_true_before(
    fleet, open_store, monkeypatch
):
    made = Maker()
    first, more = joined(made.start()), joined(made.events(100))
    async with open_store(fleet) as one, open_store(fleet) as two:
        assert (await one.append(made.session, 0, first)).durable == len(first)
        assert (await two.info(made.session)).bytes == len(first)
        taken = await one.append(made.session, len(first), more)
        assert taken.durable == len(first) + len(more)

        shown, late = two.link.next, 3

        async def stale(stream, subject, seq):
            nonlocal late
            if stream == two.frames and late:
                late -= 1
                return None
            return await shown(stream, subject, seq)

        monkeypatch.setattr(two.link, "next", stale)
        end = joined(made.end())
        taken = await two.append(made.session, len(first) + len(more), end)
        assert (taken.durable, taken.problem) == (len(first + more + end), None)
        assert late == 0
        assert await all_of(one, made.session) == first + more + end


async def test_a_server_killed_in_mid_flow_loses_nothing_that_was_acknowledged(
    tmp_path, open_store
):
    with nats(tmp_path) as server:
        fleet = Fleet(server.url, replicas=1, patience=15, archiver=False)
        made = Maker()
        frames, acknowledged, followed = made.start(), 0, b""
        for _ in range(200):
            frames += made.events(100)
        frames += made.end()
        stream = joined(frames)
        half = trio.Event()

        async def follow(store):
            nonlocal followed
            while len(followed) < len(stream):
                part = await store.read(made.session, len(followed), 1 << 16)
                followed += part
                if not part:
                    await store.wait_durable(made.session, len(followed))

        async def kill():
            await half.wait()
            server.end(signal.SIGKILL)
            server.start()

        async with open_store(fleet) as one, open_store(fleet) as two:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kill)
                for i, frame in enumerate(frames):
                    end = acknowledged + len(frame.data)
                    taken = await one.append(made.session, acknowledged, stream[acknowledged:end])
                    while taken.problem is not None:
                        taken = await one.append(
                            made.session, acknowledged, stream[acknowledged:end]
                        )
                    assert taken.durable == end
                    acknowledged = end
                    if i == 5:
                        nursery.start_soon(follow, two)
                    if i == 100:
                        half.set()
            assert followed == stream
        async with open_store(fleet) as new:
            assert await all_of(new, made.session) == stream


async def test_a_server_that_stays_away_is_given_up_and_nothing_is_acknowledged(
    tmp_path, open_store
):
    frames = session(100)
    with nats(tmp_path) as server:
        fleet = Fleet(server.url, replicas=1, patience=0.5, archiver=False)
        async with open_store(fleet) as store:
            server.end()
            with pytest.raises(StoreError, match="no answer"):
                await store.append(name_of(frames), 0, joined(frames))
            assert "no answer" in store.trouble
        with pytest.raises(StoreError, match="no NATS server answers"):
            async with open_store(fleet):
                pass


async def test_finished_segments_move_to_the_bucket_and_readers_see_no_seam(
    fleet, bucket, open_store, monkeypatch, tmp_path
):
    monkeypatch.setattr(segments, "SEGMENT", 20_000)
    monkeypatch.setattr(keeper, "EVERY", 0.05)
    fleet = replace(fleet, bucket=f"{bucket}/{fleet.stream}", forget_after=0.5)
    frames = session(20_000, batch=100)
    name, stream = name_of(frames), joined(frames)
    followed = b""

    async def follow(store):
        nonlocal followed
        while len(followed) < len(stream):
            part = await store.read(name, len(followed), 5000)
            followed += part
            if not part:
                await store.wait_durable(name, len(followed))

    async def push(store, start, end):
        while start < end:
            taken = await store.append(name, start, stream[start : min(start + 5000, end)])
            assert taken.problem is None
            start = taken.durable

    async def until(store, condition):
        while not condition(  # noqa: ASYNC110  # other processes do not set events
            await store.archive.segments(name),
            await store.link.next(store.frames, store.subject_of(name), 1),
        ):
            await trio.sleep(0.05)

    async with open_store(fleet) as one, open_store(replace(fleet, archiver=True)) as two:
        third = len(joined(frames[: len(frames) // 3]))
        async with trio.open_nursery() as nursery:
            await push(one, 0, third)
            nursery.start_soon(follow, one)
            with trio.fail_after(20):
                await until(two, lambda objects, first: len(objects) > 1 and first.seq > 1)
            assert await all_of(one, name) == stream[:third]  # part here, part there
            await push(one, third, len(stream))
        assert followed == stream
        with trio.fail_after(20):
            await until(two, lambda objects, first: first is None)
        objects = await two.archive.segments(name)
        assert len(objects) > 5
        assert objects[-1][1] == len(stream)
        async with open_store(fleet) as new:
            for store in (one, two, new):
                assert await all_of(store, name) == stream
                again = await store.append(name, 0, stream)
                assert (again.durable, again.problem) == (len(stream), None)
            directory = tmp_path / "data" / "sessions" / name
            directory.mkdir(parents=True)
            for start, end in objects:
                part = await new.archive.read(name, start, start, end - start)
                (directory / segments.segment_name(start)).write_bytes(part)
            assert verify(directory).ok
            async with FileStore.open(
                tmp_path / "data"
            ) as files:  # what the bucket has is its layout
                assert await all_of(files, name) == stream
                assert (await files.ledger(name))["closed"]
            await new.delete(name)
            assert await new.archive.sessions() == []
            with trio.fail_after(10):
                while await two.list():  # noqa: ASYNC110
                    await trio.sleep(0.05)
            taken = await two.append(name, 0, stream[:third])
            assert (taken.durable, taken.problem) == (third, None)


async def test_entries_that_were_lost_are_made_anew(fleet, bucket, open_store, monkeypatch):
    monkeypatch.setattr(keeper, "EVERY", 0.05)
    fleet = replace(fleet, bucket=f"{bucket}/{fleet.stream}", forget_after=0.0)
    archived, live = session(100), Maker()
    async with open_store(replace(fleet, archiver=True)) as store:
        await store.append(name_of(archived), 0, joined(archived))
        with trio.fail_after(20):
            while not await store.list() or store.feed.open:  # noqa: ASYNC110
                await trio.sleep(0.05)
        await store.append(live.session, 0, joined(live.start()))
        await store.link.forget(store.entries, f"{fleet.stream}.>", None)
    async with open_store(replace(fleet, archiver=True)) as store:
        with trio.fail_after(20):
            while len(found := await store.list()) < 2:  # noqa: ASYNC110
                await trio.sleep(0.05)
        assert {(one.session, one.state) for one in found} == {
            (name_of(archived), "ended"),
            (live.session, "live"),
        }


async def test_an_object_that_is_there_is_not_written_again(bucket, fleet):
    from tracesvc.store.archive import Archive

    archive = Archive(f"{bucket}/{fleet.stream}")
    await archive.try_out()
    name = "123e4567-e89b-42d3-a456-426614174000"
    assert await archive.create(name, 0, b"first")
    assert not await archive.create(name, 0, b"second")
    assert await archive.segments(name) == [(0, 5)]
    assert await archive.read(name, 0, 1, 3) == b"irs"
    assert await archive.create(name, 9, b"after a gap")
    assert await archive.segments(name) == [(0, 5)]


async def test_what_the_servers_lack_is_said(server, open_store, caplog, monkeypatch):
    with caplog.at_level(logging.WARNING, "tracesvc.store"):
        async with open_store(Fleet(server.url, stream="said", replicas=1, archiver=False)):
            pass
    text = caplog.text
    assert "no bucket" in text
    assert "sync_interval: always" in text
    assert ("production asks for 2.12.3" in text) == (server_version(server) < (2, 12, 3))
    monkeypatch.setattr(link, "NEEDED", (99, 0, 0))
    with pytest.raises(StoreError, match="too old"):
        async with open_store(Fleet(server.url, stream="said", replicas=1, archiver=False)):
            pass


def server_version(server):
    import re
    import subprocess

    text = subprocess.run([server.binary, "--version"], capture_output=True, text=True, check=True)
    return tuple(int(n) for n in re.findall(r"\d+", text.stdout)[:3])
