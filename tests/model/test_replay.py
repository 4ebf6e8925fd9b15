"""A trace as tables: what comes out is what one gets by going through the events one by one."""

import dataclasses

import numpy as np
import pytest

from tests.analysis.streams import Hand
from tests.model.small import RUN, Small
from tests.traces import program
from tracesvc.events import EVENTS, Reason, StepBlock, StepStart, TaskExit, TaskRunnable, TaskState
from tracesvc.model import read
from tracesvc.model.lives import Lives
from tracesvc.model.phases import BY_LOSS, BY_SNAPSHOT, UNKNOWN, Phases
from tracesvc.model.pieces import OPEN, Pieces
from tracesvc.model.replay import Replay
from tracesvc.model.states import AFTER, TABLE, State
from tracesvc.model.walk import Chunk

SLEEP, LOCK = int(Reason.SLEEP), int(Reason.LOCK)


def replay(data, chunk=None):
    made = Replay(read(data), chunk)
    parts = list(made.parts())
    joined = {
        name: kind.join([getattr(part, name) for part in parts])
        for name, kind in {
            "phases": Phases,
            "lives": Lives,
            "spans": Pieces,
            "regions": Pieces,
            "calls": Pieces,
            "collections": Pieces,
            "io_waits": Pieces,
        }.items()
    }
    joined["phases"] = joined["phases"].sorted()
    return made, joined


def rows(table, *names):
    chosen = names or [f.name for f in dataclasses.fields(table)]
    return list(zip(*(getattr(table, name).tolist() for name in chosen), strict=True))


def by_hand(events, ends):
    """Phases of each task, event by event: (task, start, end, state, reason, object, waker, opened, closed)."""
    found, now = [], {}
    for event in events:
        if event.type not in AFTER:
            continue
        before = now.pop(event.task, None)
        waker = getattr(event, "waker", 0)
        if before is not None:
            start, state, reason, object_, opened, woken = before
            by = waker if event.number == TaskRunnable.number else woken
            found.append(
                (event.task, start, event.time, state, reason, object_, by, opened, event.number)
            )
        if event.type != "task_exit":
            state = int(AFTER[event.type])
            why = (event.reason, event.object) if state == State.WAITING else (0, 0)
            now[event.task] = (event.time, state, *why, event.number, waker)
        else:
            now.pop(event.task, None)
    for task, (start, state, reason, object_, opened, woken) in now.items():
        found.append((task, start, ends[task], state, reason, object_, woken, opened, BY_SNAPSHOT))
    return sorted(found)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("chunk", [None, 1, 700])
def test_phases_are_those_of_going_through_the_events_one_by_one(seed, chunk):
    stream = program(seed, events=2500, runs=3, generations=4)
    made, tables = replay(stream.data, chunk)
    with read(stream.data) as trace:
        list(trace.items())
        end = trace.end.monotonic
    stops = {e.proc: e.time for e in stream.events if e.type == "proc_stop"}
    ends = {e.task: stops.get(e.proc, end) for e in stream.events if e.type in AFTER}
    fields = ("task", "start", "end", "state", "reason", "object", "waker", "opened", "closed")
    assert sorted(rows(tables["phases"], *fields)) == by_hand(stream.events, ends)
    assert made.phases.illegal_count == 0
    names = {e.task: e.name for e in stream.events if e.type == "task_create"}
    assert all(made.names[i] == names[t] for t, i in rows(tables["phases"], "task", "name"))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("losses", [0.0, 0.15])
def test_the_phases_of_a_task_are_its_life_without_gap_or_overlap(seed, losses):
    stream = program(seed, events=3000, runs=2, generations=6, losses=losses)
    _, tables = replay(stream.data)
    phases = tables["phases"]
    assert (phases.end >= phases.start).all()
    same = phases.task[1:] == phases.task[:-1]
    assert (phases.start[1:][same] == phases.end[:-1][same]).all()
    assert losses or not (phases.state == UNKNOWN).any()


def test_a_trace_that_grows_is_the_same_in_the_end():
    stream = program(2, events=3000, runs=2, generations=5)

    class Growing:
        def __init__(self):
            self.at, self.until = 0, 0

        def read(self, n):
            data = stream.data[self.at : min(self.until, self.at + n)]
            self.at += len(data)
            return data

    file = Growing()
    made = Replay(read(file), 500)
    seen = []
    for until in range(10_000, len(stream.data) + 10_000, 10_000):
        file.until = min(until, len(stream.data))
        for piece in made.walk:
            match piece:
                case Chunk(columns):
                    seen.append(made.phases.add(columns))
    grown = Phases.join(seen)
    _, tables = replay(stream.data)
    whole = tables["phases"]
    ended = whole.take(whole.closed != BY_SNAPSHOT).sorted()
    assert rows(grown.sorted().take(grown.sorted().closed != BY_SNAPSHOT)) == rows(ended)


def lossy():
    return (
        Hand()
        .generation(0)
        .events(
            1,
            ("task_create", 0, 1, 0, 0, "steady", "f"),
            ("task_create", 0, 2, 1, 1, "gone", "f"),
            ("step_start", 10, 1),
            ("step_block", 20, 1, SLEEP, 0),
            ("span_begin", 25, 9, 0, 2, "work", None),
        )
        .lose(1, 4, 150, 300)
        .generation(500)
        .snapshot(
            1,
            (1, "steady", int(TaskState.WAITING), 20, SLEEP),
            (4, "new", int(TaskState.WAITING), 250, LOCK),
        )
        .events(1, ("task_runnable", 600, 1, 0))
        .end(700)
    )


def test_after_a_loss_a_state_is_unknown_until_a_snapshot_heals_it():
    made, tables = replay(lossy().data)
    fields = ("task", "start", "end", "since", "state", "closed")
    wait, unknown = int(State.WAITING), UNKNOWN
    found = rows(tables["phases"], *fields)
    assert (1, 20, 150, 20, wait, BY_LOSS) in found
    assert (1, 150, 150, 150, unknown, BY_SNAPSHOT) in found
    # since when it waits is what the snapshot says, although nothing was known for a while
    assert (1, 150, 600, 20, wait, TaskRunnable.number) in found
    assert (2, 150, 500, 150, unknown, BY_LOSS) in found
    assert (4, 250, 700, 250, wait, BY_SNAPSHOT) in found
    lives = {
        t: (b, e, lost, n)
        for t, b, e, lost, n in rows(tables["lives"], "task", "begin", "end", "lost", "name")
    }
    assert lives == {
        1: (0, OPEN, False, "steady"),
        2: (0, OPEN, True, "gone"),
        4: (OPEN, OPEN, False, "new"),
    }
    assert rows(tables["spans"], "id", "begin", "end") == [(9, 25, OPEN)]
    assert made.phases.illegal_count == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("chunk", [None, 1])
def test_spans_regions_calls_and_collections_are_paired(seed, chunk):
    stream = program(seed, events=4000, runs=2, generations=3)
    _, tables = replay(stream.data, chunk)
    for kind, begin, end, key in (
        ("spans", "span_begin", "span_end", "span"),
        ("regions", "region_begin", "region_end", "region"),
    ):
        begins = {getattr(e, key): e for e in stream.events if e.type == begin}
        ends = {getattr(e, key): e for e in stream.events if e.type == end}
        expected = [
            (
                i,
                e.task,
                e.time,
                max(ends[i].time, e.time) if i in ends else OPEN,
                e.name,
                e.attributes,
            )
            for i, e in begins.items()
        ]
        found = rows(tables[kind], "id", "task", "begin", "end", "name", "attributes")
        assert sorted(found, key=repr) == sorted(expected, key=repr)
    for kind, begin, end in (
        ("calls", "thread_start", "thread_end"),
        ("collections", "gc_start", "gc_end"),
    ):
        opens, expected = {}, []
        for event in stream.events:
            if event.type == begin:
                opens[event.proc] = event.time
            elif event.type == end:
                expected.append((event.proc, opens.pop(event.proc), event.time))
        expected += [(proc, time, OPEN) for proc, time in opens.items()]
        assert sorted(rows(tables[kind], "proc", "begin", "end")) == sorted(expected)


@pytest.mark.parametrize("before", [state for state in State if state is not State.ABSENT])
@pytest.mark.parametrize("event", sorted(AFTER))
def test_what_the_table_does_not_allow_is_an_item_with_its_place(before, event):
    ways = {
        State.NEW: [],
        State.RUNNING: [("step_start", 7)],
        State.RUNNABLE: [("step_start", 7), ("step_yield", 7)],
        State.WAITING: [("step_start", 7), ("step_block", 7, LOCK, 5)],
        State.DEAD: [("step_start", 7), ("task_exit", 7)],
    }
    extra = {
        "task_create": (0, 0, "again", "f"),
        "task_waiting": (LOCK, 5),
        "task_runnable": (0,),
        "step_block": (LOCK, 5),
    }
    small = Small()
    small.events(
        ("task_create", 7, 0, 0, "t", "f"), *ways[before], (event, 7, *extra.get(event, ()))
    )
    made, _ = replay(small.end())
    legal = event in TABLE[before]
    assert [(i.proc, i.task, i.event) for i in made.phases.illegal] == (
        [] if legal else [(RUN, 7, event)]
    )
    if not legal:
        assert f"{event} of task 7" in str(made.phases.illegal[0])


def test_memory_goes_with_the_live_tasks():
    hand = Hand().generation(0)
    for i in range(50):
        events = []
        for j in range(20):
            task, time = 1 + i * 20 + j, (i * 20 + j) * 100
            events += [
                ("task_create", time, task, 0, 0, "t", "f"),
                ("step_start", time + 1, task),
                ("task_exit", time + 2, task),
            ]
        hand.events(1, *events)
    made = Replay(read(hand.end(10**6).data), 10)
    most = 0
    for _ in made.parts():
        most = max(most, made.phases._live.shape[1], len(made._lives.live))
    assert most == 0


def test_steps_and_waits_are_views_of_the_phases():
    stream = program(1, events=2000, runs=1)
    _, tables = replay(stream.data)
    phases = tables["phases"]
    steps = phases.take(phases.state == State.RUNNING)
    started = [e.time for e in stream.events if e.number == StepStart.number]
    assert sorted(steps.start.tolist()) == sorted(started)
    waits = phases.take(phases.opened == StepBlock.number)
    assert (waits.state == State.WAITING).all()
    assert len(phases.take(phases.closed == TaskExit.number)) == sum(
        e.number == TaskExit.number for e in stream.events
    )
    assert np.isin(phases.opened, list(EVENTS)).all()
