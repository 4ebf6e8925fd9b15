"""Who holds a lock: proved by a trace exactly when somebody waits for it long enough; never guessed."""

import random

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import tracesvc
from tests.analysis.streams import Hand
from tracesvc.analysis import tasks_at
from tracesvc.events import Reason, WakeCause
from tracesvc.model import read
from tracesvc.recorder.clock import now

LOCK, CONDITION = int(Reason.LOCK), int(Reason.CONDITION)
TASK, CANCEL = int(WakeCause.TASK), int(WakeCause.CANCEL)


def holder(at, *events, task=2):
    hand = Hand().generation(0)
    created = [("task_create", i, i, 0, 0, f"task {i}", "") for i in range(1, 6)]
    data = hand.events(1, ("proc_start", 0, 1, 1, "run"), *created, *events).end(1000).data
    return tasks_at(read(data), at).tasks[task].holder


def block(time, task, reason=LOCK, object_=7):
    return [("step_start", time - 1, task), ("step_block", time, task, reason, object_)]


def test_who_gives_it_back_had_it():
    events = (*block(10, 2), ("step_start", 20, 1), ("task_runnable", 30, 2, 1, TASK))
    assert holder(15, *events) == 1


def test_who_got_it_has_it_as_long_as_another_one_waits_all_the_time():
    events = (
        *block(10, 3),
        *block(12, 2),
        ("step_start", 20, 1),
        ("task_runnable", 30, 3, 1, TASK),
    )
    assert holder(15, *events) == 1
    assert holder(40, *events) == 3
    assert holder(None, *events) == 3


def test_one_that_waits_since_later_proves_nothing():
    events = (
        *block(10, 3),
        ("step_start", 20, 1),
        ("task_runnable", 30, 3, 1, TASK),
        ("step_yield", 31, 1),
        *block(40, 2),
    )
    assert holder(50, *events) == 0


def test_a_wait_that_was_given_up_is_no_hand_over():
    events = (
        *block(10, 3),
        *block(12, 2),
        ("step_start", 20, 1),
        ("task_runnable", 30, 3, 1, CANCEL),
    )
    assert holder(40, *events) == 0


def test_a_condition_in_between_proves_nothing():
    events = (
        *block(8, 4, CONDITION, 9),
        *block(10, 3),
        *block(12, 2),
        ("step_start", 20, 1),
        ("task_runnable", 30, 3, 1, TASK),
        ("step_yield", 31, 1),
        ("step_start", 32, 3),
        ("task_runnable", 35, 4, 3, TASK),
    )
    assert holder(33, *events) == 3
    assert holder(40, *events) == 0


def test_nothing_is_proved_across_a_gap():
    hand = Hand().generation(0)
    created = [("task_create", i, i, 0, 0, f"task {i}", "") for i in range(1, 6)]
    hand.events(1, ("proc_start", 0, 1, 1, "run"), *created, *block(10, 3), *block(12, 2))
    hand.events(1, ("step_start", 20, 1), ("task_runnable", 30, 3, 1, TASK))
    hand.lose(1, 5, 40, 50).snapshot(1, (2, "task 2", 3, 12, LOCK))
    data = hand.events(1, ("proc_stop", 90)).end(100).data
    assert tasks_at(read(data), 35).tasks[2].holder == 3
    assert tasks_at(read(data), 60).tasks[2].holder == 0


def test_a_watched_lock_says_who_has_it():
    events = (
        ("object_name", 6, LOCK, 7, "db"),
        ("step_start", 7, 4),
        ("counter", 8, "db.owner", 4.0, 0),
        ("step_yield", 9, 4),
        *block(40, 2),
    )
    assert holder(50, *events) == 4
    assert holder(None, *events) == 4


@pytest.mark.parametrize("seed", range(6))
async def test_in_a_program_it_is_never_another_one(tmp_path, seed, mock_clock):
    path, shape = tmp_path / "a.trace", random.Random(seed)
    locks = [trio.Lock() for _ in range(3)]
    if seed % 2:
        tracesvc.watch(locks[0], name="first")
    seen = []

    async def work():
        for _ in range(8):
            await trio.sleep(shape.random())
            with trio.move_on_after(shape.choice((0.3, 100))):
                async with shape.choice(locks):
                    await trio.sleep(shape.random())

    async def look():
        for _ in range(12):
            await trio.sleep(0.37)
            await wait_all_tasks_blocked()
            owners = {
                task._counter + 1: lock.statistics().owner._counter + 1
                for lock in locks
                for task in lock._lot._parked
            }
            seen.append((now(), owners))

    async with tracesvc.open_tracer(tracesvc.FileSink(path)):
        mock_clock.autojump_threshold = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            for _ in range(6):
                nursery.start_soon(work)
        mock_clock.autojump_threshold = float("inf")
    proved = 0
    for moment, owners in seen:
        with read(path) as trace:
            tasks = tasks_at(trace, moment).tasks
        waiting = {n: task.holder for n, task in tasks.items() if task.reason == "lock"}
        assert waiting.keys() == owners.keys()
        for number, found in waiting.items():
            assert found in (0, owners[number])
            proved += bool(found)
    assert proved >= sum(len(owners) for _, owners in seen) * 0.7
