"""A tracer over its budget leaves out what it says, counts it, and is right about the rest."""

import json
import time

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import tracesvc
from tests.cli.commands import run
from tests.recorder.recording import Memory, Recording
from tracesvc.analysis import summarize
from tracesvc.events import LossCause
from tracesvc.model.verify import verify
from tracesvc.recorder.governor import LAST, SECOND
from tracesvc.recorder.meter import Meter
from tracesvc.recorder.regulator import Regulator


class Hand:
    """Has the governor look when the test says, at costs that the test makes."""

    def __init__(self, monkeypatch) -> None:
        monkeypatch.setattr(Regulator, "tick", lambda regulator: 0.25)
        monkeypatch.setattr(Meter, "total", lambda meter, runs: int(self.ns))
        self.ns = 0.0
        self.time = time.monotonic_ns()

    def look(self, tracer, share: float, seconds: float = 0.5) -> None:
        """For so long the tracer used this share of a budget of one per cent."""
        for _ in range(round(seconds * 10)):
            self.time += SECOND // 10
            self.ns += share * 0.01 * SECOND / 10
            tracer._regulator.look(self.time)

    def go_to(self, tracer, level: int) -> None:
        while tracer.statistics().overhead.level != level:
            self.look(tracer, 5 if tracer.statistics().overhead.level < level else 0.01)

    def darken(self, tracer) -> None:
        self.go_to(tracer, LAST)
        self.look(tracer, 20)

    def lighten(self, tracer) -> None:
        self.look(tracer, 0.01, 12)


@pytest.fixture
def hand(monkeypatch):
    return Hand(monkeypatch)


def traced(program, **options) -> Recording:
    memory = Memory()

    async def main() -> object:
        async with tracesvc.open_tracer(memory, **{"budget": 0.01, **options}) as tracer:
            result = await program(tracer)
        return tracer.statistics(), result

    statistics, result = trio.run(main)
    return Recording(memory.data, statistics=statistics, result=result)


async def ticks(n: int) -> None:
    for _ in range(n):
        await trio.lowlevel.checkpoint()


async def handed_over(tracer) -> None:
    """Until what was recorded so far has gone through the reader."""
    wanted = tracer.seal_all()
    await wait_all_tasks_blocked()
    assert tracer.has_read(wanted)


# --- levels ------------------------------------------------------------------------------------------


def test_every_change_is_in_the_trace_and_in_the_statistics(hand):
    levels = []

    async def program(tracer) -> None:
        for level in (1, 2, 3, 4, 3, 0):
            hand.go_to(tracer, level)
            levels.append((level, tracer.statistics().overhead.left_out))

    recording = traced(program)
    told = [(event.level, event.left_out) for event in recording.of("overhead")]
    assert [level for level, _ in told] == [1, 2, 3, 4, 3, 2, 1, 0]
    assert set(levels) <= set(told)
    assert told[0] == (1, "stacks")
    assert told[3][1] == "stacks, most logs, most annotations, stretches of everything"
    assert told[-1] == (0, "")
    assert all(event.share > 1.1 for event in recording.of("overhead")[:4])
    with tracesvc.read(recording.data) as read:
        changes = summarize(read).overhead
    assert [(change.level, change.left_out) for change in changes] == told


def test_first_there_are_no_stacks(hand):
    async def program(tracer) -> None:
        for level in (0, 1, 0):
            hand.go_to(tracer, level)
            tracesvc.log(f"level {level}")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 0.005, name=f"at {level}")

    recording = traced(program, stacks="all")
    with_stack = {recording.names.get(event.task) for event in recording.of("task_stack")}
    assert "at 0" in with_stack
    assert "at 1" not in with_stack


def test_without_a_budget_nothing_is_measured_or_left_out():
    async def program(tracer) -> None:
        assert tracer._session.meter is None
        assert tracer.statistics().overhead is None
        await ticks(10)

    recording = traced(program, budget=None)
    assert not recording.of("overhead")


# --- annotations -------------------------------------------------------------------------------------


def test_most_logs_are_counted_instead_of_kept(hand):
    async def program(tracer) -> None:
        hand.go_to(tracer, 2)
        for i in range(1600):
            tracesvc.log(str(i))
            await ticks(i % 50 == 0)
        for _ in range(20):
            tracesvc.log("careful", level="warning")

    recording = traced(program)
    logs = [event.message for event in recording.of("log")]
    assert logs.count("careful") == 20
    kept = len(logs) - 20
    assert 50 <= kept <= 150
    assert recording.lost == {LossCause.SAMPLED: 1600 - kept}
    assert recording.statistics.lost == {"sampled": 1600 - kept}
    report = verify(recording.data)
    assert report.account.lost == {"sampled": 1600 - kept}
    assert report.account.closed


def test_what_is_left_out_of_logs_leaves_no_doubt_about_tasks(hand):
    async def program(tracer) -> None:
        hand.go_to(tracer, 2)
        for i in range(200):
            tracesvc.log(str(i))
            await ticks(1)

    recording = traced(program, buffer_events=64)
    with tracesvc.read(recording.data) as read:
        summary = summarize(read)
    assert summary.losses["sampled"].events > 100
    assert all(not task.unknown for task in summary.tasks.values())


def test_spans_are_kept_or_left_out_as_wholes(hand):
    async def child() -> None:
        with tracesvc.span("child"), tracesvc.region("inside"):
            await ticks(1)

    async def program(tracer) -> None:
        with tracesvc.span("around everything"):
            hand.go_to(tracer, 3)
            for i in range(320):
                with tracesvc.span("request", n=i):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(child)

    recording = traced(program)
    spans = recording.of("span_begin")
    requests = {event.span for event in spans if event.name == "request"}
    children = [event for event in spans if event.name == "child"]
    assert 5 <= len(requests) <= 60
    assert {event.parent for event in children} == requests
    assert len(children) == len(requests)
    ends = recording.of("span_end")
    assert len(ends) == len(spans)
    left_out = 320 - len(requests)
    assert recording.lost[LossCause.SAMPLED] >= 4 * left_out


def test_counters_are_thinned_out(hand):
    async def program(tracer) -> None:
        hand.go_to(tracer, 3)
        for i in range(320):
            tracesvc.counter("n", i)

    recording = traced(program)
    kept = [event.value for event in recording.of("counter") if event.name == "n"]
    assert 5 <= len(kept) <= 60
    assert recording.lost[LossCause.SAMPLED] == 320 - len(kept)


# --- stretches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tasks", [None, ["!tracesvc*", "!*run_sync_soon*"]], ids=["all", "some"])
def test_what_is_not_recorded_is_counted_to_the_event(hand, tasks):
    async def load() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ticks, 20)
            event = trio.Event()
            nursery.start_soon(event.wait)
            await ticks(2)
            event.set()

    async def events_of(tracer) -> int:
        run = next(p for p in tracer.statistics().procs if p.kind == "run")
        before = run.events
        await load()
        return next(p for p in tracer.statistics().procs if p.kind == "run").events - before

    async def program(tracer) -> tuple[int, int, int]:
        await handed_over(tracer)
        await load()
        light = await events_of(tracer)
        hand.darken(tracer)
        dark = await events_of(tracer)
        hand.lighten(tracer)
        await trio.sleep(0.01)
        return light, dark, await events_of(tracer)

    # A tracer's own tasks and the loop's waits come when they come: with them the two are only about the same.
    recording = traced(program, groups=["scheduler"], tasks=tasks)
    light, dark, again = recording.result
    if tasks is None:
        assert abs(light - dark) < 30 < light
    else:
        assert light == dark == again
    assert recording.lost[LossCause.OVER_BUDGET] >= dark
    assert verify(recording.data).account.closed


def test_after_a_stretch_that_is_left_out_everything_is_known_again(hand):
    async def program(tracer) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever, name="before")
            await ticks(3)
            hand.darken(tracer)
            nursery.start_soon(trio.sleep_forever, name="meanwhile")
            await ticks(100)
            hand.lighten(tracer)
            await trio.sleep(0.01)
            await ticks(5)
            await handed_over(tracer)
            await handed_over(tracer)
            nursery.cancel_scope.cancel()

    recording = traced(program)
    assert recording.lost.keys() == {LossCause.OVER_BUDGET}
    names = [
        {strings[row.name] for row in snapshot.tasks} for snapshot, strings in recording.snapshots
    ]
    assert any({"before", "meanwhile"} <= found for found in names)
    exits = {recording.names[event.task] for event in recording.of("task_exit")}
    assert {"before", "meanwhile"} <= exits
    (loss,) = recording.losses
    assert loss.last - loss.first > 100


def test_in_the_dark_ends_and_errors_are_recorded(hand):
    async def program(tracer) -> None:
        with tracesvc.span("around"):
            hand.darken(tracer)
            with tracesvc.span("left out"):
                tracesvc.log("left out")
                tracesvc.log("left out", level="warning")
                tracesvc.log("an error", level="error")
                tracesvc.counter("left out", 1)
                await ticks(2)
        hand.lighten(tracer)
        await trio.sleep(0.01)

    recording = traced(program)
    assert [event.message for event in recording.of("log")] == ["an error"]
    assert [event.name for event in recording.of("span_begin")] == ["around"]
    assert len(recording.of("span_end")) == 1
    assert recording.lost[LossCause.SAMPLED] == 5


def test_a_run_that_begins_in_the_dark_and_one_that_ends_in_it(hand):
    async def program(tracer) -> None:
        hand.darken(tracer)
        await trio.to_thread.run_sync(trio.run, ticks, 20)
        hand.look(tracer, 20, 0.1)
        await ticks(5)

    recording = traced(program)
    assert recording.lost[LossCause.OVER_BUDGET] > 0


def test_the_trace_may_end_in_the_dark(hand):
    async def program(tracer) -> None:
        await ticks(5)
        hand.darken(tracer)
        await ticks(50)

    recording = traced(program)
    assert recording.lost[LossCause.OVER_BUDGET] >= 100


def stalls() -> None:
    time.sleep(0.05)


def test_steps_are_not_watched_in_the_dark(hand):
    async def program(tracer) -> None:
        hand.darken(tracer)
        await ticks(2)
        stalls()
        await ticks(2)

    recording = traced(program, stall_s=0.005)
    assert not [e for e in recording.of("step_stack") if e.lasted > 40_000_000]


def test_other_instruments_see_everything_in_the_dark(hand):
    class Counts(trio.abc.Instrument):
        steps = 0

        def before_task_step(self, task) -> None:
            self.steps += 1

    async def program(tracer) -> int:
        counts = Counts()
        trio.lowlevel.add_instrument(counts)
        hand.darken(tracer)
        await ticks(50)
        trio.lowlevel.remove_instrument(counts)
        return counts.steps

    assert traced(program).result >= 50


# --- measuring ---------------------------------------------------------------------------------------


def test_the_meter_sees_every_part():
    async def program(tracer) -> None:
        for i in range(300):
            with tracesvc.span("x"):
                tracesvc.log(str(i))
                await ticks(5)
        await handed_over(tracer)
        await trio.sleep(0.25)

    overhead = traced(program, budget=1.0).statistics.overhead
    assert overhead.level == 0
    assert all(overhead.parts[part] > 0 for part in ("hooks", "annotations", "tasks", "threads"))
    assert 10 < overhead.ns_per_call < 100_000


def test_a_budget_of_bytes(monkeypatch):
    monkeypatch.setattr(Regulator, "tick", lambda regulator: 0.25)

    async def program(tracer) -> int:
        time = 0
        while tracer.statistics().overhead.level < 1:
            await ticks(200)
            await handed_over(tracer)
            time += SECOND // 10
            tracer._regulator.look(tracer._regulator._told + time)
        return tracer.statistics().overhead.level

    recording = traced(program, budget=None, budget_bytes=1000)
    assert recording.result == 1


# --- what people see ---------------------------------------------------------------------------------


def test_the_commands_tell(hand, tmp_path):
    async def program(tracer) -> None:
        hand.go_to(tracer, 3)
        for i in range(100):
            tracesvc.log(str(i))

    path = tmp_path / "app.trace"
    path.write_bytes(traced(program).data)
    said = run("verify", path)
    assert said.returncode == 0
    assert "sampled" in said.stdout
    assert "note: over its budget" in said.stdout
    said = run("summary", path)
    assert "Overhead" in said.stdout
    assert "stacks, most logs" in said.stdout
    said = json.loads(run("summary", path, "--json").stdout)
    assert [change["level"] for change in said["overhead"]] == [1, 2, 3]


@pytest.mark.parametrize(
    "options, text",
    [
        ({"budget": 0}, "budget must be a share"),
        ({"budget": 1.5}, "budget must be a share"),
        ({"budget_bytes": 0}, "budget_bytes must be positive"),
    ],
)
def test_a_wrong_budget_is_refused_at_once(options, text):
    with pytest.raises(ValueError, match=text):
        tracesvc.open_tracer(Memory(), **options)
