"""What many follow: read once for all, whoever of them comes, stalls or goes."""

import base64

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.service.helpers import running
from tests.streams import LOG, Maker, joined, name_of, session
from tracesvc.service.relay import CHUNK, KEEP, WAVE, Relays
from tracesvc.store import UnknownSessionError


class Tape:
    """A store with one session, that notes what it is asked for."""

    def __init__(self):
        self.data = b""
        self.ended = self.gone = False
        self.moved = trio.lowlevel.ParkingLot()
        self.reads = []
        self.waits = 0

    def add(self, data, *, ended=False):
        self.data += data
        self.ended = ended
        self.moved.unpark_all()

    async def read(self, session, offset, most):
        await trio.lowlevel.checkpoint()
        if self.gone:
            raise UnknownSessionError(session)
        self.reads.append(offset)
        return self.data[offset : offset + most]

    async def wait_durable(self, session, offset):
        self.waits += 1
        await trio.lowlevel.checkpoint()
        while len(self.data) <= offset and not self.ended:
            await self.moved.park()
        return len(self.data)


def plain(data, _offset):
    return data, len(data)


async def follow(relays, got, start=0):
    offset = start
    with relays.of("it") as relay:
        while await relay.more(offset):
            part, offset = await relay.piece(offset, plain)
            got += part
            await trio.lowlevel.checkpoint()


async def test_a_piece_is_read_once_for_all():
    tape = Tape()
    relays = Relays(tape)
    got = [bytearray() for _ in range(100)]
    async with trio.open_nursery() as nursery:
        for one in got:
            nursery.start_soon(follow, relays, one)
        for i in range(20):
            await wait_all_tasks_blocked()
            waits = tape.waits
            tape.add(bytes([i]) * 1000, ended=i == 19)
        await wait_all_tasks_blocked()
    assert {bytes(one) for one in got} == {tape.data}
    assert tape.reads == list(range(0, 20_000, 1000))
    assert waits == 20  # one of them waits for all


async def test_followers_are_woken_few_at_a_time():
    """Whatever else is to run comes between them."""
    tape = Tape()
    relays = Relays(tape)
    woken, at_once = 0, []

    async def one():
        nonlocal woken
        with relays.of("it") as relay:
            await relay.more(0)
            woken += 1

    async def other():
        seen = 0
        while woken < 500:
            await trio.lowlevel.checkpoint()
            at_once.append(woken - seen)
            seen = woken

    async with trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(one)
        await wait_all_tasks_blocked()
        nursery.start_soon(other)
        tape.add(b"x")
    assert sum(at_once) == 500
    assert max(at_once) <= 2 * WAVE + 1  # two waves may lie between two of its own steps


async def test_who_sees_to_it_may_go_away_at_any_time():
    tape = Tape()
    relays = Relays(tape)
    got = [bytearray() for _ in range(50)]
    scopes = [trio.CancelScope() for _ in got]

    async def one(i):
        with scopes[i]:
            await follow(relays, got[i])

    async with trio.open_nursery() as nursery:
        for i in range(len(got)):
            nursery.start_soon(one, i)
        for i in range(49):
            tape.add(b"%02d" % i)
            for _ in range(i % 7):
                await trio.lowlevel.checkpoint()
            scopes[i].cancel()
        tape.add(b"", ended=True)
    assert bytes(got[49]) == tape.data
    assert all(tape.data.startswith(one) for one in got)
    assert not relays._relays


async def test_who_comes_late_does_not_go_the_small_steps_of_the_others():
    tape = Tape()
    relays = Relays(tape)
    early, late = bytearray(), bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, relays, early)
        for i in range(200):
            tape.add(bytes([i]) * 1000)
            await wait_all_tasks_blocked()
        before = len(tape.reads)
        nursery.start_soon(follow, relays, late)
        await wait_all_tasks_blocked()
        assert len(tape.reads) - before <= 200_000 // CHUNK + 3
        tape.add(b"", ended=True)
    assert early == late == tape.data


async def test_what_is_kept_is_bounded():
    tape = Tape()
    relays = Relays(tape)
    tape.add(bytes(3 * KEEP), ended=True)
    await follow(relays, bytearray())
    assert relays._kept._size <= KEEP
    assert relays._kept._size == sum(len(data) for data, _ in relays._kept._found.values())


async def test_a_session_that_is_deleted_ends_all():
    tape = Tape()
    relays = Relays(tape)
    failed = 0

    async def one():
        nonlocal failed
        try:
            await follow(relays, bytearray())
        except UnknownSessionError:
            failed += 1

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(one)
        await wait_all_tasks_blocked()
        tape.gone = True
        tape.add(b"x")
    assert failed == 10


@pytest.mark.parametrize("path", ["frames?follow=true", "live", "live?plain=true"])
async def test_a_hundred_followers_of_whom_some_are_stalled(tmp_path, path):
    """Over real sockets: those that read get everything, though others never do; each piece is read once."""
    made = Maker(text="x" * 2000)
    frames = made.start()
    reads = []

    class Noted:
        def __init__(self, store):
            self._store = store

        def __getattr__(self, name):
            return getattr(self._store, name)

        async def read(self, session, offset, most):
            reads.append(offset)
            return await self._store.read(session, offset, most)

    async with running(tmp_path, store=Noted) as service:
        name = made.session
        await service.post(name, 0, joined(frames))
        request = f"GET /v1/sessions/{name}/{path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
        sent = len(joined(frames))
        got = []

        async def reader():
            async with service.client.stream("GET", f"/v1/sessions/{name}/{path}") as answer:
                got.append(b"".join([part async for part in answer.aiter_bytes()]))

        async with trio.open_nursery() as nursery:
            stalled = [await service.raw(request) for _ in range(5)]
            for _ in range(95):
                nursery.start_soon(reader)
            await wait_all_tasks_blocked(0.01)
            pieces = 10
            for i in range(pieces):
                more = made.events(20, number=LOG) if i < pieces - 1 else made.end()
                frames += more
                answer = await service.post(name, sent, joined(more))
                sent = answer.json()["offset"]
        for stream in stalled:
            await stream.aclose()
    stream = joined(frames)
    for body in got:
        if path == "frames?follow=true":
            assert body == stream
        else:
            lines = [line[6:] for line in body.splitlines() if line.startswith(b"data: ")]
            assert b"".join(map(base64.b64decode, lines[:-1])) == stream
    assert len(got) == 95
    # each reader asks for the head once, on /live; beyond that the store is asked for a piece by one for all
    assert len([offset for offset in reads if offset]) <= 3 * pieces


async def test_many_sessions_are_followed_at_once(tmp_path):
    async with running(tmp_path) as service:
        sessions = [session(200, batch=20, procs=1) for _ in range(20)]
        got = {}

        async def reader(name):
            path = f"/v1/sessions/{name}/frames?follow=true"
            async with service.client.stream("GET", path) as answer:
                got[name] = b"".join([part async for part in answer.aiter_bytes()])

        async with trio.open_nursery() as nursery:
            for frames in sessions:
                await service.post(name_of(frames), 0, frames[0].data)
                nursery.start_soon(reader, name_of(frames))
            for i in range(1, len(sessions[0])):
                for frames in sessions:
                    if i < len(frames):
                        await service.post(name_of(frames), frames[i].offset, frames[i].data)
        assert got == {name_of(frames): joined(frames) for frames in sessions}
