"""What of a program is recorded, where not all of it is: groups of events, some tasks, some spans.

It is chosen when a tracer starts.  Where nothing is chosen none of this is there, and nothing asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from fnmatch import fnmatchcase
from typing import Final

import trio

from tracesvc.frozen import Frozen, frozen
from tracesvc.recorder.tree import task_id

__all__ = ["GROUPS", "Choice", "Tasks", "groups_of", "named"]

GROUPS: Final = {
    "scheduler": "tasks: that they begin and end, their steps, what they wait for and what wakes them",
    "nurseries": "that nurseries open and close, exceptions that reach them, how tasks end",
    "cancels": "who cancels which scope and why, and which tasks that reaches",
    "scopes": "that cancel scopes are entered and left, with deadline and shield; not recorded unless asked for",
    "io": "the run loop's waits for I/O",
    "stacks": "where tasks are suspended, and what runs for long",
    "threads": "calls in worker threads",
    "gc": "garbage collections",
    "spans": "the program's spans",
    "regions": "its regions",
    "logs": "its logs",
    "counters": "its counters, and those of the tracer: of the run loop and of memory",
}
"""group of events -> what is in it"""
_DEAR: Final = {"scopes"}
MAX_NAMES: Final = 10_000
"""names whose fate is remembered"""


def groups_of(wanted: Collection[str] | None) -> frozenset[str]:
    """The groups asked for: by their names; or, where each begins with ``+`` or ``!``, those by default and not."""
    default = frozenset(GROUPS.keys() - _DEAR)
    if wanted is None:
        return default
    if not wanted or not all(group.startswith(("+", "!")) for group in wanted):
        return frozenset(group.lstrip("+") for group in wanted)
    more = {group[1:] for group in wanted if group.startswith("+")}
    less = {group[1:] for group in wanted if group.startswith("!")}
    return default - less | more


def named(patterns: Iterable[str]) -> Callable[[str], bool | None]:
    """Whether a name is asked for: what the last pattern that fits it says; None: none fits.

    Patterns are as in `fnmatch`; one that begins with ``!`` says no.
    """
    rules = [(p.removeprefix("!"), not p.startswith("!")) for p in patterns]
    known: dict[str, bool | None] = {}

    def is_asked_for(name: str) -> bool | None:
        if name in known:
            return known[name]
        answer = None
        for pattern, wanted in rules:
            if fnmatchcase(name, pattern):
                answer = wanted
        if len(known) < MAX_NAMES:
            known[name] = answer
        return answer

    return is_asked_for


class Tasks:
    """Which tasks are recorded: those that fit, and all below them."""

    def __init__(self, wanted: Iterable[str | trio.Nursery | trio.lowlevel.Task]) -> None:
        """Names of tasks, as patterns; nurseries, for the tasks in them; tasks."""
        wanted = list(wanted)
        self._things: Final = [thing for thing in wanted if not isinstance(thing, str)]
        patterns = [pattern for pattern in wanted if isinstance(pattern, str)]
        self._named: Final = named(patterns)
        self._others: Final = bool(wanted) and all(
            isinstance(thing, str) and thing.startswith("!") for thing in wanted
        )
        self.chosen: Final[set[int]] = set()
        """those of them that live"""

    def choose(self, task: trio.lowlevel.Task) -> bool:
        """Decide about a task that is new; after the one whose child it is."""
        nursery, wanted = task.parent_nursery, self._named(task.name)
        if wanted is None:
            if any(thing is task or thing is nursery for thing in self._things):
                wanted = True
            elif nursery is None:
                wanted = self._others
            else:
                wanted = task_id(nursery.parent_task) in self.chosen
        if wanted:
            self.chosen.add(task_id(task))
        return wanted


@frozen
class Choice(Frozen):
    """What one session records."""

    groups: frozenset[str] = frozenset(GROUPS)
    tasks: Tasks | None = None
    """None: all; where the group ``scheduler`` is not recorded, none"""

    def __contains__(self, group: str) -> bool:
        return group in self.groups

    @property
    def chosen(self) -> set[int] | None:
        """The tasks that live and are recorded; None: all."""
        return None if self.tasks is None else self.tasks.chosen

    def has(self, task: int) -> bool:
        """Whether the life of a task is recorded."""
        return self.tasks is None or task in self.tasks.chosen

    def told(self, task: int) -> bool:
        """Whether calls in worker threads are recorded that are made for a task."""
        return self.has(task) or "scheduler" not in self.groups
