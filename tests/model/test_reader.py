"""`read`: events one by one, in batches and in columns, from whatever holds them, while it grows."""

import builtins
import functools
import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.small import BEGIN, RUN, SESSION, Small
from tests.traces import START, WALL, program
from tracesvc.events import EVENTS, Counter, Event, FrameKind, Log, StepStart, Storage
from tracesvc.format import Batch, FormatError, Item
from tracesvc.model.reader import Trace, read


@pytest.fixture(scope="module")
def stream():
    return program(11, losses=0.02, generations=5)


# --- sources -------------------------------------------------------------------------------------


def test_a_path_an_open_file_and_bytes_say_the_same(tmp_path, stream):
    path = tmp_path / "a.trace"
    path.write_bytes(stream.data)
    with path.open("rb") as file:
        for source in (
            path,
            str(path),
            file,
            stream.data,
            bytearray(stream.data),
            memoryview(stream.data),
        ):
            assert list(read(source)) == stream.events


def test_a_file_that_read_opened_is_closed_with_the_trace(tmp_path, stream):
    path = tmp_path / "a.trace"
    path.write_bytes(stream.data)
    with read(path) as trace:
        assert next(iter(trace)) == stream.events[0]
    with pytest.raises(ValueError, match="closed"):
        list(trace)


def test_a_file_that_somebody_else_opened_stays_open(stream):
    file = io.BytesIO(stream.data)
    with read(file):
        pass
    assert not file.closed


def test_anything_with_read_will_do(stream):
    class Pipe:
        def __init__(self, data):
            self.data = data

        def read(self, n):
            part, self.data = self.data[: min(n, 777)], self.data[min(n, 777) :]
            return part

    trace = read(Pipe(stream.data))
    assert list(trace) == stream.events
    with pytest.raises(AttributeError):
        trace.rewind()


@pytest.mark.parametrize("source", [None, 5, object(), ["a"]])
def test_what_cannot_be_read_is_refused_by_name(source):
    with pytest.raises(TypeError, match="source must be"):
        read(source)


def test_a_text_file_is_refused():
    with pytest.raises(TypeError, match="not bytes"):
        list(read(io.StringIO("text")))  # type: ignore[arg-type]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


@pytest.mark.parametrize("data", [b"x", b"\x96", b"PK\x03\x04" * 1000, bytes(3 << 20)])
def test_what_is_no_trace_is_said_to_be_none(data):
    if data == b"\x96":  # so far it could be one
        assert list(read(data)) == []
        return
    with pytest.raises(FormatError, match="not a trace"):
        list(read(data))


def test_nothing_is_a_trace_that_has_not_begun():
    trace = read(b"")
    assert trace.header is None
    assert trace.session is None
    assert list(trace) == []


# --- what it is ----------------------------------------------------------------------------------


def test_the_header_is_there_before_anything_is_read(stream):
    trace = read(stream.data)
    assert trace.header is not None
    assert trace.header.source == {"name": "program 11"}
    assert trace.session is not None
    assert trace.session.id == stream.session
    assert trace.session.source == {"name": "program 11"}
    assert trace.session.started == WALL
    assert trace.session.wall(START + 5) == WALL + 5
    assert trace.end is None
    assert list(trace) == stream.events
    assert trace.end is not None
    assert trace.losses == stream.losses
    assert trace.damage == []
    assert trace.pending == 0
    assert trace.offset == len(stream.data)
    assert trace.generation is not None
    assert trace.generation.number == 4


def test_without_its_header_a_trace_still_has_a_session(stream):
    trace = read(stream.data[len(stream.frames[0].data) :])
    assert trace.header is None
    assert trace.session is not None
    assert trace.session.id == stream.session
    assert trace.session.started is None
    assert trace.session.wall(START) is None
    assert list(trace) == stream.events


def test_the_header_may_come_late():
    small = Small()
    file = io.BytesIO()
    trace = read(file)
    assert trace.header is None
    grow(file, small.data)
    assert trace.header is not None
    assert trace.session is not None
    assert trace.session.id == SESSION


# --- one by one ----------------------------------------------------------------------------------


def test_events_are_typed_and_in_stored_order(stream):
    events = list(read(stream.data))
    assert events == stream.events
    assert all(isinstance(event, Event) for event in events)
    steps = [event for event in events if isinstance(event, StepStart)]
    assert steps[0].task > 0


def test_batches_resolve_their_names_while_they_are_at_hand(stream):
    trace = read(stream.data)
    events = [event for batch in trace.batches() for event in batch.events(trace.text)]
    assert events == stream.events


def test_items_are_all_the_frames(stream):
    items = list(read(stream.data).items())
    assert [item.frame.kind for item in items if isinstance(item, Item)] == [
        frame.kind for frame in stream.frames
    ]


def test_a_trace_is_read_once_and_again_from_the_front(stream):
    trace = read(stream.data)
    assert len(list(trace)) == len(stream.events)
    assert list(trace) == []
    trace.rewind()
    assert trace.end is None
    assert list(trace) == stream.events


def test_different_ways_of_reading_go_on_where_the_other_stopped(stream):
    trace = read(stream.data)
    batches = trace.batches()
    first = sum(next(batches).count for _ in range(3))
    assert len(list(trace)) == len(stream.events) - first


# --- while it grows ------------------------------------------------------------------------------


def grow(file: io.BytesIO, data: bytes) -> None:
    """Somebody else appends to the file."""
    here = file.tell()
    file.seek(0, io.SEEK_END)
    file.write(data)
    file.seek(here)


@functools.cache
def grown(seed: int):
    return program(seed, events=200, losses=0.05, batch=20)


@given(cuts=st.lists(st.integers(0, 20_000), max_size=8), seed=st.integers(0, 3))
def test_a_growing_file_gives_every_event_once(cuts, seed):
    whole = grown(seed)
    file, events, at = io.BytesIO(), [], 0
    trace = read(file)
    for cut in [*sorted(min(c, len(whole.data)) for c in cuts), len(whole.data)]:
        grow(file, whole.data[at:cut])
        at = cut
        events += list(trace)
        assert trace.offset + trace.pending == cut
    assert events == whole.events
    assert trace.damage == []
    assert trace.pending == 0


def test_a_length_that_was_damaged_at_the_end_hides_nothing_behind_it(stream):
    """It claims bytes that will never come; what follows it is found nevertheless."""
    frame = stream.frames[-4]
    data = bytearray(stream.data)
    data[frame.offset + 20] ^= 0x07
    trace = read(bytes(data))
    events = list(trace)
    lost = frame.count
    assert len(events) == len(stream.events) - lost
    assert trace.end is not None
    assert [(d.start, d.end) for d in trace.damage] == [(frame.offset, frame.end)]


# --- damage --------------------------------------------------------------------------------------


def test_damage_costs_the_frame_it_lies_in_and_is_listed():
    whole = program(4, events=200, batch=20)
    rng = random.Random(4)
    for _ in range(100):
        at = rng.randrange(len(whole.data))
        data = bytearray(whole.data)
        data[at] ^= rng.randrange(1, 256)
        frame = next(f for f in whole.frames if f.offset <= at < f.end)
        trace = read(bytes(data))
        events = list(trace)
        gone = range(frame.first, frame.first + frame.count)
        kept = [
            e for e in whole.events if not (frame.count and e.proc == frame.proc and e.seq in gone)
        ]
        assert [(e.proc, e.seq, e.time) for e in events] == [(e.proc, e.seq, e.time) for e in kept]
        if trace.pending:  # a damaged length, and nothing behind it that would show that
            assert (frame, trace.pending) == (whole.frames[-1], len(frame.data))
        else:
            assert [(d.start, d.end) for d in trace.damage] == [(frame.offset, frame.end)]
        if frame.kind not in (FrameKind.STRINGS, FrameKind.GENERATION):
            assert events == kept


def test_a_name_is_rather_unknown_than_wrong():
    """The GENERATION frame that emptied the table is damaged: ids mean something else from there on."""
    small = Small().events(*BEGIN, ("counter", "first", 1.0, 2))
    small.generation()
    broken = small.frames[-2]
    small.events(("counter", "second", 1.0, 2), ("counter", "third", 1.0, 2))
    data = bytearray(small.end())
    data[broken.offset + 25] ^= 1
    counters = [e.name for e in read(bytes(data)) if isinstance(e, Counter)]
    assert counters == ["first", "second", "third"]
    strings = next(
        f for f in small.frames if f.kind == FrameKind.STRINGS and f.offset > broken.offset
    )
    data[strings.offset + 25] ^= 1
    counters = [e.name for e in read(bytes(data)) if isinstance(e, Counter)]
    assert counters == ["first", "?1", "?2"]


def test_a_thousand_damages_are_listed():
    header = Small().frames[0].data
    trace = read((header + b"x") * 1200)
    assert list(trace) == []
    assert len(trace.damage) == 1000


# --- columns -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_columns_say_what_the_events_say(seed):
    np = pytest.importorskip("numpy")
    whole = program(seed, losses=0.02 * (seed % 2), generations=4)
    columns = read(whole.data).columns()
    events = whole.events
    assert len(columns) == len(events)
    assert columns.type.tolist() == [e.number for e in events]
    assert columns.time.tolist() == [e.time for e in events]
    assert columns.proc.tolist() == [e.proc for e in events]
    assert columns.seq.tolist() == [e.seq for e in events]
    for event in EVENTS.values():
        table = columns.of(event)
        mine = [e for e in events if type(e) is event]
        assert len(table) == len(mine)
        assert table.time.tolist() == [e.time for e in mine]
        assert table.proc.tolist() == [e.proc for e in mine]
        assert table.seq.tolist() == [e.seq for e in mine]
        for field in event.fields:
            expected = [getattr(e, field.name) for e in mine]
            values = getattr(table, field.name)
            match field.storage:
                case Storage.STRING:
                    assert table.names(field.name) == expected
                case Storage.DATA:
                    assert values == expected
                case Storage.INT:
                    assert values.dtype == np.int64
                    assert values.tolist() == expected
                case Storage.FLOAT:
                    assert values.dtype == np.float64
                    assert values.tolist() == expected


@pytest.mark.parametrize("events", [1, 100, 1000, 10**9])
def test_chunks_put_together_are_the_whole(stream, events):
    np = pytest.importorskip("numpy")
    trace = read(stream.data)
    chunks = list(trace.chunks(events))
    whole = read(stream.data).columns()
    assert np.concatenate([c.time for c in chunks]).tolist() == whole.time.tolist()
    assert np.concatenate([c.seq for c in chunks]).tolist() == whole.seq.tolist()
    assert len({id(c.strings) for c in chunks}) == 1
    names = [name for c in chunks for name in c.of(Counter).names("name")]
    assert names == whole.of(Counter).names("name")
    assert trace.end is not None


def test_a_batch_with_a_damaged_column_is_left_out(stream):
    pytest.importorskip("numpy")
    frames = list(stream.frames)
    index = next(i for i, f in enumerate(frames) if f.count > 5)
    data = _with_bad_column(frames[index])
    broken = stream.data[: frames[index].offset] + data + stream.data[frames[index].end :]
    one_by_one, in_columns = read(broken), read(broken)
    events = list(one_by_one)
    columns = in_columns.columns()
    assert len(events) == len(stream.events) - frames[index].count
    assert columns.time.tolist() == [e.time for e in events]
    assert columns.of(Log).names if len(columns) else True
    place = [(frames[index].offset, frames[index].offset + len(data))]
    assert [(d.start, d.end) for d in one_by_one.damage] == place
    assert [(d.start, d.end) for d in in_columns.damage] == place


def _with_bad_column(frame) -> bytes:
    from tracesvc.format.frames import encode_frame

    body = frame.body()
    body[4][1][1] += 1  # one more event of that type than there are
    return encode_frame(FrameKind.EVENTS, frame.number, body)


def test_an_empty_trace_has_empty_columns():
    pytest.importorskip("numpy")
    columns = read(Small().data).columns()
    assert len(columns) == 0
    assert len(columns.proc) == len(columns.seq) == len(columns.time) == 0
    assert columns.of(StepStart).task.tolist() == []
    assert columns.of(Log).message == []
    assert list(read(Small().data).chunks()) == []


def test_a_table_has_the_fields_of_its_events_only(stream):
    pytest.importorskip("numpy")
    table = read(stream.data).columns().of(StepStart)
    with pytest.raises(AttributeError, match="step_start has no field 'waker'"):
        table.waker  # noqa: B018


def test_ids_that_no_honest_writer_gives_cost_no_memory():
    """A string id of two to the sixty must not become an array of that length."""
    pytest.importorskip("numpy")
    from tracesvc.format import Frame, Strings
    from tracesvc.format.batch import encode_batch
    from tracesvc.format.frames import encode_frame

    small = Small()
    huge, number = 1 << 60, small.writer.frames
    strings = encode_frame(FrameKind.STRINGS, number, Strings([(huge, "far"), (3, "near")]).pack())
    records = [21, START, "far", 1.0, 0, 21, START, "near", 1.0, 0, 21, START, "none", 1.0, 0]
    ids = {"far": huge, "near": 3, "none": huge - 1}
    batch = encode_frame(
        FrameKind.EVENTS, number + 1, encode_batch(RUN, 0, records, ids.__getitem__)
    )
    small.add(Frame(4, number, strings), Frame(6, number + 1, batch))
    assert read(small.data).columns().of(Counter).names("name") == ["far", "near", f"?{huge - 1}"]


def test_without_numpy_the_extra_is_named(monkeypatch, stream):
    real = builtins.__import__

    def no_numpy(name, *args, **kwargs):
        if name.split(".")[0] == "numpy":
            raise ImportError("No module named 'numpy'")
        return real(name, *args, **kwargs)

    import sys

    for name in [n for n in sys.modules if n == "tracesvc.model.columns"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", no_numpy)
    trace = read(stream.data)
    with pytest.raises(ImportError, match=r"pip install 'tracesvc\[analysis\]'"):
        trace.columns()
    assert list(trace) == stream.events


def test_the_reader_never_holds_more_than_the_frames_at_hand(tmp_path):
    """A piece that is read, plus one frame, whatever the size of the file."""
    small = Small()
    file = tmp_path / "long.trace"
    with file.open("wb") as out:
        out.write(small.data)
        for _ in range(100):
            del small.frames[:]
            small.events(*[("log", 2, 0, 20, 0, "text " * 200, None)] * 50)
            out.write(small.data)
    assert file.stat().st_size > 3 << 20
    with read(file) as trace:
        most = max(trace.pending for _ in trace.items())
    assert most <= (1 << 20) + (512 << 10)


def test_a_trace_is_made_by_read_alone_but_can_be_told_apart(stream):
    assert isinstance(read(stream.data), Trace)
    assert all(isinstance(batch, Batch) for batch in read(stream.data).batches())
