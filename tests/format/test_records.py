"""The bodies of all frames but EVENTS: there and back, newer and older writers, and bodies that are none."""

import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgpack import packb, unpackb

from tracesvc.events import EVENTS, FrameKind
from tracesvc.format import (
    Batch,
    Clocks,
    Damage,
    End,
    Exchange,
    FormatError,
    Generation,
    Header,
    Item,
    Loss,
    LossRow,
    ProcRow,
    Procs,
    SessionWriter,
    Snapshot,
    Stacks,
    StreamDecoder,
    Strings,
)
from tracesvc.format.frames import encode_frame
from tracesvc.format.records import VERSION, RegionRow, SpanRow, TaskRow

SESSION = "12345678-9abc-4def-8123-456789abcdef"

numbers = st.integers(-(1 << 63), (1 << 63) - 1)
texts = st.text(max_size=30)
sessions = st.uuids().map(str)
values = st.none() | st.booleans() | numbers | st.text(max_size=9) | st.binary(max_size=9)
maps = st.dictionaries(texts, values | st.lists(values, max_size=3), max_size=4)
attributes = st.none() | maps


def rows(cls, *fields):
    return st.lists(st.builds(cls, *fields), max_size=4)


pairs = st.tuples(st.integers(1, 1 << 62), texts)
places = st.lists(st.tuples(numbers, numbers, numbers), max_size=4)
times = st.integers(-(1 << 62) + 1, (1 << 62) - 1)
RECORDS: dict[Any, Any] = {
    Clocks: st.builds(Clocks, rows(Exchange, *[times] * 5, texts)),
    Header: st.builds(Header, sessions, maps, numbers, numbers, maps),
    Generation: st.builds(Generation, numbers, numbers, numbers, sessions),
    Procs: st.builds(
        Procs,
        rows(
            ProcRow,
            *(numbers, numbers, texts, numbers, numbers, numbers, st.booleans()),
            st.none() | st.integers(0, (1 << 32) - 1),
        ),
    ),
    Strings: st.builds(Strings, st.lists(pairs, max_size=6)),
    Stacks: st.builds(Stacks, st.lists(st.tuples(numbers, places), max_size=6)),
    Snapshot: st.builds(
        Snapshot,
        *[numbers] * 4,
        rows(TaskRow, *[numbers] * 10),
        rows(SpanRow, *[numbers] * 5, attributes),
        rows(RegionRow, *[numbers] * 4, attributes),
    ),
    Loss: st.builds(Loss, rows(LossRow, *[numbers] * 6)),
    End: st.builds(End, *[numbers] * 4),
}
any_record = st.one_of(*RECORDS.values())


def wire(value):
    """As it comes out of a frame."""
    return unpackb(packb(value), strict_map_key=False)


@settings(max_examples=60)
@given(any_record)
def test_every_record_comes_back(record):
    assert type(record).unpack(wire(record.pack())) == record


def test_every_kind_of_frame_has_a_record():
    assert {cls.kind for cls in RECORDS} | {FrameKind.EVENTS} == set(FrameKind)


@settings(max_examples=60)
@given(any_record, values)
def test_elements_that_a_newer_writer_appended_are_passed_over(record, value):
    body = wire(record.pack())
    if isinstance(record, Strings | Stacks | Loss | Clocks):
        for row in body:
            row.append(value)
    elif isinstance(record, Procs):
        for row in body:
            row += [7] * (8 - len(row)) + [value]
        assert [row[:7] for row in Procs.unpack(body).rows] == [row[:7] for row in record.rows]
        return
    else:
        body.append(value)
    if isinstance(record, Snapshot):
        body[5] += [value] * bool(body[5])
        for row in body[6] + body[7]:
            row.append(value)
    if isinstance(record, Stacks):
        for row in body:
            for place in row[1]:
                place.append(value)
    assert type(record).unpack(body) == record


@settings(max_examples=60)
@given(any_record)
def test_a_body_that_is_too_short_is_refused(record):
    body = wire(record.pack())
    if isinstance(record, Procs | Strings | Stacks | Loss | Clocks):
        if not body:
            return
        body[-1] = body[-1][:1]
    else:
        body.pop()
    with pytest.raises(FormatError, match="array of at least"):
        type(record).unpack(body)


def test_the_vocabulary_goes_with_every_trace():
    events = wire(Header(SESSION, {}, 1, 2).pack())[6]
    assert [row[:2] for row in events] == [[n, cls.type] for n, cls in EVENTS.items()]
    assert [[f[0] for f in row[2]] for row in events] == [
        [f.name for f in cls.fields] for cls in EVENTS.values()
    ]


def test_more_procs_than_fit_in_one_frame():
    writer = SessionWriter()
    writer.header(Header(SESSION, {}, 1, 2))
    rows = [ProcRow(i, 2, "p" * 1024, i, 0, 0, True) for i in range(1000)]
    frames = writer.generation(Generation(0, 1, 2, SESSION), rows)
    decoder = StreamDecoder()
    decoder.feed(b"".join(f.data for f in frames))
    found: list[Any] = list(decoder)[1:]
    assert [row[:7] for item in found for row in item.record.rows] == [r[:7] for r in rows]


# --- versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unpack, body",
    [
        (Header.unpack, Header(SESSION, {}, 1, 2, version=VERSION + 1).pack()),
        (Header.unpack, [VERSION + 1, "laid out anew"]),
        (Header.unpack, [1 << 60]),
        (Generation.unpack, Generation(0, 1, 2, SESSION, VERSION + 1).pack()),
        (Generation.unpack, ["laid", "out", "anew", None, VERSION + 1]),
    ],
)
def test_a_higher_version_is_refused_and_the_message_says_what_to_do(unpack, body):
    with pytest.raises(FormatError, match=r"version \d+.*reads up to 1: upgrade"):
        unpack(body)


def items(data):
    decoder = StreamDecoder()
    decoder.feed(data)
    decoder.close()
    return list(decoder)


def test_nothing_of_a_session_of_a_higher_version_is_believed():
    writer = SessionWriter()
    frames = [writer.header(Header(SESSION, {}, 1, 2, version=VERSION + 1))]
    frames += writer.events(0, 0, [21, 5, "name", 1.0, 0])
    found = items(b"".join(f.data for f in frames))
    assert len(found) == len(frames) == 3
    assert all(isinstance(item, Damage) and "upgrade" in item.reason for item in found)


def test_a_lower_version_is_read():
    assert Header.unpack(Header(SESSION, {}, 1, 2, version=0).pack()).version == 0


# --- bodies that are none ------------------------------------------------------------------------


@pytest.mark.parametrize("cls", RECORDS)
@pytest.mark.parametrize("body", [None, 0, "x", b"y", {}, [[]], [None], [[1]], [{}, {}]])
def test_what_is_no_record_is_refused(cls, body):
    with pytest.raises(FormatError):
        cls.unpack(body)


@pytest.mark.parametrize(
    "cls, body",
    [
        (Header, [1, b"short", {}, 1, 2, {}, []]),
        (Header, [1, SESSION, {}, 1, 2, {}, []]),
        (Header, [1, uuid.UUID(SESSION).bytes, [], 1, 2, {}, []]),
        (Header, ["1", uuid.UUID(SESSION).bytes, {}, 1, 2, {}, []]),
        (Generation, [0, 1, 2, b"", 1]),
        (Generation, [0, 1.5, 2, uuid.UUID(SESSION).bytes, 1]),
        (Procs, [[0, 1, "name", 0, 0, 0, 1]]),
        (Procs, [[0, 1, b"name", 0, 0, 0, True]]),
        (Strings, [[0, "empty"]]),
        (Strings, [[-1, "negative"]]),
        (Strings, [[1, None]]),
        (Stacks, [[1, [[1, 2]]]]),
        (Stacks, [[1, [1, 2, 3]]]),
        (Snapshot, [0, 0, 0, 1, 1, [], [], []]),
        (Snapshot, [0, 0, 0, 1, -1, [], [], []]),
        (Snapshot, [0, 0, 0, 1, 1 << 17, [[0, 0, b""]] * 9, [], []]),
        (Snapshot, [0, 0, 0, 1, 2, [[0, 0, b""]] * 8, [], []]),
        (Snapshot, [0, 0, 0, 1, 2, [[0, 0, b""]] * 8 + [[1, 0, b"x"]], [], []]),
        (Snapshot, [0, 0, 0, 1, 0, [], [[1, 2, 3, 4, 5, "text"]], []]),
        (Snapshot, [0, 0, 0, 1, 0, [], [], [[1, 2, 3, "since", 5, None]]]),
        (Loss, [[0, 1, 2, 3, 4, None]]),
        (End, [1, 2, 3, 4.0]),
    ],
)
def test_a_wrong_element_is_refused(cls, body):
    with pytest.raises(FormatError):
        cls.unpack(body)


things = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=20,
)


def spoil(body, rnd, anything):
    """Put something else somewhere into nested arrays."""
    place = body
    while True:
        i = rnd.randrange(len(place))
        if isinstance(place[i], list) and place[i] and rnd.random() < 0.8:
            place = place[i]
            continue
        match rnd.randrange(4):
            case 0:
                del place[i]
            case 1:
                place.insert(i, place[i])
            case _:
                place[i] = anything
        return


@settings(max_examples=150)
@given(any_record, things, st.randoms(use_true_random=False))
def test_spoiled_bodies_give_records_or_format_errors(record, anything, rnd):
    body = wire(record.pack())
    if not body:
        body = [wire(anything)]
    spoil(body, rnd, anything)
    try:
        type(record).unpack(wire(body))
    except FormatError:
        pass


@settings(max_examples=100)
@given(things, st.sampled_from(FrameKind))
def test_any_value_as_the_body_of_any_kind(body, kind):
    data = encode_frame(kind, 1, body)
    (item,) = items(data)
    if isinstance(item, Damage):
        assert (item.start, item.end) == (0, len(data))
        assert item.reason
    else:
        assert isinstance(item, Item)
        assert item.record is not None
        assert isinstance(item.record, Batch) == (kind == FrameKind.EVENTS)
