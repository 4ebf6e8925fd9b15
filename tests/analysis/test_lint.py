"""Planted problems are found and named; their neighbours without the problem stay silent."""

import random
from functools import cache

import pytest
import trio
from trio.testing import MockClock

from tests.analysis import planted
from tests.analysis.streams import Hand
from tests.recorder.recording import trace
from tests.traces import program
from tracesvc.analysis import Limits, lint
from tracesvc.analysis.lint import LINTS
from tracesvc.events import Reason
from tracesvc.model import read

# A MockClock's minutes take microseconds: on the clock of the trace nothing takes long.
LIMITS = Limits(step=25_000_000, patience=0, self_wakes=700, convoy=0)
WAITS = Limits(step=25_000_000, patience=1_000_000, self_wakes=700, convoy=0)

PLANTED = {
    "never-yields": (planted.never_yields, "hog", LIMITS),
    "nursery-grows": (planted.nursery_grows, "connection", LIMITS),
    "task-leak": (planted.task_leak, "request", LIMITS),
    "lost-wakeup": (planted.lost_wakeup, "consumer", WAITS),
    "busy-self-wake": (planted.busy_self_wake, "spinner", LIMITS),
    "lock-convoy": (planted.lock_convoy, "worker", LIMITS),
    "cancelled-still-running": (
        planted.cancelled_still_running,
        "stubborn",
        Limits(cancelled=3_000_000),
    ),
    "deadlock": (planted.deadlock, "task", LIMITS),
}
GENERATED = 100


@cache
def record(maker, problem, seed):
    main = maker(problem, random.Random(seed))
    return trace(main, run={"clock": MockClock(autojump_threshold=0)}).data


def found(data, code, limits):
    return lint(read(data), limits, [code]).findings


def test_every_lint_has_a_planted_problem():
    assert PLANTED.keys() == LINTS.keys()


@pytest.mark.parametrize("code", PLANTED)
def test_a_planted_problem_is_named(code):
    maker, name, limits = PLANTED[code]
    findings = found(record(maker, True, 1), code, limits)
    assert findings, code
    assert {n.rsplit(".", 1)[-1] for f in findings for n in f.names} == {name}
    assert name in findings[0].text
    assert findings[0].tasks
    assert findings[0].start <= findings[0].end


@pytest.mark.parametrize("code", PLANTED)
def test_its_neighbour_without_the_problem_is_silent(code):
    maker, _, limits = PLANTED[code]
    assert found(record(maker, False, 1), code, limits) == []


@pytest.mark.parametrize("code", PLANTED)
@pytest.mark.parametrize("maker", [planted.worker_pool, planted.takes_turns, planted.own_scopes])
def test_programs_that_look_alike_are_silent(code, maker):
    if (code, maker) != ("lock-convoy", planted.worker_pool):
        assert found(record(maker, True, 1), code, PLANTED[code][2]) == []


@pytest.mark.slow
@pytest.mark.parametrize("code", PLANTED)
def test_of_a_hundred_generated_programs_nearly_all_are_found_and_no_neighbour(code):
    maker, name, limits = PLANTED[code]
    hits = false = 0
    for seed in range(GENERATED):
        findings = found(record.__wrapped__(maker, True, seed), code, limits)
        hits += any(name in f.text for f in findings)
        false += bool(found(record.__wrapped__(maker, False, seed), code, limits))
    print(f"{code}: {hits} of {GENERATED} found, {false} neighbours named")
    assert hits >= 0.95 * GENERATED
    # A step may really take long on a busy machine: that is no mistake of the lint's.
    assert false <= (2 if code == "never-yields" else 0)


def test_the_usual_limits_find_nothing_in_programs_of_milliseconds():
    for code, (maker, _, _) in PLANTED.items():
        # On a busy machine the milliseconds may really become long: then once more.
        tries = (lint(read(record.__wrapped__(maker, True, 1))).findings for _ in range(5))
        assert any({f.code for f in findings} <= {"busy-self-wake"} for findings in tries), code


def test_a_deadlock_is_told_with_all_who_are_in_it():
    (finding,) = found(record(planted.deadlock, True, 1), "deadlock", LIMITS)
    assert finding.count >= 2
    assert "wait for each other" in finding.text
    assert "waits for lock" in finding.text


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

    # Not to jump: the deadlock must last for a while on the clock of the trace.
    data = trace(main, run={"clock": MockClock(rate=5000)}).data
    (finding,) = found(data, "deadlock", WAITS)
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
