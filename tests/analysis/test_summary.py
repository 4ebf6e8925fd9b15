import json
import random

import pytest

from tests.analysis.streams import SESSION, WALL, Hand
from tests.traces import program
from tracesvc.analysis import summarize
from tracesvc.analysis.quantiles import KEPT, Durations
from tracesvc.events import ProcKind, Reason, TaskState
from tracesvc.model import read

LOCK, SLEEP = int(Reason.LOCK), int(Reason.SLEEP)


def of(hand, **options):
    return summarize(read(hand.data), **options)


def one_run():
    return (
        Hand(begin=100)
        .generation(100)
        .events(
            1,
            ("proc_start", 100, int(ProcKind.RUN), 1, "main"),
            ("task_create", 100, 1, 0, 0, "app.main", "main"),
            ("step_start", 110, 1),  # runnable 10
            ("task_create", 120, 2, 1, 1, "app.worker", "worker"),
            ("task_create", 120, 3, 1, 1, "app.worker", "worker"),
            ("step_block", 150, 1, LOCK, 5),  # running 40
            ("step_start", 160, 2),  # runnable 40
            ("step_yield", 190, 2),  # running 30
            ("step_start", 190, 3),  # runnable 70
            ("step_block", 200, 3, SLEEP, 0),  # running 10
            ("step_start", 200, 2),  # runnable 10
            ("task_exit", 270, 2),  # running 70
            ("io_wait_start", 270, 500),
            ("task_runnable", 370, 3, 0),  # slept 170
            ("io_wait_end", 371),
            ("step_start", 380, 3),  # runnable 10
            ("task_runnable", 385, 1, 3),  # locked out 235
            ("task_exit", 390, 3),  # running 10
            ("step_start", 390, 1),  # runnable 5
            ("task_exit", 400, 1),  # running 10
            ("proc_stop", 400),
        )
        .end(500)
    )


def test_every_nanosecond_of_every_task_is_counted_in_the_state_it_was_in():
    summary = of(one_run())
    main, worker = summary.tasks["app.main"], summary.tasks["app.worker"]
    assert (main.count, main.live, main.running, main.runnable, main.unknown) == (1, 0, 50, 15, 0)
    assert main.blocked == {"lock": 235}
    assert (worker.count, worker.live, worker.running, worker.runnable) == (2, 0, 120, 130)
    assert worker.blocked == {"sleep": 170}
    assert (main.steps, worker.steps) == (2, 4)
    assert (worker.longest.duration, worker.longest.time, worker.longest.task) == (70, 200, 2)
    assert list(summary.tasks) == ["app.worker", "app.main"]


def test_what_the_trace_is():
    summary = of(one_run())
    assert (summary.session, summary.source) == (SESSION, {"name": "by hand"})
    assert (summary.started, summary.begin, summary.duration) == (WALL, 100, 400)
    assert (summary.ended, summary.generations, summary.events, summary.lost) == (True, 1, 21, 0)
    assert summary.types["step_start"] == 6
    assert sum(summary.types.values()) == 21


def test_a_run_is_busy_when_it_does_not_wait_for_io():
    loop = of(one_run()).loops[1]
    assert (loop.wall, loop.io_wait, loop.unknown) == (300, 101, 0)
    assert loop.busy == pytest.approx(199 / 300)
    assert (loop.longest.duration, loop.longest.name) == (70, "app.worker")


def test_stalls_are_the_longest_steps_first():
    assert [step.duration for step in of(one_run()).stalls] == [70, 40, 30, 10, 10, 10]


def test_what_lasts_to_the_end_of_the_trace_is_counted_until_then():
    hand = (
        Hand()
        .generation(0)
        .events(
            1,
            ("task_create", 10, 1, 0, 0, "t", "t"),
            ("step_start", 20, 1),
            ("step_block", 30, 1, SLEEP, 0),
            ("io_wait_start", 31, 9),
        )
    )
    task = of(hand.end(1030)).tasks["t"]
    assert (task.live, task.running, task.runnable, task.blocked) == (1, 10, 10, {"sleep": 1000})
    assert of(hand).loops[1].io_wait == 999


def test_without_an_end_mark_nothing_is_claimed_beyond_the_last_event_of_a_run():
    hand = (
        Hand()
        .generation(0)
        .events(1, ("task_create", 10, 1, 0, 0, "t", "t"), ("step_start", 20, 1))
    )
    hand.events(0, ("counter", 900, "c", 1.0, 0), kind=ProcKind.PROCESS)
    summary = of(hand)
    assert (summary.ended, summary.duration) == (False, 900)
    assert (summary.tasks["t"].runnable, summary.tasks["t"].running) == (10, 0)


def test_chunks_and_batches_of_any_size_give_the_same_sums(monkeypatch):
    stream = program(3, events=4000, runs=3, generations=5)
    whole = summarize(read(stream.data)).as_dict()
    monkeypatch.setattr("tracesvc.model.walk.CHUNK", 1)
    assert summarize(read(stream.data)).as_dict() == whole


@pytest.mark.parametrize("seed", range(6))
def test_sums_are_those_of_going_through_the_events_one_by_one(seed):
    stream = program(seed, events=3000, runs=3, generations=4)
    summary = summarize(read(stream.data), own=True)
    states, spent, steps = {}, {}, {}
    after = {
        "task_create": "runnable",
        "task_runnable": "runnable",
        "step_yield": "runnable",
        "step_start": "running",
    }
    stops = {event.proc: event.time for event in stream.events if event.type == "proc_stop"}
    names = {}
    for event in stream.events:
        if event.type == "task_create":
            names[event.task] = event.name
        kind = after.get(event.type)
        if event.type in ("step_block", "task_waiting"):
            kind = Reason(event.reason).name.lower()
        if kind is None and event.type != "task_exit":
            continue
        if event.task in states:
            before, since, _ = states.pop(event.task)
            key = names[event.task], before
            spent[key] = spent.get(key, 0) + event.time - since
        if kind is not None:
            states[event.task] = kind, event.time, event.proc
        if kind == "running":
            steps[names[event.task]] = steps.get(names[event.task], 0) + 1
    with read(stream.data) as trace:
        end = max(item.time for item in trace), trace.end.monotonic
    for task, (state, since, proc) in states.items():
        key = names[task], state
        spent[key] = spent.get(key, 0) + stops.get(proc, end[1]) - since
    found = {}
    for name, task in summary.tasks.items():
        found |= {(name, reason): ns for reason, ns in task.blocked.items()}
        found |= {(name, "running"): task.running, (name, "runnable"): task.runnable}
        assert task.unknown == 0
    assert {k: v for k, v in found.items() if v} == {k: v for k, v in spent.items() if v}
    assert {name: t.steps for name, t in summary.tasks.items() if t.steps} == steps


def lossy():
    return (
        Hand()
        .generation(0)
        .events(
            1,
            ("task_create", 0, 1, 0, 0, "steady", "f"),
            ("task_create", 0, 2, 1, 1, "gone", "f"),
            ("task_create", 0, 3, 1, 1, "speaks", "f"),
            ("step_start", 10, 1),
            ("step_block", 20, 1, SLEEP, 0),
            ("io_wait_start", 100, 50),
        )
        .lose(1, 4, 150, 300)
        .events(1, ("step_start", 400, 3), ("step_yield", 450, 3))
        .generation(500)
        .snapshot(
            1,
            (1, "steady", int(TaskState.WAITING), 20, SLEEP),
            (3, "speaks", int(TaskState.RUNNABLE), 450, 0),
            (4, "new", int(TaskState.WAITING), 250, LOCK),
        )
        .events(1, ("task_runnable", 600, 1, 0), ("io_wait_start", 610, 5), ("io_wait_end", 660))
        .end(700)
    )


def test_after_a_loss_the_state_is_unknown_until_something_tells_it():
    tasks = of(lossy()).tasks
    # The snapshot says that it slept all along, so nothing about it is unknown.
    assert (tasks["steady"].blocked, tasks["steady"].unknown) == ({"sleep": 580}, 0)
    # It is not in the snapshot: it ended, nobody knows when.
    assert (tasks["gone"].runnable, tasks["gone"].unknown, tasks["gone"].live) == (150, 350, 0)
    # Its own event told before the snapshot did.
    assert (tasks["speaks"].runnable, tasks["speaks"].unknown) == (150 + 250, 250)
    assert (tasks["speaks"].running, tasks["speaks"].steps) == (50, 1)
    # Its creation was lost; the snapshot has its name.
    assert (tasks["new"].count, tasks["new"].blocked, tasks["new"].unknown) == (1, {"lock": 450}, 0)


def test_after_a_loss_the_loop_is_neither_busy_nor_idle():
    loop = of(lossy()).loops[1]
    assert (loop.wall, loop.unknown, loop.io_wait) == (700, 250, 50 + 50)
    assert loop.busy == pytest.approx((450 - 100) / 450)


def test_losses_by_cause_with_their_intervals():
    summary = of(lossy())
    (lost,) = summary.losses.values()
    assert (list(summary.losses), lost.events, lost.count) == (["queue_full"], 4, 1)
    assert [(i.proc, i.start, i.end, i.events) for i in lost.intervals] == [(1, 150, 300, 4)]
    assert (summary.lost, summary.missing) == (4, 0)


def test_a_task_that_was_created_in_a_gap_has_no_name_until_a_snapshot():
    hand = Hand().generation(0).events(1, ("proc_start", 0, 1, 1, "r")).lose(1, 1, 5, 9)
    hand.events(1, ("step_start", 10, 8), ("step_yield", 30, 8))
    tasks = of(hand.end(40)).tasks
    assert (tasks["(name lost)"].count, tasks["(name lost)"].running) == (1, 20)


def test_a_damaged_frame_is_named_and_its_events_are_missing():
    hand = (
        Hand()
        .generation(0)
        .events(1, ("proc_start", 0, 1, 1, "r"))
        .events(1, ("task_create", 5, 1, 0, 0, "t", "t"))
    )
    at = len(hand.data) - 3
    hand.events(1, ("step_start", 10, 1)).end(40)
    data = bytearray(hand.data)
    data[at] ^= 0xFF
    summary = summarize(read(bytes(data)))
    assert (summary.missing, summary.lost) == (1, 1)
    assert len(summary.damage) == 1
    assert summary.damaged_bytes == summary.damage[0].end - summary.damage[0].start > 0


def test_spans_and_regions():
    hand = (
        Hand()
        .generation(0)
        .events(
            1,
            *(("span_begin", i, i, 0, 1, "GET /", None) for i in range(1, 101)),
            ("region_begin", 100, 200, 1, "parse", {"a": 1}),
            *(("span_end", 1000 + 2 * i, i, 1) for i in range(1, 101)),  # durations 1001 to 1100
            ("region_end", 1300, 200, 1),
            ("span_begin", 1400, 300, 0, 1, "open", None),
        )
    )
    summary = of(hand.end(1500))
    d = summary.spans["GET /"].durations
    assert (d.count, d.p50, d.p90, d.p99, d.max) == (100, 1050, 1090, 1099, 1100)
    assert d.total == sum(range(1001, 1101))
    assert (summary.spans["open"].count, summary.spans["open"].open) == (1, 1)
    assert summary.regions["parse"].durations.total == 1200


def test_an_end_that_comes_by_before_its_begin_is_a_pair_all_the_same():
    hand = Hand().generation(0).events(2, ("span_end", 70, 9, 1), kind=ProcKind.THREAD)
    hand.events(1, ("span_begin", 50, 9, 0, 1, "s", None))
    span = of(hand.end(90)).spans["s"]
    assert (span.count, span.open, span.durations.max) == (1, 0, 20)


def test_a_span_whose_end_was_lost_counts_and_has_no_duration():
    hand = Hand().generation(0).events(1, ("span_begin", 50, 9, 0, 1, "s", None)).lose(1, 1, 60, 60)
    hand.generation(100).events(1, ("counter", 110, "c", 1.0, 0))
    span = of(hand.end(200)).spans["s"]
    assert (span.count, span.open, span.durations.count) == (1, 0, 0)


def test_threads_collections_counters_and_logs():
    hand = Hand().generation(0)
    hand.events(
        2,
        ("thread_start", 10, 1, "read"),
        ("thread_end", 40, 1),
        ("thread_start", 50, 1, "read"),
        ("gc_start", 51, 2),
        ("gc_end", 56, 2, 17),
        ("thread_end", 60, 1),
        ("thread_start", 70, 1, "hash"),
        kind=ProcKind.THREAD,
    )
    hand.events(
        1,
        ("counter", 5, "trio.loop_lag", 300.0, 0),
        ("counter", 6, "trio.run_queue", 4.0, 0),
        ("counter", 7, "jobs", 2.5, 0),
        ("counter", 8, "jobs", -1.0, 0),
        ("log", 9, 1, 0, 30, 2, "watch", {"k": 1}),
        ("log", 10, 1, 0, 20, 0, "out", None),
    )
    s = of(hand.end(100))
    assert (s.threads["read"].count, s.threads["read"].total, s.threads["read"].max) == (2, 40, 30)
    assert (s.threads["hash"].count, s.threads["hash"].open, s.threads["hash"].total) == (1, 1, 0)
    assert (s.gc.count, s.gc.total, s.gc.max, s.gc.generations[2].collected) == (1, 5, 5, 17)
    jobs = s.counters["jobs"]
    assert (jobs.count, jobs.last, jobs.min, jobs.max, jobs.time) == (2, -1.0, -1.0, 2.5, 8)
    assert (s.loops[1].lag, s.loops[1].queue) == (300, 4)
    assert s.logs.levels == {20: 1, 30: 1}
    assert [(m.message, m.attributes, m.cut) for m in s.logs.last] == [
        ("watch", {"k": 1}, 2),
        ("out", None, 0),
    ]


def test_the_tracers_own_tasks_are_left_out_unless_asked_for():
    hand = Hand().generation(0).events(1, ("task_create", 0, 1, 0, 0, "tracesvc reader", "f"))
    assert of(hand.end(9)).tasks == {}
    assert "tracesvc reader" in of(hand, own=True).tasks


def test_a_sink_that_joined_late_misses_nothing():
    hand = Hand()
    hand.generations, hand.emitted, hand.kinds = 3, {1: 1000}, {1: ProcKind.RUN}
    hand.generation(50).snapshot(1, (7, "t", int(TaskState.WAITING), 10, SLEEP)).events(
        1, ("task_runnable", 60, 7, 0)
    )
    summary = of(hand.end(80))
    assert (summary.lost, summary.tasks["t"].count) == (0, 1)
    assert (summary.tasks["t"].blocked, summary.tasks["t"].runnable) == ({"sleep": 50}, 20)


@pytest.mark.parametrize("seed", range(8))
def test_lossy_programs_add_up(seed):
    stream = program(seed, events=4000, generations=6, losses=0.1)
    summary = summarize(read(stream.data))
    assert summary.events == len(stream.events)
    assert summary.lost == sum(row.last - row.first + 1 for row in stream.losses)
    assert summary.missing == 0
    json.dumps(summary.as_dict())


def test_many_durations_are_counted_to_within_half_a_percent():
    values = [int(10 ** random.Random(i).uniform(0, 10)) for i in range(KEPT + 5000)]
    durations = Durations()
    for i, value in enumerate(values):
        durations.add(value)
        if i % 1000 == 0:
            durations.fold()
    durations.fold()
    assert len(durations.kept) <= KEPT
    values.sort()
    found = durations.quantiles()
    assert (found.count, found.total, found.max) == (len(values), sum(values), values[-1])
    for percent, quantile in ((50, found.p50), (90, found.p90), (99, found.p99)):
        exact = values[-(-len(values) * percent // 100) - 1]
        assert abs(quantile - exact) <= exact * 0.005
