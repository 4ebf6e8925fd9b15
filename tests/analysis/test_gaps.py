"""Where events are missing, nothing is made up: what lasts until a gap has not lasted for ever."""

import pytest

from tests.analysis.streams import Hand
from tracesvc.analysis import lint, stalls, why
from tracesvc.analysis.cancellation import PER_TASK, Cancellations
from tracesvc.analysis.stacks import Stacks
from tracesvc.events import Reason, TaskState, WakeCause
from tracesvc.model import read
from tracesvc.model.replay import Replay
from tracesvc.model.tables import Tables

S = 10**9
LOCK, SLEEP, RECEIVE = int(Reason.LOCK), int(Reason.SLEEP), int(Reason.CHANNEL_RECEIVE)
TASK, CANCEL, TIMER = int(WakeCause.TASK), int(WakeCause.CANCEL), int(WakeCause.TIMER)
BEGIN = ("proc_start", 0, 1, 1, "r")
WAITING = int(TaskState.WAITING)


def hand(*events):
    return Hand().generation(0).events(1, BEGIN, *events)


def create(*tasks, time=0, nursery=0, parent=0, name="app.work"):
    return [("task_create", time, task, parent, nursery, name, "f") for task in tasks]


def block(time, task, reason, object_=0):
    return [("step_start", time, task), ("step_block", time + 1, task, reason, object_)]


def found(stream):
    return lint(read(stream.data)).findings


def codes(stream):
    return [finding.code for finding in found(stream)]


def consumer():
    """Task 2 has been woken by task 3, which has ended, and waits for the channel again."""
    return hand(
        *create(2, 3),
        *block(10, 2, RECEIVE, 9),
        ("step_start", 20, 3),
        ("task_runnable", 21, 2, 3, TASK),
        ("task_exit", 22, 3, 1),
        *block(30, 2, RECEIVE, 9),
    )


def test_a_wait_that_a_gap_cuts_off_is_not_endless():
    stream = consumer().lose(1, 9, 100 * S, 101 * S)
    stream.events(1, ("step_start", 102 * S, 2), ("task_exit", 102 * S, 2, 1))
    assert codes(stream.end(103 * S)) == []


def test_a_wait_that_a_snapshot_tells_of_after_a_gap_lasts_since_it_began():
    stream = consumer().lose(1, 9, 100 * S, 101 * S)
    stream.generation(102 * S).snapshot(1, (2, "app.work", WAITING, 31, RECEIVE))
    stream.events(1, ("counter", 103 * S, "n", 1.0, 0))
    # nothing says what it waits for: the snapshots of this writer have no objects
    assert codes(stream.end(104 * S)) == []
    stream = consumer().events(1, ("counter", 103 * S, "n", 1.0, 0)).end(104 * S)
    assert codes(stream) == ["lost-wakeup"]


def test_a_step_that_a_gap_cuts_off_has_not_gone_on_for_ever():
    stream = hand(*create(2, name="app.spin"), ("step_start", 1 * S, 2))
    stream.lose(1, 9, 2 * S, 90 * S).events(1, ("counter", 91 * S, "n", 1.0, 0)).end(92 * S)
    (finding,) = found(stream)
    assert finding.text == (
        "task spin ran 1.00 s without a checkpoint, at least: events are missing from there on"
    )
    assert (finding.details["open"], finding.details["cut"]) == (False, True)
    (stall,) = stalls(read(stream.data)).stalls
    assert (stall.duration, stall.open, stall.cut) == (1 * S, False, True)
    stream = hand(*create(2), ("step_start", 1 * S, 2)).end(92 * S)
    (stall,) = stalls(read(stream.data)).stalls
    assert (stall.open, stall.cut) == (True, False)


def test_tasks_that_ended_in_a_gap_are_no_leak_and_no_nursery_that_grows():
    """They wait, one every second, for ever as it seems; in the gap all of them end."""
    stream = hand(*create(1, name="main"))
    for i in range(2, 62):
        stream.events(
            1,
            ("step_start", i * S, 1),
            *create(i, time=i * S, nursery=5, parent=1),
            ("step_yield", i * S, 1),
            *block(i * S + 1, i, SLEEP),
        )
    assert "nursery-grows" in codes(stream.end(62 * S))

    stream = hand(*create(1, name="main"))
    for i in range(2, 62):
        stream.events(
            1,
            ("step_start", i * S, 1),
            *create(i, time=i * S, nursery=5, parent=1),
            ("step_yield", i * S, 1),
            *block(i * S + 1, i, SLEEP),
        )
    stream.lose(1, 500, 61 * S + 9, 62 * S)
    stream.generation(62 * S).snapshot(1, (1, "main", WAITING, 61 * S, SLEEP))
    stream.events(1, ("counter", 63 * S, "n", 1.0, 0))
    assert codes(stream.end(64 * S)) == []


def test_a_cancelled_task_that_ended_in_a_gap_is_not_late():
    tasks = range(2, 6)
    stream = hand(*create(1, *tasks), *(e for i in tasks for e in block(i * 10, i, SLEEP)))
    stream.events(1, ("step_start", 1 * S, 1))
    stream.events(1, *(("task_runnable", 1 * S + i, i, 1, CANCEL) for i in tasks))
    stream.events(1, ("step_block", 1 * S + 9, 1, SLEEP, 0))
    for i in (3, 4, 5):
        stream.events(1, ("step_start", 1 * S + i * 10, i), ("task_exit", 1 * S + i * 10, i, 3))
    stream.lose(1, 9, 2 * S, 3 * S)
    stream.generation(3 * S).snapshot(1, (1, "main", WAITING, 1 * S + 9, SLEEP))
    stream.events(1, ("counter", 90 * S, "n", 1.0, 0))
    assert codes(stream.end(91 * S)) == []


def test_who_gives_up_a_lock_has_not_been_handed_it():
    """Forty tasks wait for a lock when they are cancelled all at once: no convoy."""
    tasks = range(2, 42)
    for cause, told in ((TASK, ["lock-convoy"]), (CANCEL, [])):
        stream = hand(*create(1, *tasks), *(e for i in tasks for e in block(i * 10, i, LOCK, 7)))
        stream.events(1, ("step_start", 1 * S, 1))
        stream.events(1, *(("task_runnable", 1 * S + i, i, 1, cause) for i in tasks))
        stream.events(1, ("step_block", 1 * S + 99, 1, SLEEP, 0))
        for i in tasks:
            stream.events(1, ("step_start", 1 * S + i * 100, i), ("task_exit", 1 * S + i * 100, i))
        assert codes(stream.end(2 * S)) == told, cause


def test_of_a_task_that_is_cancelled_again_and_again_only_the_last_times_are_kept():
    stream, count = hand(*create(2)), 3 * PER_TASK
    events = []
    for i in range(1, count + 1):
        events += [
            ("cancel_request", i * 10, i, 2, 0, 2, 0, 5, ""),
            ("task_cancelled", i * 10 + 1, 2, i),
        ]
    data = stream.events(1, *events).end(S).data
    replay = Replay(read(data))
    cancels = Cancellations(replay.names)
    for part in replay.parts():
        cancels.add(part)
    kept = cancels.of(2)
    assert [time for time, _ in kept] == [
        i * 10 + 1 for i in range(count - PER_TASK + 1, count + 1)
    ]
    assert (kept[0][1].requester, kept[0][1].requester_name) == (0, "")


@pytest.mark.parametrize("at", [(40, 60, "step"), (4_990, 5_010, "wait"), (6_990, 7_010, "step")])
def test_a_stack_is_found_whatever_else_is_known_of_its_task(at):
    start, end, which = at
    step, wait = (("spin", "app.py", 1),), (("wait", "app.py", 2),)
    stream = hand(
        *create(2),
        ("step_start", 10, 2),
        ("step_stack", 50, 2, step, 40, 1),
        ("step_block", 60, 2, SLEEP, 0),
        ("task_stack", 5_000, 2, wait),
        ("task_runnable", 5_000, 2, 0, TIMER),
        ("step_start", 6_000, 2),
        ("step_stack", 7_000, 2, step, 1_000, 1),
    )
    stacks = Stacks({2})
    for part in Replay(read(stream.end(8_000).data)).parts():
        stacks.add(part)
    assert stacks.of(2, start, end) == (step if which == "step" else wait)


def spans(*lengths, open_=()):
    events = [*create(2), ("step_start", 1, 2)]
    for i, length in enumerate(lengths, 1):
        events += [
            ("span_begin", i * 1000, i, 0, 2, "a", {"n": i}),
            ("span_end", i * 1000 + length, i, 2),
        ]
    for i, time in enumerate(open_, 100):
        events.append(("span_begin", time, i, 0, 2, "a", None))
    return read(hand(*events).end(100_000).data)


def test_an_open_span_has_its_place_among_those_that_have_ended():
    trace = spans(5, 50, 7, open_=(90_000,))
    found = why(trace, 100)
    assert (found.open, found.duration, found.rank, found.count) == (True, 10_000, 0, 3)
    assert [(why(trace, i).rank, why(trace, i).count) for i in (1, 2, 3)] == [
        (2, 3),
        (0, 3),
        (1, 3),
    ]
    assert why(trace).span == why(trace, "a").span == 2
    assert why(spans(open_=(90_000, 95_000))).span == 100


def test_a_nursery_whose_end_was_lost_is_told_when_its_task_is_over_and_not_kept():
    stream = hand(*create(2), ("step_start", 5, 2), ("nursery_open", 10, 2, 7))
    stream.lose(1, 9, 20, 30).events(
        1, ("step_start", 40, 2), ("task_exit", 50, 2, 1), ("counter", 60, "n", 1.0, 0)
    )
    maker = Tables(read(stream.end(100).data), ["nurseries"])
    kept, rows = [], []
    for _, data in maker.parts():
        kept.append(len(maker._nests._nurseries))
        rows += zip(
            data["nursery"].values.tolist(),
            data["start"].values.tolist(),
            data["end"].null.tolist(),
            strict=True,
        )
    assert rows == [(7, 10, True)]
    assert kept == [0]
