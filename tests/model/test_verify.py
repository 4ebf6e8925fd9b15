"""`verify`: what is right is found right, and every rule finds what breaks it."""

import json
import random
from typing import Any

import pytest

from tests.model.small import BEGIN, LOCK, NURSERY, RUN, SESSION, SIDE, THREAD, Small
from tests.traces import START, WALL, program
from tracesvc.events import FrameKind, LossCause
from tracesvc.format import (
    End,
    FormatError,
    Frame,
    Generation,
    Header,
    Loss,
    LossRow,
    Snapshot,
    Strings,
    compress,
)
from tracesvc.format.frames import encode_frame
from tracesvc.format.records import RegionRow, SpanRow, TaskRow
from tracesvc.model.ledger import BY_THE_RECORDER
from tracesvc.model.reader import read
from tracesvc.model.verify import verify


def codes(data: bytes) -> dict[str, int]:
    return verify(data).counts


# --- what is right -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_a_right_trace_is_right(seed):
    stream = program(seed, losses=0.03 if seed % 2 else 0.0, nests=seed % 3 > 0)
    report = verify(stream.data)
    assert report.violations == []
    assert report.ok
    assert report.ended
    assert report.events == len(stream.events)
    assert report.account.stored == len(stream.events)
    lost = sum(row.last - row.first + 1 for row in stream.losses)
    assert sum(report.account.lost.values()) == lost
    assert all(account.closed for account in report.accounts)
    assert report.session == stream.session
    assert report.frames == len(stream.frames)
    assert report.bytes == len(stream.data)
    assert report.notes == []


@pytest.mark.parametrize("seed", range(6))
def test_a_sink_that_joined_late_has_a_right_trace(seed):
    stream = program(seed, losses=0.02 * (seed % 2), generations=5, batch=40, nests=seed > 2)
    for generation in range(1, len(stream.generations())):
        report = verify(stream.joined_late(generation).data)
        assert report.violations == []
        assert any("joined" in note for note in report.notes)


@pytest.mark.parametrize("seed", range(8))
def test_a_sink_that_dropped_frames_and_says_so_has_a_right_trace(seed):
    rng = random.Random(seed)
    stream = program(seed, losses=0.02 if seed % 2 else 0.0, generations=5, batch=40)
    starts = stream.generations()
    for generation in range(1, len(starts)):
        first = rng.randrange(starts[0] + 2, starts[generation])
        report = verify(stream.with_drops(first, generation).data)
        assert report.violations == []


@pytest.mark.parametrize("seed", range(4))
def test_a_trace_that_was_cut_off_is_right_as_far_as_it_goes(seed):
    stream = program(seed, losses=0.03)
    rng = random.Random(seed)
    for _ in range(10):
        cut = rng.randrange(len(stream.frames[0].data), len(stream.data))
        report = verify(stream.data[:cut])
        assert report.violations == []
        assert not report.ended
        assert any("not ended" in note for note in report.notes)


def test_compressed_frames_have_the_same_control_totals():
    stream = program(3)
    report = verify(b"".join(compress(frame.data) for frame in stream.frames))
    assert report.violations == []


def test_a_path_and_a_file_and_a_trace_are_verified_alike(tmp_path):
    path = tmp_path / "a.trace"
    path.write_bytes(program(1).data)
    with path.open("rb") as file, read(path) as trace:
        reports = [verify(path), verify(str(path)), verify(file), verify(trace)]
    assert len({json.dumps(report.as_dict()) for report in reports}) == 1
    assert reports[0].ok


def test_what_is_no_trace_at_all_is_said_to_be_none():
    with pytest.raises(FormatError, match="not a trace"):
        verify(b"GET / HTTP/1.1\r\n\r\n" * 100)


def test_nothing_and_less_than_a_header_are_not_right():
    header = Small().frames[0].data
    assert codes(b"") == {"header": 1}
    assert codes(header[:-1]) == {"header": 1}
    assert codes(header) == {}


def test_the_smallest_run_is_right():
    assert codes(Small().events(*BEGIN, ("task_exit", 2)).end()) == {}


def test_what_was_there_before_the_tracer_is_right():
    data = Small().events(
        ("task_create", 1, 0, 0, "<init>", "init"),
        ("task_create", 2, 1, 50, "main", "main"),
        ("task_create", 3, 2, 51, "worker", "worker"),
        ("task_waiting", 3, LOCK, 9),
        ("task_waiting", 1, NURSERY, 50),
        ("span_begin", 7, 0, 2, "old", None),
        ("region_begin", 8, 2, "old", None),
        ("proc_start", 1, 101, "run"),
        ("step_start", 2),
        ("task_runnable", 3, 2),
        ("region_end", 8, 2),
        ("span_end", 7, 2),
        ("step_yield", 2),
        ("proc_stop",),
    )
    assert codes(data.end()) == {}


def test_something_emitted_just_before_its_step_is_recorded_is_right():
    """The collector or a signal handler may speak up between the two."""
    start = Small().events(*BEGIN, ("step_yield", 2), ("log", 2, 0, 20, 0, "late", None))
    assert codes(start.events(("log", 2, 0, 20, 0, "early", None), ("step_start", 2)).end()) == {}


def test_an_end_may_come_by_before_its_begin():
    """They lie in the buffers of different procs."""
    small = Small()
    small.events(("proc_start", 2, 102, "thread"), proc=THREAD)
    begin_first = small.tick()
    small.time += 500_000
    small.events(("span_end", 7, 2), ("log", 2, 7, 20, 0, "in it", None), proc=THREAD)
    small.time = begin_first
    small.events(*BEGIN, ("span_begin", 7, 0, 2, "span", None))
    small.time += 1_000_000
    assert codes(small.end()) == {}


# --- what is wrong -------------------------------------------------------------------------------

LOG = ("log", 2, 0, 20, 0, "text", None)
WRONG_IN_A_STEP: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
    "a second step within it": ("running", [("step_start", 1)]),
    "the step of another ends": ("running", [("step_yield", 1)]),
    "a task exits that does not run": ("running", [("task_exit", 1)]),
    "a step of a stranger": ("task", [("step_yield", 2), ("step_start", 77)]),
    "a step of a waiting task": ("state", [("step_yield", 2), ("step_start", 1)]),
    "a runnable task is woken": ("state", [("step_yield", 2), ("task_runnable", 2, 0)]),
    "woken by one that does not run": ("waker", [("task_runnable", 1, 1)]),
    "woken by nobody in a step": ("waker", [("task_runnable", 1, 0)]),
    "woken by somebody between steps": ("waker", [("step_yield", 2), ("task_runnable", 1, 2)]),
    "a task is created twice": ("task", [("task_create", 2, 1, 50, "main", "main")]),
    "an id is used again": (
        "id",
        [
            ("task_create", 3, 2, 51, "a", "a"),
            ("step_yield", 2),
            ("step_start", 3),
            ("task_exit", 3),
            ("step_start", 2),
            ("task_create", 3, 2, 51, "a", "a"),
        ],
    ),
    "task 0": ("id", [("task_create", 0, 2, 51, "a", "a")]),
    "a parent that is not there": ("parent", [("task_create", 3, 9, 51, "a", "a")]),
    "a nursery of two parents": ("nursery", [("task_create", 3, 2, 50, "a", "a")]),
    "a parent without a nursery": ("nursery", [("task_create", 3, 2, 0, "a", "a")]),
    "waiting all along, and yet it ran": (
        "state",
        [("step_yield", 2), ("task_waiting", 2, LOCK, 9)],
    ),
    "waiting all along, in a run that began here": (
        "state",
        [("task_create", 3, 2, 51, "a", "a"), ("task_waiting", 3, LOCK, 9)],
    ),
    "no reason": ("reason", [("step_block", 2, 0, 0)]),
    "no such reason": ("reason", [("step_block", 2, 99, 0)]),
    "sleeping on an object": ("object", [("step_block", 2, 1, 9)]),
    "the nursery of another": ("object", [("step_block", 2, NURSERY, 50)]),
    "a lock that is a nursery": ("object", [("step_block", 2, LOCK, 50)]),
    "an object below zero": ("object", [("step_block", 2, LOCK, -1)]),
    "waits for I/O in a step": ("io", [("io_wait_start", 5)]),
    "waits for I/O with work to do": ("io", [("step_yield", 2), ("io_wait_start", 5)]),
    "waits for no time": ("io", [("step_block", 2, 1, 0), ("io_wait_start", 0)]),
    "waits for I/O twice": (
        "io",
        [("step_block", 2, 1, 0), ("io_wait_start", 5), ("io_wait_start", 5)],
    ),
    "an end of no wait for I/O": ("io", [("step_block", 2, 1, 0), ("io_wait_end",)]),
    "a step while waiting for I/O": (
        "io",
        [("step_block", 2, 1, 0), ("io_wait_start", 5), ("task_runnable", 2, 0), ("step_start", 2)],
    ),
    "a task created while waiting for I/O": (
        "io",
        [("step_block", 2, 1, 0), ("io_wait_start", 5), ("task_create", 3, 2, 51, "a", "a")],
    ),
    "an annotation of another": ("annotation", [("log", 1, 0, 20, 0, "text", None)]),
    "an annotation out of nowhere": (
        "running",
        [("step_yield", 2), ("log", 1, 0, 20, 0, "text", None), ("step_start", 2)],
    ),
    "a span that begins twice": (
        "id",
        [("span_begin", 7, 0, 2, "s", None), ("span_begin", 7, 0, 2, "s", None)],
    ),
    "a span that ends twice": (
        "span",
        [("span_begin", 7, 0, 2, "s", None), ("span_end", 7, 2), ("span_end", 7, 2)],
    ),
    "a span that never began": ("span", [("span_end", 7, 2)]),
    "a span that is its own parent": ("span", [("span_begin", 7, 7, 2, "s", None)]),
    "a parent span that never began": ("span", [("span_begin", 7, 6, 2, "s", None)]),
    "span 0": ("id", [("span_begin", 0, 0, 2, "s", None)]),
    "a log in a span that never began": ("span", [("log", 2, 6, 20, 0, "text", None)]),
    "regions that do not nest": (
        "region",
        [
            ("region_begin", 7, 2, "r", None),
            ("region_begin", 8, 2, "r", None),
            ("region_end", 7, 2),
        ],
    ),
    "a region of two tasks": ("region", [("region_begin", 7, 2, "r", None), ("region_end", 7, 1)]),
    "a region that never began": ("region", [("region_end", 7, 2)]),
    "a collection in a collection": ("gc", [("gc_start", 0), ("gc_start", 1)]),
    "the end of no collection": ("gc", [("gc_end", 0, 1)]),
    "the end of another collection": ("gc", [("gc_start", 0), ("gc_end", 1, 1)]),
    "a fourth generation": ("gc", [("gc_start", 3)]),
    "fewer than no objects": ("gc", [("gc_start", 0), ("gc_end", 0, -1)]),
    "a counter that is no number": ("counter", [("counter", "c", float("nan"), 2)]),
    "a counter without bound": ("counter", [("counter", "c", float("inf"), 2)]),
    "a level below zero": ("log", [("log", 2, 0, -1, 0, "text", None)]),
    "a text without bound": ("log", [("log", 2, 0, 20, 0, "x" * 20_000, None)]),
    "a message that is no text": ("log", [("log", 2, 0, 20, 0, 5, None)]),
    "a run that starts twice": ("proc", [("proc_start", 1, 101, "run")]),
    "an event after the end of the run": ("proc", [("step_yield", 2), ("proc_stop",), LOG]),
    "a thread's event in a run": ("proc", [("thread_start", 2, "f")]),
}


@pytest.mark.parametrize("what", WRONG_IN_A_STEP)
def test_every_rule_finds_what_breaks_it(what):
    code, events = WRONG_IN_A_STEP[what]
    small = Small().events(*BEGIN)
    begun = small.next[RUN]
    report = verify(small.events(*events).end())
    assert code in report.counts, report.violations
    found = next(v for v in report.violations if v.code == code)
    assert found.proc == RUN
    assert found.seq is not None
    assert found.seq >= begun
    assert f"[{code}]" in str(found)


def test_one_wrong_event_is_one_violation():
    """The check goes on from what the event says, not from what should have been."""
    events = [("step_yield", 2), ("task_runnable", 2, 0), ("step_start", 2)]
    assert codes(Small().events(*BEGIN, *events * 5).end()) == {"state": 5}


def test_a_step_before_the_run_has_started():
    small = Small().events(("task_create", 1, 0, 0, "i", "i"), ("step_start", 1))
    assert codes(small.end()) == {"proc": 1}


def test_a_thread_ends_what_it_began():
    begun = ("proc_start", 2, 102, "thread"), ("thread_start", 2, "f")
    right = Small().events(*BEGIN).events(*begun, ("thread_end", 2), proc=THREAD)
    wrong = Small().events(*BEGIN).events(*begun, ("thread_end", 1), proc=THREAD)
    never = Small().events(*BEGIN).events(begun[0], ("thread_end", 2), proc=THREAD)
    stranger = Small().events(*BEGIN).events(begun[0], ("thread_start", 77, "f"), proc=THREAD)
    assert codes(right.end()) == {}
    assert codes(wrong.end()) == {"thread": 1}
    assert codes(never.end()) == {"thread": 1}
    assert codes(stranger.end()) == {"task": 1}


def test_a_task_that_is_never_created_cannot_be_named():
    start = ("proc_start", 3, 103, "task")
    small = Small().events(start, ("log", 77, 0, 20, 0, "text", None), proc=SIDE)
    assert codes(small.end()) == {"task": 1}


def test_scheduling_belongs_to_runs():
    assert "proc" in codes(Small().events(("step_start", 1), proc=THREAD).end())


def test_regions_of_one_task_in_two_procs_are_not_compared():
    small = Small().events(*BEGIN, ("region_begin", 7, 2, "outer", None))
    small.events(("proc_start", 3, 103, "task"), ("region_begin", 8, 2, "inner", None), proc=SIDE)
    assert codes(small.events(("region_end", 7, 2), ("region_end", 8, 2)).end()) == {}


# --- time ----------------------------------------------------------------------------------------


def test_a_batch_that_begins_before_the_one_ahead_of_it():
    small = Small().events(*BEGIN)
    small.time -= 3000
    small.events(LOG)
    small.time += 3000
    assert codes(small.end()) == {"clock": 1}


def test_a_generation_that_begins_before_an_event_ahead_of_it():
    small = Small().events(*BEGIN)
    small.time -= 4000
    report = verify(small.generation().data)
    assert "clock" in report.counts


def test_an_end_that_comes_before_an_event():
    small = Small().events(*BEGIN)
    small.time -= 4000
    assert "clock" in codes(small.end())


def test_a_generation_that_is_left_out():
    small = Small()
    small.generations += 1
    assert codes(small.generation().end()) == {"clock": 1}


# --- the ledger ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", [cause for cause in LossCause if cause is not LossCause.CRASH])
def test_what_was_lost_and_is_said_to_be_is_right(cause):
    small = Small().events(*BEGIN)
    small.lose(5, int(cause))
    if cause not in BY_THE_RECORDER:  # lost behind the recorder: not in its own account
        small.lost[RUN] = 0
    report = verify(small.events(LOG).end())
    assert report.violations == []
    assert report.account.lost == {cause.name.lower(): 5}


def test_what_is_lost_without_a_word_is_a_gap():
    report = verify(Small().events(*BEGIN).lose(5, tell=False).events(LOG).end())
    assert report.counts == {"gap": 1, "account": 1}
    assert report.account.missing == 5
    assert not report.account.closed


def test_a_loss_may_be_told_afterwards():
    small = Small().events(*BEGIN)
    first = small.next[RUN]
    small.lose(5, tell=False).events(LOG)
    small.add(*small.writer.losses([LossRow(RUN, first, first + 4, 1, small.time, small.time)]))
    assert codes(small.end()) == {}


@pytest.mark.parametrize(
    "first, last",
    [(5, 10), (6, 11), (7, 10), (6, 9), (0, 3), (6, 5), (20, 25)],
)
def test_a_loss_of_other_events_than_are_missing(first, last):
    small = Small().events(*BEGIN)
    assert small.next[RUN] == 6
    small.lose(5, tell=False)
    small.add(*small.writer.losses([LossRow(RUN, first, last, 1, small.time, small.time)]))
    assert not verify(small.events(LOG).end()).ok


def test_a_loss_for_no_known_cause():
    small = Small().events(*BEGIN).lose(5, 99)
    assert "loss" in codes(small.events(LOG).end())


def test_a_loss_that_ends_before_it_starts():
    small = Small().events(*BEGIN)
    small.lose(1, tell=False)
    row = LossRow(RUN, 6, 6, 1, small.time + 10, small.time)
    assert "loss" in codes(small.add(*small.writer.losses([row])).end())


def test_events_that_come_twice():
    small = Small().events(*BEGIN)
    small.next[RUN] -= 1
    assert "sequence" in codes(small.events(LOG).end())


@pytest.mark.parametrize("by", [-1, 1])
@pytest.mark.parametrize("of", ["next", "lost"])
def test_an_account_that_does_not_fit(of, by):
    small = Small().events(*BEGIN).lose(3)
    getattr(small, of)[RUN] += by
    assert "account" in codes(small.end())


def test_a_proc_without_a_last_account():
    small = Small().events(*BEGIN)
    small.add(*small.writer.procs([small.row(0), small.row(THREAD), small.row(SIDE)]))
    end = End(small.tick(), WALL, 6, 0)
    assert codes(small.add(small.writer.end(end)).data) == {"account": 1}


def test_events_after_a_proc_s_last_account():
    small = Small().events(*BEGIN)
    small.add(*small.writer.procs([small.row(RUN, live=False)]))
    assert "ended" in codes(small.events(LOG).end())


@pytest.mark.parametrize("change", [{"name": "other"}, {"kind": 2}, {"thread": 9}, {"kind": 77}])
def test_a_proc_that_becomes_another(change):
    small = Small().events(*BEGIN)
    row = small.row(RUN)._replace(**change)
    counts = codes(small.add(*small.writer.procs([row])).end())
    assert counts.keys() & {"account", "proc"}


def test_a_total_that_is_none():
    small = Small().events(*BEGIN)
    small.add(*small.writer.procs(small.rows(live=False)))
    assert codes(small.add(small.writer.end(End(small.tick(), WALL, 7, 0))).data) == {"account": 1}


def test_frames_that_are_not_those_that_were_written():
    small = Small().events(*BEGIN, ("counter", "c", 1.0, 2))
    other = Small().events(*BEGIN, ("counter", "c", 2.0, 2))
    small.end()
    other.end()
    index = next(i for i, f in enumerate(small.frames) if f.kind == FrameKind.EVENTS)
    small.frames[index] = other.frames[index]
    assert codes(small.data) == {"total": 1}


# --- frames --------------------------------------------------------------------------------------


def test_a_damaged_byte_is_named():
    stream = program(2)
    frame = stream.frames[len(stream.frames) // 2]
    data = bytearray(stream.data)
    data[frame.offset + 30] ^= 0x55
    report = verify(bytes(data))
    found = next(v for v in report.violations if v.code == "damage")
    assert found.offset == frame.offset
    assert f"{frame.offset:,} to {frame.end:,}" in found.text


def test_a_frame_that_is_missing():
    small = Small().events(*BEGIN)
    small.generation().generation()
    del small.frames[-2]
    assert "frames" in codes(small.events(LOG).data)


def test_a_frame_that_comes_twice():
    small = Small().events(*BEGIN)
    assert "frames" in codes(small.add(small.frames[-1]).data)


def test_a_frame_behind_the_end():
    small = Small().events(*BEGIN)
    small.end()
    assert "end" in codes(small.generation().data)


def test_no_header_and_two_headers():
    small = Small().events(*BEGIN)
    whole = small.end()
    assert "header" in codes(whole[len(small.frames[0].data) :])
    header = Header(SESSION, {}, START, WALL)
    assert "header" in codes(Small().add(Small().writer.header(header)).data)


def test_events_before_the_first_generation():
    small = Small()
    header, writer = small.frames[0], small.writer
    del small.frames[1:]
    small.events(*BEGIN)
    assert "generation" in codes(b"".join(f.data for f in small.frames))
    assert header.number == 0
    assert writer.frames > 1


def test_a_name_that_is_not_in_the_table():
    small = Small().events(*BEGIN)
    small.frames = [f for f in small.frames if f.kind != FrameKind.STRINGS]
    renumbered = [
        f.__replace__(data=encode_frame(FrameKind(f.kind), i, f.body()))
        for i, f in enumerate(small.frames)
    ]
    report = verify(b"".join(f.data for f in renumbered))
    assert report.counts["names"] == 5


def test_names_out_of_order_and_beyond_their_bound():
    small = Small()
    number = small.writer.frames
    body = Strings([(2, "b"), (3, "x" * 1025)]).pack()
    frame = Frame(FrameKind.STRINGS, number, encode_frame(FrameKind.STRINGS, number, body))
    assert codes(small.add(frame).data) == {"names": 2}


def test_kinds_of_frame_that_are_not_known_are_noted():
    small = Small()
    number = small.writer.frames
    data = bytearray(encode_frame(FrameKind.LOSS, number, Loss([]).pack()))
    unknown = encode_frame(FrameKind.LOSS, number, [])
    assert data == unknown
    frame = Frame(99, number, _with_kind(unknown, 99))
    report = verify(small.add(frame).data)
    assert report.ok
    assert any("kind 99" in note for note in report.notes)


def _with_kind(data: bytes, kind: int) -> bytes:
    import zlib

    changed = bytearray(data)
    changed[6] = kind
    crc = zlib.crc32(changed[18:], zlib.crc32(changed[6:13]))
    changed[14:18] = crc.to_bytes(4, "big")
    return bytes(changed)


# --- snapshots -----------------------------------------------------------------------------------


def with_snapshot(change=lambda snapshot: snapshot, *, parts: int = 1, proc: int = RUN) -> bytes:
    """A run in its second generation, with a snapshot that was changed."""
    small = Small().events(
        *BEGIN, ("span_begin", 7, 0, 2, "s", {"a": 1}), ("region_begin", 8, 2, "r", None)
    )
    times = {
        e: small.time - 1000 * back
        for back, e in enumerate(reversed([*BEGIN, "s", "r"]))
        if isinstance(e, tuple)
    }
    blocked, stepped = times[BEGIN[4]], times[BEGIN[5]]
    small.generation()
    intern = small.writer.intern
    tasks = [
        TaskRow(1, 0, 0, intern("<init>"), intern("init"), 3, blocked, NURSERY, 50),
        TaskRow(2, 1, 50, intern("main"), intern("main"), 2, stepped, 0, 0),
    ]
    spans = [SpanRow(7, 0, 2, small.time - 2000, intern("s"), {"a": 1})]
    regions = [RegionRow(8, 2, small.time - 1000, intern("r"), None)]
    run = Snapshot(RUN, small.next[RUN], 0, parts, tasks)
    opens = Snapshot(0, 0, 0, 1, [], spans, regions)
    run, opens = (change(run), opens) if proc == RUN else (run, change(opens))
    small.add(*small.writer.snapshot(run), *small.writer.snapshot(opens))
    return small.events(LOG).end()


def test_a_snapshot_that_fits():
    assert codes(with_snapshot()) == {}


@pytest.mark.parametrize(
    "column, value",
    [
        ("task", 3),
        ("parent", 2),
        ("nursery", 51),
        ("name", 0),
        ("entry", 0),
        ("state", 1),
        ("since", START),
        ("reason", 5),
        ("object", 51),
    ],
)
@pytest.mark.parametrize("row", [0, 1])
def test_a_snapshot_that_says_something_else_of_a_task(row, column, value):
    def change(snapshot):
        tasks = list(snapshot.tasks)
        if getattr(tasks[row], column) == value:
            pytest.skip("that is how it is")
        tasks[row] = tasks[row]._replace(**{column: value})
        return snapshot.__replace__(tasks=tasks)

    assert "snapshot" in codes(with_snapshot(change))


@pytest.mark.parametrize("change", ["none", "twice", "seq", "part", "parts"])
def test_a_snapshot_that_is_not_whole_or_of_another_moment(change):
    def changed(snapshot):
        match change:
            case "none":
                return snapshot.__replace__(tasks=snapshot.tasks[:1])
            case "twice":
                return snapshot.__replace__(tasks=snapshot.tasks * 2)
            case name:
                return snapshot.__replace__(**{name: getattr(snapshot, name) + 1})

    assert "snapshot" in codes(with_snapshot(changed))


@pytest.mark.parametrize("kind", ["spans", "regions"])
@pytest.mark.parametrize(
    "column, value", [("task", 1), ("since", START), ("name", 0), ("attributes", {})]
)
def test_a_snapshot_that_says_something_else_of_what_is_open(kind, column, value):
    def change(snapshot):
        row = getattr(snapshot, kind)[0]._replace(**{column: value})
        return snapshot.__replace__(**{kind: [row]})

    assert codes(with_snapshot(change, proc=0)) == {"snapshot": 1}


def test_no_snapshot_of_what_is_open():
    small = Small().events(*BEGIN, ("span_begin", 7, 0, 2, "s", None)).generation()
    assert "snapshot" in codes(small.events(LOG).end())


# --- the report ----------------------------------------------------------------------------------


def test_ten_thousand_violations_are_counted_and_a_thousand_listed():
    events = [("log", 1, 0, 20, 0, "text", None)] * 10_000
    report = verify(Small().events(*BEGIN, *events).end())
    assert report.counts == {"annotation": 10_000}
    assert len(report.violations) == 1000


def test_a_report_is_json():
    report = verify(Small().events(*BEGIN, ("step_yield", 1)).end())
    told = json.loads(json.dumps(report.as_dict()))
    assert told["ok"] is False
    assert told["total"]["closed"] is True
    assert told["violations"][0]["code"] in told["counts"]
    assert {row["name"] for row in told["procs"]} == {"process", "run", "thread", "task"}


def test_any_damage_at_all_is_reported_and_never_raised():
    stream = program(5, events=150, losses=0.05)
    rng = random.Random(5)
    for _ in range(100):
        data = bytearray(stream.data)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        if bytes(data) != stream.data[: len(data)]:
            report = verify(bytes(data))
            assert not report.ok or report.notes


def test_the_session_of_another_stream_is_damage():
    mine, other = program(1, events=100), program(2, events=100)
    assert "damage" in codes(mine.data + other.data)


def test_generations_of_another_session_are_damage():
    small = Small().events(*BEGIN)
    clock = Generation(1, small.tick(), WALL, "00000000-0000-4000-8000-000000000002")
    assert "damage" in codes(small.add(*small.writer.generation(clock, small.rows())).data)
