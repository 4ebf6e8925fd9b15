"""Parquet, pprof, speedscope, CTF, OTLP, JSON lines and text: what others read in them is what is in the trace."""

import datetime as dt
import json
import re
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import duckdb
import jsonschema_rs
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tests.export import go_judge
from tests.export.conftest import damaged, end_of, events_of
from tests.export.oracle import look
from tests.judges import absent, require_program
from tests.traces import program
from tracesvc.analysis import query
from tracesvc.events import Reason
from tracesvc.export import FORMATS, export
from tracesvc.export.otlp_push import Push
from tracesvc.format.tracecontext import span_number
from tracesvc.model import read
from tracesvc.model.axis import Axis
from tracesvc.model.schema import TABLES
from tracesvc.model.timebase import timebase_of

WHICH = pytest.mark.parametrize("which", ["whole", "demo"])


@pytest.fixture
def data(request, which):
    source = request.getfixturevalue(which)
    return source.read_bytes() if which == "demo" else source.data


@WHICH
def test_duckdb_finds_the_models_totals_in_parquet(tmp_path, data):
    done = export(data, "parquet", tmp_path / "tables")
    events = events_of(data)
    found = look(events, end_of(data))

    def ask(sql):
        return duckdb.sql(re.sub(r"\{(\w+)\}", rf"'{tmp_path}/tables/\1.parquet'", sql)).fetchall()

    assert dict(ask("select type, count(*) from {events} group by type")) == found.types
    assert ask("select count(*), sum(duration) from {steps}") == [
        (found.count("running"), found.total("running"))
    ]
    counts = ask("select reason, count(*) from {waits} group by reason")
    ended = ask("select reason, sum(duration) from {waits} where ended group by reason")
    waits = {
        Reason(reason).name.lower(): (ns, len(ns) - found.left[state, reason])
        for (state, reason), ns in found.states.items()
        if state == "waiting"
    }
    assert dict(counts) == {reason: len(ns) for reason, (ns, _) in waits.items()}
    assert dict(ended) == {reason: sum(ns[:n]) for reason, (ns, n) in waits.items() if n}
    ready = found.states["runnable", 0]
    assert ask("select count(*) from {runnable}") == [(len(ready),)]
    assert ask("select count(*), count(ended) from {tasks}") == [
        (found.types["task_create"], found.types["task_exit"])
    ]
    spans = {e.span: e for e in events if e.type == "span_begin"}
    ends = {e.span: e.time for e in events if e.type == "span_end"}
    rows = ask('select span, parent, name, start, "end" from {spans}')
    assert sorted(rows, key=lambda row: row[0]) == [
        (n, e.parent, e.name, e.time, ends.get(n)) for n, e in sorted(spans.items())
    ]
    assert ask("select count(*) from {regions}") == [(found.types["region_begin"],)]
    assert ask("select count(*), sum(level) from {logs}")[0][0] == found.types["log"]
    assert ask("select count(*) from {counters}") == [(found.types["counter"],)]
    assert ask("select count(*) from {losses}") == [(0,)]
    assert done.events == sum(found.types.values())


def test_losses_are_a_table(tmp_path, lossy):
    done = export(lossy.data, "parquet", tmp_path / "tables")
    rows = duckdb.sql(
        f"select proc, first, last, cause, start, \"end\" from '{tmp_path}/tables/losses.parquet'"
    )
    causes = {1: "queue_full", 2: "no_reader"}
    assert sorted(rows.fetchall()) == sorted(
        (r[0], r[1], r[2], causes[r[3]], r[4], r[5]) for r in lossy.losses
    )
    assert done.lost == sum(row.last - row.first + 1 for row in lossy.losses)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_missing_and_nothing_tells_of_is_in_the_table_of_losses(tmp_path, seed):
    done = export(damaged(program(seed, losses=0.05).data, seed), "parquet", tmp_path / "tables")
    rows = duckdb.sql(f"select sum(events) from '{tmp_path}/tables/losses.parquet'").fetchall()
    assert rows == [(done.lost,)]


def test_parquet_has_the_tables_that_sql_is_asked_of(tmp_path, lossy):
    export(lossy.data, "parquet", tmp_path / "tables")
    for name, columns in TABLES.items():
        asked = query(read(lossy.data), f"select * from {name} order by all")
        file = tmp_path / "tables" / f"{name}.parquet"
        rows = duckdb.sql(f"select * from '{file}' order by all").fetchall()
        assert asked.columns == [column.name for column in columns]
        assert rows == asked.rows, name


@WHICH
def test_pprof_has_our_totals(tmp_path, data):
    path = tmp_path / "a.pb.gz"
    export(data, "pprof", path)
    found = look(events_of(data), end_of(data))
    assert go_judge.raw(path) == [
        found.count("running"),
        found.total("running"),
        found.total("runnable"),
        found.count("waiting"),
        found.total("waiting"),
        0,
    ]


def schema_of_speedscope() -> Path:
    """The published one, of the program itself."""
    package = Path(sys.prefix) / "judges" / "node_modules" / "speedscope"
    found = package / "dist" / "release" / "file-format-schema.json"
    return (
        found
        if found.exists()
        else absent("speedscope, by tools/node-packages", package="nodejs npm")
    )


@WHICH
def test_speedscope_has_every_step_of_every_run(tmp_path, data):
    path = tmp_path / "a.json"
    export(data, "speedscope", path)
    loaded = json.loads(path.read_text())
    assert loaded["$schema"].endswith("file-format-schema.json")
    jsonschema_rs.validator_for(json.loads(schema_of_speedscope().read_text())).validate(loaded)
    assert loaded["exporter"] == "tracesvc"
    frames = loaded["shared"]["frames"]
    assert all(isinstance(frame["name"], str) for frame in frames)
    assert len({frame["name"] for frame in frames}) == len(frames)
    total = steps = 0
    for profile in loaded["profiles"]:
        assert profile.keys() == {"type", "name", "unit", "startValue", "endValue", "events"}
        assert (profile["type"], profile["unit"]) == ("evented", "nanoseconds")
        last, stack = profile["startValue"], []
        for event in profile["events"]:
            assert event.keys() == {"type", "frame", "at"}
            assert last <= event["at"] <= profile["endValue"]
            assert 0 <= event["frame"] < len(frames)
            last = event["at"]
            if event["type"] == "O":
                stack.append(event)
            else:
                opened = stack.pop()
                assert opened["frame"] == event["frame"]
                total, steps = total + last - opened["at"], steps + 1
        assert not stack
    found = look(events_of(data), end_of(data))
    assert (steps, total) == (found.count("running"), found.total("running"))


@WHICH
def test_babeltrace_counts_our_events(tmp_path, data):
    export(data, "ctf", tmp_path / "ctf")
    names, discarded = babeltrace(tmp_path / "ctf")
    assert names == Counter(event.type for event in events_of(data))
    assert discarded == 0


def test_babeltrace_counts_our_losses(tmp_path, lossy):
    done = export(lossy.data, "ctf", tmp_path / "ctf")
    names, discarded = babeltrace(tmp_path / "ctf")
    assert names == Counter(event.type for event in lossy.events)
    assert discarded == done.lost == sum(row.last - row.first + 1 for row in lossy.losses)


@pytest.mark.parametrize("seed", [0, 1, 5, 13, 28, 43, 54])
def test_a_loss_behind_the_first_events_of_a_proc_does_not_turn_time_back(tmp_path, seed):
    """These were refused: the first packet began with the loss, and the events before it came later in the file."""
    stream = program(seed, events=300, runs=1 + seed % 4, losses=0.3, batch=20, nests=seed % 2 == 1)
    done = export(stream.data, "ctf", tmp_path / "ctf")
    names, discarded = babeltrace(tmp_path / "ctf")
    assert names == Counter(event.type for event in stream.events)
    assert discarded == done.lost == sum(row.last - row.first + 1 for row in stream.losses)
    assert discarded


def babeltrace(directory):
    """Events by name, and how many were discarded."""
    program = require_program("babeltrace2", package="babeltrace2")
    done = subprocess.run(
        [program, str(directory)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr[-1000:]
    names = Counter(re.findall(r"^\[.*?\] \(.*?\) (?:\S+ )??(\w+): ", done.stdout, re.MULTILINE))
    return names, sum(map(int, re.findall(r"discarded (\d+) events?", done.stderr)))


def test_text_has_words_where_the_trace_has_numbers(tmp_path, scopes):
    export(scopes.read_bytes(), "text", tmp_path / "a.txt")
    lines = [line.split() for line in (tmp_path / "a.txt").read_text().splitlines()]

    def of(kind, field):
        words = (word for line in lines if kind in line for word in line)
        return {word.split("=")[1] for word in words if word.startswith(f"{field}=")}

    assert of("cancel_request", "source") == {"called", "deadline", "error", "shutdown"}
    assert of("task_exit", "outcome") == {"returned", "raised", "cancelled"}
    assert of("task_runnable", "cause") >= {"task", "timer", "cancel"}
    assert of("step_block", "reason") >= {"sleep", "nursery"}
    assert of("proc_start", "kind") == {"run"}


def spans_of(message):
    return [span for r in message.resource_spans for s in r.scope_spans for span in s.spans]


@WHICH
def test_opentelemetry_decodes_the_spans(tmp_path, data):
    path = tmp_path / "a.pb"
    done = export(data, "otlp", path)
    spans = spans_of(TracesData.FromString(path.read_bytes()))
    events = events_of(data)
    begun = [e for e in events if e.type == "span_begin"]
    assert len(spans) == len(begun) == done.written["span"]
    assert Counter(span.name for span in spans) == Counter(e.name for e in begun)
    ids = {span.span_id for span in spans}
    assert len(ids) == len(spans)
    known = {e.span for e in begun}
    assert sum(bool(s.parent_span_id) for s in spans) == sum(bool(e.parent) for e in begun)
    inside = sum(e.parent in known for e in begun)
    assert sum(s.parent_span_id in ids for s in spans) == inside
    parents = {span.span_id: span for span in spans}
    ends = {e.span: e.time for e in events if e.type == "span_end"}
    session = read(data).session.id
    times = {span_number(session, e.span): (e.time, ends.get(e.span, end_of(data))) for e in begun}
    at = Axis.of([timebase_of(read(data))]).placed[0].time
    for span in spans:
        assert (len(span.trace_id), len(span.span_id)) == (16, 8)
        if span.parent_span_id in parents:
            assert parents[span.parent_span_id].trace_id == span.trace_id
        spent = {
            a.key: a.value.int_value
            for a in span.attributes
            if a.key.startswith("tracesvc.") and "_ns" in a.key
        }
        begin, end = times[span.span_id]
        assert sum(spent.values()) <= end - begin
        # Points in time are told by the clock that all programs have in common, if the trace has it.
        assert (span.start_time_unix_nano, span.end_time_unix_nano) == (at(begin), at(end))
    year = dt.datetime.fromtimestamp(spans[0].start_time_unix_nano / 1e9, dt.UTC).year
    assert year >= 2023


def test_a_span_says_what_its_task_did_meanwhile(tmp_path):
    from tests.analysis.streams import Hand

    hand = Hand().generation(0)
    hand.events(
        1,
        ("proc_start", 0, 1, 1, "run"),
        ("task_create", 10, 1, 0, 0, "main", "main (app.py:1)"),
        ("step_start", 20, 1),
        ("span_begin", 30, 5, 0, 1, "GET /", {"q": 1}),
        ("log", 35, 1, 5, 30, 0, "look out", None),
        ("step_block", 50, 1, int(Reason.LOCK), 7),
        ("task_runnable", 150, 1, 0),
        ("step_start", 157, 1),
        ("span_end", 160, 5, 1),
        ("task_exit", 170, 1),
        ("proc_stop", 180),
    )
    export(hand.end(200).data, "otlp", tmp_path / "a")
    (span,) = spans_of(TracesData.FromString((tmp_path / "a").read_bytes()))
    values = {a.key: a.value.int_value for a in span.attributes}
    assert values == {
        "tracesvc.running_ns": 23,
        "tracesvc.runnable_ns": 7,
        "tracesvc.waiting_ns.lock": 100,
        "tracesvc.task": 1,
        "q": 1,
    }
    assert [event.name for event in span.events] == ["look out"]
    assert not span.parent_span_id


class Receiver(BaseHTTPRequestHandler):
    """An OTLP/HTTP receiver that is busy at first."""

    busy = 1
    got: ClassVar[list] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if Receiver.busy:
            Receiver.busy -= 1
            self.send_response(503)
        else:
            assert (self.path, self.headers["content-type"]) == (
                "/v1/traces",
                "application/x-protobuf",
            )
            Receiver.got.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def receiver():
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Receiver.busy, Receiver.got = 1, []
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_spans_are_pushed_and_a_busy_receiver_is_asked_again(whole, receiver):
    with Push(receiver, wait=0.01) as send:
        done = export(whole.data, "otlp", send)
    assert sum(len(spans_of(message)) for message in Receiver.got) == done.written["span"]


def test_a_receiver_that_is_not_there_is_told_of(whole):
    with (
        Push("http://127.0.0.1:9", wait=0.001) as send,
        pytest.raises(OSError, match="cannot be reached"),
    ):
        export(whole.data, "otlp", send)


@WHICH
def test_every_event_is_a_line(tmp_path, data):
    events = events_of(data)
    export(data, "jsonl", tmp_path / "a.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert Counter(row["type"] for row in rows if row["type"].islower()) == Counter(
        e.type for e in events
    )
    assert [(r["time"], r["proc"], r["seq"]) for r in rows if "seq" in r] == [
        (e.time, e.proc, e.seq) for e in events
    ]
    done = export(data, "text", tmp_path / "a.txt")
    lines = (tmp_path / "a.txt").read_text().splitlines()
    assert len(lines) == sum(done.written.values())
    assert len(lines) == len(rows)


def test_lines_say_what_is_lost_and_damaged(tmp_path, lossy):
    done = export(lossy.data, "jsonl", tmp_path / "a.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    lost = [
        (r["proc"], r["first"], r["last"], r["time"], r["end"]) for r in rows if r["type"] == "LOSS"
    ]
    assert sorted(lost) == sorted((r.proc, r.first, r.last, r.start, r.end) for r in lossy.losses)
    assert done.lost == sum(row.last - row.first + 1 for row in lossy.losses)
    spoiled = export(damaged(lossy.data, 3), "text", tmp_path / "a.txt")
    assert " DAMAGE " in (tmp_path / "a.txt").read_text()
    assert spoiled.lost > done.lost


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", range(4))
def test_damage_never_ends_an_export(tmp_path, name, seed):
    stream = program(seed, losses=0.05)
    done = export(damaged(stream.data, seed, 12), name, tmp_path / "out")
    assert done.lost > 0
    assert done.events > 0
