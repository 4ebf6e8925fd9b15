"""Any sequence of events, through a writer and back, in pieces of any size."""

import itertools
import random
import struct
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgpack import packb, unpackb

from tests.traces import records_of
from tracesvc.events import EVENTS, Storage
from tracesvc.format import (
    MAX_FRAME,
    Batch,
    Damage,
    FormatError,
    Frame,
    Generation,
    Header,
    SessionWriter,
    StreamDecoder,
    compress,
)
from tracesvc.format.batch import MAX_EVENTS, encode_batch, sort_records
from tracesvc.format.bulk import Bulk
from tracesvc.format.native import frames as codec
from tracesvc.format.native import why_not as no_codec
from tracesvc.recorder.native import native, why_not

SESSION = "12345678-9abc-4def-8123-456789abcdef"
LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1
COUNTER, LOG, STEP_START, PROC_STOP = 21, 20, 6, 2
MAKE: dict[int, Any] = {**EVENTS}

integers = st.integers(LOWEST, HIGHEST) | st.integers(-3, 300) | st.sampled_from([LOWEST, HIGHEST])
names = st.text(max_size=200)
data = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(LOWEST, (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
attributes = st.none() | st.dictionaries(st.text(max_size=8), data, max_size=4)
frames = st.tuples(names, names, st.integers(0, HIGHEST))
VALUES = {
    Storage.INT: integers,
    Storage.FLOAT: st.floats(),
    Storage.STRING: names,
    Storage.STACK: st.lists(frames, max_size=3).map(tuple),
}


def values_of(field):
    if field.storage is Storage.DATA:
        return st.text(max_size=300) if field.role == "text" else attributes
    return VALUES[field.storage]


contents = st.sampled_from(list(EVENTS.values())).flatmap(
    lambda event: st.tuples(st.just(event), *map(values_of, event.fields))
)


@st.composite
def batches(draw):
    """(proc, events): all types, any fields, in order of time."""
    proc, first = draw(st.integers(0, HIGHEST)), draw(st.integers(0, HIGHEST - 100))
    drawn = draw(st.lists(contents, min_size=1, max_size=12))
    times = draw(
        st.lists(st.integers(0, HIGHEST), min_size=len(drawn), max_size=len(drawn)).map(sorted)
    )
    events = [
        cls(time, proc, first + i, *fields)
        for i, ((cls, *fields), time) in enumerate(zip(drawn, times, strict=True))
    ]
    return proc, first, events


def exact(value):
    """For comparisons: a NaN is equal to itself, 1 is neither True nor 1.0, and -0.0 is not 0.0."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, list):
        return [exact(v) for v in value]
    if isinstance(value, dict):
        return [(k, exact(v)) for k, v in value.items()]
    return type(value), value


def image(event):
    fields = [exact(getattr(event, f.name)) for f in event.fields]
    return type(event), event.time, event.proc, event.seq, fields


def pieces_of(data, cuts):
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def decode(pieces):
    decoder = StreamDecoder()
    events: list[Any] = []
    for piece in pieces:
        decoder.feed(piece)
        for item in decoder:
            assert not isinstance(item, Damage), item
            if isinstance(item.record, Batch):
                events += decoder.events(item.record)
    decoder.close()
    assert list(decoder) == []
    assert decoder.pending == 0
    return events


def begin(writer, number=0):
    frames = [] if number else [writer.header(Header(SESSION, {}, 1, 2))]
    return frames + writer.generation(Generation(number, 1, 2, SESSION), [])


def body_of(events):
    """(body, names and stacks): the EVENTS body of typed events."""
    table = {"": 0}
    first = events[0]

    def intern(thing):
        return table.setdefault(thing, len(table))

    body = encode_batch(first.proc, first.seq, records_of(events), intern, intern)
    return unpackb(packb(body)), {0: "", **{number: name for name, number in table.items()}}


@settings(max_examples=50)
@given(
    st.lists(st.tuples(batches(), st.booleans(), st.booleans()), max_size=5),
    st.lists(st.integers(0, 1 << 20), max_size=12),
)
def test_any_events_in_any_pieces_come_back(plan, cuts):
    writer, events = SessionWriter(), []
    frames = begin(writer)
    for number, ((proc, first, batch), anew, smaller) in enumerate(plan, 1):
        if anew:
            frames += begin(writer, number)
        made = writer.events(proc, first, records_of(batch))
        if smaller:
            made = [Frame(f.kind, f.number, compress(f.data), f.offset) for f in made]
        frames += made
        events += batch
    stream = b"".join(frame.data for frame in frames)
    assert [image(e) for e in decode(pieces_of(stream, cuts))] == [image(e) for e in events]


@settings(max_examples=30)
@given(batches())
def test_every_frame_says_what_it_carries(batch):
    proc, first, events = batch
    frame = SessionWriter().events(proc, first, records_of(events))[-1]
    assert (frame.proc, frame.first, frame.count) == (proc, first, len(events))
    assert (frame.oldest, frame.newest) == (events[0].time, events[-1].time)


@pytest.mark.skipif(native is None, reason=f"no native recorder: {why_not}")
@given(batches())
def test_the_native_recorder_makes_the_same_bytes(batch):
    proc, first, events = batch

    class Table(dict):
        def __missing__(self, thing):
            self[thing] = len(self) + 1
            return self[thing]

    slots, records = records_of(events), native.Records()
    for row in zip(*[iter(slots)] * 5, strict=True):
        records.extend(row)
    assert [exact(list(records.record(i))) for i in range(len(records))] == [
        exact(list(row)) for row in zip(*[iter(slots)] * 5, strict=True)
    ]
    assert (records.first_time, records.last_time) == (slots[1], slots[-4])
    mine, theirs = Table(), Table()
    body = encode_batch(proc, first, slots, mine.__getitem__, mine.__getitem__)
    assert packb(records.encode(proc, first, theirs, theirs)) == packb(body)
    assert mine == theirs


@pytest.mark.skipif(codec is None, reason=f"no native codec: {no_codec}")
@given(batches(), st.integers(0, 1 << 20), st.integers(0, 255))
def test_a_glance_at_a_body_sees_what_unpacking_it_sees(batch, at, byte):
    data = packb(body_of(batch[2])[0])
    made = Batch(unpackb(data))
    # None: it is looked at more closely
    assert codec.glance(data) in (None, (made.proc, made.first, made.count))
    spoiled = bytearray(data)
    spoiled[at % len(data)] = byte
    for damaged in (bytes(spoiled), data[: at % len(data)], data + b"\xc0"):
        if damaged != data and (seen := codec.glance(damaged)) is not None:
            batch = Batch(unpackb(damaged))
            assert seen == (batch.proc, batch.first, batch.count)


@pytest.mark.skipif(codec is None, reason=f"no native codec: {no_codec}")
def test_a_glance_is_enough_for_what_a_recorder_writes():
    steps = [MAKE[STEP_START](i, 1, i, 7) for i in range(100)]
    logs = [MAKE[LOG](i + 100, 1, i + 100, 1, 2, 20, 0, f"{i}", {"n": 1.5}) for i in range(10)]
    assert codec.glance(packb(body_of(steps + logs)[0])) == (1, 0, 110)


@settings(max_examples=30)
@given(st.lists(batches(), min_size=1, max_size=4))
def test_many_batches_at_once_are_the_same_events(drawn):
    made = [Batch(body_of(events)[0]) for _, _, events in drawn]
    bulk = Bulk(made)
    assert bulk.types.tolist() == [e.number for _, _, events in drawn for e in events]
    assert bulk.times.tolist() == [e.time for _, _, events in drawn for e in events]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tracesvc.format.bulk.native", None)
        twin = Bulk(made)
    assert twin.times.tolist() == bulk.times.tolist()
    assert twin.fields.keys() == bulk.fields.keys()
    for number, columns in twin.fields.items():
        for one, other in zip(columns, bulk.fields[number], strict=True):
            listed = [v if isinstance(v, list) else v.tolist() for v in (one, other)]
            assert exact(listed[0]) == exact(listed[1])
    for number, fields in bulk.fields.items():
        singly = [b.columns(number) for b in made if number in b.groups]
        for i, values in enumerate(fields):
            joined = [v for columns in singly for v in columns[i]]
            listed = values if isinstance(values, list) else values.tolist()
            assert exact(listed) == exact(joined)


def test_a_large_batch_is_cut_into_frames_that_fit():
    events = [MAKE[LOG](i, 1, i, 1, 2, 20, 0, f"{i} " + "x" * 9000, None) for i in range(300)]
    writer = SessionWriter()
    frames = [*begin(writer), *writer.events(1, 0, records_of(events))]
    assert all(len(frame.data) <= MAX_FRAME for frame in frames)
    assert [f.number for f in frames] == list(range(len(frames)))
    assert decode([b"".join(f.data for f in frames)]) == events


def test_no_frame_has_more_events_than_a_reader_takes():
    records = [STEP_START, 5, 1, 0, 0] * (MAX_EVENTS * 2 + 1)
    frames = SessionWriter().events(0, 0, records)
    counts = [Batch(frame.body()).count for frame in frames]
    assert sum(counts) == 2 * MAX_EVENTS + 1
    assert max(counts) <= MAX_EVENTS


def test_an_event_that_fits_in_no_frame_costs_no_names_and_no_numbers():
    writer = SessionWriter()
    frames = begin(writer)
    small = MAKE[COUNTER](1, 0, 0, "small", 1.0, 0)
    huge = MAKE[16](2, 0, 1, 1, 0, 0, "huge", {"text": "x" * MAX_FRAME})
    with pytest.raises(FormatError, match="over the limit"):
        writer.events(0, 0, records_of([small, huge]))
    again = MAKE[COUNTER](3, 0, 0, "small", 2.0, 0), MAKE[COUNTER](3, 0, 1, "huge", 2.0, 0)
    frames += writer.events(0, 0, records_of(list(again)))
    assert [f.number for f in frames] == list(range(len(frames)))
    assert decode([b"".join(f.data for f in frames)]) == list(again)


def test_no_events_make_no_frames():
    assert SessionWriter().events(0, 0, []) == []


def test_names_beyond_one_frame_of_them():
    events = [MAKE[COUNTER](i, 0, i, f"{i:04}" + "n" * 1020, 0.5, 0) for i in range(1000)]
    writer = SessionWriter()
    frames = [*begin(writer), *writer.events(0, 0, records_of(events))]
    assert decode([b"".join(f.data for f in frames)]) == events


@given(st.lists(st.integers(-5, 50), max_size=30), st.integers(-5, 50))
def test_records_are_put_in_order_of_time(times, not_before):
    records = [slot for i, time in enumerate(times) for slot in (STEP_START, time, i, 0, 0)]
    late = sort_records(records, not_before)
    assert late == sum(time < not_before for time in times)
    assert records[1::5] == [max(time, not_before) for time in sorted(times)]
    assert records[2::5] == sorted(range(len(times)), key=times.__getitem__)


# --- readers and writers of other versions -------------------------------------------------------


def text(number):
    return f"name {number}"


def test_types_that_are_not_known_are_passed_over():
    body = [1, 7, 100, bytes([STEP_START, 99, STEP_START, 99]), [], b"", [], None]
    body[4] = [[0, 4, 0, 0], [STEP_START, 2, 1, 0], [99, 2, 0, 5, 1, 0]]
    body[5] = b"\x0a\x0b" + b"\x01\x02"
    body[6] = [[99, ["a", "b"]]]
    events = list(Batch(body).events(text))
    assert events == [MAKE[STEP_START](100, 1, 7, 10), MAKE[STEP_START](100, 1, 9, 11)]
    assert [row[:2] for row in Batch(body).records(text)] == [
        (6, 100),
        (99, 100),
        (6, 100),
        (99, 100),
    ]


@settings(max_examples=30)
@given(batches())
def test_what_a_newer_writer_appended_is_passed_over(batch):
    _, _, events = batch
    body, table = body_of(events)
    planes, at = [], 0
    for row in body[4]:
        size = row[1] * sum(mask.bit_count() for mask in row[2::2])
        planes += [body[5][at : at + size], bytes(range(row[1]))]
        at += size
        row += (1, 0)
    body[5] = b"".join(planes)
    for row in body[6]:
        row.append([{"new": 1}] * (len(row) and len(row[1])))
    body.append("a new element")
    assert [image(e) for e in Batch(body).events(table.__getitem__, table.__getitem__)] == [
        image(e) for e in events
    ]
    assert Bulk([Batch(body)]).times.tolist() == [e.time for e in events]


@settings(max_examples=30)
@given(batches())
def test_what_an_older_writer_did_not_know_is_empty(batch):
    _, _, events = batch
    body, table = body_of(events)
    assume(body[7] is None)  # else tasks follow from others, and none of them is written
    # from the last column on, take away one per type, as far as there are any
    planes, at = [], 0
    gone = set()
    for row in body[4]:
        sizes = [row[1] * mask.bit_count() for mask in row[2::2]]
        if row[0] and sizes:
            del row[-2:]
            planes.append(body[5][at : at + sum(sizes[:-1])])
            gone.add(row[0])
        else:
            planes.append(body[5][at : at + sum(sizes)])
        at += sum(sizes)
    body[5], body[6] = b"".join(planes), []
    empty = {
        Storage.INT: 0,
        Storage.FLOAT: 0.0,
        Storage.STRING: "",
        Storage.STACK: "",  # what the table has under 0
        Storage.DATA: None,
    }
    made = Batch(body)
    for decoded, event in zip(
        made.events(table.__getitem__, table.__getitem__), events, strict=True
    ):
        numeric = [f for f in event.fields if f.storage is not Storage.DATA]
        for field in event.fields:
            lost = field.storage is Storage.DATA or (event.number in gone and field is numeric[-1])
            wanted = empty[field.storage] if lost else getattr(event, field.name)
            assert exact(getattr(decoded, field.name)) == exact(wanted)
    for number, fields in Bulk([made]).fields.items():
        for field, values in zip(MAKE[number].fields, fields, strict=True):
            assert len(values) == made.types.count(number), field


# --- bodies that are none ------------------------------------------------------------------------


def consume(body):
    """Everything a reader does with a batch; True where it is good."""
    good = []
    try:
        batch = Batch(body)
    except FormatError:
        return False
    for look in (lambda: list(batch.events(text)), batch.check, lambda: batch.numbers, batch.times):
        try:
            look()
            good.append(True)
        except FormatError:
            good.append(False)
    try:
        Bulk([batch, batch])
    except FormatError:
        good.append(False)
    return all(good)


def good_body():
    events = [
        MAKE[COUNTER](10, 3, 4, "n", 1.5, 1),
        MAKE[LOG](11, 3, 5, 1, 2, 20, 0, "hello", {"a": 1}),
        MAKE[COUNTER](300, 3, 6, "m", -2.5, 7),
        MAKE[PROC_STOP](301, 3, 7),
    ]
    return body_of(events)[0]


def edited(*path_and_value):
    *path, last, value = path_and_value
    body = good_body()
    inner = body
    for step in path:
        inner = inner[step]
    inner[last] = value
    return body


def test_the_body_the_next_test_spoils_is_good():
    assert consume(good_body())


# fmt: off
SPOILED = [
    None, [], good_body()[:6], edited(0, -1), edited(0, 1 << 63), edited(1, "4"),
    edited(2, 1 << 63), edited(2, HIGHEST), edited(3, b""), edited(3, "text"),
    edited(3, bytes(MAX_EVENTS + 1)), edited(3, bytes([COUNTER] * 4)),
    edited(3, bytes([0, LOG, COUNTER, PROC_STOP])), edited(4, {}), edited(4, []), edited(4, 0, 7),
    edited(4, 0, []), edited(4, 0, [0, 4]), edited(4, 0, [0, 4, 0]), edited(4, 0, [0, 3, 0, 0]),
    edited(4, 0, [0, 4, 256, 0]), edited(4, 0, [0, 4, 0, 1 << 64]), edited(4, 0, [0, 4, 0, -1]),
    edited(4, 0, 0, 1), edited(4, 3, 0, 300), edited(4, 3, 0, -1), edited(4, 3, 0, 1 << 63),
    edited(4, 3, 1, -1), edited(4, 3, 1, 1 << 62), edited(4, 3, 2, 255), edited(4, 3, 2, None),
    edited(4, 2, [PROC_STOP, 1]), edited(5, b""), edited(5, good_body()[5] + b"\0"),
    edited(6, None), edited(6, 0, 1, ["one", "too many"]), edited(6, 0, 1, "x"),
]
# fmt: on


@pytest.mark.parametrize("body", SPOILED)
def test_what_is_no_batch_is_a_format_error(body):
    assert not consume(body)


@settings(max_examples=60)
@given(batches(), st.randoms(use_true_random=False))
def test_spoiled_rows_raise_nothing_but_format_errors(batch, rnd: random.Random):
    body = body_of(batch[2])[0]
    values: list[Any] = [
        -1,
        0,
        1,
        2,
        255,
        256,
        1 << 40,
        1 << 63,
        (1 << 64) - 1,
        None,
        "x",
        b"y",
        [],
        True,
        1.5,
    ]
    for _ in range(rnd.randrange(1, 4)):
        row = rnd.choice(body[4])
        if isinstance(row, list) and row:
            row[rnd.randrange(len(row))] = rnd.choice(values)
        if rnd.random() < 0.2:
            body[rnd.randrange(7)] = rnd.choice(values)
            break
    consume(body)
