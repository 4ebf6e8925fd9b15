"""Tasks at an instant, stalls, latencies, diff: small streams with known answers, and any trace at all."""

import json

import pytest
import trio
from trio.testing import MockClock

from tests.analysis.streams import Hand
from tests.recorder.recording import trace
from tests.traces import program
from tracesvc.analysis import (
    Of,
    Thresholds,
    diff,
    latencies,
    lint,
    query,
    stalls,
    summarize,
    tasks_at,
    why,
)
from tracesvc.analysis.why import NotFoundError
from tracesvc.events import LossCause, ProcKind, Reason, TaskState
from tracesvc.model import read

LOCK, SLEEP, NURSERY = int(Reason.LOCK), int(Reason.SLEEP), int(Reason.NURSERY)


def busy():
    """main with two workers; worker 2 hogs the loop from 200 to 700."""
    return (
        Hand()
        .generation(0)
        .events(
            1,
            ("proc_start", 0, int(ProcKind.RUN), 1, "main"),
            ("task_create", 0, 1, 0, 0, "app.main", "main"),
            ("step_start", 10, 1),
            ("task_create", 20, 2, 1, 50, "app.worker", "worker"),
            ("task_create", 30, 3, 1, 50, "app.worker", "worker"),
            ("region_begin", 35, 8, 1, "serve", None),
            ("step_block", 40, 1, NURSERY, 50),
            ("step_start", 100, 3),
            ("step_block", 150, 3, LOCK, 7),
            ("step_start", 200, 2),
            ("gc_start", 300, 2),
            ("gc_end", 400, 2, 10),
            ("task_runnable", 500, 3, 2),
            ("step_yield", 700, 2),
            ("step_start", 720, 3),
            ("task_exit", 800, 3),
            ("step_start", 810, 2),
            ("step_block", 820, 2, SLEEP, 0),
        )
    )


# --- tasks ---------------------------------------------------------------------------------------


def test_the_tree_at_an_instant():
    tree = tasks_at(read(busy().end(1000).data), 450)
    assert (tree.time, tree.roots, list(tree.tasks)) == (450, [1], [1, 2, 3])
    main, second, third = tree.tasks.values()
    assert (main.name, main.state, main.reason, main.object, main.since) == (
        "app.main",
        "waiting",
        "nursery",
        50,
        40,
    )
    assert (main.children, main.regions, main.created) == ([2, 3], ["serve"], 0)
    assert (second.parent, second.nursery, second.state, second.since) == (1, 50, "running", 200)
    assert (third.state, third.reason, third.object, third.since) == ("waiting", "lock", 7, 150)


@pytest.mark.parametrize(
    "time, states",
    [
        (0, {1: "runnable"}),
        (25, {1: "running", 2: "runnable"}),
        (600, {1: "waiting", 2: "running", 3: "runnable"}),
        (805, {1: "waiting", 2: "runnable"}),
        (None, {1: "waiting", 2: "waiting"}),
    ],
)
def test_who_lives_and_in_what_state(time, states):
    tree = tasks_at(read(busy().end(1000).data), time)
    assert {number: task.state for number, task in tree.tasks.items()} == states


def test_who_woke_a_runnable_task():
    assert tasks_at(read(busy().end(1000).data), 600).tasks[3].waker == 2


@pytest.mark.parametrize("seed", range(5))
def test_the_tree_is_that_of_going_through_the_events(seed):
    stream = program(seed, events=2000, runs=2, generations=3)
    times = sorted({e.time for e in stream.events})
    for at in times[:: len(times) // 5]:
        expected = {}
        for event in stream.events:
            if event.time > at:
                continue
            match event.type:
                case "task_create":
                    expected[event.task] = "runnable"
                case "task_runnable" | "step_yield":
                    expected[event.task] = "runnable"
                case "step_start":
                    expected[event.task] = "running"
                case "task_waiting" | "step_block":
                    expected[event.task] = "waiting"
                case "task_exit":
                    del expected[event.task]
        stopped = {e.proc for e in stream.events if e.type == "proc_stop" and e.time < at}
        of = {e.task: e.proc for e in stream.events if e.type == "task_create"}
        expected = {t: s for t, s in expected.items() if of[t] not in stopped}
        found = tasks_at(read(stream.data), at)
        assert {t: task.state for t, task in found.tasks.items()} == expected
        assert list(found.tasks) == sorted(found.tasks, key=list(found.tasks).index)
        for task in found.tasks.values():
            assert all(found.tasks[child].parent == task.task for child in task.children)


def test_after_a_loss_the_state_is_unknown_and_a_snapshot_tells_since_when():
    hand = (
        Hand()
        .generation(0)
        .events(
            1,
            ("proc_start", 0, 1, 1, "r"),
            ("task_create", 0, 1, 0, 0, "t", "f"),
            ("step_start", 10, 1),
            ("step_block", 20, 1, SLEEP, 0),
        )
        .lose(1, 4, 150, 300, LossCause.QUEUE_FULL)
        .generation(500)
        .snapshot(1, (1, "t", int(TaskState.WAITING), 20, SLEEP))
        .events(1, ("io_wait_start", 600, 5), ("io_wait_end", 640))
    )
    data = hand.end(700).data
    assert tasks_at(read(data), 100).tasks[1].state == "waiting"
    later = tasks_at(read(data), 650)
    assert (later.tasks[1].state, later.tasks[1].since, later.gaps) == ("waiting", 20, 1)


# --- stalls --------------------------------------------------------------------------------------


def test_a_stall_tells_whom_it_delayed_and_by_how_much():
    found = stalls(read(busy().end(1000).data), threshold=200)
    (stall,) = found.stalls
    assert (stall.name, stall.task, stall.start, stall.duration) == ("app.worker", 2, 200, 500)
    assert (stall.count, stall.delay, stall.collections) == (1, 200, 100)
    assert [(d.task, d.name, d.delay, d.total) for d in stall.delayed] == [
        (3, "app.worker", 200, 220)
    ]
    assert (found.count, found.total) == (1, 500)


def test_delays_are_told_for_the_longest_stalls_only_but_all_are_counted():
    found = stalls(read(busy().end(1000).data), threshold=1, most=2)
    assert [stall.duration for stall in found.stalls] == [500, 80]
    assert (found.count, found.total) == (5, 30 + 50 + 500 + 80 + 10)


@pytest.mark.parametrize("seed", range(4))
def test_delays_are_those_of_comparing_every_pair(seed):
    stream = program(seed, events=1500, runs=2)
    data = stream.data
    found = stalls(read(data), threshold=1_000_000, most=20)
    rows = query(read(data), 'select task, proc, start, "end" from runnable').rows
    for stall in found.stalls:
        end = stall.start + stall.duration
        delays = [
            min(until, end) - max(since, stall.start)
            for task, proc, since, until in rows
            if proc == stall.proc and task != stall.task
        ]
        assert stall.delay == sum(d for d in delays if d > 0)
        assert stall.count == sum(d > 0 for d in delays)


# --- latencies -----------------------------------------------------------------------------------


def test_histograms_count_and_sum_exactly():
    hand = Hand().generation(0)
    events = [
        ("proc_start", 0, 1, 1, "r"),
        ("task_create", 0, 1, 0, 0, "t", "f"),
        ("step_start", 1, 1),
    ]
    lengths = [1, 2, 3, 100, 1000, 1001, 50_000]
    for i, length in enumerate(lengths, 1):
        events += [
            ("span_begin", i * 10**6, i, 0, 1, "s", None),
            ("span_end", i * 10**6 + length, i, 1),
        ]
    data = hand.events(1, *events).end(10**8).data
    (histogram,) = latencies(read(data), Of.SPAN).histograms["span"].values()
    assert (histogram.count, histogram.total) == (7, sum(lengths))
    assert (histogram.min, histogram.max) == (1, 50_000)
    assert abs(histogram.p50 - 100) <= 6
    for bucket in histogram.buckets:
        assert bucket.count == sum(bucket.low <= length < bucket.high for length in lengths)
    coarse = histogram.coarse()
    assert sum(b.count for b in coarse) == 7
    assert [b.low for b in coarse[1:]] == [b.high for b in coarse[:-1]]


@pytest.mark.parametrize("seed", range(4))
def test_histograms_agree_with_the_summary(seed):
    data = program(seed, events=3000, runs=2).data
    summary, found = summarize(read(data), own=True), latencies(read(data)).histograms
    for kind, names in (("span", summary.spans), ("region", summary.regions)):
        for name, annotated in names.items():
            if annotated.durations.count:
                histogram = found[kind][name]
                assert histogram.count == annotated.durations.count
                assert histogram.total == annotated.durations.total
                assert histogram.max == annotated.durations.max
                assert histogram.p90 == pytest.approx(annotated.durations.p90, rel=0.07, abs=2)


# --- diff ----------------------------------------------------------------------------------------


def requests(length, count=10, name="GET /"):
    hand = Hand().generation(0)
    events = [
        ("proc_start", 0, 1, 1, "r"),
        ("task_create", 0, 1, 0, 0, "t", "f"),
        ("step_start", 1, 1),
    ]
    for i in range(1, count + 1):
        begin = i * 10**9
        events += [("span_begin", begin, i, 0, 1, name, None), ("span_end", begin + length, i, 1)]
    return read(hand.events(1, *events).end(10**11).data)


@pytest.mark.parametrize(
    "after, verdict",
    [(10_000_000, "same"), (11_000_000, "same"), (20_000_000, "slower"), (5_000_000, "faster")],
)
def test_the_verdict_goes_by_ratio(after, verdict):
    found = diff(requests(10_000_000), requests(after))
    assert found.verdict == verdict
    assert {c.figure for c in found.changes if c.kind == "span"} == {"p50", "p90", "p99", "mean"}
    if verdict != "same":
        assert {c.name for c in found.of(verdict)} == {"GET /"}
        assert found.of(verdict)[0].ratio == after / 10_000_000


def test_small_differences_and_few_spans_prove_nothing():
    assert diff(requests(1000), requests(3000)).verdict == "same"
    assert diff(requests(1000), requests(3000), Thresholds(time=100)).verdict == "slower"
    few = diff(requests(10**6, 3), requests(10**7, 3))
    assert (few.verdict, {c.verdict for c in few.changes}) == ("same", {"few"})


def test_names_that_only_one_side_has():
    found = diff(requests(10**6, name="old"), requests(10**6, name="new"))
    assert (found.only_before, found.only_after) == ({"span": ["old"]}, {"span": ["new"]})


def test_a_program_that_waits_longer_for_a_lock_is_slower_by_that():
    def one(held):
        async def main():
            lock = trio.Lock()

            async def holder():
                async with lock:
                    for _ in range(held):
                        await trio.lowlevel.checkpoint()

            async def waiter():
                async with lock:
                    pass

            for _ in range(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(holder)
                    await trio.testing.wait_all_tasks_blocked(0)
                    nursery.start_soon(waiter)

        return read(trace(main, run={"clock": MockClock(autojump_threshold=0)}).data)

    found = diff(one(1), one(400), Thresholds(ratio=2.0, time=20_000))
    assert found.verdict == "slower"
    assert any(c.name.endswith(".holder") for c in found.of("slower"))


# --- whatever is in the trace --------------------------------------------------------------------


def ask_all(data):
    """Every question; each has an answer that is JSON."""
    answers = {}
    for name, question in {
        "summary": summarize,
        "tasks": tasks_at,
        "stalls": lambda t: stalls(t, 1),
        "latency": latencies,
        "lint": lint,
        "diff": lambda t: diff(t, read(data)),
        "query": lambda t: query(t, "select count(*) from waits"),
        "why": why,
    }.items():
        try:
            answers[name] = json.loads(json.dumps(question(read(data)).as_dict(), default=repr))
        except NotFoundError:
            answers[name] = {}
    return answers


@pytest.mark.parametrize("seed", range(6))
def test_traces_with_gaps_go_through_every_question_and_it_is_said(seed):
    stream = program(seed, events=2500, generations=6, losses=0.2)
    answers = ask_all(stream.data)
    lost = sum(row.last - row.first + 1 for row in stream.losses)
    assert answers["summary"]["lost"] == lost
    assert answers["diff"]["gaps"] == [lost, lost]
    for name in ("tasks", "stalls", "latency", "lint", "query"):
        assert answers[name]["gaps"] > 0, name


@pytest.mark.parametrize("seed", range(20))
def test_damaged_traces_go_through_every_question(seed):
    import random

    pick = random.Random(seed)
    data = bytearray(program(seed % 4, events=1500, generations=4).data)
    for _ in range(pick.randrange(1, 12)):
        at = pick.randrange(200, len(data))
        match pick.randrange(3):
            case 0:
                data[at] ^= 1 << pick.randrange(8)
            case 1:
                del data[at : at + pick.randrange(1, 3000)]
            case 2:
                data[at:at] = pick.randbytes(pick.randrange(1, 200))
    answers = ask_all(bytes(data))
    broken = answers["summary"]["damaged_bytes"]
    assert not answers["summary"]["missing"] or broken or answers["tasks"]["gaps"]


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.99])
def test_traces_that_are_cut_off_go_through_every_question(cut):
    data = program(3, events=2000).data
    assert ask_all(data[: int(len(data) * cut)])["summary"]["ended"] is False


def test_an_empty_trace_and_one_with_only_a_header():
    for data in (b"", Hand().data, Hand().generation(5).data, Hand().generation(5).end(9).data):
        assert ask_all(data)["summary"]["events"] == 0


def test_a_sink_that_joined_late_knows_what_the_snapshot_tells():
    stream = program(5, events=3000, generations=5).joined_late(2)
    answers = ask_all(stream.data)
    assert answers["tasks"]["tasks"]
    assert answers["summary"]["missing"] == 0
