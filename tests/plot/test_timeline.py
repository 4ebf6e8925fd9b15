"""A timeline tells for every column what the tasks of a row spent it on, to the nanosecond."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.streams import Hand
from tests.traces import program
from tracesvc.model import read
from tracesvc.model.replay import Replay
from tracesvc.plot import timeline
from tracesvc.plot.kinds import Kind, kinds_of


def phases_of(data):
    """(task, start, end, kind) of every phase."""
    with read(data) as trace:
        for part in Replay(trace).parts():
            p = part.phases
            kinds = kinds_of(p.state, p.reason)
            yield from zip(
                p.task.tolist(), p.start.tolist(), p.end.tolist(), kinds.tolist(), strict=True
            )


@pytest.mark.parametrize("losses", [0.0, 0.15], ids=["whole", "lossy"])
@given(
    seed=st.integers(0, 10_000),
    columns=st.integers(1, 90),
    rows=st.integers(1, 60),
    cut=st.booleans(),
)
@settings(max_examples=25)
def test_every_nanosecond_is_in_one_cell(losses, seed, columns, rows, cut):
    data = program(seed, events=250, losses=losses).data
    phases = list(phases_of(data))
    start, end = None, None
    if cut:
        times = sorted(start for _, start, _, _ in phases)
        start, end = times[len(times) // 4], times[3 * len(times) // 4] + 1
    found = timeline(read(data), start, end, columns=columns, rows=rows, own=True)
    edges = found.edges.tolist()
    assert (edges[0], edges[-1], len(edges)) == (found.start, found.end, columns + 1)
    row_of = {task: row for run in found.runs for row in run.rows for task in row.tasks.tasks}
    wanted = {id(row): np.zeros((columns, len(Kind)), np.int64) for row in row_of.values()}
    for task, low, high, kind in phases:
        spent = np.minimum(high, found.edges[1:]) - np.maximum(low, found.edges[:-1])
        if spent.max() > 0:
            wanted[id(row_of[task])][:, kind] += np.maximum(spent, 0)
    for row in row_of.values():
        assert np.array_equal(row.time, wanted[id(row)])
        whole = np.diff(found.edges)
        assert (row.time.sum(axis=1) <= whole * row.tasks.most).all()
    runs = len(found.runs)
    assert sum(len(run.rows) for run in found.runs) <= rows + runs


def test_tasks_of_a_name_share_a_row_when_they_do_not_live_at_once():
    hand = Hand().generation(0)
    steps = []
    for task in range(1, 6):
        at = task * 1000
        steps += [
            ("task_create", at, task, 0, 0, "one", ""),
            ("step_start", at + 100, task),
            ("task_exit", at + 900, task),
        ]
    data = hand.events(1, ("proc_start", 0, 1, 1, "run"), *steps).end(10_000).data
    (run,) = timeline(read(data), columns=10).runs
    (row,) = run.rows
    assert (row.tasks.tasks, row.tasks.most, row.crowd) == ([1, 2, 3, 4, 5], 1, False)
    assert row.time[:, Kind.RUNNING].tolist() == [0, 800, 800, 800, 800, 800, 0, 0, 0, 0]
    assert row.time[:, Kind.RUNNABLE].tolist() == [0, 100, 100, 100, 100, 100, 0, 0, 0, 0]


def test_too_many_tasks_are_a_crowd_and_too_many_names_are_told_together():
    hand = Hand().generation(0)
    created = [("task_create", 10 + i, i + 1, 0, 0, "many", "") for i in range(500)]
    created += [("task_create", 600 + i, i + 600, 0, 0, f"one {i}", "") for i in range(100)]
    data = hand.events(1, ("proc_start", 0, 1, 1, "run"), *created).end(10_000).data
    (run,) = timeline(read(data), columns=10, rows=10).runs
    assert len(run.rows) == 11
    many, rest = run.rows[0], run.rows[-1]
    assert (many.tasks.name, len(many.tasks.tasks), many.tasks.most) == ("many", 500, 500)
    assert (rest.tasks.name, rest.tasks.names, rest.tasks.most) == ("", 91, 91)


def test_the_tracers_own_tasks_are_left_out_unless_asked_for():
    hand = Hand().generation(0)
    tasks = [
        ("task_create", 10, 1, 0, 0, "tracesvc reader", ""),
        ("task_create", 11, 2, 0, 0, "a", ""),
    ]
    data = hand.events(1, ("proc_start", 0, 1, 1, "run"), *tasks).end(100).data
    assert timeline(read(data)).tasks == 1
    assert timeline(read(data), own=True).tasks == 2


def test_wakes_between_rows():
    hand = Hand().generation(0)
    data = (
        hand.events(
            1,
            ("proc_start", 0, 1, 1, "run"),
            ("task_create", 10, 1, 0, 0, "a", ""),
            ("task_create", 20, 2, 0, 0, "b", ""),
            ("step_start", 30, 1),
            ("step_block", 40, 1, 3, 7),
            ("step_start", 50, 2),
            ("task_runnable", 60, 1, 2, 1),
            ("task_exit", 70, 2),
        )
        .end(100)
        .data
    )
    (run,) = timeline(read(data)).runs
    (wake,) = run.wakes
    assert (wake.time, wake.waker, wake.woken) == (60, 1, 0)


def test_a_window_that_is_none():
    with pytest.raises(ValueError, match="end must be after start"):
        timeline(read(program(1, events=50).data), 10, 10)
