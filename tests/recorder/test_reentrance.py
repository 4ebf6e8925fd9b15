"""Emission from wherever Python lets something come in between: the collector, finalizers, signal handlers.

They are made to come at the worst place of all, where a record has read the clock and is not stored yet, by replacing
the recorder's clock; and at random places, by an eager collector and a fast timer.
"""

import gc
import importlib
import random
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import trio

import tracesvc
from tests.recorder.recording import Memory, Recording, trace
from tracesvc.recorder import recording as hooks
from tracesvc.recorder.identity import entry_of
from tracesvc.recorder.native import native
from tracesvc.recorder.texts import cut_name

CLOCK = time.monotonic_ns
READERS_OF_THE_CLOCK = ("annotations", "garbage", "recording", "proc", "seams", "session", "tracer")


def emits(tag: str) -> None:
    """One of everything, the way a finalizer or a handler of the program would."""
    with tracesvc.span(f"span {tag}", of=tag), tracesvc.region(f"region {tag}"):
        tracesvc.log(f"log {tag}")
        tracesvc.counter(f"counter {tag}", 1)


class Asked:
    """A name, an attribute or a value that is no plain one: Python is asked, also in the middle of native code."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        hooks.now()
        return self.text

    def __float__(self) -> float:
        hooks.now()
        return float(self.text)


async def lives(rounds: int = 5) -> None:
    """Every hook and every annotation, several times."""
    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[int](1)
        nursery.start_soon(produces, send, rounds)
        nursery.start_soon(consumes, receive)
        for number in range(rounds):
            with tracesvc.span(Asked("outer"), number=number, asked=Asked("")):
                nursery.start_soon(trio.lowlevel.checkpoint, name="no plain näme")
                await trio.to_thread.run_sync(emits, "thread")
                with tracesvc.region(Asked("part"), asked=Asked("")):
                    tracesvc.log(Asked("in it"), level=Asked("info"), asked=Asked(""))
                    tracesvc.counter(Asked("number"), Asked(str(number)))
                    await trio.sleep(0.0002)
            await trio.lowlevel.cancel_shielded_checkpoint()


async def produces(send, rounds: int) -> None:
    async with send:
        for number in range(rounds):
            await send.send(number)


async def consumes(receive) -> None:
    async for _ in receive:
        pass


def traced(program, *args, **options) -> Any:
    """A recording, which has its statistics."""
    return trace(program, *args, **options)


class Clock:
    """Calls ``act`` before or after each time that the recorder reads the clock."""

    def __init__(self, act, first: str) -> None:
        self.act, self.first = act, first
        self.inside, self.calls = False, 0

    def __call__(self) -> int:
        if self.inside:
            return CLOCK()
        self.inside, time_before = True, CLOCK()
        try:
            self.calls += 1
            self.act()
        finally:
            self.inside = False
        return time_before if self.first == "clock" else CLOCK()


@pytest.fixture
def clock(monkeypatch):
    def replace(act, first: str) -> Clock:
        clock = Clock(act, first)
        for name in READERS_OF_THE_CLOCK:
            module = importlib.import_module(f"tracesvc.recorder.{name}")
            assert module.now is CLOCK, f"{name} has another clock: this test would test nothing"
            monkeypatch.setattr(module, "now", clock)
        # The native recorder has a clock of its own and stores what it read at once: nothing comes in between but
        # where it asks Python.
        if native is not None:
            native.texts(entry_of, in_between)
        return clock

    def in_between(name: str) -> str:
        hooks.now()
        return cut_name(name)

    yield replace
    if native is not None:
        native.texts(entry_of, cut_name)


class Garbage:
    """Ends in a cycle, so that only the collector finds it."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        emits("finalizer")


def makes_garbage() -> None:
    Garbage()
    gc.collect(0)


def raises_signal() -> None:
    signal.raise_signal(signal.SIGUSR1)


@pytest.fixture
def handler():
    before = signal.signal(signal.SIGUSR1, lambda *_: emits("handler"))
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def on_collection():
    inside = False

    def collected(phase: str, info: dict) -> None:
        nonlocal inside
        if not inside:
            inside = True
            emits(f"collector {phase}")
            inside = False

    gc.callbacks.append(collected)
    yield
    gc.callbacks.remove(collected)


# --- at the worst place, every time --------------------------------------------------------------


@pytest.mark.parametrize("first", ["clock", "act"])
@pytest.mark.parametrize("capacity", [16, 1024])
@pytest.mark.parametrize("how", ["plain call", "finalizer", "signal handler", "collector"])
def test_emission_inside_every_hook_and_annotation(
    clock, handler, request, how, capacity, first, way
):
    act = {
        "plain call": lambda: emits("plain"),
        "finalizer": makes_garbage,
        "signal handler": in_main_thread(raises_signal),
        "collector": lambda: gc.collect(0),
    }[how]
    if how == "collector":
        request.getfixturevalue("on_collection")
    replaced = clock(act, first)
    recording = traced(lives, buffer_events=capacity, queue_buffers=1 << 12)
    tag = {"plain call": "plain", "signal handler": "handler", "collector": "collector start"}.get(
        how, how
    )
    inner = [log for log in recording.of("log") if log.message == f"log {tag}"]
    assert len(inner) > (100 if way[1] == "0" else 60)
    assert recording.lost.total() == 0
    print(f"{how}: {replaced.calls} re-entries, {recording.statistics.moved} events moved")
    # what the program itself did is all there, and in order
    assert [e.value for e in recording.of("counter") if e.name == "number"] == list(range(5))
    assert len(recording.of("thread_end")) == 5
    begun = [event.span for event in recording.of("span_begin")]
    assert sorted(event.span for event in recording.of("span_end")) == sorted(begun)
    assert (
        len(recording.of("region_begin"))
        == len(recording.of("region_end"))
        == len(recording.of("span_end"))
    )


def in_main_thread(act):
    """A signal handler runs in the main thread, whichever raised the signal: have it where the clock is read."""
    main = threading.main_thread()
    return lambda: act() if threading.current_thread() is main else emits("handler")


@pytest.mark.parametrize("first", ["clock", "act"])
def test_the_same_with_no_room_the_ledger_is_exact(clock, first):
    clock(lambda: emits("plain"), first)
    recording = traced(lives, 20, buffer_events=16, queue_buffers=2)
    assert recording.lost.total() > 0  # nobody reads while it runs
    assert recording.statistics.events == len(recording.events) + recording.lost.total()


def test_a_log_too_large_for_the_buffer_in_between_keeps_the_order(clock):
    """It seals the buffer between the clock reading and the store of what it interrupts."""

    def act() -> None:
        for _ in range(3):
            tracesvc.log("x" * (100 << 10), text="y" * 2000)
        for _ in range(15):
            tracesvc.log("z" * (16 << 10))

    replaced = clock(act, "clock")
    recording = traced(lives, 1, queue_buffers=1 << 12)
    assert recording.statistics.moved > 0
    assert recording.statistics.moved <= replaced.calls
    assert recording.lost.total() == 0


def test_a_finalizer_that_spawns_a_task_inside_a_hook(clock):
    """trio lets it; the new task is created inside another task's step, in the middle of that step's record."""
    nurseries: list[trio.Nursery] = []

    def act() -> None:
        if nurseries and len(nurseries[0].child_tasks) < 50:
            nurseries[0].start_soon(trio.lowlevel.checkpoint, name="spawned in between")

    async def program() -> None:
        async with trio.open_nursery() as nursery:
            nurseries.append(nursery)
            for _ in range(10):
                nursery.start_soon(trio.lowlevel.checkpoint, name="no plain näme")
                await trio.lowlevel.checkpoint()
            nurseries.clear()

    clock(act, "clock")
    recording = traced(program)
    spawned = [e.task for e in recording.of("task_create") if e.name == "spawned in between"]
    assert len(spawned) > 5
    assert {event.task for event in recording.of("task_exit")} >= set(spawned)


# --- at random places ----------------------------------------------------------------------------


def busy(seconds: float):
    """Work until enough real time is over."""

    async def program() -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await lives()

    return program


@pytest.mark.parametrize("threshold", [1, 2, 3, 5])
def test_an_eager_collector_with_finalizers_that_emit(threshold, on_collection):
    def collections() -> int:
        return sum(generation["collections"] for generation in gc.get_stats())

    async def program() -> None:
        enough = collections() + 200  # each Python has its own idea of when one is due
        while collections() < enough:
            for _ in range(5):
                Garbage()
            await lives(1)

    before = gc.get_threshold()
    gc.set_threshold(threshold)
    try:
        recording = traced(program, queue_buffers=1 << 14)
    finally:
        gc.set_threshold(*before)
    assert len(recording.of("gc_start")) > 100
    assert {log.message for log in recording.of("log")} >= {
        "log finalizer",
        "log collector start",
        "log thread",
    }
    assert recording.lost.total() == 0


def test_a_fast_timer_whose_handler_emits():
    calls = 0

    def handler(*_) -> None:
        nonlocal calls
        calls += 1
        emits("handler")

    async def program() -> None:
        # within the run: at its end trio closes the wakeup socket before Python forgets it
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        try:
            await busy(1)()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        recording = traced(program, queue_buffers=1 << 14)
    finally:
        signal.signal(signal.SIGALRM, before)
    logs = [log for log in recording.of("log") if log.message == "log handler"]
    print(f"{calls} signals, {len(recording.events)} events, {recording.statistics.moved} moved")
    assert len(logs) > 100
    assert len(logs) <= calls
    assert recording.lost.total() == 0


async def test_all_of_it_at_once_with_a_reader_beside(on_collection):
    """The reader and the sink are interrupted as well."""
    dice = random.Random(7)

    def handler(*_) -> None:
        emits("handler")
        Garbage()

    before = signal.signal(signal.SIGALRM, handler)
    memory, thresholds = Memory(), gc.get_threshold()
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    gc.set_threshold(50, 5, 5)
    try:
        async with tracesvc.open_tracer(memory, buffer_events=64) as tracer:
            with trio.move_on_after(1):
                while True:
                    await lives(dice.randrange(1, 6))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.set_threshold(*thresholds)
    recording = Recording(memory.data, statistics=tracer.statistics())
    assert {log.message for log in recording.of("log")} >= {
        "log handler",
        "log finalizer",
        "log thread",
    }


COPIES_CONTEXT = """
import contextvars, gc
import tracesvc

variables = [contextvars.ContextVar(f"number {i}", default=None) for i in range(40)]
for variable in variables:
    variable.set([0])

class Garbage:
    def __init__(self):
        self.me = self
    def __del__(self):
        with tracesvc.span("outer"), tracesvc.region("inner"):
            self.room = [bytearray(64 + i) for i in range(50)]

gc.set_threshold(1)
for i in range(3000):
    Garbage()
    assert len(list(contextvars.copy_context().items())) >= 40
    variables[i % 40].set([i])
"""


def test_spans_in_finalizers_do_not_harm_the_context_while_no_tracer_runs():
    """Python before 3.12 collects in the middle of copying a context, and crashes if that is changed meanwhile."""
    command = [sys.executable, "-c", COPIES_CONTEXT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
