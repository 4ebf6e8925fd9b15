"""Where tasks wait, by the stacks that a trace has of long waits."""

import time

import trio
from trio.testing import MockClock

import tracesvc
from tests.recorder.recording import trace
from tracesvc.analysis import query, stalls, tasks_at, why
from tracesvc.analysis.stacks import place
from tracesvc.model import read


def recorded():
    async def fetch():
        await trio.sleep(5)

    async def query_db():
        await fetch()

    async def other():
        await trio.sleep(1)

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            with tracesvc.span("work"):
                await query_db()

    return trace(main, run={"clock": MockClock(autojump_threshold=0)}, stacks="all").data


def test_why_and_tasks_and_sql_say_where_a_task_waits():
    data = recorded()
    found = why(read(data))
    (wait,) = [s for s in found.path if s.reason == "sleep"]
    assert wait.place.startswith("recorded.<locals>.fetch (test_stacks.py:")
    (group,) = [g for g in found.groups if g.reason == "sleep"]
    assert list(group.places) == [wait.place]

    middle = (wait.start + wait.end) // 2
    tree = tasks_at(read(data), middle)
    (main,) = [t for t in tree.tasks.values() if t.name.endswith(".main")]
    assert main.place == wait.place
    functions = [line.partition(" (")[0].rsplit(".", 1)[-1] for line in main.stack]
    assert functions[-3:] == ["fetch", "query_db", "main"]

    rows = query(read(data), f"select kind, stack from stacks where task = {main.task}").rows
    assert ("wait", "\n".join(main.stack)) in rows


def test_a_stall_says_what_ran():
    async def main():
        until = time.perf_counter() + 0.3
        while time.perf_counter() < until:
            pass

    (stall,) = stalls(read(trace(main).data), 250_000_000).stalls
    assert stall.place.startswith("test_a_stall_says_what_ran.<locals>.main (test_stacks.py:")


def test_without_stacks_there_is_no_place():
    async def main():
        await trio.sleep(5)

    data = trace(main, run={"clock": MockClock(autojump_threshold=0)}, stacks="off").data
    assert all(not t.stack and not t.place for t in tasks_at(read(data)).tasks.values())
    assert all(not stall.place for stall in stalls(read(data), 1).stalls)


def test_the_place_is_the_innermost_frame_of_the_programs_own():
    frames = (
        ("sleep", "/venv/site-packages/trio/_timeouts.py", 9),
        ("query", "/srv/app/db.py", 42),
        ("handler", "/srv/app/web.py", 7),
    )
    assert place(frames) == "query (db.py:42)"
    assert place(frames[:1]) == ""
    assert place(()) == ""
