"""``tracesvc tasks``: the tree of tasks at an instant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tracesvc.cli.output import as_json as print_json
from tracesvc.cli.output import gaps, say, source
from tracesvc.cli.times import HELP, Clock
from tracesvc.cli.words import duration

if TYPE_CHECKING:
    from tracesvc.analysis import Tree
    from tracesvc.analysis.tree import TaskAt

__all__ = ["command"]

OWN = "tracesvc "


@click.command(name="tasks", short_help="The tree of tasks at an instant.")
@source
@click.option("--at", metavar="TIME", help=f"When: {HELP}; else the end of the trace.")
@click.option("--own", is_flag=True, help="With the tracer's own tasks.")
def command(source: str, as_json: bool, at: str | None, own: bool) -> None:
    """Which tasks lived at TIME, whose children they were, in what state, blocked on what, since when."""
    from tracesvc.analysis import tasks_at
    from tracesvc.cli.sources import opened

    with opened(source) as trace:
        clock = Clock(trace)
        tree = tasks_at(trace, None if at is None else clock.parse(at))
    if as_json:
        print_json(tree)
    else:
        _print(tree, clock, own=own)


def _print(tree: Tree, clock: Clock, *, own: bool) -> None:
    from tracesvc.cli.tables import make_console

    console = make_console()
    count = len(tree.tasks)
    say(console, f"{count:,} task{'s' if count != 1 else ''} at {clock.text(tree.time)}", "bold")

    # Without recursion: trees of tasks may be deep.
    stack = [(root, "", "") for root in reversed(tree.roots)]
    run = None
    while stack:
        number, lead, below = stack.pop()
        task = tree.tasks[number]
        if not own and task.name.startswith(OWN):
            continue
        if not lead and task.proc != run:
            run = task.proc
            say(console, f"run {run} {tree.runs.get(run, '')}".rstrip(), "dim")
        say(console, f"{lead}{task.name} ({number})  {_state(task, tree.time)}")
        inner = [n for n in task.children if own or not tree.tasks[n].name.startswith(OWN)]
        for i, child in reversed(list(enumerate(inner))):
            last = i == len(inner) - 1
            marks = ("└─ ", "   ") if last else ("├─ ", "│  ")
            if not console.is_terminal:
                marks = ("  ", "  ")
            stack.append((child, below + marks[0], below + marks[1]))
    gaps(console, tree.gaps, "what a task was in there is not known")


def _state(task: TaskAt, time: int) -> str:
    what = task.state
    if task.reason:
        what = task.reason.replace("_", " ")
        what = f"waits: {what} {task.object}" if task.object else f"waits: {what}"
    said = f"{what}, for {duration(max(0, time - task.since))}"
    if task.holder:
        said += f", held by task {task.holder}"
    if task.others:
        said += f", with {task.others:,} more"
    if task.waker:
        said += f", woken by task {task.waker}"
    if task.place:
        said += f", at {task.place}"
    if task.cancelled:
        said += f", cancelled {task.cancelled}"
    if task.regions:
        said += f", in {' > '.join(task.regions)}"
    return said
