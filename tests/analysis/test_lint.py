"""Planted problems are found and named by the usual limits; their neighbours without the problem stay silent.

All of it by trio's virtual clock, in the programs as in their traces: how fast the machine is does not matter.
"""

import random
from functools import cache

import pytest
import trio

import tracesvc
from tests.analysis import planted
from tests.analysis.streams import Hand
from tests.traces import program
from tracesvc.analysis import Limits, lint
from tracesvc.analysis.lint import LINTS
from tracesvc.events import Reason
from tracesvc.model import read
from tracesvc.testing import record

PLANTED = {
    "never-yields": (planted.never_yields, "hog"),
    "nursery-grows": (planted.nursery_grows, "connection"),
    "task-leak": (planted.task_leak, "request"),
    "lost-wakeup": (planted.lost_wakeup, "consumer"),
    "busy-self-wake": (planted.busy_self_wake, "spinner"),
    "lock-convoy": (planted.lock_convoy, "worker"),
    "cancelled-still-running": (planted.cancelled_still_running, "stubborn"),
    "deadlock": (planted.deadlock, "task"),
}
ALIKE = [planted.worker_pool, planted.takes_turns, planted.own_scopes]
GENERATED = 100


def found(maker, problem, seed):
    """What all lints find in one program."""
    return lint(record(maker(problem, random.Random(seed)), seed=seed)).findings


found_once = cache(found)


def test_every_lint_has_a_planted_problem():
    assert PLANTED.keys() == LINTS.keys()


@pytest.mark.parametrize("code", PLANTED)
def test_a_planted_problem_is_named_and_nothing_else(code):
    maker, name = PLANTED[code]
    findings = found_once(maker, True, 1)
    assert {finding.code for finding in findings} == {code}
    assert {n.rsplit(".", 1)[-1] for f in findings for n in f.names} == {name}
    assert name in findings[0].text
    assert findings[0].tasks
    assert findings[0].start <= findings[0].end


@pytest.mark.parametrize("code", PLANTED)
def test_its_neighbour_without_the_problem_is_silent(code):
    assert found_once(PLANTED[code][0], False, 1) == []


@pytest.mark.parametrize("maker", ALIKE)
def test_programs_that_look_alike_are_silent(maker):
    assert found_once(maker, True, 1) == []


@pytest.mark.slow
@pytest.mark.timeout(600)  # seconds of work, and a machine that has other things to do
@pytest.mark.parametrize("code", PLANTED)
def test_of_a_hundred_generated_programs_nearly_all_are_found_and_no_neighbour(code):
    maker, name = PLANTED[code]
    named = others = false = 0
    for seed in range(GENERATED):
        findings = found(maker, True, seed)
        named += any(f.code == code and name in f.text for f in findings)
        others += any(f.code != code for f in findings)
        false += bool(found(maker, False, seed))
    print(f"{code}: {named} of {GENERATED} found; others named {others}, neighbours {false}")
    assert named >= 0.95 * GENERATED
    assert (others, false) == (0, 0)


def test_a_deadlock_is_told_with_all_who_are_in_it():
    (finding,) = found_once(planted.deadlock, True, 1)
    assert finding.count >= 2
    assert "wait for each other" in finding.text
    assert "waits for lock" in finding.text
    assert not finding.details["exact"]
    assert "was handed to task" in finding.text


def locked_up(*, watched=False, busy=False):
    """Two tasks and two locks."""

    async def main():
        locks = [trio.Lock(), trio.Lock()]
        if watched:
            for lock in locks:
                tracesvc.watch(lock)

        async def holder(first, second):
            async with first:
                await trio.sleep(1)
                async with second:
                    pass

        with trio.move_on_after(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(holder, *locks)
                nursery.start_soon(holder, *locks[::-1])
                if busy:
                    nursery.start_soon(trio.sleep_forever)

    return main


def test_a_deadlock_of_watched_locks_is_a_fact():
    for busy in (False, True):
        (finding,) = lint(record(locked_up(watched=True, busy=busy))).findings
        assert finding.code == "deadlock"
        assert (finding.details["exact"], finding.details["inferred"]) == (True, [])
        assert finding.text.count("held by holder") == 2
        assert "inferred" not in finding.text


def test_a_deadlock_of_locks_that_nobody_watched_is_an_inference_and_says_so():
    (finding,) = lint(record(locked_up())).findings
    assert not finding.details["exact"]
    assert "This is inferred: who holds lock" in finding.text
    assert "nothing can run any more" in finding.text
    assert lint(record(locked_up(busy=True))).findings == []


def test_a_lock_whose_earlier_holders_have_ended_is_not_lost():
    """Somebody has it who did not have to wait for it."""

    async def main():
        lock = trio.Lock()

        async def early():
            async with lock:
                await trio.sleep(1)

        async def late():
            await trio.sleep(2)
            async with lock:
                await trio.sleep(1000)

        async def victim():
            await trio.sleep(3)
            async with lock:
                pass

        with trio.move_on_after(100):
            async with trio.open_nursery() as nursery:
                for one in (early, early, late, victim):
                    nursery.start_soon(one)

    assert lint(record(main)).findings == []


def test_a_semaphore_may_be_given_back_by_who_got_it():
    async def main():
        semaphore = trio.Semaphore(1)

        async def early():
            async with semaphore:
                await trio.sleep(1)

        async def late():
            await trio.sleep(0.5)
            async with semaphore:
                await trio.sleep(1000)

        async def victim():
            await trio.sleep(3)
            async with semaphore:
                pass

        with trio.move_on_after(100):
            async with trio.open_nursery() as nursery:
                for one in (early, late, victim):
                    nursery.start_soon(one)

    assert lint(record(main)).findings == []


def test_two_tasks_and_two_locks_that_were_never_contended_before():
    """Nothing tells who has which lock, but that nothing in the run can run any more."""

    async def main():
        locks = trio.Lock(), trio.Lock()

        async def there(first, second):
            async with first:
                await trio.sleep(1)
                async with second:
                    pass

        with trio.move_on_after(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(there, *locks)
                nursery.start_soon(there, *locks[::-1])

    (finding,) = lint(record(main)).findings
    assert finding.code == "deadlock"
    assert finding.count == 2


def test_a_trace_that_ends_within_a_deadlock():
    hand = Hand().generation(0)
    hand.events(
        1,
        ("proc_start", 0, 1, 1, "r"),
        ("task_create", 0, 1, 0, 0, "main", "f"),
        ("task_create", 1, 2, 1, 9, "a", "f"),
        ("task_create", 1, 3, 1, 9, "b", "f"),
        ("step_start", 2, 1),
        ("step_block", 3, 1, int(Reason.NURSERY), 9),
        ("step_start", 4, 2),
        ("step_block", 5, 2, int(Reason.LOCK), 20),
        ("step_start", 6, 3),
        ("step_block", 7, 3, int(Reason.LOCK), 21),
    )
    (finding,) = lint(read(hand.end(10**10).data)).findings
    assert (finding.code, finding.tasks) == ("deadlock", [2, 3])


def test_a_program_that_waits_for_a_lock_whose_holder_sleeps_is_no_deadlock():
    hand = Hand().generation(0)
    hand.events(
        1,
        ("proc_start", 0, 1, 1, "r"),
        ("task_create", 0, 2, 0, 0, "a", "f"),
        ("task_create", 0, 3, 0, 0, "b", "f"),
        ("step_start", 4, 2),
        ("step_block", 5, 2, int(Reason.LOCK), 20),
        ("step_start", 6, 3),
        ("step_block", 7, 3, int(Reason.SLEEP), 0),
    )
    assert lint(read(hand.end(10**11).data)).findings == []


def test_a_step_that_has_not_ended_is_told():
    hand = Hand().generation(0)
    hand.events(
        1,
        ("proc_start", 0, 1, 1, "r"),
        ("task_create", 0, 2, 0, 0, "app.spin", "f"),
        ("step_start", 4, 2),
    )
    (finding,) = lint(read(hand.end(10**10).data)).findings
    assert (finding.code, finding.details["open"]) == ("never-yields", True)
    assert finding.text == "task spin ran 10.0 s without a checkpoint and has not come to its end"


def test_the_tracers_own_tasks_are_left_out():
    hand = Hand().generation(0)
    hand.events(
        1,
        ("proc_start", 0, 1, 1, "r"),
        ("task_create", 0, 2, 0, 0, "tracesvc reader", "f"),
        ("step_start", 4, 2),
        ("step_yield", 10**9, 2),
    )
    data = hand.end(10**10).data
    assert lint(read(data)).findings == []
    assert [f.code for f in lint(read(data), own=True).findings] == ["never-yields"]


def test_there_is_no_such_lint():
    with pytest.raises(ValueError, match="no such lint: nonsense"):
        lint(read(program(1, events=100).data), only=["nonsense"])


@pytest.mark.parametrize("seed", range(5))
def test_any_trace_with_losses_goes_through_and_says_so(seed):
    data = program(seed, events=2000, generations=5, losses=0.2).data
    result = lint(read(data), Limits(step=1, patience=0, tasks=2, self_wakes=2, handovers=2))
    assert result.gaps
    assert any("events are missing" in note for note in result.notes)
    assert result.as_dict()["gaps"] == result.gaps
