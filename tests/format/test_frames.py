"""Frames, byte for byte, and a reader that knows nothing but docs/format.md."""

import itertools
import struct
import subprocess
import sys
import zlib
from typing import Any, cast

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.traces import program
from tracesvc.events import FRAME_KINDS, FrameKind, Storage
from tracesvc.format import (
    MAX_FRAME,
    Batch,
    Damage,
    FormatError,
    Frame,
    FrameDecoder,
    StreamDecoder,
    compress,
)
from tracesvc.format.frames import HEADER_SIZE, MARKER, encode_frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LIMIT = 524_288


def framed(kind, number, body, flags=0):
    """A frame by the table of the page."""
    checked = bytes([kind, flags, 0xCE]) + struct.pack(">I", number)
    length = b"\xc6" + struct.pack(">I", len(body))
    crc = zlib.crc32(checked + length + body)
    return b"\x96\xa4tsvc" + checked + b"\xce" + struct.pack(">I", crc) + length + body


# --- the little reader ---------------------------------------------------------------------------


def frames_of(stream):
    """(kind, number, content) of a stream without damage."""
    at = 0
    while at < len(stream):
        assert stream[at : at + 6] == b"\x96\xa4tsvc"
        kind, flags = stream[at + 6], stream[at + 7]
        assert (stream[at + 8], stream[at + 13], stream[at + 18]) == (0xCE, 0xCE, 0xC6)
        number, crc, length = (
            struct.unpack(">I", stream[at + i : at + i + 4])[0] for i in (9, 14, 19)
        )
        assert 23 + length <= LIMIT
        body = stream[at + 23 : at + 23 + length]
        covered = stream[at + 6 : at + 13] + stream[at + 18 : at + 23] + body
        assert zlib.crc32(covered) == crc
        if flags & 1:
            body = zstd.decompress(body)
            assert len(body) <= 524_265
        yield kind, number, msgpack.unpackb(body, strict_map_key=False)
        at += 23 + length


def events_of(stream):
    """(type name, time, proc, seq, {field: value}) of every event; the vocabulary is the stream's own."""
    vocabulary, names = {}, {}
    for kind, _, body in frames_of(stream):
        if kind == 1:
            vocabulary = {row[0]: (row[1], row[2]) for row in body[6]}
        elif kind == 2:
            names = {0: ""}
        elif kind == 4:
            names.update((row[0], row[1]) for row in body)
        elif kind == 6:
            yield from batch_events(body, vocabulary, names)


def batch_events(body, vocabulary, names):
    proc, first, t0, types, rows, planes, data, running = body[:8]
    columns: dict[int, list[list[bytearray]]] = {}
    at = 0
    for row in rows:
        number, n = row[0], row[1]
        columns[number] = []
        for i in range(2, len(row), 2):
            mask, rest = row[i], row[i + 1]
            raw = [bytearray(struct.pack("<Q", rest)) for _ in range(n)]
            for byte in range(8):
                if mask & 1 << byte:
                    for value in raw:
                        value[byte] = planes[at]
                        at += 1
            columns[number].append(raw)
    assert at == len(planes)
    lists = {row[0]: row[1:] for row in data}
    time, seen = t0, dict.fromkeys(columns, 0)
    for i, number in enumerate(types):
        time += struct.unpack("<q", columns[0][0][i])[0]
        k = seen[number]
        seen[number] += 1
        name, fields = vocabulary[number]
        values, column, datum = {}, 0, 0
        for field, storage in fields:
            if storage == "data":
                values[field] = lists[number][datum][k]
                datum += 1
                continue
            cell = columns[number][column][k]
            column += 1
            value = struct.unpack("<d" if storage == "float" else "<q", cell)[0]
            values[field] = names[value] if storage == "string" else value
        if running is not None:
            if name == "step_start":
                running = values["task"]
            elif name in ("step_yield", "step_block", "task_exit"):
                values["task"] = running
        yield name, time, proc, first + i, values


def plain(event):
    fields = {f.name: getattr(event, f.name) for f in event.fields}
    return event.type, event.time, event.proc, event.seq, fields


@pytest.mark.parametrize("seed", range(4))
def test_a_reader_made_from_the_page_alone_reads_the_same(seed):
    stream = program(seed, events=900, losses=0.05 * seed)
    assert list(events_of(stream.data)) == [plain(event) for event in stream.events]
    smaller = b"".join(compress(frame.data) for frame in stream.frames)
    assert len(smaller) < len(stream.data)
    assert list(events_of(smaller)) == [plain(event) for event in stream.events]
    decoder = StreamDecoder()
    decoder.feed(smaller)
    read = [
        e
        for item in cast("Any", decoder)
        if isinstance(item.record, Batch)
        for e in decoder.events(item.record)
    ]
    assert read == stream.events


def test_any_msgpack_library_walks_the_stream():
    stream = program(5, events=300)
    walker = msgpack.Unpacker(strict_map_key=False)
    walker.feed(stream.data)
    walked = list(walker)
    assert [row[0] for row in walked] == ["tsvc"] * len(stream.frames)
    assert [(row[1], row[3]) for row in walked] == [(f.kind, f.number) for f in stream.frames]
    assert [msgpack.unpackb(row[5], strict_map_key=False) for row in walked] == [
        f.body() for f in stream.frames
    ]


def test_storages_and_kinds_are_those_of_the_page():
    assert {s.value for s in Storage} == {"int", "float", "string", "data", "stack"}
    assert sorted(FRAME_KINDS) == list(range(1, 11))
    assert (MAX_FRAME, HEADER_SIZE, MARKER) == (LIMIT, 23, b"\x96\xa4tsvc")


# --- one frame -----------------------------------------------------------------------------------


def decoded(data, cuts=()):
    decoder = FrameDecoder()
    found: list[Any] = []
    places = [0, *sorted(cuts), len(data)]
    for a, b in itertools.pairwise(places):
        decoder.feed(data[a:b])
        found += decoder
    decoder.close()
    return [*found, *decoder]


def test_a_frame_lies_as_the_table_says():
    data = encode_frame(FrameKind.LOSS, 0x01020304, [])
    assert data == framed(8, 0x01020304, b"\x90")
    assert data[:9].hex() == "96a4747376630800ce"
    assert data[9:13].hex() == "01020304"
    assert data[18:].hex() == "c60000000190"


@given(st.integers(0, (1 << 32) - 1), st.sampled_from(FrameKind), st.binary(max_size=500))
def test_frames_come_back(number, kind, body):
    data = encode_frame(kind, number, body)
    assert data == framed(kind, number, msgpack.packb(body))
    (frame,) = decoded(data)
    assert frame == Frame(kind, number, data)
    assert (frame.end, frame.compressed, frame.body()) == (len(data), False, body)
    smaller = compress(data)
    (frame,) = decoded(smaller)
    assert len(smaller) <= len(data)
    assert compress(smaller) == smaller
    assert (frame.kind, frame.number, frame.body()) == (kind, number, body)


def test_numbers_have_32_bits():
    assert decoded(encode_frame(FrameKind.END, (1 << 32) - 1, []))[0].number == (1 << 32) - 1
    for number in (1 << 32, -1, 1 << 70):
        with pytest.raises(FormatError, match="does not fit in 32 bits"):
            encode_frame(FrameKind.END, number, [])


def test_the_largest_frame_and_one_byte_more():
    largest = encode_frame(FrameKind.LOSS, 1, b"x" * (LIMIT - 23 - 5))
    assert len(largest) == LIMIT
    assert isinstance(decoded(largest)[0], Frame)
    with pytest.raises(FormatError, match="over the limit"):
        encode_frame(FrameKind.LOSS, 1, b"x" * (LIMIT - 23 - 4))
    (damage,) = decoded(framed(8, 1, b"x" * (LIMIT - 22)))
    assert damage == Damage(0, LIMIT + 1, "damaged frame header")


def test_a_length_over_the_limit_is_not_waited_for():
    decoder = FrameDecoder()
    decoder.feed(framed(8, 1, b"")[:19] + struct.pack(">I", LIMIT) + bytes(10))
    assert list(decoder) == []
    assert decoder.lost
    assert decoder.pending == 0
    decoder.feed(framed(8, 2, b"\x90"))
    assert list(decoder) == [
        Damage(0, 33, "damaged frame header"),
        Frame(8, 2, framed(8, 2, b"\x90"), 33),
    ]


@pytest.mark.parametrize("flags", [2, 3, 64, 127])
def test_flags_that_are_not_known_make_a_frame_unreadable(flags):
    good = encode_frame(FrameKind.PROCS, 2, [])
    decoder = StreamDecoder()
    decoder.feed(framed(FrameKind.PROCS, 1, b"\x90", flags) + good)
    damage, item = cast("Any", decoder)
    assert isinstance(damage, Damage)
    assert (damage.start, damage.end) == (0, 24)
    assert "flags" in damage.reason
    assert item.frame.data == good


@pytest.mark.parametrize("kind", [0, 11, 77, 127])
@pytest.mark.parametrize("body", [b"\x90", b"\xc1 not msgpack", b""])
def test_unknown_kinds_are_passed_over(kind, body):
    decoder = StreamDecoder()
    decoder.feed(framed(kind, 1, body) + encode_frame(FrameKind.PROCS, 2, []))
    unknown, known = cast("Any", decoder)
    assert (unknown.frame.kind, unknown.record) == (kind, None)
    assert known.record is not None


@pytest.mark.parametrize(
    "at, byte", [(6, 0x80), (7, 0xFF), (8, 0xCD), (13, 0xCF), (18, 0xC5), (0, 0x95)]
)
def test_the_fixed_bytes_of_a_header(at, byte):
    data = bytearray(framed(8, 1, b"\x90"))
    data[at] = byte
    (damage,) = decoded(bytes(data))
    assert (damage.start, damage.end) == (0, len(data))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91",
        b"\x90\x90",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xa2\xff\xff",
        b"\x81\x90\x90",
        b"\x91" * 100_000 + b"\xc0",
        b"\xd7\xff" + b"\xff" * 8,
    ],
)
def test_a_body_that_is_not_one_msgpack_value(body):
    with pytest.raises(FormatError, match="frame 3: body is not msgpack"):
        decoded(framed(8, 3, body))[0].body()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not zstd at all",
        zstd.compress(b"\x90")[:-1],
        zstd.compress(b"\x90") + b"!",
        zstd.compress(b"\x90") * 2,
        zstd.compress(b"\x90" + bytes(LIMIT)),
        b"\x50\x2a\x4d\x18\x01\x00\x00\x00x",
        zstd.compress(
            b" some words " * 9, zstd_dict=zstd.ZstdDict(b" some words " * 9, is_raw=True)
        ),
    ],
)
def test_a_compressed_body_that_is_not_one_whole_zstd_frame(body):
    with pytest.raises(FormatError):
        decoded(framed(8, 3, body, 1))[0].body()


def test_a_window_beyond_what_a_reader_need_have_is_refused():
    def written(log):
        options: Any = {zstd.CompressionParameter.window_log: log}
        writer = zstd.ZstdCompressor(options=options)
        return framed(8, 3, writer.compress(msgpack.packb([1, 2])) + writer.flush(), 1)

    assert decoded(written(23))[0].body() == [1, 2]
    with pytest.raises(FormatError, match="damaged"):
        decoded(written(27))[0].body()


def test_the_decoder_is_of_no_use_after_close():
    decoder = FrameDecoder()
    decoder.close()
    with pytest.raises(ValueError, match="after close"):
        decoder.feed(b"x")


def test_offsets_count_from_where_the_reader_says():
    data = framed(8, 1, b"\x90")
    decoder = FrameDecoder(1000)
    decoder.feed(b"??" + data + data[:7])
    damage, frame = cast("Any", decoder)
    assert (damage.start, damage.end, frame.offset, frame.end) == (1000, 1002, 1002, 1026)
    assert (decoder.offset, decoder.pending, decoder.lost) == (1026, 7, False)


def test_without_zstd_the_message_names_the_extra():
    code = """
import sys
sys.modules["compression"] = sys.modules["backports"] = sys.modules["backports.zstd"] = None
from tracesvc.format import FormatError, Frame, compress, zstd
from tracesvc.format.frames import encode_frame, _seal
assert not zstd.available()
assert Frame(8, 1, encode_frame(8, 1, [1])).body() == [1]
for what in (lambda: compress(encode_frame(8, 1, [])), lambda: Frame(8, 1, _seal(8, 1, 1, b"x")).body()):
    try:
        what()
    except FormatError as exc:
        print(exc)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    lines = run.stdout.splitlines()
    assert len(lines) == 2
    assert all("tracesvc[push]" in line and "zstd" in line for line in lines)
