"""What each task did last, from the last generation of a trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tracesvc.events import Frames, Reason, TaskState
from tracesvc.format import Batch, Generation, Item, Snapshot
from tracesvc.model.reader import Trace

__all__ = ["LastOf", "last_of_tasks"]

_STATES: Final = {
    TaskState.RUNNABLE: "ready to run",
    TaskState.RUNNING: "running",
    TaskState.WAITING: "waiting",
}


@dataclass(slots=True)
class LastOf:
    """One task that lived at the end."""

    task: int
    name: str
    proc: int
    did: str = "?"
    """its state, and what it waits for"""
    since: int = 0
    """ns of the trace's clock"""
    said: str = ""
    """the last annotation of the task"""
    said_at: int = 0
    stack: Frames = ()
    """where it was last seen, innermost first"""

    @property
    def time(self) -> int:
        """Of the last of both."""
        return max(self.since, self.said_at)


def last_of_tasks(trace: Trace) -> list[LastOf]:
    """The tasks that live at the end of a trace, the one that did something last first."""
    tasks: dict[int, LastOf] = {}
    names: dict[tuple[str, int], str] = {}
    for event in _tail(trace, tasks, names):
        _take(tasks, names, event)
    return sorted(tasks.values(), key=lambda task: -task.time)


def _tail(
    trace: Trace, tasks: dict[int, LastOf], names: dict[tuple[str, int], str]
) -> Iterator[Any]:
    """The events of the last generation; ``tasks`` and ``names`` of spans and regions are what was there before."""
    batches: list[
        Batch
    ] = []  # the tables of a generation only grow: all of it can be decoded at its end
    for item in trace.items():
        if not isinstance(item, Item):
            continue
        match item.record:
            case Generation():
                batches.clear()
                tasks.clear()
                names.clear()
            case Snapshot() as snapshot:
                for row in snapshot.tasks:
                    last = tasks[row.task] = LastOf(row.task, trace.text(row.name), snapshot.proc)
                    last.did, last.since = _state(row.state, row.reason, row.object), row.since
                    last.stack = trace.stack(row.stack)
                for span in snapshot.spans:
                    names["span", span.span] = trace.text(span.name)
                for region in snapshot.regions:
                    names["region", region.region] = trace.text(region.name)
            case Batch() as batch:
                batches.append(batch)
    events = [event for batch in batches for event in batch.events(trace.text, trace.stack)]
    yield from sorted(events, key=lambda event: event.time)


def _state(state: int, reason: int, thing: int) -> str:
    if state != TaskState.WAITING:
        return _STATES.get(TaskState(state), "?")
    what = Reason(reason).name.lower().replace("_", " ")
    return f"waits: {what} {thing}" if thing else f"waits: {what}"


def _take(tasks: dict[int, LastOf], names: dict[tuple[str, int], str], event: Any) -> None:
    number = getattr(event, "task", 0)
    kind, _, what = event.type.partition("_")
    if what == "begin":
        names[kind, getattr(event, kind)] = event.name
    if event.type == "task_create":
        tasks[number] = LastOf(number, event.name, event.proc, "ready to run", event.time)
        return
    task = tasks.get(number)
    if task is None:
        return
    match event.type:
        case "task_exit":
            del tasks[number]
        case "step_start":
            task.did, task.since = "running", event.time
        case "step_yield":
            task.did, task.since = "ready to run", event.time
        case "task_runnable":
            by = f"task {event.waker}" if event.waker else "the run loop"
            task.did, task.since = f"woken by {by}, did not run since", event.time
        case "step_block" | "task_waiting":
            task.did, task.since = _state(3, event.reason, event.object), event.time
        case "task_stack" | "step_stack":
            task.stack = event.stack
        case "log":
            task.said, task.said_at = f"logged {event.message[:200]!r}", event.time
        case "span_begin" | "region_begin":
            task.said, task.said_at = f"began {kind} {event.name!r}", event.time
        case "span_end" | "region_end":
            name = names.get((kind, getattr(event, kind)), "?")
            task.said, task.said_at = f"ended {kind} {name!r}", event.time
        case "thread_start":
            task.said, task.said_at = f"called {event.function} in a thread", event.time
