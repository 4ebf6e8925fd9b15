"""Who cancelled whom and why, in the answers to questions; of real programs."""

from __future__ import annotations

import trio
from trio.testing import MockClock

import tracesvc
from tests.recorder.recording import trace
from tracesvc.analysis import query, tasks_at, why
from tracesvc.cli.lines import Lines
from tracesvc.model import read


async def worker() -> None:
    await trio.sleep(1)
    raise ValueError("no such user")


async def sibling() -> None:
    await trio.sleep_forever()


async def stubborn() -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(10)


async def main() -> None:
    with tracesvc.span("request"), trio.move_on_after(2):
        await trio.sleep_forever()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker, name="worker")
            nursery.start_soon(sibling, name="sibling")
            nursery.start_soon(stubborn, name="stubborn")
    except* ValueError:
        pass


def recorded():
    return trace(main, run={"clock": MockClock(autojump_threshold=0)}, groups=["+scopes"])


def test_why_tells_of_a_deadline():
    with read(recorded().data) as trace_:
        found = why(trace_, "request")
    ((_, _, one),) = found.cancelled
    assert one.text.startswith("a deadline of 2.00 s passed, in a scope of task")
    assert found.as_dict()["cancelled"][0]["source"] == "deadline"


def test_the_tree_of_tasks_tells_who_raised_and_so_cancelled_a_sibling():
    recording = recorded()
    names = {name: task for task, name in recording.names.items()}
    (exit_,) = recording.of("task_exit", task="sibling")
    with read(recording.data) as trace_:
        tree = tasks_at(trace_, exit_.time + 1)
    said = tree.tasks[names["stubborn"]].cancelled
    assert f"task worker ({names['worker']}) raised ValueError: no such user" in said
    assert "nursery" in said


def test_tables():
    data = recorded().data

    def ask(sql: str):
        with read(data) as trace_:
            return [tuple(row) for row in query(trace_, sql).rows]

    assert ask("select outcome from tasks where name = 'worker'") == [("raised",)]
    assert ask("select outcome from tasks where name = 'sibling'") == [("cancelled",)]
    assert ask("select exception, message from errors") == [("ValueError", "no such user")]
    sources = "select source from cancels where source <> 'shutdown' order by time"
    assert ask(sources) == [("deadline",), ("error",)]
    whom = """
        select t.name, r.name, c.why from cancelled d join cancels c using (scope)
        join tasks t on t.task = d.task join tasks r on r.task = c.requester
        where c.source = 'error' order by t.name
    """
    why_ = "ValueError: no such user"
    assert ask(whom) == [("sibling", "worker", why_), ("stubborn", "worker", why_)]
    assert ask("select children, errors from nurseries where children = 3") == [(3, 1)]
    assert ask("select count(*) from scopes where caught and timeout < 2000000001") != [(0,)]


def test_lines_of_tail():
    lines = "\n".join([*Lines().feed(recorded().data)])
    assert "raised" in lines
    assert "why" not in lines
    assert "deadline  timeout=2.00 s" in lines
    assert "ValueError  no such user" in lines
