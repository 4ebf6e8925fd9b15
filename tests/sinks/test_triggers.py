"""Triggers: each has a program that fires it once and one that does not; storms stay in their budget."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import tracesvc
from tests.cli.commands import run
from tests.recorder.recording import Recording
from tests.streams import SECOND
from tracesvc import FlightRecorder, events, triggers
from tracesvc.events import StepStart, StepYield, TaskCreate, TaskExit
from tracesvc.format import Batch, Generation, Header, ProcRow, SessionWriter
from tracesvc.sinks.triggers import is_cancellation

Program = Callable[[], Awaitable[object]]


async def shots(tmp_path, trigger: triggers.Trigger, program: Program) -> list[Recording]:
    """The snapshots that a program made its recorder take."""
    recorder = FlightRecorder(triggers=[trigger], directory=tmp_path / "shots")
    async with tracesvc.open_tracer(recorder, stall_s=0):
        await program()
        await recorder.snapshot(
            tmp_path / "flushed"
        )  # all of it has come by, and is still recorded
        await trio.lowlevel.checkpoint()
    return [read(path) for path in sorted((tmp_path / "shots").iterdir())]


def read(path) -> Recording:
    recording = Recording(path.read_bytes())
    options = recording.header.options
    said = [e for e in recording.of("log") if e.message.startswith("trigger ")]
    if options["trigger"] != "program_dies":  # by then nothing is recorded any more
        assert f"trigger {options['trigger']}: {options['why']}" in [e.message for e in said]
        assert said[-1].attributes == {"trigger": options["trigger"]}
    return recording


# --- what fires, and what does not ---------------------------------------------------------------


async def step(seconds: float) -> None:
    for _ in range(3):
        await trio.lowlevel.checkpoint()
    time.sleep(seconds)  # noqa: ASYNC251 - this is what it is about
    await trio.lowlevel.checkpoint()


async def lag(seconds: float) -> None:
    """Two tasks that each take half of it, in the same pass, and the sample after."""

    async def half() -> None:
        time.sleep(seconds / 2)  # noqa: ASYNC251
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(half)
        nursery.start_soon(half)
    await trio.sleep(0.6)


async def work(name: str, seconds: float) -> None:
    with tracesvc.span(name):
        await trio.sleep(seconds)


async def fail(name: str, exc: BaseException) -> None:
    with pytest.raises(type(exc)), tracesvc.span(name):
        raise exc


async def cancelled(name: str) -> None:
    with trio.CancelScope() as scope, tracesvc.span(name):
        scope.cancel()
        await trio.lowlevel.checkpoint()


async def fall(*errors: Exception) -> None:
    """Out of a nursery, all at once."""

    async def raises(exc: Exception) -> None:
        raise exc

    async def together() -> None:
        async with trio.open_nursery() as nursery:
            for exc in errors:
                nursery.start_soon(raises, exc)

    with pytest.raises(ExceptionGroup):
        await together()


async def crowd(tasks: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(trio.sleep, 0.01)


async def fill(items: int) -> None:
    """A channel that is watched."""
    send, receive = trio.open_memory_channel[int](100)
    tracesvc.watch(send, name="jobs")
    async with send, receive:
        for item in range(items):
            await send.send(item)


async def count(name: str, *values: float) -> None:
    for value in values:
        tracesvc.counter(name, value)
        await trio.lowlevel.checkpoint()


async def say(level: str) -> None:
    tracesvc.log("look", level=level)


async def kill(number: int) -> None:
    os.kill(os.getpid(), number)
    await trio.lowlevel.checkpoint()


def is_error(event: events.Log) -> bool:
    return event.level >= 40


LOUD = ValueError("loud")
CASES = {
    "long step": (
        lambda: triggers.LongStep(0.1, after=0),
        lambda: step(0.15),
        None,
        "a step of task",
    ),
    "short step": (
        lambda: triggers.LongStep(30, after=0),  # this machine may be busy for seconds
        None,
        lambda: step(0.001),
        "",
    ),
    "loop lag": (
        lambda: triggers.LoopLag(0.1, after=0),
        lambda: lag(0.15),
        None,
        "a pass of the run loop took",
    ),
    "no loop lag": (
        lambda: triggers.LoopLag(30, after=0),
        None,
        lambda: lag(0.01),
        "",
    ),
    "slow span": (
        lambda: triggers.SlowSpan("GET *", 0.2, after=0),
        lambda: work("GET /", 0.25),
        lambda: work("POST /", 0.25),
        "span GET / took",
    ),
    "quick span": (
        lambda: triggers.SlowSpan("*", 5, after=0),
        None,
        lambda: work("GET /", 0.001),
        "",
    ),
    "failed span": (
        lambda: triggers.FailedSpan("GET *", after=0),
        lambda: fail("GET /", LOUD),
        lambda: fail("POST /", LOUD),
        "span GET / ended in ValueError",
    ),
    "cancelled span": (
        lambda: triggers.FailedSpan(after=0),
        None,
        lambda: cancelled("GET /"),
        "",
    ),
    "nursery": (
        lambda: triggers.NurseryFailed(2, after=0),
        lambda: fall(LOUD, LOUD),
        lambda: fall(LOUD),
        "2 exceptions left nursery",
    ),
    "tasks": (
        lambda: triggers.TasksAbove(40, after=0),
        lambda: crowd(60),
        lambda: crowd(20),
        "tasks live",
    ),
    "channel": (
        lambda: triggers.CounterAbove("jobs.depth", 30, after=0),
        lambda: fill(40),
        lambda: fill(20),
        "counter jobs.depth is 30",
    ),
    "depth": (
        lambda: triggers.CounterAbove("jobs.*", 100, after=0),
        lambda: count("jobs.depth", 1, 100, 150, 3),
        lambda: count("jobs.depth", 1, 99.9),
        "counter jobs.depth is 100",
    ),
    "other counter": (
        lambda: triggers.CounterAbove("jobs.*", 100, after=0),
        None,
        lambda: count("other", 1000),
        "",
    ),
    "predicate": (
        lambda: triggers.When(is_error, events.Log, after=0),
        lambda: say("error"),
        lambda: say("info"),
        "is_error is true of a log event",
    ),
    "predicate that raises": (
        lambda: triggers.When(lambda event: event.nothing, events.SpanBegin, after=0),
        lambda: work("any", 0.001),
        lambda: step(0.001),
        "raised AttributeError",
    ),
    "signal": (
        triggers.Signal,
        lambda: kill(signal.SIGUSR2),
        lambda: step(0.001),
        "signal SIGUSR2",
    ),
}


@pytest.mark.parametrize("case", [name for name, (_, fires, *_) in CASES.items() if fires])
async def test_its_program_fires_it_once(tmp_path, case):
    make, fires, _, why = CASES[case]
    trigger = make()
    (recording,) = await shots(tmp_path, trigger, fires)
    assert trigger.fired == 1
    assert why in recording.header.options["why"]
    assert recording.header.options["trigger"] == trigger.name


@pytest.mark.parametrize("case", [name for name, (*_, silent, _) in CASES.items() if silent])
async def test_another_program_does_not(tmp_path, case):
    make, _, silent, _ = CASES[case]
    trigger = make()
    assert await shots(tmp_path, trigger, silent) == []
    assert (trigger.fired, trigger.suppressed) == (0, 0)


async def test_a_step_over_the_end_of_a_batch_is_one(tmp_path):
    """It fills buffers while it runs, so its begin and its end are in different batches."""

    async def chatter() -> None:
        end = time.monotonic() + 0.15
        while time.monotonic() < end:
            tracesvc.counter("n", 1)
        await trio.lowlevel.checkpoint()

    assert len(await shots(tmp_path, triggers.LongStep(0.1, after=0), chatter)) == 1


def test_exceptions_that_leave_a_nursery(tmp_path):
    """From the events, which say how many there were."""

    async def main(errors: int) -> list[str]:
        trigger = triggers.NurseryFailed(2, after=0)
        recorder = FlightRecorder(triggers=[trigger], directory=tmp_path)
        queue, writer, time = recorder.open_queue(), SessionWriter(), SECOND
        session = "12345678-1234-4234-8234-123456789abc"
        queue.put(writer.header(Header(session, {}, time, time)))
        row = ProcRow(1, 1, "run", 1, 0, 0, live=True)
        frames = writer.generation(Generation(0, time, time, session), [row])
        closed = (events.NurseryClose.number, time, 7, 3, (4, errors))
        for frame in [*frames, *writer.events(1, 0, list(closed))]:
            queue.put(frame)
        queue.finish()
        await recorder.run(queue)
        with_reasons = [Header.unpack(_first(path)) for path in tmp_path.iterdir()]
        return [header.options["why"] for header in with_reasons]

    assert trio.run(main, 1) == []
    assert trio.run(main, 2) == ["2 exceptions left nursery 3 of task 7"]


def _first(path):
    with tracesvc.read(path) as trace:
        return next(iter(trace.items())).frame.body()


def test_what_is_no_failure():
    group = BaseExceptionGroup("", [GeneratorExit()])
    assert is_cancellation(group)
    assert not is_cancellation(BaseExceptionGroup("", [group, LOUD]))


# --- before and after ----------------------------------------------------------------------------


async def test_a_snapshot_has_what_came_before_and_what_came_after(tmp_path):
    async def program() -> None:
        tracesvc.log("before")
        await say("error")
        while not trigger.fired:  # noqa: ASYNC110 - its batch is on the way
            await trio.sleep(0.01)
        tracesvc.log("after")

    trigger = triggers.When(is_error, events.Log, after=60)
    (recording,) = await shots(tmp_path, trigger, program)
    said = [e.message for e in recording.of("log")]
    assert said.index("before") < said.index("look") < said.index("after")


async def test_at_the_end_of_the_session_what_is_due_is_taken_at_once(tmp_path):
    began = time.monotonic()
    trigger = triggers.When(is_error, events.Log, after=60)
    recorder = FlightRecorder(triggers=[trigger], directory=tmp_path)
    async with tracesvc.open_tracer(recorder):
        await say("error")
    assert time.monotonic() - began < 30
    (path,) = tmp_path.iterdir()
    recording = Recording(path.read_bytes())
    assert recording.header.options["why"] == "is_error is true of a log event"
    assert "look" in [e.message for e in recording.of("log")]


def test_the_program_that_dies_of_an_exception_has_its_past(tmp_path):
    code = f"""
import sys, trio, tracesvc
from tracesvc import triggers
async def main():
    recorder = tracesvc.FlightRecorder(
        triggers=[triggers.ProgramDies()], directory={str(tmp_path / "shots")!r}
    )
    async with tracesvc.open_tracer(recorder):
        tracesvc.log("famous last words")
        if len(sys.argv) > 1:
            raise ValueError("of this")
try:
    trio.run(main)
except KeyError:
    pass
"""
    fine = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert fine.stderr == ""
    assert not list((tmp_path / "shots").iterdir())
    dead = subprocess.run(
        [sys.executable, "-c", code, "die"], check=False, capture_output=True, text=True
    )
    assert dead.returncode == 1
    assert dead.stderr.endswith("ValueError: of this\n")
    (path,) = (tmp_path / "shots").iterdir()
    recording = read(path)
    assert recording.header.options["why"] == "unhandled ValueError: of this"
    assert "famous last words" in [e.message for e in recording.of("log")]


async def test_summary_shows_what_fired(tmp_path):
    await shots(tmp_path, triggers.When(is_error, events.Log, after=0), lambda: say("error"))
    (path,) = (tmp_path / "shots").iterdir()
    said = run("summary", path).stdout
    assert "; when: is_error is true of a log event" in said
    assert "trigger when: is_error" in said


# --- budgets -------------------------------------------------------------------------------------


async def test_a_storm_stays_in_its_budget(tmp_path):
    async def storm() -> None:
        for _ in range(300):
            await fail("x", LOUD)
            await trio.lowlevel.checkpoint()

    trigger = triggers.FailedSpan(after=0, every=0, budget=3)
    assert len(await shots(tmp_path, trigger, storm)) == 3
    assert (trigger.fired, trigger.suppressed) == (3, 297)


async def test_a_storm_of_events_stays_in_its_budget_too(tmp_path):
    trigger = triggers.When(is_error, events.Log, after=0, every=0, budget=2)
    recorder = FlightRecorder(triggers=[trigger], directory=tmp_path)
    async with tracesvc.open_tracer(recorder, buffer_events=16):
        for _ in range(100):
            for _ in range(16):
                tracesvc.log("look", level="error")
            await trio.lowlevel.checkpoint()
    assert len(list(tmp_path.iterdir())) == trigger.fired == 2
    assert trigger.suppressed > 10


async def test_not_so_soon_again(tmp_path):
    async def twice() -> None:
        for _ in range(2):
            await fail("x", LOUD)
            await trio.sleep(0.02)

    trigger = triggers.FailedSpan(after=0, every=60)
    assert len(await shots(tmp_path, trigger, twice)) == 1
    assert (trigger.fired, trigger.suppressed) == (1, 1)


# --- who asks for it -----------------------------------------------------------------------------


async def test_a_handler_that_was_there_is_called_too_and_comes_back(tmp_path):
    called = []

    def mine(number, frame):
        called.append(number)

    before = signal.signal(signal.SIGUSR2, mine)
    try:
        assert len(await shots(tmp_path, triggers.Signal(), lambda: kill(signal.SIGUSR2))) == 1
        assert signal.getsignal(signal.SIGUSR2) is mine
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert called == [signal.SIGUSR2]


async def test_a_directory_that_cannot_be_made_costs_the_recorder_and_not_the_program(
    tmp_path, caplog
):
    (tmp_path / "shots").touch()
    recorder = FlightRecorder(
        triggers=[triggers.When(is_error, events.Log, after=0)], directory=tmp_path / "shots"
    )
    async with tracesvc.open_tracer(recorder):
        await say("error")
        await trio.sleep(0.05)
    assert "choose another directory" in caplog.text


def test_what_cannot_be_is_refused():
    with pytest.raises(TypeError, match="is no trigger"):
        FlightRecorder(triggers=["long step"])
    with pytest.raises(ValueError, match="must not be negative"):
        triggers.LongStep(1, every=-1)
    with pytest.raises(TypeError, match="classes of the events"):
        triggers.When(is_error)


# --- what is not decoded must not be missed ------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 60)), min_size=1, max_size=60),
    st.lists(st.integers(1, 9), min_size=1),
    st.integers(5, 70),
)
def test_a_long_step_is_found_in_whatever_batch_it_ends(steps, sizes, limit):
    """``steps``: ns without a step, then with one; ``sizes``: events in a batch, round and round."""
    now, records, ends = 0, [], []
    for i, (pause, long) in enumerate(steps, 1):
        records.append([StepStart.number, now + pause, i, 0, 0])
        now += pause + long
        records.append([StepYield.number, now, i, 0, 0])
        ends.append((len(records) - 1, i, long))
    trigger = triggers.LongStep(limit * 1e-9, after=0)
    trigger.open(lambda reason: None)
    writer, at, found, wanted = SessionWriter(), 0, [], []
    for size in itertools.cycle(sizes):
        piece = records[at : at + size]
        if not piece:
            break
        frame = writer.events(0, at, list(itertools.chain.from_iterable(piece)))[-1]
        batch = Batch(frame.body())
        reason = trigger.look(batch, str) if trigger.worth_it(batch, frame.newest) else None
        found.append(reason is not None)
        wanted.append(any(at <= e < at + size and long >= limit for e, _, long in ends))
        at += size
    assert found == wanted


@given(
    st.lists(st.booleans(), max_size=80), st.lists(st.integers(1, 9), min_size=1), st.integers(1, 6)
)
def test_a_bound_on_tasks_is_crossed_in_whatever_batch(lives, sizes, bound):
    """Creations and ends, in batches; against counting one by one."""
    live, types = 0, []
    for create in lives:
        if create or not live:
            types.append(TaskCreate)
            live += 1
        else:
            types.append(TaskExit)
            live -= 1
    trigger = triggers.TasksAbove(bound, after=0)
    trigger.open(lambda reason: None)
    trigger.count(0)
    writer, at, live, above = SessionWriter(), 0, 0, False
    for size in itertools.cycle(sizes):
        piece = types[at : at + size]
        if not piece:
            break
        rows = [
            [kind.number, i, i, 0, (0, "t", "e") if kind is TaskCreate else 0]
            for i, kind in enumerate(piece, at)
        ]
        frame = writer.events(0, at, list(itertools.chain.from_iterable(rows)))[-1]
        batch = Batch(frame.body())
        found = trigger.worth_it(batch, frame.newest) and trigger.look(batch, str) is not None
        most = live
        for kind in piece:
            live += 1 if kind is TaskCreate else -1
            most = max(most, live)
        assert found == (most >= bound and not above)
        above = live >= bound
        at += size
