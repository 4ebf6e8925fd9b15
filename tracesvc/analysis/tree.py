"""`tasks_at`: the tree of tasks at an instant: who lives, whose child it is, what it waits for, since when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tracesvc.analysis.cancellation import Cancellations
from tracesvc.analysis.holders import Holders
from tracesvc.analysis.stacks import StacksAround, lines, place
from tracesvc.events import Reason
from tracesvc.model.lives import Lives
from tracesvc.model.phases import BY_SNAPSHOT, NAMELESS, UNKNOWN, Phases
from tracesvc.model.pieces import OPEN, Pieces
from tracesvc.model.reader import Trace
from tracesvc.model.replay import Replay
from tracesvc.model.states import State
from tracesvc.model.words import duration

__all__ = ["TaskAt", "Tree", "tasks_at"]


@dataclass(slots=True)
class TaskAt:
    """A task at an instant; times are ns by the clock of the trace."""

    task: int
    name: str
    entry: str
    proc: int
    """the run it lives in"""
    parent: int
    nursery: int
    state: str
    """``runnable``, ``running``, ``waiting`` or ``unknown`` (after a loss)"""
    since: int
    reason: str
    """why it waits; empty if it does not"""
    object: int
    waker: int
    """of a runnable task: who woke it"""
    created: int | None
    """None: not in the trace"""
    children: list[int] = field(default_factory=list)
    regions: list[str] = field(default_factory=list)
    """that are open, the outermost first"""
    others: int = 0
    """how many more tasks wait for the same object"""
    holder: int = 0
    """of a lock that it waits for, where the trace proves who it is"""
    stack: list[str] = field(default_factory=list)
    """where it is suspended, innermost first: ``function (file:line)``; of long waits that the trace has stacks of"""
    place: str = ""
    """the innermost of them that is the program's own"""
    cancelled: str = ""
    """what had it cancelled that still lives, and when; of the last time"""


@dataclass(frozen=True, slots=True)
class Tree:
    """All tasks that live at an instant."""

    time: int
    """ns by the clock of the trace"""
    tasks: dict[int, TaskAt]
    """by number, parents before their children"""
    roots: list[int]
    """tasks whose parent does not live, or is not known"""
    runs: dict[int, str]
    gaps: int
    """places up to here where events are missing"""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        from dataclasses import asdict

        return {
            "time": self.time,
            "gaps": self.gaps,
            "runs": {str(proc): name for proc, name in self.runs.items()},
            "roots": self.roots,
            "tasks": [asdict(task) for task in self.tasks.values()],
        }


def tasks_at(trace: Trace, at: int | None = None) -> Tree:
    """The task tree at a time.

    Args:
        trace: From `tracesvc.read`; read from where it stands to its present end.
        at: ns by the clock of the trace; None: the present end of the trace.

    Raises:
        FormatError: It is not a trace.
        OSError: It cannot be read.
    """
    replay = Replay(trace)
    phases: list[Phases] = []
    names: dict[int, str] = {}
    lives: list[Lives] = []
    regions: list[Pieces] = []
    gaps = 0
    stacks, holders = StacksAround(at), Holders(at)
    cancels = Cancellations(replay.names, at)
    for part in replay.parts():
        stacks.add(part)
        holders.add(part)
        cancels.add(part)
        here = part.phases.take(_touching(part.phases, at))
        if len(here):
            phases.append(here)
            ids = here.name.tolist()
            names.update(zip(here.task.tolist(), (replay.names[i] for i in ids), strict=True))
        then = part.lives.end == OPEN
        if at is not None:
            then |= part.lives.end > at
            then &= part.lives.begin <= at
        lives.append(part.lives.take(then))
        stacks.forget(part.lives.take(~then).task.tolist())
        regions.append(part.regions.take(_open(part.regions, at)))
        gaps += sum(at is None or gap.time <= at for gap in part.gaps)
    known = Lives.join(lives)
    here = Phases.join(phases)
    if at is None:  # a run that is over has no tasks, whatever its last events were
        here = here.take(~np.isin(here.proc, list(replay.walk.died)))
    tasks = _tasks(here, names, known)
    _annotate(tasks, Pieces.join(regions))
    ends = dict(zip(here.task.tolist(), here.end.tolist(), strict=True))
    for task in tasks.values():
        if task.reason:
            frames = stacks.of(task.task, task.since, ends[task.task])
            task.stack, task.place = lines(frames), place(frames)
    _hold(tasks, holders)
    time = replay.walk.ended if at is None else at
    for task in tasks.values():
        if reached := cancels.of(task.task):
            when, what = reached[-1]
            task.cancelled = f"{duration(max(0, time - when))} ago, {what.text}"
    runs = {p: n for p, n in replay.walk.runs().items() if any(t.proc == p for t in tasks.values())}
    ordered, roots = _family(tasks)
    return Tree(time, ordered, roots, runs, gaps)


def _touching(phases: Phases, at: int | None) -> Any:
    if at is None:
        return phases.closed == BY_SNAPSHOT
    return (phases.start <= at) & (
        (phases.end > at) | ((phases.closed == BY_SNAPSHOT) & (phases.end == at))
    )


def _open(pieces: Pieces, at: int | None) -> Any:
    if at is None:
        return pieces.end == OPEN
    return (pieces.begin <= at) & ((pieces.end > at) | (pieces.end == OPEN))


def _tasks(phases: Phases, names: dict[int, str], lives: Lives) -> dict[int, TaskAt]:
    row = {task: i for i, task in enumerate(lives.task.tolist())}
    found: dict[int, TaskAt] = {}
    p = phases.sorted()
    for i, task in enumerate(p.task.tolist()):
        state, at = int(p.state[i]), row.get(task)
        waits = state == State.WAITING
        created = OPEN if at is None else int(lives.begin[at])
        found[task] = TaskAt(
            task=task,
            name=names.get(task, NAMELESS),
            entry="" if at is None else str(lives.entry[at]),
            proc=int(p.proc[i]),
            parent=0 if at is None else int(lives.parent[at]),
            nursery=0 if at is None else int(lives.nursery[at]),
            state=_state(state),
            since=int(p.since[i]),
            reason=_reason(int(p.reason[i])) if waits else "",
            object=int(p.object[i]),
            waker=int(p.waker[i]) if not waits else 0,
            created=None if created == OPEN else created,
        )
    return found


def _state(number: int) -> str:
    if number == UNKNOWN:
        return "unknown"
    return "runnable" if number == State.NEW else State(number).name.lower()


def _reason(number: int) -> str:
    return Reason(number).name.lower() if number in set(Reason) else str(number)


_NOT_SHARED = {"readable", "writable"}
"""the same file descriptor in two runs is not the same thing"""


def _annotate(tasks: dict[int, TaskAt], regions: Pieces) -> None:
    """Regions, and how many wait for the same thing."""
    order = np.lexsort((regions.id, regions.begin))
    for i in order.tolist():
        task = tasks.get(int(regions.task[i]))
        if task is not None:
            task.regions.append(str(regions.name[i]))
    waiting: dict[tuple[str, int], int] = {}
    for task in tasks.values():
        if task.object and task.reason not in _NOT_SHARED:
            waiting[task.reason, task.object] = waiting.get((task.reason, task.object), 0) + 1
    for task in tasks.values():
        task.others = max(0, waiting.get((task.reason, task.object), 0) - 1)


def _hold(tasks: dict[int, TaskAt], holders: Holders) -> None:
    """Say of locks who holds them."""
    waits: dict[int, list[TaskAt]] = {}
    for task in tasks.values():
        if task.reason == Reason.LOCK.name.lower() and task.object:
            waits.setdefault(task.object, []).append(task)
    for lock, waiting in waits.items():
        holder = holders.of(lock, min(task.since for task in waiting))
        for task in waiting:
            task.holder = holder


def _family(tasks: dict[int, TaskAt]) -> tuple[dict[int, TaskAt], list[int]]:
    """Parents before their children; a circle of parents (damage) is cut where it is first met."""
    roots = []
    for number, task in tasks.items():
        if task.parent in tasks and task.parent != number:
            tasks[task.parent].children.append(number)
        else:
            roots.append(number)
    ordered: dict[int, TaskAt] = {}

    def enter(first: int) -> None:
        stack = [first]
        while stack:
            number = stack.pop()
            if number not in ordered:
                ordered[number] = tasks[number]
                stack += reversed(tasks[number].children)

    for root in roots:
        enter(root)
    for number in tasks:
        if number not in ordered:
            roots.append(number)
            enter(number)
    return ordered, roots
