"""The critical path: every nanosecond of a span has exactly one explanation, and it is the right one."""

import random

import pytest
import trio

import tracesvc
from tests.analysis import planted
from tests.analysis.streams import Hand
from tests.traces import program
from tracesvc.analysis import NotFoundError, why, why_window
from tracesvc.analysis.account import short
from tracesvc.analysis.path import Kind, leaves
from tracesvc.events import ProcKind, Reason
from tracesvc.model import read
from tracesvc.model.pieces import OPEN, Pieces
from tracesvc.model.replay import Replay
from tracesvc.testing import record

LOCK, SLEEP, THREAD, READABLE = (
    int(r) for r in (Reason.LOCK, Reason.SLEEP, Reason.THREAD, Reason.READABLE)
)
NURSERY, RECEIVE = int(Reason.NURSERY), int(Reason.CHANNEL_RECEIVE)


def checkout():
    """A span of 212 ns, begun at 100: worked out by hand, below."""
    return (
        Hand()
        .generation(0)
        .events(
            1,
            ("proc_start", 0, int(ProcKind.RUN), 1, "main"),
            ("task_create", 0, 1, 0, 0, "app.checkout", "f"),
            ("task_create", 0, 2, 0, 0, "app.db_writer", "f"),
            ("task_create", 0, 3, 0, 0, "app.render", "f"),
            ("step_start", 10, 2),
            ("step_yield", 90, 2),
            ("step_start", 95, 1),
            ("span_begin", 100, 7, 0, 1, "checkout", {"n": 1}),
            ("step_block", 110, 1, LOCK, 5),  # ran 10
            ("step_start", 115, 2),
            (
                "step_block",
                135,
                2,
                THREAD,
                0,
            ),  # the lock's holder: queued 5, ran 20, a thread for 100
            ("step_start", 140, 3),
            ("step_yield", 230, 3),
            ("task_runnable", 235, 2, 0),
            ("step_start", 240, 2),
            ("task_runnable", 250, 1, 2),
            ("step_yield", 255, 2),
            ("step_start", 260, 3),
            ("step_yield", 288, 3),
            ("step_start", 291, 1),  # runnable 41: 5 behind db_writer, 28 behind render, 8 the loop
            ("span_end", 312, 7, 1),  # ran 21
            ("task_exit", 320, 1),
        )
        .events(
            2,
            ("proc_start", 50, int(ProcKind.THREAD), 9, "thread"),
            ("thread_start", 145, 2, "app.hash"),
            ("thread_end", 225, 2),
            kind=ProcKind.THREAD,
        )
        .end(400)
    )


def test_a_span_is_explained_to_the_nanosecond():
    found = why(read(checkout().data), "checkout")
    assert (found.start, found.end, found.duration) == (100, 312, 212)
    assert (found.name, found.span, found.task_name, found.attributes) == (
        "checkout",
        7,
        "app.checkout",
        {"n": 1},
    )
    assert [(s.kind, s.start, s.end) for s in found.path] == [
        (Kind.RUNNING, 100, 110),
        (Kind.WAITING, 110, 250),
        (Kind.RUNNABLE, 250, 291),
        (Kind.RUNNING, 291, 312),
    ]
    wait, ready = found.path[1:3]
    assert (wait.reason, wait.object, wait.waker_name) == ("lock", 5, "app.db_writer")
    assert [(s.kind, s.name, s.duration) for s in leaves(wait.parts)] == [
        (Kind.LOOP, "app.db_writer", 5),
        (Kind.RUNNING, "app.db_writer", 20),
        (Kind.HANDOVER, "app.db_writer", 10),
        (Kind.THREAD, "app.hash", 80),
        (Kind.HANDOVER, "app.db_writer", 10),
        (Kind.LOOP, "app.db_writer", 5),
        (Kind.RUNNING, "app.db_writer", 10),
    ]
    assert [(s.kind, s.name, s.duration) for s in ready.parts] == [
        (Kind.BEHIND, "app.db_writer", 5),
        (Kind.LOOP, "app.checkout", 5),
        (Kind.BEHIND, "app.render", 28),
        (Kind.LOOP, "app.checkout", 3),
    ]


def test_it_is_told_in_a_sentence():
    found = why(read(checkout().data), "checkout")
    assert found.text == (
        "span checkout (7) took 212 ns: "
        "140 ns waiting for task db_writer (lock), which waited for thread hash (100 ns), "
        "ran 2 steps (30 ns) and was runnable (10 ns); "
        "41 ns runnable behind task render and 1 more; 31 ns running task checkout, 2 steps"
    )


def sums_are_exact(path, start, end):
    """Stretches touch, do not overlap, and divide from start to end; so at every level."""
    now = start
    for stretch in path:
        assert stretch.start == now
        assert stretch.end >= stretch.start
        now = stretch.end
        if stretch.parts:
            sums_are_exact(stretch.parts, stretch.start, stretch.end)
    assert now == end


def groups_are_exact(groups, total):
    assert sum(group.total for group in groups) == total
    for group in groups:
        assert group.count > 0
        if group.groups:
            groups_are_exact(group.groups, group.total)


def span_numbers(data):
    """Of spans that have ended, and of those that have not."""
    parts = list(Replay(read(data)).parts())
    spans = Pieces.join([part.spans for part in parts])
    return spans.id[spans.end != OPEN].tolist(), spans.id[spans.end == OPEN].tolist()


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("losses", [0.0, 0.1])
def test_the_parts_add_up_whatever_the_program_did(seed, losses):
    stream = program(seed, events=1500, runs=2, generations=4, losses=losses)
    ended, still = span_numbers(stream.data)
    chosen = random.Random(seed).sample(ended, min(6, len(ended))) + still[:1]
    trace_ = read(stream.data)
    for number in chosen:
        try:
            found = why(trace_, number)
        except NotFoundError:
            assert losses  # its end is among them
            continue
        sums_are_exact(found.path, found.start, found.end)
        groups_are_exact(found.groups, found.duration)
        assert sum(s.duration for s in leaves(found.path)) == found.duration
        assert found.text
        assert found.as_dict()["duration"] == found.duration
        assert losses or not found.gaps


@pytest.mark.parametrize("seed", range(10))
def test_the_parts_of_a_window_add_up(seed):
    stream = program(seed, events=1500, runs=2, generations=3)
    trace_ = read(stream.data)
    times = sorted(e.time for e in stream.events)
    pick = random.Random(seed)
    for _ in range(5):
        start, end = sorted(pick.sample(times, 2))
        try:
            found = why_window(trace_, start, end)
        except NotFoundError:
            continue
        sums_are_exact(found.path, start, end)
        groups_are_exact(found.groups, end - start)


def test_the_slowest_of_a_name_and_of_all():
    hand = Hand().generation(0)
    events = [
        ("proc_start", 0, 1, 1, "r"),
        ("task_create", 0, 1, 0, 0, "t", "f"),
        ("step_start", 1, 1),
    ]
    for i, (name, length) in enumerate([("a", 5), ("a", 50), ("a", 7), ("b", 70)], 1):
        events += [
            ("span_begin", i * 100, i, 0, 1, name, None),
            ("span_end", i * 100 + length, i, 1),
        ]
    trace_ = read(hand.events(1, *events).end(1000).data)
    assert (why(trace_, "a").span, why(trace_).span, why(trace_, 3).span) == (2, 4, 3)
    assert (why(trace_, 3).rank, why(trace_, 3).count) == (1, 3)
    with pytest.raises(NotFoundError, match="no span 'c'"):
        why(trace_, "c")


def test_a_span_that_is_open_is_explained_until_the_end_of_the_trace():
    hand = Hand().generation(0)
    hand.events(
        1,
        ("proc_start", 0, 1, 1, "r"),
        ("task_create", 0, 1, 0, 0, "t", "f"),
        ("step_start", 10, 1),
        ("span_begin", 20, 1, 0, 1, "stuck", None),
        ("step_block", 30, 1, LOCK, 5),
    )
    found = why(read(hand.end(1030).data))
    assert (found.open, found.duration) == (True, 1010)
    assert [(s.kind, s.duration) for s in found.path] == [(Kind.RUNNING, 10), (Kind.WAITING, 1000)]
    assert found.text == (
        "span stuck (1) has taken 1.01 µs: 1.00 µs waiting for a lock; 10 ns running task t, 1 step"
    )


def test_a_span_across_tasks_is_followed_back_to_where_it_began():
    """Begun in one task, handed to a worker by a channel, ended there."""
    hand = Hand().generation(0)
    hand.events(
        1,
        ("proc_start", 0, 1, 1, "r"),
        ("task_create", 0, 1, 0, 0, "front", "f"),
        ("task_create", 0, 2, 0, 0, "worker", "f"),
        ("step_start", 1, 2),
        ("step_block", 2, 2, RECEIVE, 9),
        ("step_start", 10, 1),
        ("span_begin", 20, 1, 0, 1, "job", None),
        ("task_runnable", 50, 2, 1),
        ("step_block", 60, 1, SLEEP, 0),
        ("step_start", 70, 2),
        ("span_end", 100, 1, 2),
        ("step_block", 110, 2, RECEIVE, 9),
    )
    found = why(read(hand.end(200).data))
    sums_are_exact(found.path, 20, 100)
    assert [(s.kind, s.name, s.start, s.end) for s in leaves(found.path)] == [
        (Kind.RUNNING, "front", 20, 50),
        (Kind.BEHIND, "front", 50, 60),
        (Kind.LOOP, "worker", 60, 70),
        (Kind.RUNNING, "worker", 70, 100),
    ]


def test_a_new_task_goes_back_to_the_one_that_created_it():
    hand = Hand().generation(0)
    hand.events(
        1,
        ("proc_start", 0, 1, 1, "r"),
        ("task_create", 0, 1, 0, 0, "parent", "f"),
        ("step_start", 10, 1),
        ("span_begin", 20, 1, 0, 1, "job", None),
        ("task_create", 40, 2, 1, 5, "child", "f"),
        ("step_block", 50, 1, NURSERY, 5),
        ("step_start", 60, 2),
        ("span_end", 80, 1, 2),
        ("task_runnable", 85, 1, 2),
        ("task_exit", 90, 2),
    )
    found = why(read(hand.end(200).data))
    assert [(s.kind, s.name, s.start, s.end) for s in leaves(found.path)] == [
        (Kind.RUNNING, "parent", 20, 40),
        (Kind.BEHIND, "parent", 40, 50),
        (Kind.LOOP, "child", 50, 60),
        (Kind.RUNNING, "child", 60, 80),
    ]


def test_where_events_were_lost_it_says_so():
    hand = Hand().generation(0)
    hand.events(
        1,
        ("proc_start", 0, 1, 1, "r"),
        ("task_create", 0, 1, 0, 0, "t", "f"),
        ("step_start", 10, 1),
        ("span_begin", 20, 1, 0, 1, "job", None),
    )
    hand.lose(1, 3, 30, 60)
    hand.events(1, ("step_start", 100, 1), ("span_end", 110, 1, 1), ("step_yield", 120, 1))
    found = why(read(hand.end(200).data))
    assert [(s.kind, s.duration) for s in found.path] == [
        (Kind.RUNNING, 10),
        (Kind.UNKNOWN, 70),
        (Kind.RUNNING, 10),
    ]
    assert (found.gaps, found.unknown) == (True, 70)
    assert "70 ns not known: events were lost" in found.text


def test_a_window_that_cannot_be():
    with pytest.raises(ValueError, match="before start"):
        why_window(read(checkout().data), 5, 4)
    with pytest.raises(NotFoundError, match="no task ran"):
        why_window(read(checkout().data), 390, 395)
    with pytest.raises(NotFoundError, match="task 99"):
        why_window(read(checkout().data), 100, 200, 99)


# --- real programs -------------------------------------------------------------------------------


def explained(main, seed=0):
    found = why(record(main, seed=seed))
    sums_are_exact(found.path, found.start, found.end)
    return found


def names(path):
    return [(s.kind.value, s.name.rsplit(".", 1)[-1], s.reason) for s in leaves(path)]


def test_a_program_that_waits_for_a_lock_is_told_who_had_it_and_what_that_one_did():
    def convict():
        pass

    async def main():
        lock = trio.Lock()

        async def holder():
            async with lock:
                await trio.to_thread.run_sync(convict)
                await trio.sleep(1)

        async def bystander():
            await trio.sleep(0.5)

        async def victim():
            with tracesvc.span("work"):
                async with lock:
                    pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(holder)
            nursery.start_soon(bystander)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            nursery.start_soon(victim)

    found = explained(main)
    (wait,) = [s for s in found.path if s.kind is Kind.WAITING]
    assert (wait.reason, wait.waker_name.rsplit(".", 1)[-1]) == ("lock", "holder")
    inside = names(wait.parts)
    assert ("waiting", "holder", "sleep") in inside
    assert any(kind == "thread" and name == "convict" for kind, name, _ in inside)
    assert "waiting for task holder (lock)" in found.text


def test_a_program_that_waits_for_nobody_blames_nobody():
    async def main():
        async def bystander():
            await trio.sleep(0.5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bystander)
            with tracesvc.span("work"):
                await trio.sleep(1)

    found = explained(main)
    assert {name for kind, name, _ in names(found.path) if kind != "behind"} == {"main"}
    assert ("waiting", "main", "sleep") in names(found.path)


def test_a_program_that_waits_for_its_children_is_told_which_was_the_last():
    async def main():
        async def quick():
            await trio.sleep(1)

        async def slow():
            await trio.sleep(2)

        with tracesvc.span("work"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(quick)
                nursery.start_soon(slow)

    found = explained(main)
    (wait,) = [s for s in found.path if s.reason == "nursery"]
    assert wait.waker_name.rsplit(".", 1)[-1] == "slow"
    assert "waiting for children, the last of them slow" in found.text


def blamed(found):
    """Who the time went to, but for nanoseconds: (name, what it did, ns), in order."""
    parts = [part for part in leaves(found.path) if part.duration > 1000]
    return [(part.name.rsplit(".", 1)[-1], part.kind.value, part.duration) for part in parts]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_of_a_hundred_generated_programs_the_culprit_is_named_in_each_and_no_innocent():
    named = innocent = 0
    for seed in range(100):
        main, kinds, time = planted.slow_span(True, random.Random(seed))
        found = explained(main, seed)
        names = [f"link {i}" for i in range(len(kinds) - 1)] + ["culprit"]
        told = blamed(found)
        assert abs(sum(ns for _, _, ns in told) - found.duration) < 1000
        named += (
            {name for name, _, _ in told} == {"culprit"}
            and max(ns for _, _, ns in told) == pytest.approx(time, abs=1000)
            and names[0] in found.text
        )
        main, _, _ = planted.slow_span(False, random.Random(seed))
        innocent += {name for name, _, _ in blamed(explained(main, seed))} != {"main"}
    print(f"why: {named} of 100 culprits named, {innocent} innocent")
    assert (named, innocent) == (100, 0)


def test_only_names_of_functions_are_shortened():
    assert short("app.Shop.quote.<locals>.ask") == "ask"
    for name in ("<init>", "tracesvc push to http://127.0.0.1:7070", "worker 1.5", "a..b", "größe"):
        assert short(name) == name
