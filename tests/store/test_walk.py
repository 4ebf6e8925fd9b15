"""Frames are found natively as in Python, and checksums are zlib's."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.streams import joined, session
from tracesvc.events import FrameKind
from tracesvc.format import MAX_FRAME, compress
from tracesvc.format.native import frames as native
from tracesvc.store.intake import walk

EVENTS = int(FrameKind.EVENTS)
FRAMES = session(120, procs=2, batch=7, lost=3)
STREAM = joined(FRAMES)
COMPRESSED = b"".join(compress(f.data) if i % 3 else f.data for i, f in enumerate(FRAMES))

pytestmark = pytest.mark.skipif(native is None, reason="the native codec was not built")


def one_by_one(data, rows):
    """Rows of the native walk with the runs of EVENTS frames taken apart, and without glances."""
    apart = []
    for kind, flags, number, last, start, end, frames, seen in rows:
        if frames == 1:
            assert number == last
            apart.append((kind, flags, number, number, start, end, 1, None))
            continue
        assert kind == EVENTS
        assert seen is not None
        inner, why = walk(data[start:end], EVENTS, MAX_FRAME)
        assert why == 0
        assert (len(inner), inner[0][2], inner[-1][2]) == (frames, number, last)
        apart += [(*row[:4], start + row[4], start + row[5], 1, None) for row in inner]
    return apart


@settings(max_examples=300)
@given(
    stream=st.sampled_from([STREAM, COMPRESSED]),
    start=st.one_of(st.sampled_from([f.offset for f in FRAMES]), st.integers(0, len(STREAM))),
    size=st.integers(0, len(STREAM)),
    damage=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), max_size=2),
)
def test_both_walks_find_the_same(stream, start, size, damage):
    data = bytearray(stream[start : start + size])
    for place, bits in damage:
        if data:
            data[place % len(data)] ^= bits
    view = memoryview(bytes(data))
    rows, why = native.walk(view, EVENTS, MAX_FRAME)
    expected, why_not = walk(view, EVENTS, MAX_FRAME)
    assert why == why_not
    assert one_by_one(view, rows) == expected


def test_frames_that_follow_one_another_are_one_row_with_all_their_events():
    rows, why = native.walk(memoryview(STREAM), EVENTS, MAX_FRAME)
    assert why == 0
    assert sum(row[6] for row in rows) == len(FRAMES)
    seen = [row for row in rows if row[7] is not None]
    assert sum(row[7][2] for row in seen) == 240
    alone = session(100, procs=1, batch=5)
    rows, _ = native.walk(memoryview(joined(alone)), EVENTS, MAX_FRAME)
    assert max(row[6] for row in rows) > 1


@given(st.binary(max_size=3000), st.integers(0, (1 << 32) - 1))
def test_checksums_are_those_of_zlib(data, value):
    assert native.crc32(data, value) == native.crc32(data, value, False) == zlib.crc32(data, value)


@pytest.mark.parametrize("size", [63, 64, 65, 79, 80, 127, 128, 129, 1 << 16, (1 << 16) + 13])
def test_checksums_of_every_way_of_folding(size):
    data = bytes((i * 7919 >> 3) & 255 for i in range(size))
    for start in range(17):  # however it is aligned
        part = memoryview(data)[start:]
        assert native.crc32(part, 7) == native.crc32(part, 7, False) == zlib.crc32(part, 7)
