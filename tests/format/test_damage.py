"""What is damaged costs the frame it lies in; what is hostile costs no more than that either."""

import struct
import tracemalloc
from dataclasses import replace
from typing import Any, cast

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.format.test_frames import framed
from tests.traces import program
from tracesvc.events import Event, FrameKind, Storage
from tracesvc.format import (
    Batch,
    Damage,
    FormatError,
    Frame,
    FrameDecoder,
    Item,
    StreamDecoder,
    Strings,
    compress,
    zstd,
)
from tracesvc.format.bulk import Bulk
from tracesvc.format.frames import MARKER, MAX_FRAME, encode_frame

SMALL = program(3, events=50, runs=1, generations=3, batch=20)
LARGE = program(4, events=3000, losses=0.05)
BODY = MAX_FRAME - 23


def read(data, piece=1 << 20):
    """(numbers of the good frames, damages, events)"""
    decoder = StreamDecoder()
    numbers: list[int] = []
    damages: list[Damage] = []
    events: list[Event] = []

    def take():
        for item in decoder:
            if isinstance(item, Damage):
                damages.append(item)
                continue
            numbers.append(item.frame.number)
            if isinstance(item.record, Batch):
                events.extend(decoder.events(item.record))

    for at in range(0, len(data), piece):
        decoder.feed(data[at : at + piece])
        take()
    decoder.close()
    take()
    return numbers, damages, events


def without(stream, i):
    """What a reader must still find when frame ``i`` is gone."""
    gone, following = stream.frames[i], stream.frames[i + 1 : i + 2]
    placeholders = {}
    if gone.kind == FrameKind.STRINGS:
        placeholders = {text: f"?{number}" for number, text in Strings.unpack(gone.body()).rows}
    elif following and following[0].kind == FrameKind.PROCS and gone.kind != FrameKind.GENERATION:
        # A generation may have begun there, for all a reader knows: no name is sure any more.
        for frame in stream.frames[:i]:
            if frame.kind == FrameKind.GENERATION:
                placeholders = {}
            elif frame.kind == FrameKind.STRINGS:
                rows = Strings.unpack(frame.body()).rows
                placeholders |= {text: f"?{number}" for number, text in rows}
    events, at = [], 0
    for k, frame in enumerate(stream.frames):
        if k > i and frame.kind == FrameKind.GENERATION:
            placeholders = {}
        batch = stream.events[at : at + frame.count]
        at += frame.count
        if k == i:
            continue
        for event in batch:
            names = [f.name for f in event.fields if f.storage is Storage.STRING]
            changes = {n: placeholders.get(getattr(event, n), getattr(event, n)) for n in names}
            events.append(event.__replace__(**changes) if k > i and placeholders else event)
    return [frame.number for frame in stream.frames if frame is not gone], events


def check_damaged(stream, data, i, position):
    frame = stream.frames[i]
    numbers, damages, events = read(data)
    (damage,) = damages
    assert damage.start <= position < damage.end
    assert (damage.start, damage.end) == (frame.offset, frame.end)
    assert damage.reason
    wanted_numbers, wanted_events = without(stream, i)
    assert numbers == wanted_numbers
    assert events == wanted_events


def test_the_streams_are_good_as_they_are():
    for stream in (SMALL, LARGE):
        numbers, damages, events = read(stream.data)
        assert (numbers, damages) == ([f.number for f in stream.frames], [])
        assert events == stream.events
    assert {f.kind for f in LARGE.frames} >= set(FrameKind) - {FrameKind.STACKS}


def test_any_single_damaged_byte_costs_its_frame():
    whole = SMALL.data
    for i, frame in enumerate(SMALL.frames):
        wanted = without(SMALL, i)
        for position in range(frame.offset, frame.end):
            data = bytearray(whole)
            data[position] ^= position * 37 % 255 + 1
            numbers, damages, events = read(bytes(data))
            assert [(d.start, d.end) for d in damages] == [(frame.offset, frame.end)]
            assert (numbers, events) == wanted


@settings(max_examples=40)
@given(st.integers(0, len(LARGE.data) - 1), st.integers(1, 255), st.booleans())
def test_any_single_damaged_byte_of_a_larger_stream(position, change, smaller):
    stream, data = LARGE, bytearray(LARGE.data)
    if smaller:
        packed, offset = [], 0
        for frame in LARGE.frames:
            packed.append(frame.__replace__(data=compress(frame.data), offset=offset))
            offset = packed[-1].end
        stream = replace(LARGE, frames=packed)
        data = bytearray(stream.data)
        position %= len(data)
    data[position] ^= change
    (i,) = (i for i, f in enumerate(stream.frames) if f.offset <= position < f.end)
    check_damaged(stream, bytes(data), i, position)


def test_a_stream_cut_off_anywhere_has_all_whole_frames_before():
    whole = SMALL.data
    for size in range(len(whole)):
        kept = [f for f in SMALL.frames if f.end <= size]
        end = kept[-1].end if kept else 0
        decoder = FrameDecoder()
        decoder.feed(whole[:size])
        assert list(decoder) == kept_frames(kept)
        assert (decoder.pending, decoder.lost) == (size - end, False)
        decoder.close()
        assert list(decoder) == ([Damage(end, size, "truncated")] if size > end else [])


def kept_frames(frames):
    return [Frame(f.kind, f.number, f.data, f.offset) for f in frames]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(SMALL.frames)),
            st.binary(min_size=1, max_size=60)
            | st.sampled_from([MARKER, MARKER[:3], MARKER * 3, SMALL.frames[1].data[:-1]]),
        ),
        max_size=5,
    ),
    st.integers(1, 5000),
)
def test_garbage_anywhere_costs_no_frame(garbage, piece):
    data, ranges = b"", []
    for i in range(len(SMALL.frames) + 1):
        start = len(data)
        data += b"".join(bytes_ for at, bytes_ in garbage if at == i)
        if len(data) > start:
            ranges.append((start, len(data)))
        if i < len(SMALL.frames):
            data += SMALL.frames[i].data
    numbers, damages, events = read(data, piece)
    assert numbers == [f.number for f in SMALL.frames]
    assert events == SMALL.events
    assert [(d.start, d.end) for d in damages] == ranges


def test_a_marker_within_a_frame_is_no_frame():
    inner = encode_frame(FrameKind.END, 7, [1, 2, 3, 4])
    outer = encode_frame(
        FrameKind.PROCS, 8, [[0, 0, "tsvc \x96\xa4tsvc", 0, 0, 0, True, 0, MARKER, inner]]
    )
    decoder = StreamDecoder()
    decoder.feed(outer + outer)
    assert [item.frame.kind for item in cast("Any", decoder)] == [FrameKind.PROCS] * 2


def test_what_belongs_to_another_session_is_reported():
    other = program(9, events=60)
    numbers, damages, events = read(SMALL.data + other.data)
    assert numbers == [f.number for f in SMALL.frames]
    assert events == SMALL.events
    assert len(damages) == len(other.frames)
    assert all(other.session in d.reason and SMALL.session in d.reason for d in damages)
    assert (damages[0].start, damages[-1].end) == (len(SMALL.data), len(SMALL.data + other.data))


def test_the_same_session_goes_on_after_another():
    other = program(9, events=60)
    _, damages, events = read(SMALL.data + other.data + SMALL.data)
    assert len(damages) == len(other.frames)
    assert events == SMALL.events * 2


def test_a_damaged_length_does_not_hide_what_follows_for_ever():
    data = bytearray(SMALL.data)
    frame = SMALL.frames[3]
    data[frame.offset + 19 : frame.offset + 23] = struct.pack(">I", BODY)
    decoder = FrameDecoder()
    decoder.feed(data)
    assert len(list(decoder)) == 3
    assert decoder.resync()
    damage, *rest = decoder
    assert damage == Damage(frame.offset, frame.end, "wrong length")
    assert rest == kept_frames(SMALL.frames[4:])


# --- bombs ---------------------------------------------------------------------------------------


def peak_of(data):
    """Bytes that reading takes at most, and what came of it."""
    tracemalloc.start()
    try:
        found = consume(data)
        return tracemalloc.get_traced_memory()[1], found
    finally:
        tracemalloc.stop()


def consume(data):
    """Everything that a reader does; nothing but a FormatError may come out of it."""
    decoder = StreamDecoder()
    found: list[Any] = []
    decoder.feed(data)
    decoder.close()
    for item in decoder:
        if isinstance(item, Item) and isinstance(item.record, Batch):
            for look in (lambda b: list(decoder.events(b)), Batch.check, lambda b: Bulk([b, b])):
                try:
                    look(item.record)
                except FormatError as exc:
                    found.append(exc)
        found.append(item)
    return found


def bomb_of_zeros(size):
    return framed(FrameKind.LOSS, 1, zstd.compress(bytes(size), 3), 1)


DEEP = b"\x91" * 100_000 + b"\xc0"
BOMBS = {
    "zstd": bomb_of_zeros(256 << 20),
    "zstd just over": bomb_of_zeros(BODY + 1),
    "deep arrays": framed(FrameKind.EVENTS, 1, DEEP),
    "deep maps": framed(FrameKind.LOSS, 1, b"\x81\xc0" * 100_000 + b"\xc0"),
    "long array": framed(FrameKind.LOSS, 1, b"\xdd\xff\xff\xff\xff"),
    "long map": framed(FrameKind.PROCS, 1, b"\xdf\xff\xff\xff\xff"),
    "long bin": framed(FrameKind.EVENTS, 1, b"\xc6\xff\xff\xff\xff"),
    "arrays in arrays": framed(FrameKind.LOSS, 1, b"\xdd\x00\x00\x13\x88" * 1000),
    "events without planes": framed(
        FrameKind.EVENTS,
        1,
        msgpack.packb(
            [0, 0, 0, b"\x06", [[0, 1 << 40, 255, 0], [6, 1 << 40, 255, 0]], b"", [], None]
        ),
    ),
    "more events than a frame has": framed(
        FrameKind.EVENTS, 1, msgpack.packb([0, 0, 0, bytes(70_000), [], b"", [], None])
    ),
    "tasks without planes": framed(
        FrameKind.SNAPSHOT, 1, msgpack.packb([0, 0, 0, 1, 65_536, [[255, 0, b""]] * 9, [], []])
    ),
    "more tasks than there may be": framed(
        FrameKind.SNAPSHOT, 1, msgpack.packb([0, 0, 0, 1, 1 << 60, [[0, 0, b""]] * 9, [], []])
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_damage_and_takes_no_memory(name):
    consume(SMALL.data)  # what is loaded once is no part of the measure
    good = encode_frame(FrameKind.LOSS, 2, [])
    peak, found = peak_of(BOMBS[name] + good)
    assert any(isinstance(item, Damage | FormatError) for item in found)
    assert isinstance(found[-1], Item)
    print(f"{name}: {len(BOMBS[name])} bytes, peak {peak >> 10} KiB")
    # msgpack makes room for what an array declares, up to the length of the body, before it has seen it.
    assert peak < (96 << 20 if name == "arrays in arrays" else 4 << 20)


def test_a_flood_of_bytes_without_a_frame_is_not_kept():
    decoder = FrameDecoder()
    for _ in range(64):
        decoder.feed(bytes(1 << 16) + MARKER)
        assert list(decoder) == []
        assert decoder.pending <= MAX_FRAME
    decoder.close()
    (damage,) = cast("Any", decoder)
    assert (damage.start, damage.end) == (0, 64 * ((1 << 16) + 6))


# --- anything ------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=80) | st.just(MARKER), max_size=20), st.integers(1, 50))
def test_random_bytes_are_damage(pieces, piece):
    data = b"".join(pieces)
    decoder = FrameDecoder()
    found: list[Any] = []
    for at in range(0, len(data), piece):
        decoder.feed(data[at : at + piece])
        found += decoder
    decoder.close()
    found += decoder
    assert found == ([Damage(0, len(data), found[0].reason)] if data else [])
    consume(data)


@settings(max_examples=200)
@given(st.sampled_from(LARGE.frames), st.randoms(use_true_random=False), st.binary(max_size=12))
def test_spoiled_bodies_with_right_checksums(frame, rnd, bytes_):
    body = bytearray(frame.data[23:])
    for _ in range(rnd.randrange(1, 4)):
        at = rnd.randrange(len(body) + 1)
        match rnd.randrange(4):
            case 0:
                body[at : at + 1] = bytes([rnd.randrange(256)])
            case 1:
                body[at:at] = bytes_
            case 2:
                del body[at : at + rnd.randrange(20)]
            case 3:
                body[at : at + len(bytes_)] = bytes_
    spoiled = framed(frame.kind, frame.number, bytes(body))
    last = LARGE.frames[-1].data
    found = consume(spoiled + last)
    assert isinstance(found[-1], Item)
    for item in found:
        if isinstance(item, Damage):
            assert (item.start, item.end) == (0, len(spoiled))
    consume(framed(frame.kind, frame.number, bytes(body), 1))
