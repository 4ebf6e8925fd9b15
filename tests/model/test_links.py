"""Spans whose parents are in other sessions are found, in whole traces and in what is left of one."""

from tests.cli.test_fleet import SECOND, Program
from tests.streams import joined
from tracesvc.format import Snapshot
from tracesvc.format.records import SpanRow
from tracesvc.model.links import find_links, spans_of
from tracesvc.model.reader import read


def trace(program, frames=None):
    return read(joined(frames if frames is not None else [*program.frames, *program.made.end()]))


def test_chains_of_programs_and_children_of_one_parent():
    a, b, c = (Program(name, 50 * SECOND) for name in "abc")
    at = 60 * SECOND
    a.span(1, at, at + 90, "first")
    b.span(5, at + 10, at + 80, "second", traceparent=a.sends(1))
    for n in range(3):
        c.span(n + 1, at + 20 + n, at + 70, "third", traceparent=b.sends(5))
    c.span(9, at + 60, at + 70, "of nobody here", traceparent=Program("x", 0).sends(1))
    links = find_links([trace(one) for one in (a, b, c)])
    assert {(link.parent.name, link.child.name, link.child.span) for link in links} == {
        ("first", "second", 5),
        *(("second", "third", n + 1) for n in range(3)),
    }
    assert len(links) == 4
    assert all(link.parent.session != link.child.session for link in links)


def test_one_that_began_before_the_trace_is_found_in_its_snapshot_and_once():
    made = Program("late", 50 * SECOND)
    asks = Program("asks", 50 * SECOND)
    asks.span(1, 60 * SECOND, 61 * SECOND, "ask")
    maker = made.made
    frames = made.frames[:1]
    for _ in range(3):
        frames += maker.generation()
        name = maker.writer.intern("open for long")
        row = SpanRow(7, 0, 0, SECOND, name, {"traceparent": asks.sends(1)})
        frames += maker.writer.snapshot(Snapshot(0, 0, 0, 1, [], [row], []))
        frames += maker.events(5)
    # A sink that joined late: of the generation before it there is nothing.
    begun = [one for one in frames[1:] if one.number >= frames[1].number]
    found = [at for at, _ in spans_of(trace(made, [frames[0], *begun]))]
    assert [(at.span, at.name, at.begin) for at in found] == [(7, "open for long", SECOND)]
    [link] = find_links([trace(asks), trace(made, [frames[0], *begun])])
    assert (link.parent.name, link.child.name) == ("ask", "open for long")
