"""Hooks that cost little, and hooks that tell what they cost: the twin in Python of that part of ``csrc/hooks.c``.

Both are for a tracer with a budget, see `tracesvc.recorder.governor`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import thread_time_ns
from typing import TYPE_CHECKING, Any, Final

import trio

from tracesvc.recorder.clock import now
from tracesvc.recorder.seams import OWN
from tracesvc.recorder.tree import task_id

if TYPE_CHECKING:
    from tracesvc.recorder.choice import Choice
    from tracesvc.recorder.records import AnyRecords

__all__ = ["DarkHooks", "Measured"]

EVERY: Final = 61
"""one of so many calls is timed: a prime number, so that a program's rhythm does not choose which"""
LONGEST_SAMPLE: Final = 100_000
"""ns: longer, and somebody else had the processor"""

Hook = Callable[[Any], object]


class DarkHooks:
    """Record nothing, count what would have been, and know who runs."""

    def __init__(
        self, records: AnyRecords, choice: Choice | None, fresh: set[int], wait_is_over: Hook
    ) -> None:
        """``fresh`` are the tasks that were just spawned; ``wait_is_over`` ends a wait that began before the dark."""
        self.unrecorded = 0
        self._records: Final = records
        self._choice: Final = choice
        self._fresh: Final = fresh
        self._end_wait: Final = wait_is_over
        self._waiting = self._exited = False

    def _counts(self, task: int) -> bool:
        return self._choice is None or self._choice.has(task)

    def _wait_is_over(self) -> None:
        self._end_wait(0)
        if self._waiting:
            self._waiting = False
            self.unrecorded += self._choice is None or "io" in self._choice

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._wait_is_over()
        self._records.running = task_id(task)
        self.unrecorded += self._counts(self._records.running)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        number, self._records.running = self._records.running, 0
        if not self._exited:
            self.unrecorded += self._counts(number)
        elif self._choice is not None and self._choice.tasks is not None:
            self._choice.tasks.chosen.discard(number)
        self._exited = False

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        number = task_id(task)
        if number in self._fresh:
            self._fresh.discard(number)
        elif number != self._records.running:
            self._wait_is_over()
            self.unrecorded += self._counts(number)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        tasks = None if self._choice is None else self._choice.tasks
        if tasks is None or tasks.choose(task):
            self._fresh.add(task_id(task))
            self.unrecorded += 1

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._exited = self._exited or task_id(task) == self._records.running
        self.unrecorded += self._counts(task_id(task))

    def before_io_wait(self, timeout: float) -> None:
        self._wait_is_over()
        if timeout > 0:
            self._waiting = True
            self.unrecorded += self._choice is None or "io" in self._choice

    def after_io_wait(self, timeout: float) -> None:
        self._wait_is_over()


class Measured:
    """Stands for hooks that may change, and times some of their calls."""

    def __init__(self, hooks: Mapping[str, Hook]) -> None:
        self.calls = self.samples = self.sampled = 0
        """``sampled`` is in ns"""
        self.own_ns = self.own_steps = 0
        """of the tracer's own tasks: ns of processor time"""
        self.within: Mapping[str, Hook] = hooks

    def hooks(self) -> dict[str, Callable[[Any], None]]:
        """What trio is to call."""
        hooks = {name: self._hook(name) for name in self.within}
        return hooks | self._hooks_of_own(hooks)

    def _hooks_of_own(
        self, hooks: dict[str, Callable[[Any], None]]
    ) -> dict[str, Callable[[Any], None]]:
        start, end = hooks["before_task_step"], hooks["after_task_step"]
        spawned, exited = hooks["task_spawned"], hooks["task_exited"]
        own: set[int] = set()
        since = 0

        def before_task_step(task: trio.lowlevel.Task) -> None:
            nonlocal since
            start(task)
            if task_id(task) in own:
                self.own_steps += 1
                since = thread_time_ns()

        def after_task_step(task: trio.lowlevel.Task) -> None:
            nonlocal since
            if since:
                self.own_ns += thread_time_ns() - since
                since = 0
            end(task)

        def task_spawned(task: trio.lowlevel.Task) -> None:
            if task.name.startswith(OWN):
                own.add(task_id(task))
            spawned(task)

        def task_exited(task: trio.lowlevel.Task) -> None:
            own.discard(task_id(task))
            exited(task)

        both = (before_task_step, after_task_step, task_spawned, task_exited)
        return {hook.__name__: hook for hook in both}

    def _hook(self, name: str) -> Callable[[Any], None]:
        until = EVERY

        def measured(argument: Any) -> None:
            nonlocal until
            self.calls += 1
            until -= 1
            if until:
                self.within[name](argument)
                return
            until = EVERY
            began = now()
            self.within[name](argument)
            self.sampled += min(now() - began, LONGEST_SAMPLE)
            self.samples += 1

        return measured
