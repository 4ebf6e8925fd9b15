"""Several runs at once, in threads, under load: nothing is lost, nothing is mixed up."""

import sys
import threading

import pytest
import trio
import trio.lowlevel

import tracesvc
from tests.recorder.recording import Recording, finish
from tracesvc import Tracer

ROUNDS = 40
CHILDREN = 3


async def numbered(run: int) -> None:
    """Says in each step which run it is, and where it is in its tree of tasks."""
    for number in range(ROUNDS):
        with tracesvc.span(f"run {run}", number=number):
            async with trio.open_nursery() as nursery:
                for child in range(CHILDREN):
                    nursery.start_soon(says, run, number, child, name=f"{run}.{number}.{child}")
        await trio.to_thread.run_sync(tracesvc.counter, f"thread of {run}", number)


async def says(run: int, number: int, child: int) -> None:
    tracesvc.log(f"{run}.{number}.{child}", run=run, number=number)
    await trio.lowlevel.checkpoint()
    with tracesvc.region(f"region of {run}"):
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("runs", [1, 2, 8])
def test_runs_at_once_lose_nothing_and_mix_nothing_up(runs):
    tracer = Tracer(buffer_events=64, queue_buffers=1 << 12, stacks="all")
    tracer.start()
    together = threading.Barrier(runs)
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            together.wait(30)
            trio.run(numbered, number)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(runs)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.000_01)  # they take turns in the middle of everything
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
    finally:
        sys.setswitchinterval(before)
        data = trio.run(finish, tracer)
    assert failures == []
    recording = Recording(
        data, statistics=tracer.statistics()
    )  # judges the ledger, and the order within each proc
    assert recording.lost.total() == 0

    runs_of = {event.proc: int(event.message.split(".")[0]) for event in recording.of("log")}
    assert sorted(runs_of.values()) == list(range(runs)), "each run has a proc of its own"
    names = {event.task: event.name for event in recording.of("task_create")}
    parents = {event.task: event.parent for event in recording.of("task_create")}
    for proc, number in runs_of.items():
        logs = [event for event in recording.of("log") if event.proc == proc]
        wanted = [f"{number}.{i}.{k}" for i in range(ROUNDS) for k in range(CHILDREN)]
        assert sorted(log.message for log in logs) == sorted(wanted)
        assert all(names[log.task] == log.message for log in logs), "who says it is who runs"
        mains = {parents[log.task] for log in logs}
        assert len(mains) == 1
        assert names[mains.pop()].endswith("numbered")
        spans = [e for e in recording.of("span_begin") if e.proc == proc]
        assert [(e.name, e.attributes) for e in spans] == [
            (f"run {number}", {"number": i}) for i in range(ROUNDS)
        ]
        inside = {span.span for span in spans}
        assert {log.span for log in logs} == inside
        regions = [e for e in recording.of("region_begin") if e.proc == proc]
        assert {e.name for e in regions} == {f"region of {number}"}
        assert len(regions) == ROUNDS * CHILDREN
        counters = [e for e in recording.of("counter") if e.name == f"thread of {number}"]
        assert sorted(e.value for e in counters) == list(range(ROUNDS))
