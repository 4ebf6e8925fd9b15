"""State of what is alive, as the reader knows it from the events that went by: what snapshots are written from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from tracesvc.events import (
    RegionBegin,
    RegionEnd,
    SpanBegin,
    SpanEnd,
    StepBlock,
    StepStart,
    StepYield,
    TaskCreate,
    TaskExit,
    TaskRunnable,
    TaskStack,
    TaskState,
    TaskWaiting,
)
from tracesvc.format.records import RegionRow, SpanRow, TaskRow
from tracesvc.recorder.records import AnyRecords
from tracesvc.recorder.tree import TaskTree

__all__ = ["LiveState"]

_STATE: Final = {
    TaskCreate.number: TaskState.RUNNABLE,
    TaskWaiting.number: TaskState.WAITING,
    TaskRunnable.number: TaskState.RUNNABLE,
    StepStart.number: TaskState.RUNNING,
    StepYield.number: TaskState.RUNNABLE,
    StepBlock.number: TaskState.WAITING,
}
_CHANGES: Final = bytes(
    (i in _STATE or i == TaskExit.number) and i != StepStart.number for i in range(256)
)
_OPENINGS: Final = {SpanBegin.number, SpanEnd.number, RegionBegin.number, RegionEnd.number}
_OTHERS: Final = bytes(i in _OPENINGS or i == TaskStack.number for i in range(256))
_EXIT: Final = TaskExit.number
_WAITS: Final = {TaskWaiting.number, StepBlock.number}


class _Run:
    """Live tasks of one run."""

    __slots__ = ("last", "stacks", "tasks")

    def __init__(self) -> None:
        self.tasks: dict[int, tuple[int, int, str, str]] = {}
        """task -> (parent, nursery, name, entry)"""
        self.last: dict[int, tuple[int, int, int, int]] = {}
        """task -> (state, since, reason, object)"""
        self.stacks: dict[int, tuple[int, Any]] = {}
        """task -> (when it was seen, where it was suspended)"""


class LiveState:
    """Live tasks per run, open spans, open regions. Fed with records, batch by batch, in order."""

    def __init__(self) -> None:
        self._runs: dict[int, _Run] = {}
        self._spans: dict[int, tuple[int, int, int, str, Any]] = {}
        """span -> (parent, task, since, name, attributes)"""
        self._regions: dict[int, tuple[int, int, str, Any]] = {}
        """region -> (task, since, name, attributes)"""
        self._ended_early: set[int] = set()
        """spans and regions whose end came by before their begin: they lie in different procs' buffers"""

    def __len__(self) -> int:
        """Rows that a snapshot would have."""
        return (
            sum(len(run.tasks) for run in self._runs.values())
            + len(self._spans)
            + len(self._regions)
        )

    @property
    def runs(self) -> list[int]:
        """Procs that have live tasks."""
        return list(self._runs)

    def apply(self, proc: int, records: AnyRecords) -> None:
        """Take in a batch. Only the last event of each task counts, so the cost per event is that of a few C loops."""
        types, last = records.types(), records.last_of_tasks(_CHANGES)
        # every step but the last one has its end in this batch, and that is what counts
        place = types.rfind(StepStart.number)
        if place >= 0:
            task = records.record(place)[2]
            if last.get(task, -1) < place:
                last[task] = place
        if last:
            self._apply_tasks(proc, records, types, last)
        others = types.translate(_OTHERS)
        place = others.find(1)
        while place >= 0:
            number, *fields = records.record(place)
            if number == TaskStack.number:
                self._apply_stack(proc, *fields)
            else:
                self._apply_annotation(number, *fields)
            place = others.find(1, place + 1)

    def _apply_tasks(
        self, proc: int, records: AnyRecords, types: bytes, last: dict[int, int]
    ) -> None:
        run = self._runs.get(proc)
        if run is None:
            run = self._runs[proc] = _Run()
        tasks, states, new = run.tasks, run.last, 0
        for task, place in last.items():
            number = types[place]
            if number == _EXIT:
                if task in states:  # else it came and went in this batch
                    del states[task]
                    tasks.pop(task, None)
                    run.stacks.pop(task, None)
                continue
            if task not in tasks:
                new += 1
            _, time, _, b, c = records.record(place)
            if number in _WAITS:
                states[task] = _STATE[number], time, b, c
            else:
                states[task] = _STATE[number], time, 0, 0
        place = len(types)
        while new and (place := types.rfind(TaskCreate.number, 0, place)) >= 0:
            _, _, task, b, c = records.record(place)
            if task in states and task not in tasks:
                tasks[task] = b, *c
                new -= 1

    def _apply_stack(self, proc: int, time: int, task: int, stack: Any, _: int) -> None:
        run = self._runs.get(proc)
        if run is not None and task in run.last and run.last[task][1] <= time:
            run.stacks[task] = time, stack

    def _apply_annotation(self, number: int, time: int, a: int, b: Any, c: Any) -> None:
        if number == SpanBegin.number:
            if a in self._ended_early:
                self._ended_early.discard(a)
            else:
                self._spans[a] = b, c[0], time, c[1], c[2]
        elif number == RegionBegin.number:
            if a in self._ended_early:
                self._ended_early.discard(a)
            else:
                self._regions[a] = b, time, *c
        elif (self._spans if number == SpanEnd.number else self._regions).pop(a, None) is None:
            self._ended_early.add(a)
            if len(self._ended_early) > 10_000:  # begins that were lost will never come
                self._ended_early.clear()

    def forget_run(self, proc: int) -> None:
        """The proc ended."""
        self._runs.pop(proc, None)

    def repair(self, proc: int, tree: TaskTree, time: int) -> None:
        """Replace what is believed of a run by what was read from trio; spans and regions of vanished tasks go."""
        old = self._runs.get(proc) or _Run()
        run = self._runs[proc] = _Run()
        run.tasks = tree.tasks
        run.stacks = {task: row for task, row in old.stacks.items() if task in tree.tasks}
        for task, (state, reason, thing) in tree.states.items():
            known = old.last.get(task)
            since = (
                known[1]
                if known is not None and (known[0], *known[2:]) == (state, reason, thing)
                else time
            )
            run.last[task] = state, since, reason, thing
        gone = old.tasks.keys() - tree.tasks.keys()
        self._spans = {number: row for number, row in self._spans.items() if row[1] not in gone}
        self._regions = {number: row for number, row in self._regions.items() if row[0] not in gone}

    def keep_open(self, numbers: set[int]) -> None:
        """Of the spans and regions only these are open: the end of others may have been lost."""
        self._spans = {number: row for number, row in self._spans.items() if number in numbers}
        self._regions = {number: row for number, row in self._regions.items() if number in numbers}

    # --- snapshots -------------------------------------------------------------------------------

    def tasks_of(self, proc: int) -> int:
        """Live tasks of a run."""
        return len(self._runs[proc].tasks)

    def task_rows(
        self, proc: int, intern: Callable[[str], int], intern_stack: Callable[[Any], int]
    ) -> Iterator[TaskRow]:
        """The live tasks of a run. It must not be changed while this is iterated."""
        run = self._runs[proc]
        for task, (parent, nursery, name, entry) in run.tasks.items():
            state, since, reason, thing = run.last[task]
            seen, stack = run.stacks.get(task, (0, None))
            number = intern_stack(stack if state == TaskState.WAITING and since <= seen else None)
            names = intern(name), intern(entry)
            yield TaskRow(task, parent, nursery, *names, state, since, reason, thing, number)

    def annotation_rows(self, intern: Callable[[str], int]) -> list[SpanRow | RegionRow]:
        """The open spans and regions."""
        rows: list[SpanRow | RegionRow] = []
        for span, (parent, task, since, name, attributes) in self._spans.items():
            rows.append(SpanRow(span, parent, task, since, intern(name), attributes))
        for region, (task, since, name, attributes) in self._regions.items():
            rows.append(RegionRow(region, task, since, intern(name), attributes))
        return rows
