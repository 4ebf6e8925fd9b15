"""`tracesvc fleet`, `merge`, `why --with` and the exports: what they say of clocks."""

import json

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tests.cli.commands import failed, run
from tests.streams import SECOND, Maker, joined
from tracesvc.events import SpanBegin, SpanEnd
from tracesvc.export import export
from tracesvc.format import Exchange
from tracesvc.format.tracecontext import Parent, header, span_number, trace_number

EPOCH = 1_800_000_000 * SECOND
"""time of day when the service's clock was 0"""
MS = 10**6


class Program:
    """A machine whose clock was 0 when the service's was ``ahead``, and whose time of day is wrong by ``error``."""

    def __init__(self, name, ahead, error=0):
        self.ahead = ahead
        right = EPOCH + ahead + SECOND
        self.made = Maker(name=name, start_wall=right + error)
        self.frames = self.made.start()

    def talk(self, width=2 * MS):
        """An exchange with the service that took so long, half of it each way."""
        sent = self.made.time
        there = sent + self.ahead + width // 2
        row = Exchange(sent, there, there, sent + width, EPOCH + there, "service")
        self.frames += self.made.writer.clocks([row])

    def span(self, number, begin, end, name, parent=0, **attributes):
        """Times are the service's."""
        times = [time - self.ahead for time in (begin, end)]
        first = self.made.emitted[0]
        records = [SpanBegin.number, times[0], number, parent, (0, name, attributes or None)]
        records += [SpanEnd.number, times[1], number, 0, 0]
        self.made.emitted[0] += 2
        self.made.time = max(self.made.time, times[1])
        self.frames += self.made.writer.events(0, first, records)

    def sends(self, number):
        """What its span sends to another program."""
        session = self.made.session
        return header(Parent(trace_number(session, number), span_number(session, number)))

    def write(self, path):
        path.write_bytes(joined([*self.frames, *self.made.end()]))
        return path


@pytest.fixture
def both(tmp_path):
    """``shop`` asks ``stock``; each has its own clock, and an own idea of the time of day."""
    shop, stock = Program("shop", 70 * SECOND), Program("stock", 20 * SECOND, error=-7200 * SECOND)
    at = 80 * SECOND
    for program in (shop, stock):
        program.talk()
    shop.span(1, at, at + 40 * MS, "order")
    stock.span(
        7, at + 10 * MS, at + 30 * MS, "GET /stock", traceparent=shop.sends(1), tracestate="a=1"
    )
    return shop.write(tmp_path / "shop.trace"), stock.write(tmp_path / "stock.trace")


def test_fleet_says_where_sessions_are_and_how_certain_that_is(both):
    done = run("fleet", *both)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "by clock service" in lines[0]
    shop = next(line for line in lines if "shop (test 1)" in line)
    stock = next(line for line in lines if "stock (test 1)" in line)
    assert "exchanges" in shop
    assert "±" in shop
    assert "+2:00:00 h" in stock
    told = json.loads(run("fleet", "--json", *both).stdout)
    assert (told["clock"], told["links"], told["contradictions"]) == ("service", 1, [])
    by_name = {one["name"]: one for one in told["sessions"]}
    assert [one["name"] for one in told["sessions"]] == ["stock", "shop"]  # as they began
    assert by_name["stock"]["children"] == by_name["shop"]["parents"] == 1
    offset = by_name["stock"]["offset"]
    assert abs(offset - 7200 * SECOND) <= by_name["stock"]["uncertainty"] < 50 * MS


def test_fleet_tells_of_what_cannot_be(tmp_path):
    shop, stock = Program("shop", 70 * SECOND), Program("stock", 20 * SECOND)
    for program in (shop, stock):
        program.talk()
    shop.span(1, 80 * SECOND, 81 * SECOND, "order")
    stock.span(1, 75 * SECOND, 76 * SECOND, "too early", traceparent=shop.sends(1))
    done = run("fleet", shop.write(tmp_path / "a"), stock.write(tmp_path / "b"))
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "too early (1) of" in said
    assert "before its parent order (1) of" in said


def test_without_exchanges_it_says_that_nothing_is_bounded(tmp_path):
    paths = [
        Program(name, ahead, error).write(tmp_path / name)
        for name, ahead, error in (("a", SECOND, 0), ("b", 5 * SECOND, 10 * SECOND))
    ]
    done = run("fleet", *paths)
    assert "time of day" in done.stdout
    assert " ? " in done.stdout


def test_fleet_wants_each_session_once(both):
    assert "more than once" in failed(run("fleet", both[0], both[0]), 1)


def test_why_follows_a_span_into_another_program(both):
    shop, stock = both
    alone = run("why", stock, "GET /stock")
    assert "--with" in alone.stdout
    done = run("why", stock, "GET /stock", "--with", shop)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "part of order (1) in shop, session" in said
    assert "took 40.0 ms" in said
    told = json.loads(run("why", stock, "GET /stock", "--with", shop, "--json").stdout)
    [order] = told["ancestors"]
    assert (order["name"], order["elsewhere"], order["duration"]) == ("order", True, 40 * MS)
    assert abs(order["before"] - 10 * MS) <= order["uncertainty"] < 50 * MS
    assert told["missing"] is None
    assert "--with goes with a span" in failed(
        run("why", stock, "--from", "0s", "--to", "1s", "--with", shop), 2
    )


def test_merge_says_how_certain_it_is(both, tmp_path):
    done = run("merge", *both, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("by exchanges") == 2
    assert done.stderr.count("± ") == 2
    assert run("verify", tmp_path / "out").returncode == 0


def spans_in(path):
    return [
        span
        for resource in TracesData.FromString(path.read_bytes()).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def test_otlp_has_the_times_of_the_service(both, tmp_path):
    times = {}
    for path in both:
        export(path, "otlp", out := tmp_path / f"{path.name}.otlp")
        times |= {span.name: span.start_time_unix_nano for span in spans_in(out)}
    right = EPOCH + 80 * SECOND
    assert abs(times["order"] - right) < 10 * MS
    assert abs(times["GET /stock"] - right - 10 * MS) < 50 * MS


def test_lines_tell_of_every_exchange_once(both, tmp_path):
    export(both[0], "jsonl", tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    [told] = [row for row in rows if row["type"] == "EXCHANGE"]
    assert told["clock"] == "service"
    assert told["arrived"] - told["sent"] == 70 * SECOND + MS
    assert " EXCHANGE " in run("export", both[0], "--to", "text", "-o", "-").stdout
