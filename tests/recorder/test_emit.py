"""Emitting an event, line by line of the checklist for Go's traceEvent and what belongs to it (section 2.5)."""

import gc
import itertools
import threading

import pytest
import trio

import tracesvc
from tests.recorder.recording import Recording, finish, trace
from tracesvc import Tracer
from tracesvc.recorder import annotations


def test_line_1_each_thread_and_each_run_writes_to_a_proc_of_its_own():
    """Go: the P's own buffer, and for a thread without a P a global one under a lock."""
    barrier = threading.Barrier(4)

    def work(name: str) -> None:
        for _ in range(100):
            tracesvc.log(name)
        barrier.wait()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for i in range(4):
                nursery.start_soon(trio.to_thread.run_sync, work, f"thread {i}")
        tracesvc.log("run")

    recording = trace(main)
    writers: dict[int, set[str]] = {}
    for event in recording.of("log"):
        writers.setdefault(event.proc, set()).add(event.message)
    assert sorted(map(sorted, writers.values())) == [
        ["run"],
        *([f"thread {i}"] for i in range(4)),
    ]
    kinds = {event.proc: event.kind for event in recording.of("proc_start")}
    assert [kinds[proc] for proc in sorted(writers)] == [1, 2, 2, 2, 2]


def test_line_1_what_has_no_thread_to_speak_of_goes_to_the_process():
    def collect() -> None:  # in a thread that has written nothing, and so has no proc
        gc.collect(1)

    async def main() -> None:
        thread = threading.Thread(target=collect)
        thread.start()
        thread.join()

    recording = trace(main)
    starts = [event for event in recording.of("gc_start") if event.generation == 1]
    assert [event.proc for event in starts if event.proc == 0] == [0]


async def test_line_1_while_off_everything_is_dropped_silently():
    assert tracesvc.log("nothing") is None
    assert tracesvc.counter("nothing", 1) is None
    with tracesvc.span("nothing", a=1), tracesvc.region("nothing", b=2):
        await trio.lowlevel.checkpoint()
    tracer = Tracer()
    tracer.start()
    recording = Recording(await finish(tracer), statistics=tracer.statistics())
    tracesvc.log("nothing")
    assert recording.of("log", "counter", "span_begin", "region_begin") == []
    assert tracer.statistics().late == 0, "what is emitted through the annotations is never late"


async def test_line_2_a_full_buffer_goes_to_the_queue_and_memory_is_bounded():
    """Go takes an empty buffer or allocates, without bound."""
    tracer = Tracer(buffer_events=16, queue_buffers=4)
    tracer.start()
    for i in range(10_000):
        tracesvc.log(str(i))
    statistics = tracer.statistics()
    assert statistics.buffers == 4
    waiting = sum(len(proc.records) for proc in tracer._session.procs.values())
    assert waiting <= 5 * 16
    recording = Recording(await finish(tracer), statistics=tracer.statistics())
    assert 4 * 16 <= len(recording.of("log")) + 16 < 6 * 16
    assert recording.lost.total() > 9_900


async def test_line_2_many_or_large_texts_do_not_make_a_frame_too_large():
    tracer = Tracer(buffer_events=1024)
    tracer.start()
    for _ in range(200):
        tracesvc.log("x" * 16_000, **{f"attribute {i}": "y" * 1000 for i in range(64)})
    recording = Recording(await finish(tracer), statistics=tracer.statistics())
    assert len(recording.of("log")) == 200


async def test_line_3_a_clock_that_goes_back_gives_no_time_that_decreases(monkeypatch):
    """Go writes a huge delta."""
    tracer = Tracer(buffer_events=16)
    tracer.start()
    start = tracer._session.monotonic
    steps = itertools.cycle([1_000, 5_000, 2_000, 4_000, -3_000])
    monkeypatch.setattr(annotations, "now", lambda: start + next(steps))
    for i in range(100):
        annotations.TWINS["log"](str(i))  # the native one has no clock that could be replaced
    monkeypatch.undo()
    recording = Recording(await finish(tracer), statistics=tracer.statistics())
    assert {event.message for event in recording.of("log")} == {str(i) for i in range(100)}
    assert tracer.statistics().moved > 0


def test_line_4_where_a_task_came_from_is_its_entry_function():
    """Go: the stack of its entry function."""

    async def entry() -> None:
        pass

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(entry, name="called something else")

    (create,) = [e for e in trace(main).of("task_create") if e.name == "called something else"]
    assert create.entry == f"{entry.__qualname__} ({__file__}:{entry.__code__.co_firstlineno})"


async def test_line_5_sequence_numbers_count_per_proc_from_0_lost_ones_included():
    tracer = Tracer(buffer_events=16, queue_buffers=2)
    tracer.start()
    for i in range(100):
        tracesvc.log(str(i))
    await trio.to_thread.run_sync(tracesvc.log, "elsewhere")
    data = b"".join([await tracer.read() for _ in range(3)])  # makes room
    for i in range(16):
        tracesvc.log(str(i))
    data += await finish(tracer)
    recording = Recording(data, statistics=tracer.statistics())
    stored = [event.seq for event in recording.events if event.proc == 1]
    lost = [n for row in recording.losses if row.proc == 1 for n in range(row.first, row.last + 1)]
    assert stored[0] == 0
    assert len(lost) > 50
    assert stored[-1] > lost[0], "what came later has its numbers after the loss"
    assert sorted([*stored, *lost]) == list(range(len(stored) + len(lost)))


def test_line_6_ids_of_spans_and_regions_are_never_used_again():
    """Go: one counter for the process, from 1, never reset, used even while off."""
    ids = []
    for _ in range(2):
        with tracesvc.span("off") as span:
            ids.append(span.id)
        with tracesvc.region("off") as region:
            ids.append(region.id)

        async def main() -> None:
            with tracesvc.span("on") as span, tracesvc.region("on") as region:
                ids.extend((span.id, region.id))

        recording = trace(main)
        assert [e.span for e in recording.of("span_begin", "span_end")] == [ids[-2]] * 2
        assert [e.region for e in recording.of("region_begin", "region_end")] == [ids[-1]] * 2
    assert ids == sorted(set(ids))
    assert ids[0] > 0


@pytest.mark.parametrize(
    "name, kept",
    [
        ("", ""),
        ("n" * 1024, "n" * 1024),
        ("n" * 1025, "n" * 1021 + "…"),
        ("é" * 512, "é" * 512),
        ("é" * 513, "é" * 510 + "…"),
        ("n" * 1020 + "\N{CAT FACE}", "n" * 1020 + "\N{CAT FACE}"),
        ("n" * 1021 + "\N{CAT FACE}", "n" * 1021 + "…"),
        ("a lone \udc80 surrogate", "a lone ? surrogate"),
        (b"no text at all", "b'no text at all'"),
        (None, "None"),
    ],
)
async def test_line_7_a_name_has_at_most_1_KiB_of_utf_8_and_is_marked_where_it_is_cut(name, kept):
    """Go: function and file names keep only their last 1024 bytes."""
    tracer = Tracer()
    tracer.start()
    with tracesvc.span(name), tracesvc.region(name):
        tracesvc.counter(name, 1)
    async with tracer.proc(name):
        pass
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 0, name=name or "-")
    recording = Recording(await finish(tracer), statistics=tracer.statistics())
    seen = [e.name for e in recording.of("span_begin", "region_begin", "counter")]
    assert [name for name in seen if not name.startswith("trio.")] == [kept] * 3
    assert [event.name for event in recording.of("proc_start") if event.kind == 3] == [kept]
    if isinstance(name, str) and name:
        assert kept in [event.name for event in recording.of("task_create")]
