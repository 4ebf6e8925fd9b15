"""Spans, regions and logs: what they carry, and where to."""

import contextvars
import enum
import sys
import threading

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

import tracesvc
from tests.recorder.recording import Recording, finish, trace
from tracesvc import Tracer
from tracesvc.recorder.texts import cut_text

# --- how they nest and where they go -------------------------------------------------------------


def test_spans_nest_across_awaits_tasks_and_threads():
    async def child() -> None:
        with tracesvc.span("child"):
            await trio.lowlevel.checkpoint()

    def thread() -> None:
        with tracesvc.span("thread"):
            trio.from_thread.run(child_of_thread)

    async def child_of_thread() -> None:
        with tracesvc.span("from thread"):
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        with tracesvc.span("outer"):
            with tracesvc.span("inner"):
                await trio.lowlevel.checkpoint()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
            await trio.to_thread.run_sync(thread)
        with tracesvc.span("sibling"):
            pass

    recording = trace(main)
    begins = {event.name: event for event in recording.of("span_begin")}
    names = {event.span: event.name for event in begins.values()} | {0: None}
    assert {name: names[event.parent] for name, event in begins.items()} == {
        "outer": None,
        "inner": "outer",
        "child": "outer",
        "thread": "outer",
        "from thread": "thread",
        "sibling": None,
    }
    main_task, child_task = begins["outer"].task, begins["child"].task
    assert {begins[name].task for name in ("inner", "thread", "sibling")} == {main_task}
    assert recording.names[child_task] == "child"
    ends = {names[event.span]: event for event in recording.of("span_end")}
    assert ends.keys() == begins.keys()
    for name, end in ends.items():
        assert end.time >= begins[name].time
        assert end.task == begins[name].task


def test_regions_nest_in_their_task_and_are_not_the_childs():
    async def child() -> None:
        with tracesvc.region("child's"):
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        with tracesvc.region("outer"), tracesvc.region("inner"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)

    assert [line for line in trace(main).story("main", "child") if "region" in line] == [
        "main: region_begin outer",
        "main: region_begin inner",
        "child: region_begin child's",
        "child: region_end",
        "main: region_end",
        "main: region_end",
    ]


def test_a_span_that_an_exception_ends():
    async def main() -> None:
        with pytest.raises(ValueError), tracesvc.span("span"), tracesvc.region("region"):  # noqa: PT011, PT012
            await trio.lowlevel.checkpoint()
            raise ValueError

    recording = trace(main)
    assert len(recording.of("span_end")) == len(recording.of("region_end")) == 1
    assert recording.statistics.repairs == {}


def test_a_task_started_in_a_span_belongs_to_it_also_when_the_span_is_over():
    async def background(event: trio.Event) -> None:
        await event.wait()
        with tracesvc.span("later"):
            tracesvc.log("later")

    async def main() -> None:
        event = trio.Event()
        async with trio.open_nursery() as nursery:
            with tracesvc.span("request"):
                nursery.start_soon(background, event)
            event.set()

    recording = trace(main)
    begins = {event.name: event for event in recording.of("span_begin")}
    assert begins["later"].parent == begins["request"].span
    assert [event.span for event in recording.of("log")] == [begins["later"].span]


def test_regions_of_threads_that_work_for_no_task_do_not_mix():
    barrier = threading.Barrier(2)

    def work(name: str) -> None:
        with tracesvc.region(name):
            barrier.wait()
        barrier.wait()

    async def main() -> None:
        threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    recording = trace(main)
    assert recording.statistics.repairs == {}
    begins = {event.region: event.proc for event in recording.of("region_begin")}
    ends = {event.region: event.proc for event in recording.of("region_end")}
    assert begins == ends
    assert len(set(begins.values())) == 2


async def test_a_span_may_begin_in_one_session_and_end_in_another():
    tracer = Tracer()
    tracer.start()
    with tracesvc.span("long", n=1), tracesvc.region("region"):
        first = Recording(await finish(tracer), statistics=tracer.statistics())
        tracer.start()
        await trio.lowlevel.checkpoint()
    second = Recording(await finish(tracer), statistics=tracer.statistics())
    assert len(first.of("span_begin")) == len(second.of("span_begin")) == 1
    assert first.of("span_end", "region_end") == []
    assert len(second.of("span_end", "region_end")) == 2
    assert tracer.statistics().repairs == {}


async def test_what_is_open_is_in_the_snapshot_of_every_generation():
    tracer, data = Tracer(buffer_events=16), b""
    tracer.start()
    with tracesvc.span("open", key="value"), tracesvc.region("region", n=1):
        for _ in range(12):
            for i in range(16):
                tracesvc.log(str(i))
            tracer.new_generation()
            data += await tracer.read()
    with tracesvc.span("begun and ended"):
        pass
    tracer.new_generation()
    recording = Recording(data + await finish(tracer), statistics=tracer.statistics())
    assert recording.generations > 2
    opens = [
        (strings[row.name], row.attributes)
        for snapshot, strings in recording.snapshots
        for row in [*snapshot.spans, *snapshot.regions]
    ]
    assert len(opens) >= 4
    assert opens[::2] == [("open", {"key": "value"})] * (len(opens) // 2)
    assert opens[1::2] == [("region", {"n": 1})] * (len(opens) // 2)


# --- attributes ----------------------------------------------------------------------------------


class Colour(enum.IntEnum):
    RED = 1


class BadRepr:
    def __repr__(self) -> str:
        raise ValueError


class BaseBadRepr:
    def __repr__(self) -> str:
        raise RecursionError


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise ValueError

    def isascii(self) -> bool:
        raise ValueError


class ReprOfText:
    def __repr__(self) -> str:
        return Text("a text of another kind")


KEPT = {
    "none": (None, None),
    "true": (True, True),
    "zero": (0, 0),
    "negative": (-(2**63), -(2**63)),
    "largest": (2**64 - 1, 2**64 - 1),
    "float": (1.5, 1.5),
    "infinity": (float("inf"), float("inf")),
    "text": ("naïve ☃", "naïve ☃"),
    "bytes": (b"\x00\xff", b"\x00\xff"),
    "too large": (2**64, str(2**64)),
    "too small": (-(2**63) - 1, str(-(2**63) - 1)),
    "huge": (1 << 100_000, "<int of 100001 bits>"),
    "as large as can be told": (2**2047 - 1, str(2**2047 - 1)),
    "surrogate": ("a\udc80b", "a?b"),
    "long text": ("x" * 2000, "x" * 1021 + "…"),
    "long bytes": (b"x" * 2000, b"x" * 1024),
    "list": ([1, "two"], "[1, 'two']"),
    "dict": ({"a": 1}, "{'a': 1}"),
    "enum": (Colour.RED, "<Colour.RED: 1>"),
    "its repr raises": (BadRepr(), "<BadRepr: its repr raised>"),
    "its repr recurses": (BaseBadRepr(), "<BaseBadRepr: its repr raised>"),
    "text of another kind": (Text("text"), "text"),
    "repr of another kind": (ReprOfText(), "a text of another kind"),
    "bytearray": (bytearray(b"ab"), "bytearray(b'ab')"),
}


@pytest.mark.parametrize("value, kept", KEPT.values(), ids=KEPT.keys())
def test_attributes_of_every_kind(value, kept):
    async def main() -> None:
        with tracesvc.span("s", a=value), tracesvc.region("r", a=value):
            tracesvc.log("l", a=value)

    for event in trace(main).of("span_begin", "region_begin", "log"):
        assert event.attributes == {"a": kept}
        assert type(event.attributes["a"]) is type(kept)


def test_more_attributes_than_fit_and_names_that_are_too_long():
    async def main() -> None:
        tracesvc.log("none")
        tracesvc.log("many", **{f"a{i}": i for i in range(1000)})
        tracesvc.log("long", **{"n" * 2000: 1, "\udc80": 2, Text("text"): 3})

    none, many, long = trace(main).of("log")
    assert none.attributes is None
    assert many.attributes == {f"a{i}": i for i in range(64)}
    assert long.attributes == {"n" * 1021 + "…": 1, "?": 2, "text": 3}


def test_the_least_digits_that_python_can_be_content_with():
    digits = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        recording = trace(log_a_large_number)
    finally:
        sys.set_int_max_str_digits(digits)
    assert [len(event.attributes["a"]) for event in recording.of("log")] == [617]


async def log_a_large_number() -> None:
    tracesvc.log("", a=2**2047 - 1)


@pytest.mark.parametrize(
    "level, number",
    [
        ("debug", 10),
        ("critical", 50),
        ("no such level", 20),
        (35, 35),
        (0, 0),
        (-7, 0),
        (10**30, 2**31 - 1),
        (None, 20),
        (BadRepr(), 20),
    ],
)
def test_levels(level, number):
    async def main() -> None:
        tracesvc.log("message", level=level)

    assert [event.level for event in trace(main).of("log")] == [number]


@pytest.mark.parametrize("name", [None, 7, BadRepr(), Text("text"), ["a", "list"], b"bytes"])
def test_nothing_of_this_raises_into_the_program(name):
    async def main() -> None:
        with tracesvc.span(name), tracesvc.region(name):
            tracesvc.log(name)
            tracesvc.counter(name, name)
            tracesvc.counter(name, 1)

    recording = trace(main)
    assert len(recording.of("span_begin", "region_begin", "log")) == 3


@given(text=st.text(st.characters(), max_size=40), limit=st.integers(4, 60))
def test_a_text_is_cut_at_a_character_and_what_was_cut_is_counted(text, limit):
    kept, cut = cut_text(text, limit)
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit:
        assert (kept, cut) == (encoded.decode(), 0)
    else:
        assert kept[-1] == "…"
        assert cut == len(text) - len(kept) + 1 > 0
        assert encoded.decode().startswith(kept[:-1])
        assert limit - 6 < len(kept.encode()) <= limit


async def test_a_context_that_is_copied_by_hand_and_run_elsewhere():
    tracer = Tracer()
    tracer.start()
    with tracesvc.span("outer") as span:
        context = contextvars.copy_context()
    context.run(tracesvc.log, "in the copy")
    await wait_all_tasks_blocked()
    recording = Recording(await finish(tracer), statistics=tracer.statistics())
    assert [event.span for event in recording.of("log")] == [span.id]
