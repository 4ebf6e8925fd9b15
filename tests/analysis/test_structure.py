"""A summary of structured concurrency: what it counts is what the trace has, event by event."""

from collections import Counter

import pytest
import trio

from tests.analysis.streams import Hand
from tests.cli.commands import run
from tests.traces import program
from tracesvc.analysis import summarize
from tracesvc.events import CancelSource, Outcome
from tracesvc.model import read
from tracesvc.testing import record


def counted(events):
    """The same, one by one."""
    sources, scopes, reached = {}, Counter(), Counter()
    for event in events:
        if event.type == "cancel_request":
            sources[event.scope] = event.source
            scopes[event.source] += 1
        elif event.type == "task_cancelled":
            reached[sources.get(event.scope, 0)] += 1
    return {
        CancelSource(source).name.lower(): (scopes[source], reached[source])
        for source in scopes | reached
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("losses", [0.0, 0.2])
def test_it_counts_what_is_there(seed, losses):
    stream = program(seed, events=3000, losses=losses, nests=True)
    summary = summarize(read(stream.data), own=True)
    found, types = summary.structure, Counter(event.type for event in stream.events)
    assert {s: (one.scopes, one.reached) for s, one in found.cancelled.items()} == counted(
        stream.events
    )
    closed = [event for event in stream.events if event.type == "nursery_close"]
    assert found.nurseries.opened == types["nursery_open"]
    assert found.nurseries.closed == len(closed)
    assert found.nurseries.failed == sum(event.errors > 0 for event in closed)
    assert found.nurseries.children == max((event.children for event in closed), default=0)
    assert found.errors == ({"ValueError": n} if (n := types["task_error"]) else {})
    exits = Counter(e.outcome for e in stream.events if e.type == "task_exit")
    assert summary.outcomes == {Outcome(o).name.lower(): n for o, n in exits.items()}


def test_outcomes_are_told_by_name_wherever_chunks_end(monkeypatch):
    stream = program(3, events=3000, nests=True)
    whole = summarize(read(stream.data)).tasks
    assert any(len(task.outcomes) == 3 for task in whole.values())
    monkeypatch.setattr("tracesvc.model.walk.CHUNK", 7)
    assert summarize(read(stream.data)).tasks == whole


def test_a_program_whose_deadlines_pass_says_so():
    async def request(seconds):
        with trio.move_on_after(1):
            await trio.sleep(seconds)

    async def main():
        async with trio.open_nursery() as nursery:
            for i in range(20):
                nursery.start_soon(request, i / 5)
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel("enough")

    summary = summarize(record(main, groups=["+scopes"]))
    name = next(name for name in summary.tasks if name.endswith("request"))
    cancelled = summary.structure.cancelled
    assert summary.tasks[name].outcomes == {"returned": 3, "cancelled": 17}
    assert (cancelled["called"].scopes, cancelled["called"].reached) == (1, 17)
    assert summary.structure.scopes.entered > 20
    assert summary.structure.scopes.caught >= 1


def test_a_reader_that_meets_sources_and_outcomes_of_a_newer_writer_goes_on():
    hand = Hand().generation(0)
    hand.events(
        1,
        ("proc_start", 0, 1, 1, "run"),
        ("task_create", 1, 2, 0, 0, "two", "f"),
        ("step_start", 2, 2),
        ("cancel_request", 3, 9, 2, 2, 77, 0, -1, ""),
        ("task_cancelled", 4, 2, 9),
        ("task_cancelled", 5, 2, 8),
        ("task_exit", 6, 2, 77),
    )
    summary = summarize(read(hand.end(10).data))
    cancelled = {s: (one.scopes, one.reached) for s, one in summary.structure.cancelled.items()}
    assert cancelled == {"77": (1, 1), "unknown": (0, 1)}
    assert summary.outcomes == {"unknown": 1}


def test_the_command_tells_it(tmp_path):
    async def main():
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)

    path = tmp_path / "a.trace"
    record(main, path=path)
    done = run("summary", path)
    assert done.returncode == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "its deadline passed 1 1" in lines
    assert "tasks that ended: 3 returned, 1 cancelled" in lines
    assert any(line.startswith("nurseries: ") and "0 still open" in line for line in lines)
