"""`tracesvc.traceparent`: a span in one program is the parent of one in another."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

import tracesvc
from tests.recorder.recording import Memory
from tracesvc.export import export
from tracesvc.format.tracecontext import Parent, header, parse

EXAMPLE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
    ],
)
def test_what_is_not_by_the_rules_says_nothing(text):
    assert parse(text) is None


def test_a_later_version_may_say_more():
    assert parse(EXAMPLE.replace("00-", "cc-", 1) + "-more") == parse(EXAMPLE)


@given(
    st.binary(min_size=16, max_size=16).filter(any), st.binary(min_size=8, max_size=8).filter(any)
)
def test_there_and_back(trace, span):
    assert parse(header(Parent(trace, span))) == Parent(trace, span)


def spans_of(data, path):
    """Name -> span, as OpenTelemetry reads it."""
    export(data, "otlp", path)
    return {
        span.name: span
        for resource in TracesData.FromString(path.read_bytes()).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }


async def recorded(main):
    memory = Memory()
    async with tracesvc.open_tracer(memory):
        sent = await main()
    return sent, memory.data


async def test_from_one_program_to_the_next(tmp_path):
    async def client():
        with tracesvc.span("order"):
            with tracesvc.span("ask for stock"):
                await trio.lowlevel.checkpoint()
                return tracesvc.traceparent()

    sent, first = await recorded(client)

    async def server():
        with tracesvc.span("GET /stock", traceparent=sent):
            with tracesvc.span("query"):
                await trio.lowlevel.checkpoint()
                return tracesvc.traceparent()

    onward, second = await recorded(server)
    ours = spans_of(first, tmp_path / "first")
    theirs = spans_of(second, tmp_path / "second")
    assert theirs["GET /stock"].parent_span_id == ours["ask for stock"].span_id
    assert ours["ask for stock"].parent_span_id == ours["order"].span_id
    everything = [*ours.values(), *theirs.values()]
    assert len({span.trace_id for span in everything}) == 1
    assert theirs["query"].parent_span_id == theirs["GET /stock"].span_id
    assert parse(onward) == Parent(theirs["query"].trace_id, theirs["query"].span_id)


async def test_child_tasks_and_threads_send_it_too(tmp_path):
    sent = []

    async def main():
        with tracesvc.span("work"):
            async with trio.open_nursery() as nursery:

                async def child():
                    sent.append(tracesvc.traceparent())

                nursery.start_soon(child)
            sent.append(await trio.to_thread.run_sync(tracesvc.traceparent))
            sent.append(tracesvc.traceparent())

    _, data = await recorded(main)
    work = spans_of(data, tmp_path / "x")["work"]
    assert {parse(text) for text in sent} == {Parent(work.trace_id, work.span_id)}


async def test_without_a_span_or_a_tracer_there_is_none():
    with tracesvc.span("not recorded"):
        assert tracesvc.traceparent() is None

    async def main():
        return tracesvc.traceparent()

    assert (await recorded(main))[0] is None


async def test_what_makes_no_sense_begins_a_trace_of_its_own(tmp_path):
    async def main():
        with tracesvc.span("GET /", traceparent="nonsense"):
            return tracesvc.traceparent()

    sent, data = await recorded(main)
    span = spans_of(data, tmp_path / "x")["GET /"]
    assert not span.parent_span_id
    assert parse(sent) == Parent(span.trace_id, span.span_id)
