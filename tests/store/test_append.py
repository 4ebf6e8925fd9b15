import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store.helpers import keep, segment
from tests.streams import Maker, joined, name_of, session
from tracesvc.events import FrameKind
from tracesvc.format.frames import encode_frame
from tracesvc.store import (
    BadSessionNameError,
    BadStreamError,
    FileStore,
    OffsetError,
    UnknownSessionError,
)


@pytest.fixture
async def store(tmp_path):
    async with FileStore.open(tmp_path) as opened:
        yield opened


async def test_the_segment_is_the_stream(store):
    frames = session(500, procs=3, lost=7)
    name = await keep(store, frames)
    assert segment(store.root, name).read_bytes() == joined(frames)
    assert await store.path(name) == segment(store.root, name)
    info = await store.info(name)
    assert info.source["name"] == "made"
    assert info.started == 1_700_000_000 * 10**9
    assert (info.bytes, info.frames, info.events) == (len(joined(frames)), len(frames), 1500)
    assert info.lost == {"queue_full": 21}
    assert info.state == "ended"
    ledger = await store.ledger(name)
    assert ledger["closed"]
    assert ledger["procs"]["1"] == {
        "name": "proc 1",
        "emitted": 507,
        "stored": 500,
        "lost": {"queue_full": 7},
    }


CUTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4000)), max_size=20)


@settings(max_examples=60)
@given(CUTS)
async def test_any_cuts_and_repetitions_give_the_same_stream(tmp_path_factory, cuts):
    """Each cut goes back by some frames from what is durable, and gives so many bytes from there."""
    frames = session(60, batch=20)
    stream, name = joined(frames), name_of(frames)
    ends = [0, *(frame.end for frame in frames)]
    durable = 0
    async with FileStore.open(tmp_path_factory.mktemp("store")) as store:
        for back, size in cuts:
            start = ends[max(0, ends.index(durable) - back)]
            end = min(len(stream), start + size)
            result = await store.append(name, start, stream[start:end])
            assert result.problem is None
            assert result.rest == max(0, end - max(durable, *(e for e in ends if e <= end)))
            assert result.durable == max(durable, end - result.rest)
            durable = result.durable
        result = await store.append(name, durable, stream[durable:])
        assert (result.durable, result.problem) == (len(stream), None)
        assert await store.read(name, 0, len(stream)) == stream
        assert (await store.ledger(name))["closed"]


@pytest.mark.parametrize("offset", [1, 10**6])
async def test_bytes_beyond_the_end_are_refused(store, offset):
    frames = session(10)
    result = await store.append(name_of(frames), offset, joined(frames))
    assert isinstance(result.problem, OffsetError)
    assert result.problem.durable == 0
    with pytest.raises(UnknownSessionError):
        await store.info(name_of(frames))


async def test_an_overlap_is_passed_over_where_it_is_the_same(store):
    frames = session(100, batch=10)
    stream, name = joined(frames), name_of(frames)
    end = frames[7].end
    assert (await store.append(name, 0, stream[:end])).durable == end
    result = await store.append(name, 5, stream[5:500])
    assert (result.durable, result.rest, result.problem) == (end, 0, None)
    other = bytearray(stream)
    other[frames[7].end - 1] ^= 1
    for start in (0, frames[3].offset, frames[3].offset + 1):
        result = await store.append(name, start, other[start:])
        assert isinstance(result.problem, OffsetError)
        assert result.problem.durable == result.durable == end
    result = await store.append(name, frames[3].offset + 1, stream[frames[3].offset + 1 :])
    assert (result.durable, result.problem) == (len(stream), None)
    assert await store.read(name, 0, 1 << 20) == stream


def damaged(frames, number, change):
    data = bytearray(joined(frames))
    frame = frames[number]
    change(data, frame)
    return bytes(data)


def flip(data, frame):
    data[frame.end - 1] ^= 1


def no_marker(data, frame):
    data[frame.offset] ^= 1


def too_large(data, frame):
    data[frame.offset + 19 : frame.offset + 23] = (600 << 10).to_bytes(4, "big")


@pytest.mark.parametrize(
    "change, code",
    [(flip, "wrong-checksum"), (no_marker, "bad-frame"), (too_large, "frame-too-large")],
)
async def test_the_good_frames_before_a_bad_one_are_kept(store, change, code):
    frames = session(100, batch=10)
    name = name_of(frames)
    result = await store.append(name, 0, damaged(frames, 9, change))
    assert isinstance(result.problem, BadStreamError)
    assert result.problem.code == code
    assert result.durable == frames[9].offset
    result = await store.append(name, result.durable, joined(frames)[result.durable :])
    assert result.problem is None
    assert (await store.ledger(name))["closed"]


def renumbered(frame, number):
    return encode_frame(FrameKind(frame.kind), number, frame.body())


@pytest.mark.parametrize(
    "make, code",
    [
        (lambda f: joined(f[1:]), "no-header"),
        (lambda f: joined([f[0], f[0]]), "no-header"),
        (lambda f: joined(f) + renumbered(f[-1], 999), "after-end"),
        (lambda f: joined(f[:5]) + f[3].data, "frame-order"),
        (lambda f: joined(f[:1]) + joined(session(10)[1:]), "wrong-session"),
        (lambda f: f[0].data + encode_frame(FrameKind.EVENTS, 5, [0, 0, 0]), "bad-frame"),
        (
            lambda f: f[0].data + encode_frame(FrameKind.LOSS, 5, [[0, 9, 3, 1, 0, 0]]),
            "bad-numbers",
        ),
        (
            lambda f: f[0].data + encode_frame(FrameKind.PROCS, 5, [[0, 1, "", 0, -1, 0, True]]),
            "bad-numbers",
        ),
    ],
    ids=[
        "headless",
        "two-headers",
        "after-end",
        "repeated",
        "foreign",
        "no-batch",
        "backwards",
        "negative",
    ],
)
async def test_what_cannot_be_a_session_is_refused(store, make, code):
    frames = session(50, batch=10)
    result = await store.append(name_of(frames), 0, make(frames))
    assert isinstance(result.problem, BadStreamError)
    assert result.problem.code == code


async def test_a_session_goes_under_its_own_name_only(store):
    frames = session(10)
    other = str(uuid.uuid4())
    result = await store.append(other, 0, joined(frames))
    assert isinstance(result.problem, BadStreamError)
    assert result.problem.code == "wrong-session"
    assert not segment(store.root, other).parent.exists()


async def test_a_session_has_a_bounded_number_of_procs(store, monkeypatch):
    monkeypatch.setattr("tracesvc.store.intake.MAX_PROCS", 5)
    frames = session(10, procs=6)
    result = await store.append(name_of(frames), 0, joined(frames))
    assert isinstance(result.problem, BadStreamError)
    assert result.problem.code == "too-many-procs"


async def test_absurd_losses_are_no_reason_to_fail(tmp_path):
    made = Maker()
    rows = [[0, 0, (1 << 62) - 1, 1, 0, 0]] * 9
    data = made.start()[0].data + encode_frame(FrameKind.LOSS, 9, rows)
    for _ in range(2):
        async with FileStore.open(tmp_path) as store:
            result = await store.append(made.session, 0, data)
            assert (result.durable, result.problem) == (len(data), None)
            (info,) = await store.list()
            assert info.lost == {"queue_full": (1 << 63) - 1}


async def test_a_stream_that_joined_later_knows_what_was_before(tmp_path):
    """Its first generation is not the session's first; half of it comes after a new start of the store."""
    made = Maker(procs=2, generations=7)
    before = [*made.start(), *made.events(50, 0), *made.events(20, 1), *made.generation()]
    frames = [before[0], *[f for f in before if f.number >= before[-3].number]]
    assert frames[1].kind == FrameKind.GENERATION
    frames += [*made.events(30, 0), *made.lose(4, 1), *made.end()]
    data = joined(frames)
    half = len(joined(frames[:2]))
    async with FileStore.open(tmp_path) as store:
        assert (await store.append(made.session, 0, data[:half])).problem is None
    async with FileStore.open(tmp_path) as store:
        assert (await store.append(made.session, half, data[half:])).problem is None
        ledger = await store.ledger(made.session)
    assert ledger["closed"]
    assert ledger["procs"]["0"] == {"name": "proc 0", "emitted": 30, "stored": 30, "lost": {}}
    assert ledger["procs"]["1"]["lost"] == {"queue_full": 4}


async def test_frames_of_a_kind_not_known_yet_are_kept(store):
    made = Maker()
    start = made.start()
    data = start[0].data + encode_frame(42, 1, {"a": [1]})  # type: ignore[arg-type]
    result = await store.append(made.session, 0, data)
    assert (result.durable, result.problem) == (len(data), None)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../../etc/passwd",
        "a" * 36,
        "%2e%2e",
        "A739086A-44CF-4E54-8FFB-18DF8CA0D10Fx",
        "{5a593c3e-a4b6-4c0a-9183-dce768dcb7fc",
    ],
)
async def test_only_a_uuid_is_a_name(store, name):
    with pytest.raises(BadSessionNameError):
        await store.append(name, 0, b"")
    with pytest.raises(BadSessionNameError):
        await store.read(name, 0, 1)
