"""What an export keeps, and how long it takes, goes with what is open, and not with the length of the trace."""

import random

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tests.analysis.streams import Hand
from tests.export.perfetto_judge import query
from tracesvc.analysis import tree
from tracesvc.events import LossCause
from tracesvc.export import export
from tracesvc.export.books import Books
from tracesvc.export.otlp import _Writer
from tracesvc.export.replay import Replay
from tracesvc.format import Header, LossRow, SessionWriter
from tracesvc.model import read


def handed_on(count):
    """Spans that begin in a task that ends at once, and end in another one."""
    hand = Hand().generation(0)
    hand.events(1, ("proc_start", 0, 1, 1, "r"), ("task_create", 1, 1, 0, 0, "worker", "f"))
    for i in range(2, count + 2):
        time = i * 1000
        hand.events(
            1,
            ("task_create", time, i, 0, 0, "front", "f"),
            ("step_start", time + 10, i),
            ("span_begin", time + 20, i, 0, i, "job", None),
            ("task_exit", time + 50, i, 1),
            ("step_start", time + 60, 1),
            ("span_end", time + 90, i, 1),
            ("step_yield", time + 95, 1),
        )
    return hand.end((count + 3) * 1000).data


def test_spans_that_outlive_their_task_are_not_kept(tmp_path):
    data, pieces, most = handed_on(300), [], 0
    replay = Replay(data, chunk=20)
    writer = _Writer(replay, pieces.append)
    for chunk in replay.chunks():
        writer.chunk(chunk)
        most = max(most, len(writer._spans))
    writer.finish()
    assert most <= 5
    spans = [
        {a.key: a.value.int_value for a in span.attributes}
        | {"took": span.end_time_unix_nano - span.start_time_unix_nano}
        for piece in pieces
        for resource in TracesData.FromString(piece).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert len(spans) == 300
    assert {(span["took"], span["tracesvc.running_ns"]) for span in spans} == {(70, 30)}
    whole = tmp_path / "whole.pb"
    export(data, "otlp", whole)
    assert sorted(
        s.span_id
        for r in TracesData.FromString(whole.read_bytes()).resource_spans
        for c in r.scope_spans
        for s in c.spans
    ) == sorted(
        s.span_id
        for p in pieces
        for r in TracesData.FromString(p).resource_spans
        for c in r.scope_spans
        for s in c.spans
    )


def missing(books):
    """Sequence numbers of each proc that no LOSS row told of."""
    return {
        (row.proc, number)
        for row in books.unexplained(7)
        for number in range(row.first, row.last + 1)
    }


def test_what_is_missing_and_nobody_told_of_is_found_number_by_number():
    for seed in range(200):
        shape, books, wanted = random.Random(seed), Books(), set()
        for proc in (1, 2):
            due, said = 0, []
            for _ in range(shape.randrange(1, 12)):
                gap, count = shape.randrange(6), shape.randrange(1, 5)
                numbers = list(range(due, due + gap))
                books.events(proc, due + gap, count)
                due += gap + count
                told = [n for n in numbers if shape.random() < 0.6]
                said += told
                wanted |= {(proc, n) for n in numbers if n not in told}
            for number in shape.sample(said, len(said)):
                books.loss(LossRow(proc, number, number, int(LossCause.QUEUE_FULL), 1, 2))
        assert missing(books) == wanted


def test_many_losses_that_are_told_late_take_no_time():
    books, count = Books(), 30_000
    for i in range(count):
        books.events(1, 3 * i + 2, 1)
    for i in range(count):
        books.loss(LossRow(1, 3 * i, 3 * i, int(LossCause.SINK_FULL), 1, 2))
    rows = books.unexplained(7)
    assert [(row.first, row.last) for row in rows] == [(3 * i + 1, 3 * i + 1) for i in range(count)]


def test_the_tree_at_an_instant_keeps_no_tasks_that_came_later(monkeypatch):
    kept = []
    join = tree.Lives.join
    monkeypatch.setattr(tree.Lives, "join", lambda parts: kept.append(join(parts)) or kept[-1])
    monkeypatch.setattr("tracesvc.model.walk.CHUNK", 50)
    found = tree.tasks_at(read(handed_on(300)), 10_025)
    assert sorted(found.tasks) == [1, 10]
    assert len(kept[-1]) == 2


def test_a_header_of_another_writer_may_say_what_it_likes(tmp_path):
    hand = Hand()
    odd = Header(hand.session, {"name": 5, "pid": "none"}, 0, 1)
    hand.frames[0] = SessionWriter().header(odd)
    hand.generation(0).events(
        1, ("proc_start", 0, 1, 1, "r"), ("task_create", 0, 2, 0, 0, "a", "f")
    )
    data = hand.end(100).data
    for to in ("perfetto", "chrome", "go", "otlp", "speedscope", "pprof", "jsonl", "text"):
        assert export(data, to, tmp_path / to).events == 2
    assert query(tmp_path / "perfetto", "select count(*) n from slice")[0][0]["n"]
