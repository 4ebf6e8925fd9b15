"""The direct way into trio: nobody else notices, and trio's table is there again afterwards."""

import logging

import pytest
import trio
from trio.testing import MockClock

import tracesvc
from tests.recorder.recording import Memory, trace
from tracesvc import Tracer
from tracesvc.recorder import direct

HOOKS = (
    *("before_run", "after_run", "task_spawned", "task_scheduled", "before_task_step"),
    *("after_task_step", "task_exited", "before_io_wait", "after_io_wait"),
)


def runner():
    return trio._core._run.GLOBAL_RUN_CONTEXT.runner


class Sees(trio.abc.Instrument):
    """Notes all that trio tells it."""

    def __init__(self, story, name=""):
        self.story, self.name = story, name
        for hook in HOOKS:
            setattr(self, hook, self._noting(hook))

    def _noting(self, hook):
        def note(*args) -> None:
            task = getattr(args[0], "name", "") if args else ""
            if "tracesvc" not in task:
                self.story.append((self.name, hook, task))

        return note


class Raises(trio.abc.Instrument):
    calls = 0

    def before_task_step(self, task) -> None:
        self.calls += 1
        raise ValueError("no good")


async def program(story) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.checkpoint)
        nursery.start_soon(trio.sleep, 0)
        await trio.lowlevel.checkpoint()
        one, other = Sees(story, "one"), Sees(story, "other")
        trio.lowlevel.add_instrument(one)
        trio.lowlevel.add_instrument(other)
        trio.lowlevel.add_instrument(one)  # does nothing
        await trio.lowlevel.checkpoint()
        trio.lowlevel.remove_instrument(other)
        await trio.lowlevel.checkpoint()
        with pytest.raises(KeyError):
            trio.lowlevel.remove_instrument(other)


def test_other_instruments_see_what_they_would_in_the_order_they_would(monkeypatch):
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    direct.why_not(
        native=True
    )  # a run of its own, the first time, which draws from trio's random numbers
    stories = []
    for traced in (False, True):
        story = []
        trio._core._run._r.seed(1)
        if traced:
            trace(program, story, run={"instruments": [Sees(story, "first")]}, stacks="off")
        else:
            trio.run(program, story, instruments=[Sees(story, "first")])
        # polls differ: how often the loop goes round is a matter of time
        stories.append([line for line in story if not line[1].endswith("io_wait")])
    assert stories[0] == stories[1]
    assert {name for name, _, _ in stories[0]} == {"first", "one", "other"}


def test_an_instrument_that_raises_is_removed_and_logged_as_trio_does(caplog):
    bad, story = Raises(), []

    async def main() -> None:
        trio.lowlevel.add_instrument(bad)
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()

    recording = trace(main, run={"instruments": [Sees(story)]})
    assert bad.calls == 1
    (record,) = [r for r in caplog.records if r.name == "trio.abc.Instrument"]
    assert record.exc_info[0] is ValueError
    assert len(recording.of("step_start", task="main")) == 3
    assert len([line for line in story if line[1:] == ("before_task_step", "main")]) <= 3


async def test_stop_puts_trios_table_back_and_start_takes_its_place_again(way):
    before = runner().instruments
    for _ in range(3):
        async with tracesvc.open_tracer(Memory()) as tracer:
            assert tracer.statistics().way == way[0]
            assert (runner().instruments is before) == (way[0] == "public")
            async with tracesvc.open_tracer(Memory()):
                await trio.lowlevel.checkpoint()
        assert runner().instruments is before


async def test_who_stands_in_front_of_ours_stays_there():
    """Another tool that does as we do, and does not know of us."""
    before = runner().instruments

    class Wrapper:
        def __init__(self, inner) -> None:
            self.inner = inner

        def __contains__(self, hook) -> bool:
            return hook in self.inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

    async with tracesvc.open_tracer(Memory()):
        wrapper = runner().instruments = Wrapper(runner().instruments)
        await trio.lowlevel.checkpoint()
    assert runner().instruments is wrapper
    story = []
    trio.lowlevel.add_instrument(one := Sees(story))
    await trio.lowlevel.checkpoint()
    trio.lowlevel.remove_instrument(one)
    assert story
    runner().instruments = before


def test_a_trio_that_is_not_known_is_traced_the_public_way_with_one_line(monkeypatch, caplog):
    monkeypatch.setenv("TRACESVC_WAY", "direct")
    monkeypatch.setattr(direct, "NEWEST", (0, 1))
    direct._shape.cache_clear()
    try:
        tracer = Tracer()
        with caplog.at_level(logging.INFO, logger="tracesvc"):
            for _ in range(2):
                tracer.start()
                assert tracer.statistics().way == "public"
                trio.run(tracer.stop)
    finally:
        direct._shape.cache_clear()
    (line,) = [r.getMessage() for r in caplog.records if r.name == "tracesvc"]
    assert "public" in line
    assert trio.__version__ in line


def test_a_self_test_that_differs_is_believed(monkeypatch):
    monkeypatch.setattr(direct, "_try_out", lambda native: "it is different")
    direct._self_test.cache_clear()
    try:
        assert direct.why_not(native=False) == "it is different"
    finally:
        direct._self_test.cache_clear()


def test_both_ways_and_both_recorders_tell_the_same_story(monkeypatch):
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            send, receive = trio.open_memory_channel[int](0)
            nursery.start_soon(send.send, 1)
            await receive.receive()
            nursery.start_soon(trio.sleep, 5)
            with trio.move_on_after(10):
                await trio.sleep_forever()

    for natively in (True, False):
        direct.why_not(natively)
    stories = []
    for way in ("direct", "public"):
        for native in (True, False):
            trio._core._run._r.seed(0)
            clock = MockClock(autojump_threshold=0)
            recording = trace(main, way=way, native=native, run={"clock": clock})
            causes = [
                (recording.names[event.task], event.cause)
                for event in recording.of("task_runnable")
                if "run_sync_soon" not in recording.names[event.task]
            ]
            told = {name: recording.story(name) for name in ("main", "send", "sleep")}
            stories.append((told, sorted(causes)))
    assert stories.count(stories[0]) == 4
