"""What Go's tracer gets wrong (section 2.6 of the checklist), and what people do to a tracer: none of it hurts here."""

import gc
import logging
import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import tracesvc
from tests.recorder.recording import Memory, Recording, close_ledger, finish, trace
from tracesvc import ReaderBusyError, Sink, Tracer, TracerBusyError, TracerState
from tracesvc.events import LossCause
from tracesvc.recorder.annotations import Region, Span


@pytest.mark.parametrize("size", [16_384, 16_385, 64_000, 65_000, 70_000, 200_000])
def test_defect_1_a_long_message_is_cut_and_marked_and_the_file_is_readable(size):
    """Go: the length is declared wrongly, and the whole file is unreadable."""
    text = "".join(str(i % 10) for i in range(size))

    async def main() -> None:
        tracesvc.log(text)
        tracesvc.log("the next one")

    long, after = trace(main).of("log")
    assert after.message == "the next one"
    if size <= 16_384:
        assert (long.message, long.cut) == (text, 0)
    else:
        assert long.message == text[:16_381] + "…"
        assert long.cut == size - 16_381


@pytest.mark.parametrize(
    "text, kept",
    [
        ("x" * 16_381 + "\N{CAT FACE}", 16_381),  # one character more, and it takes four bytes
        ("\N{CAT FACE}" * 4_096, 4_096),
        ("\N{CAT FACE}" * 4_097, 4_095),
        ("é" * 10_000, 8_190),
        (["a list"] * 10_000, 16_381),
    ],
)
def test_defect_1_how_much_was_cut_is_told_to_the_character(text, kept):
    async def main() -> None:
        tracesvc.log(text)

    (event,) = trace(main).of("log")
    whole = str(text)
    cut = len(whole) - kept
    assert event.cut == cut
    assert event.message == (whole[:kept] + "…" if cut else whole)


async def test_defect_2_a_reader_that_never_comes():
    """Go: memory without bound, and Stop waits for ever."""
    tracer = Tracer(buffer_events=64, queue_buffers=8)
    tracer.start()
    gc.collect()
    before = len(gc.get_objects())
    for i in range(50_000):
        tracesvc.log(str(i))
    assert len(gc.get_objects()) - before < 1_000
    held = sum(len(proc.records) for proc in tracer._session.procs.values())
    assert held < 64 * 5
    await tracer.stop()
    statistics = tracer.statistics()
    close_ledger(statistics)
    assert statistics.stored == 0
    assert set(statistics.lost) == {"no_reader"}
    assert statistics.events > 50_000


class Broken(Sink):
    """Fails at every write."""

    def __init__(self, exception: Exception) -> None:
        super().__init__("broken")
        self.exception = exception
        self.writes = 0

    async def run(self, frames):
        self._begin(frames)
        try:
            while await frames.get():
                self.writes += 1
                raise self.exception
        finally:
            self._end()


@pytest.mark.parametrize(
    "exception", [OSError("no space"), RuntimeError("a bug"), ExceptionGroup("two", [OSError()])]
)
async def test_defect_3_a_sink_that_fails_is_reported_and_dropped(caplog, exception):
    """Go: the writer is called on and on, and nobody is told."""
    broken, working = Broken(exception), Memory()
    async with tracesvc.open_tracer(broken, working) as tracer:
        for i in range(5_000):
            tracesvc.log(str(i))
            if not i % 100:
                await trio.lowlevel.checkpoint()
    (report,) = (record for record in caplog.records if record.name == "tracesvc")
    assert report.levelno == logging.ERROR
    assert report.getMessage() == f"tracesvc: sink broken failed and was dropped: {exception}"
    assert broken.writes == 1
    recording = Recording(working.data, statistics=tracer.statistics())
    assert len(recording.of("log")) == 5_000
    told = {sink.name: sink for sink in tracer.statistics().sinks}
    assert told["broken"].events == 0
    assert told["broken"].lost == {LossCause.SINK_FAILED: len(recording.events)}
    assert told["memory"].events == len(recording.events)
    assert told["memory"].lost == {}


async def test_defect_3_a_sink_that_returns_early_is_one_that_failed(caplog):
    class Lazy(Sink):
        async def run(self, frames):
            self._begin(frames)
            await frames.get()
            self._end()

    async with tracesvc.open_tracer(Lazy("lazy"), working := Memory()) as tracer:
        await wait_all_tasks_blocked()
    assert "sink lazy returned before the end" in caplog.text
    recording = Recording(working.data, statistics=tracer.statistics())
    lazy = next(sink for sink in tracer.statistics().sinks if sink.name == "lazy")
    assert lazy.lost == {LossCause.SINK_FAILED: len(recording.events)}


def test_defect_4_misused_regions_are_put_right_and_counted():
    """Go: one mis-nested or doubly ended region makes the whole trace unreadable."""

    async def end(region: Region) -> None:
        region.__exit__()

    async def main() -> None:
        with tracesvc.region("twice") as twice:
            twice.__exit__()
        outer, inner = tracesvc.region("outer").__enter__(), tracesvc.region("inner").__enter__()
        outer.__exit__()
        inner.__exit__()
        elsewhere = tracesvc.region("elsewhere").__enter__()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end, elsewhere)
        in_thread = tracesvc.region("in a thread").__enter__()
        threading.Thread(target=in_thread.__exit__).start()
        never = tracesvc.region("never").__enter__()
        with never:
            pass

    recording = trace(main)
    begins = {event.region: event for event in recording.of("region_begin")}
    ends = [event.region for event in recording.of("region_end")]
    assert {begins[number].name for number in ends} == {event.name for event in begins.values()}
    assert len(ends) == len(set(ends)) == len(begins) == 6
    names = [begins[number].name for number in ends]
    assert names.index("inner") < names.index("outer"), "those inside end with it"
    assert recording.statistics.repairs == {
        "region ended twice": 1,
        "region ended out of order": 1,
        "region ended elsewhere": 2,
        "region begun twice": 1,
    }


def test_defect_4_misused_spans_too():
    async def main() -> None:
        with tracesvc.span("twice") as twice:
            twice.__exit__()
        outer, inner = tracesvc.span("outer").__enter__(), tracesvc.span("inner").__enter__()
        outer.__exit__()
        with tracesvc.span("within inner"):
            pass
        inner.__exit__()
        with tracesvc.span("within none"):
            pass
        tracesvc.span("never begun").__exit__()
        with tracesvc.span("begun twice") as begun, begun:
            pass

    recording = trace(main)
    spans = {event.name: event for event in recording.of("span_begin")}
    assert len(recording.of("span_end")) == len(spans) == 6
    parents = {name: event.parent for name, event in spans.items()}
    numbers = {name: event.span for name, event in spans.items()}
    assert parents == {
        "twice": 0,
        "outer": 0,
        "inner": numbers["outer"],
        "within inner": numbers["inner"],
        "within none": 0,
        "begun twice": 0,
    }
    assert recording.statistics.repairs == {
        "span ended twice": 2,
        "span ended out of order": 1,
        "span ended before it began": 1,
        "span begun twice": 1,
    }


async def test_defect_4_misuse_without_end_takes_no_memory_without_end():
    async def once() -> None:
        outer, inner = tracesvc.span("outer").__enter__(), tracesvc.span("inner").__enter__()
        a, b = tracesvc.region("a").__enter__(), tracesvc.region("b").__enter__()
        elsewhere = tracesvc.span("elsewhere").__enter__()
        outer.__exit__()
        a.__exit__()
        inner.__exit__()
        b.__exit__()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_another_task, elsewhere)

    async def in_another_task(span: Span) -> None:
        span.__exit__()

    for _ in range(10):
        await once()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(100):
        await once()
    gc.collect()
    assert len(gc.get_objects()) - before < 20


async def test_defect_5_what_was_open_before_the_start_is_in_the_trace():
    """Go: regions and tasks begun before Start are invisible."""
    tracer = Tracer()

    async def child(task_status: trio.TaskStatus[None]) -> None:
        with tracesvc.span("child's", who="child"), tracesvc.region("child's region"):
            task_status.started()
            await trio.sleep_forever()

    ended = tracesvc.span("ended before")
    with tracesvc.span("outer", n=1), tracesvc.region("region", m=2):
        with ended:
            pass
        async with trio.open_nursery() as nursery:
            await nursery.start(child)
            tracer.start()
            tracesvc.log("inside")
            nursery.cancel_scope.cancel()
    recording = Recording(await finish(tracer), statistics=tracer.statistics())
    spans = {event.name: event for event in recording.of("span_begin")}
    regions = {event.name: event for event in recording.of("region_begin")}
    assert spans.keys() == {"outer", "child's"}
    assert regions.keys() == {"region", "child's region"}
    me = trio.lowlevel.current_task()._counter + 1
    assert (spans["outer"].task, spans["outer"].attributes) == (me, {"n": 1})
    assert (regions["region"].task, regions["region"].attributes) == (me, {"m": 2})
    assert recording.names[spans["child's"].task] == "child"
    assert recording.names[regions["child's region"].task] == "child"
    assert spans["child's"].parent == spans["outer"].span
    assert recording.of("log")[0].span == spans["outer"].span
    assert len(recording.of("span_end")) == len(recording.of("region_end")) == 2


async def test_a_span_from_an_earlier_session_is_named_in_none_that_does_not_know_it():
    tracer = Tracer()
    tracer.start()
    span = tracesvc.span("of the first session")
    with span:
        Recording(await finish(tracer))
        tracer.start()
        tracesvc.log("in the second")
        span.__exit__()
        tracesvc.log("after its end")
        recording = Recording(await finish(tracer))
    (begin,) = recording.of("span_begin")
    assert [event.span for event in recording.of("log")] == [begin.span, 0]


async def test_stop_during_start_from_within_and_from_another_thread():
    """There is nothing to stop yet; a start meanwhile is refused."""
    tracer, other, states = Tracer(), Tracer(), []

    def meddle(phase: str, info: object) -> None:
        if phase == "stop" or tracer._session is None or len(states) > 3:
            return
        states.append(tracer.state)
        within = tracer.stop()
        within.send(None)  # it goes no further than a checkpoint
        within.close()
        thread = threading.Thread(target=trio.run, args=(tracer.stop,))
        thread.start()
        thread.join()
        with pytest.raises(TracerBusyError):
            other.start()
        states.append(tracer.state)

    threshold = gc.get_threshold()
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(trio.sleep_forever)
        await wait_all_tasks_blocked()
        gc.set_threshold(1)
        try:
            assert gc.collect() is not None
            gc.callbacks.append(meddle)
            tracer.start()
        finally:
            gc.callbacks.remove(meddle)
            gc.set_threshold(*threshold)
        nursery.cancel_scope.cancel()
    assert states == [TracerState.OFF] * 4
    assert tracer.state is TracerState.ON
    recording = Recording(await finish(tracer), statistics=tracer.statistics())
    assert len(recording.of("task_waiting")) > 100


async def test_a_second_reader_of_an_open_tracer_is_refused_and_nothing_else_happens():
    async with tracesvc.open_tracer(memory := Memory()) as tracer:
        with pytest.raises(ReaderBusyError):
            await tracer.read()
        tracesvc.log("the first one reads on")
    recording = Recording(memory.data, statistics=tracer.statistics())
    assert [event.message for event in recording.of("log")] == ["the first one reads on"]
