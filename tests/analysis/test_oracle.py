"""The task tree of a program that runs, as stackscope sees it, is that of its trace at the same moment."""

import random
import warnings

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import tracesvc
from tracesvc.analysis import tasks_at
from tracesvc.model import read
from tracesvc.recorder.clock import now

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # stackscope 0.2.2 warns on import on CPython 3.13
    import stackscope


def seen_by_stackscope():
    """{task: the task whose nursery it is in}, and {task: its name}; the root has 0."""
    parents, names = {}, {}

    def enter(stack, parent):
        number = stack.root._counter + 1  # trio counts from 0, and there 0 is no task
        parents[number], names[number] = parent, stack.root.name
        for frame in stack.frames:
            for context in frame.contexts:
                for child in context.children:
                    if isinstance(child, stackscope.Stack):
                        enter(child, number)

    root = trio.lowlevel.current_root_task()
    enter(stackscope.extract(root, recurse_child_tasks=True), 0)
    return parents, names


async def forest(shape, depth, event):
    """Tasks in nurseries in tasks, each waiting for something else."""
    async with trio.open_nursery() as nursery:
        for _ in range(shape.randrange(1, 4)):
            if depth and shape.random() < 0.6:
                nursery.start_soon(forest, shape, depth - 1, event, name=f"forest {depth}")
            else:
                nursery.start_soon(
                    shape.choice((event.wait, trio.sleep_forever)), name=f"leaf {depth}"
                )
        if shape.random() < 0.3:
            await event.wait()


@pytest.mark.parametrize("seed", range(5))
async def test_the_tree_is_that_of_stackscope(tmp_path, seed):
    path = tmp_path / "a.trace"
    event = trio.Event()
    async with tracesvc.open_tracer(tracesvc.FileSink(path)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forest, random.Random(seed), 3, event)
            await wait_all_tasks_blocked()
            parents, names = seen_by_stackscope()
            moment = now()
            event.set()
            nursery.cancel_scope.cancel()
    with read(path) as trace:
        found = tasks_at(trace, moment).tasks
    # The tracer enters its nursery by hand, where stackscope does not look for one.
    tree = {n: task for n, task in found.items() if not task.name.startswith("tracesvc ")}
    assert {n: task.parent for n, task in tree.items()} == parents
    assert {n: task.name for n, task in tree.items()} == names
    waiting = {n: task.reason for n, task in tree.items() if task.state == "waiting"}
    assert len(waiting) == len(tree) - 1  # but this one
    assert len(parents) > 5
