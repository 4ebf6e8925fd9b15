"""SQL: the tables have what the events say, and a query can do no harm."""

import pytest

from tests.analysis.streams import Hand
from tests.traces import program
from tracesvc.analysis import QueryError, query, summarize
from tracesvc.events import EVENTS, LossCause, WakeCause
from tracesvc.model import read
from tracesvc.model.schema import TABLES
from tracesvc.model.tables import Tables


@pytest.fixture(scope="module")
def stream():
    return program(3, events=4000, runs=2, generations=4)


def ask(stream, sql):
    return query(read(stream.data), sql).rows


def test_every_event_is_there_with_its_fields(stream):
    rows = ask(stream, "select * from events order by proc, seq")
    names = [column.name for column in TABLES["events"]]
    events = sorted(stream.events, key=lambda e: (e.proc, e.seq))
    assert len(rows) == len(events)
    for row, event in zip(rows, events, strict=True):
        got = dict(zip(names, row, strict=True))
        assert (got["time"], got["proc"], got["seq"], got["type"]) == (
            event.time,
            event.proc,
            event.seq,
            event.type,
        )
        for field in EVENTS[event.number].fields:
            if field.name in got and field.name not in ("reason", "cause"):
                assert got[field.name] == getattr(event, field.name), (event, field)
        if event.type == "task_runnable":
            assert (got["cause"] or "unknown") == WakeCause(event.cause).name.lower()
        if event.type == "thread_start":
            assert got["name"] == event.function
        if "waker" not in {f.name for f in EVENTS[event.number].fields}:
            assert got["waker"] is None


def test_totals_are_those_of_the_summary(stream):
    summary = summarize(read(stream.data), own=True)
    running = dict(ask(stream, "select task_name, sum(duration) from steps group by 1"))
    for name, task in summary.tasks.items():
        assert running.get(name, 0) == task.running
    blocked = {}
    for name, reason, ns in ask(
        stream, "select task_name, reason, sum(duration) from waits group by 1, 2"
    ):
        blocked.setdefault(name, {})[reason] = int(ns)
    for name, task in summary.tasks.items():
        assert {r: ns for r, ns in blocked.get(name, {}).items() if ns} == task.blocked
    runnable = dict(ask(stream, "select task_name, sum(duration) from runnable group by 1"))
    assert sum(runnable.values()) == sum(t.runnable for t in summary.tasks.values())
    (count,) = ask(stream, "select count(*) from tasks")
    assert count[0] == sum(t.count for t in summary.tasks.values())


def test_spans_regions_logs_counters_losses():
    hand = (
        Hand()
        .generation(0)
        .events(
            1,
            ("proc_start", 0, 1, 1, "r"),
            ("task_create", 0, 1, 0, 0, "t", "f"),
            ("step_start", 1, 1),
            ("span_begin", 2, 7, 0, 1, "GET", {"q": "a"}),
            ("region_begin", 3, 8, 1, "parse", None),
            ("log", 4, 1, 7, 30, 2, "hello", {"k": 1}),
            ("counter", 5, "jobs", 1.5, 1),
            ("region_end", 6, 8, 1),
            ("step_yield", 7, 1),
        )
        .lose(1, 3, 10, 20, LossCause.QUEUE_FULL)
    )
    trace = read(hand.end(100).data)

    def one(sql):
        trace.rewind()
        return query(trace, sql).rows

    assert one('select span, name, task, end_task, start, "end", attributes from spans') == [
        (7, "GET", 1, None, 2, None, '{"q": "a"}')
    ]
    assert one("select region, name, duration, attributes from regions") == [(8, "parse", 3, None)]
    assert one("select time, task, span, level, message, cut, attributes from logs") == [
        (4, 1, 7, 30, "hello", 2, '{"k": 1}')
    ]
    assert one("select time, name, value, task from counters") == [(5, "jobs", 1.5, 1)]
    assert one('select proc, first, last, events, cause, start, "end" from losses') == [
        (1, 9, 11, 3, "queue_full", 10, 20)
    ]


def test_json_functions_and_joins_work(stream):
    rows = ask(
        stream,
        "select s.name, count(*) from spans s join tasks t on s.task = t.task"
        " where json_extract(s.attributes, '$.k') is not null group by 1 order by 1",
    )
    assert rows


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_csv('/etc/passwd')",
        "copy (select 1) to '/tmp/tracesvc-must-not-exist.csv'",
        "install httpfs",
        "attach '/tmp/tracesvc-must-not-exist.db'",
        "set enable_external_access = true",
        "selec",
        "select nonsense from tasks",
    ],
)
def test_what_is_no_query_or_reaches_out_is_refused(stream, sql):
    with pytest.raises(QueryError):
        ask(stream, sql)


def test_a_limit_is_told(stream):
    answer = query(read(stream.data), "select * from events", limit=10)
    assert (len(answer.rows), answer.truncated) == (10, True)
    assert query(read(stream.data), "select 1", limit=10).truncated is False


def test_only_tables_that_are_asked_for_are_made(stream):
    assert {name for name, _ in Tables(read(stream.data), ["steps"]).parts()} == {"steps"}
    with pytest.raises(ValueError, match="no such table: x"):
        Tables(read(stream.data), ["x"])


def test_the_schema_names_every_column_once_and_every_field_of_importance():
    for name, columns in TABLES.items():
        names = [column.name for column in columns]
        assert len(set(names)) == len(names), name
        assert {column.type for column in columns} <= {"int", "float", "text", "bool"}
