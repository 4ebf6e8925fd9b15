import os
import subprocess
import uuid

import pytest
import trio

from tests.service.helpers import problem, running
from tests.store.helpers import FailingDisk, GatedDisk
from tests.streams import Maker, joined, name_of, session
from tracesvc.events import FrameKind
from tracesvc.format import MAX_FRAME, compress
from tracesvc.format.frames import COMPRESSED, _seal, encode_frame
from tracesvc.format.zstd import compress as zstd


@pytest.fixture
async def service(tmp_path):
    async with running(tmp_path) as up:
        yield up


async def durable(service, name):
    return (await service.get(f"/v1/sessions/{name}")).json()["bytes"]


# --- what is right -------------------------------------------------------------------------------


async def test_a_session_in_one_post(service):
    frames = session(1000, procs=3, lost=5)
    name = await service.keep(frames)
    metadata = (await service.get(f"/v1/sessions/{name}")).json()
    assert metadata["session"] == name
    assert metadata["source"] == {"name": "made", "host": "test", "pid": 1}
    assert metadata["state"] == "ended"
    assert metadata["events"] == 3000
    assert metadata["lost"] == {"queue_full": 15}
    assert metadata["ledger"]["closed"]
    assert metadata["ledger"]["procs"]["2"] == {
        "name": "proc 2",
        "emitted": 1005,
        "stored": 1000,
        "lost": {"queue_full": 5},
    }


async def test_a_session_in_many_posts_some_of_them_twice(service):
    frames = session(500, batch=20)
    name, at = name_of(frames), 0
    for i, frame in enumerate(frames):
        answer = await service.post(
            name,
            at,
            joined(frames[max(0, i - i % 3) : i + 1])[at - frames[max(0, i - i % 3)].offset :],
        )
        assert answer.json() == {"offset": frame.end}
        again = await service.post(name, frame.offset, frame.data)
        assert again.json() == {"offset": frame.end}
        at = frame.end
    assert (await service.get(f"/v1/sessions/{name}/frames")).content == joined(frames)


async def test_a_long_body_goes_to_the_store_in_pieces(tmp_path):
    sizes = []

    class Recording:
        def __init__(self, store):
            self._store = store

        def __getattr__(self, name):
            return getattr(self._store, name)

        async def append(self, name, offset, data):
            sizes.append(len(data))
            return await self._store.append(name, offset, data)

    made = Maker(text="x" * 2000)
    frames = [*made.start(), *made.events(5000, number=20), *made.end()]
    stream = joined(frames)
    assert len(stream) > 8 << 20

    async def body():
        for i in range(0, len(stream), 50_000):
            yield stream[i : i + 50_000]

    async with running(tmp_path, store=Recording) as service:
        answer = await service.post(made.session, 0, body())
        assert answer.json() == {"offset": len(stream)}
        assert max(sizes) < (1 << 20) + MAX_FRAME + (64 << 10)
        assert (await service.get(f"/v1/sessions/{made.session}/frames")).content == stream


@pytest.mark.parametrize("kind", ["application/octet-stream", "Application/Vnd.Tracesvc; x=1"])
async def test_content_types_that_are_taken(service, kind):
    frames = session(10)
    answer = await service.post(name_of(frames), 0, joined(frames), **{"content-type": kind})
    assert answer.status_code == 200


async def test_compressed_frames(service):
    frames = session(1000)
    data = b"".join(compress(frame.data) for frame in frames)
    assert len(data) < len(joined(frames))
    answer = await service.post(name_of(frames), 0, data)
    assert answer.json() == {"offset": len(data)}
    assert (await service.get(f"/v1/sessions/{name_of(frames)}")).json()["ledger"]["closed"]


async def test_clients_of_one_session_wait_for_one_sync(tmp_path, nursery):
    disk = GatedDisk()
    frames = session(200, batch=10)
    answers = []
    async with running(tmp_path, disk=disk) as service:

        async def post():
            answers.append((await service.post(name_of(frames), 0, joined(frames))).json())

        async with trio.open_nursery() as clients:
            for _ in range(5):
                clients.start_soon(post)
            while not disk.waiting:
                await trio.testing.wait_all_tasks_blocked()
            disk.gate.set()
        assert answers == [{"offset": len(joined(frames))}] * 5
        assert (await service.get(f"/v1/sessions/{name_of(frames)}/frames")).content == joined(
            frames
        )


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
async def test_a_wrong_content_type(service, kind):
    answer = await service.post(str(uuid.uuid4()), 0, b"{}", **{"content-type": kind})
    problem(answer, 415, "media-type")


async def test_an_encoded_body(service):
    answer = await service.post(str(uuid.uuid4()), 0, b"", **{"content-encoding": "gzip"})
    problem(answer, 415, "content-encoding")


async def test_a_truncated_body_keeps_the_whole_frames(service):
    frames = session(100, batch=10)
    name, cut = name_of(frames), frames[6].offset + 30
    content = problem(await service.post(name, 0, joined(frames)[:cut]), 422, "truncated-frame")
    assert content["offset"] == frames[6].offset
    answer = await service.post(name, frames[6].offset, joined(frames)[frames[6].offset :])
    assert answer.json() == {"offset": len(joined(frames))}


async def test_a_dropped_connection_keeps_the_whole_frames(service):
    frames = session(100, batch=10)
    name, stream = name_of(frames), joined(frames)
    connection = await service.raw(
        b"POST /v1/sessions/%b/frames?offset=0 HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n"
        b"content-type: application/vnd.tracesvc\r\n\r\n%b"
        % (name.encode(), len(stream), stream[: frames[6].offset + 30])
    )
    await connection.aclose()
    while (await service.get(f"/v1/sessions/{name}")).status_code == 404:
        await trio.lowlevel.checkpoint()
    assert await durable(service, name) == frames[6].offset


def flipped(frames):
    data = bytearray(joined(frames))
    data[frames[6].end - 1] ^= 1
    return bytes(data)


def huge(frames):
    size = (MAX_FRAME + 1).to_bytes(4, "big")
    return joined(frames[:6]) + frames[6].data[:19] + size + frames[6].data[23:] * 1000


def bomb(frames):
    body = zstd(bytes(64 << 20), 3)
    return joined(frames[:6]) + _seal(FrameKind.EVENTS, COMPRESSED, 6, body)


def noise(frames):
    return joined(frames[:6]) + b"GET / HTTP/1.1\r\n\r\n" * 5


def no_batch(frames):
    return joined(frames[:6]) + encode_frame(FrameKind.EVENTS, 6, {"not": "a batch"})


def of_the_future(frames):
    return joined(frames[:6]) + _seal(FrameKind.EVENTS, 2, 6, b"\x90")


@pytest.mark.parametrize(
    "make, code",
    [
        (flipped, "wrong-checksum"),
        (of_the_future, "unknown-flags"),
        (huge, "frame-too-large"),
        (bomb, "bad-compression"),
        (noise, "bad-frame"),
        (no_batch, "bad-frame"),
    ],
)
async def test_the_good_frames_before_a_bad_one_are_kept(service, make, code):
    frames = session(100, batch=10)
    name = name_of(frames)
    content = problem(await service.post(name, 0, make(frames)), 422, code)
    assert content["offset"] == frames[6].offset
    assert await durable(service, name) == frames[6].offset
    answer = await service.post(name, frames[6].offset, joined(frames)[frames[6].offset :])
    assert answer.json() == {"offset": len(joined(frames))}


async def test_a_session_begins_with_its_own_header(service):
    frames, name = session(10), str(uuid.uuid4())
    problem(await service.post(name_of(frames), 0, joined(frames[1:])), 422, "no-header")
    problem(await service.post(name, 0, joined(frames)), 422, "wrong-session")
    problem(await service.get(f"/v1/sessions/{name}"), 404, "unknown-session")


async def test_a_body_that_does_not_continue_the_stream(service):
    frames = session(100, batch=10)
    name, end = name_of(frames), frames[6].end
    await service.post(name, 0, joined(frames)[:end])
    later = frames[8].offset
    content = problem(await service.post(name, later, frames[8].data), 409, "offset-mismatch")
    assert content["offset"] == end
    other = bytearray(joined(frames))
    other[end - 1] ^= 1
    content = problem(await service.post(name, 0, bytes(other)), 409, "offset-mismatch")
    assert content["offset"] == end


@pytest.mark.parametrize("offset", ["-1", "x", "1e3", "٣", "9" * 30, ""])
async def test_an_offset_that_is_none(service, offset):
    problem(await service.post(str(uuid.uuid4()), offset, b""), 400, "bad-parameter")


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e%2fx", "a", "A" * 36, "%00", "x" * 5000, "..%5c..%5cx"]
)
async def test_path_characters_in_a_session_name_never_reach_the_disk(service, tmp_path, name):
    before = {path for path in tmp_path.rglob("*") if "catalogue" not in path.name}
    frames = session(10)
    target = f"/v1/sessions/{name}/frames?offset=0".encode()
    connection = await service.raw(
        b"POST %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n"
        b"content-type: application/vnd.tracesvc\r\n\r\n%b"
        % (target, len(joined(frames)), joined(frames))
    )
    async with connection:
        answer = b"".join([part async for part in connection])
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 422"))
    assert b'"code": "not-found"' in answer or b'"code": "bad-session-name"' in answer
    assert {path for path in tmp_path.rglob("*") if "catalogue" not in path.name} == before


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit(tmp_path, chunked):
    frames = session(2000, batch=100)
    stream = joined(frames)

    async def parts():
        for i in range(0, len(stream), 1000):
            yield stream[i : i + 1000]

    async with running(tmp_path, max_body=10_000) as service:
        answer = await service.post(name_of(frames), 0, parts() if chunked else stream)
        content = problem(answer, 413, "body-too-large")
        if chunked:  # what came before is kept
            assert content["offset"] == max(f.end for f in frames if f.end <= 10_000 + 1000)


async def test_a_body_that_does_not_go_on(tmp_path, autojump_clock):
    frames = session(100, batch=10)
    async with running(tmp_path) as service:
        connection = await service.raw(
            b"POST /v1/sessions/%b/frames?offset=0 HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n"
            b"content-type: application/vnd.tracesvc\r\n\r\n%b"
            % (name_of(frames).encode(), frames[0].data + frames[1].data[:9])
        )
        async with connection:
            answer = await connection.receive_some()
        assert answer.startswith(b"HTTP/1.1 408")
        assert (await service.store.info(name_of(frames))).bytes == frames[0].end


# --- when the store fails ------------------------------------------------------------------------


async def test_a_full_disk(tmp_path):
    disk = FailingDisk()
    frames = session(2000, batch=100)
    name, stream, half = name_of(frames), joined(frames), frames[10].end
    async with running(tmp_path, disk=disk) as service:
        await service.post(name, 0, stream[:half])
        disk.room = 2000
        answer = await service.post(name, half, stream[half:])
        content = problem(answer, 507, "no-space")
        assert content["offset"] == half
        assert answer.headers["retry-after"] == "10"
        problem(await service.get("/readyz"), 503, "not-writable")
        assert (await service.get(f"/v1/sessions/{name}/frames")).content == stream[:half]
        disk.room = None
        assert (await service.post(name, half, stream[half:])).json() == {"offset": len(stream)}
        assert (await service.get("/readyz")).status_code == 200


@pytest.fixture
def small_disk(tmp_path):
    """A real one of a mebibyte, for those who may mount."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if os.getuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount: run as root in a container that may")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


async def test_a_disk_that_is_really_full(small_disk):
    made = Maker(text="x" * 2000)
    first = joined([*made.start(), *made.events(100, number=20)])
    more = joined(made.events(1000, number=20))
    async with running(small_disk) as service:
        assert (await service.post(made.session, 0, first)).json() == {"offset": len(first)}
        content = problem(await service.post(made.session, len(first), more), 507, "no-space")
        assert content["offset"] == len(first)
        problem(await service.get("/readyz"), 503, "not-writable")
        assert (await service.get(f"/v1/sessions/{made.session}/frames")).content == first


async def test_an_error_inside_shows_no_traceback(tmp_path, caplog):
    class Broken:
        async def append(self, *_):
            raise RuntimeError("secret")

        async def info(self, *_):
            raise RuntimeError("secret")

    async with running(tmp_path, store=lambda _: Broken()) as service:
        for answer in (
            await service.post(str(uuid.uuid4()), 0, b""),
            await service.get(f"/v1/sessions/{uuid.uuid4()}"),
        ):
            problem(answer, 500, "internal")
            assert "secret" not in answer.text
    assert "secret" in caplog.text
