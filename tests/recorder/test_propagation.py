"""`tracesvc.traceparent`: a span in one program is the parent of one in another."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import tracesvc
from tests.recorder.recording import Memory
from tracesvc.export import export
from tracesvc.format.tracecontext import Parent, header, parse, state_of

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


STATES = [
    "a=1",
    "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
    "1a-_*/@z=x y!~,b= z",
    "a=1,,b=2",
    "a=1 , b=2",
]


@pytest.mark.parametrize("text", STATES)
def test_what_others_keep_in_the_state_goes_on_as_it_is(text):
    assert state_of(text) == text


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        "",
        ",,",
        "a",
        "a=",
        "=1",
        "A=1",
        "a b=1",
        "a=1=2",
        "a=ä",
        "a=1\nb=2",
        "a=1,a=2",
        "@a=1",
        "x" * 257 + "=1",
        "a=" + "x" * 257,
        ",".join(f"k{i}=1" for i in range(33)),
    ],
)
def test_a_state_that_is_not_by_the_rules_is_left_out(text):
    assert state_of(text) is None


def test_bounds_of_a_state():
    assert state_of(",".join(f"k{i}=1" for i in range(32)))
    assert state_of("x" * 256 + "=" + "y" * 256)


@pytest.mark.parametrize(
    "text",
    [
        "\u2003" + EXAMPLE,
        EXAMPLE + "\n",
        EXAMPLE.replace("4bf9", "４bf9"),
        EXAMPLE + "-",
        EXAMPLE[:-1],
    ],
)
def test_only_blanks_may_stand_around_it(text):
    assert parse(text) is None
    assert parse(f" \t{EXAMPLE} ") == parse(EXAMPLE)


async def test_flags_and_state_that_came_go_on():
    """The number of a trace is random if whoever made it says so; that a span is recorded is ours to say."""

    async def main():
        sent = {}
        for flags in ("00", "01", "02", "03", "ff"):
            came = EXAMPLE[:-2] + flags
            with tracesvc.span("GET /", traceparent=came, tracestate="a=1,b=2"):
                with tracesvc.span("inside"):
                    sent[flags] = tracesvc.trace_headers()
        with tracesvc.span("of our own"):
            sent["own"] = tracesvc.trace_headers()
        with tracesvc.span("GET /", traceparent=EXAMPLE, tracestate="A=1"):
            sent["bad state"] = tracesvc.trace_headers()
        with tracesvc.span("GET /", traceparent="nonsense", tracestate="a=1"):
            sent["bad parent"] = tracesvc.trace_headers()
        return sent

    sent, _ = await recorded(main)
    flags = {name: headers["traceparent"][-2:] for name, headers in sent.items()}
    assert [flags[name] for name in ("00", "01", "02", "03", "ff")] == [
        "01",
        "01",
        "03",
        "03",
        "03",
    ]
    assert flags["own"] == flags["bad parent"] == "03"
    assert all(sent[name]["tracestate"] == "a=1,b=2" for name in ("00", "01", "02", "03", "ff"))
    for name in ("own", "bad state", "bad parent"):
        assert sent[name].keys() == {"traceparent"}


async def test_what_is_not_recorded_is_passed_on():
    """A program whose tracer is off, or leaves a span out, breaks nobody's trace."""
    came = {"traceparent": EXAMPLE.replace("-01", "-00"), "tracestate": "a=1"}
    with tracesvc.span("GET /", **came):
        assert tracesvc.trace_headers() == came
        with tracesvc.span("inside"):
            assert tracesvc.trace_headers() == came
    assert tracesvc.trace_headers() == {}
    memory = Memory()
    async with tracesvc.open_tracer(memory, spans=["kept *"]):
        with tracesvc.span("left out", **came):
            assert tracesvc.trace_headers() == came
            with tracesvc.span("kept inside"):
                own = tracesvc.trace_headers()
        with tracesvc.span("kept around"), tracesvc.span("left out", **came):
            assert tracesvc.trace_headers() == came
    assert parse(own["traceparent"]).trace != parse(EXAMPLE).trace


async def test_the_export_says_the_same(tmp_path):
    async def main():
        with tracesvc.span("GET /", traceparent=EXAMPLE, tracestate="a=1"):
            with tracesvc.span("inside"):
                sent = tracesvc.trace_headers()
        with tracesvc.span("own"):
            return sent

    sent, data = await recorded(main)
    spans = spans_of(data, tmp_path / "x")
    sampled, random, has_remote, is_remote = 1, 2, 0x100, 0x200
    assert spans["GET /"].flags == sampled | has_remote | is_remote
    assert spans["inside"].flags == sampled | has_remote
    assert spans["own"].flags == sampled | random | has_remote
    assert spans["GET /"].trace_state == spans["inside"].trace_state == sent["tracestate"]
    assert not spans["own"].trace_state


async def test_opentelemetry_reads_what_is_sent_and_is_read():
    """Its own propagator, in between two of our programs."""
    propagator = TraceContextTextMapPropagator()

    async def client():
        with tracesvc.span("ask", traceparent=EXAMPLE, tracestate="a=1,b=2"):
            return tracesvc.trace_headers()

    sent, _ = await recorded(client)
    context = propagator.extract(sent)
    span = get_current_span(context).get_span_context()
    assert span.is_valid
    assert span.trace_flags.sampled
    assert dict(span.trace_state) == {"a": "1", "b": "2"}
    carried = {}
    propagator.inject(carried, context)
    assert parse(carried["traceparent"]) == parse(sent["traceparent"])
    assert state_of(carried["tracestate"]) == sent["tracestate"]
