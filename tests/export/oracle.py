"""What an exporter should find in a whole trace, worked out event by event and without any of its code."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tracesvc.events import Reason


@dataclass
class Oracle:
    """Sums over the states of all tasks; what is open at the end counts until then."""

    types: Counter[str] = field(default_factory=Counter)
    states: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    """(state, reason) -> durations"""
    left: Counter[tuple[str, int]] = field(default_factory=Counter)
    """(state, reason) -> how many of the durations, the last ones, are of what has not ended"""
    woken: dict[int, list[int]] = field(default_factory=dict)
    """reason -> durations of waits that a step began and a wake-up ended"""
    handed: list[int] = field(default_factory=list)
    """durations from being created by a task, or woken by one (not from a thread), to the next step"""
    wakers: int = 0
    nests: dict[str, list[int]] = field(default_factory=lambda: {"nursery": [], "cancel scope": []})
    """durations of nurseries and scopes"""
    reached: int = 0
    """times that a cancellation which is in the trace reached a task"""

    def total(self, state: str, reason: int | None = None) -> int:
        return sum(
            sum(found)
            for (name, why), found in self.states.items()
            if name == state and reason in (None, why)
        )

    def count(self, state: str) -> int:
        return sum(len(found) for (name, _), found in self.states.items() if name == state)


def look(events, end: int) -> Oracle:
    """``events`` as they are stored; ``end``: ns of the end of the trace."""
    found = Oracle()
    now: dict[int, tuple[str, int, int, bool, bool]] = {}
    nests: dict[tuple[str, int], tuple[int, int]] = {}
    cancelled = set()

    def close(kind, number, time):
        found.nests[kind].append(time - nests.pop((kind, number))[1])

    def move(event, state, reason=0, *, begun=False, handed=False):
        before = now.pop(event.task, None)
        if before is not None:
            name, why, since, stepped, given = before
            found.states.setdefault((name, why), []).append(event.time - since)
            if event.type == "task_runnable" and stepped:
                found.woken.setdefault(why, []).append(event.time - since)
            if event.type == "step_start" and given:
                found.handed.append(event.time - since)
        if state:
            now[event.task] = state, reason, event.time, begun, handed

    for event in events:
        found.types[event.type] += 1
        match event.type:
            case "task_create":
                move(event, "runnable", handed=bool(event.parent))
            case "task_runnable":
                found.wakers += bool(event.waker)
                thread = now.get(event.task, ("", 0))[1] == Reason.THREAD
                move(event, "runnable", handed=bool(event.waker) and not thread)
            case "step_yield":
                move(event, "runnable")
            case "step_start":
                move(event, "running")
            case "task_waiting":
                move(event, "waiting", event.reason)
            case "step_block":
                move(event, "waiting", event.reason, begun=True)
            case "task_exit":
                move(event, "")
                for kind, number in [key for key, (task, _) in nests.items() if task == event.task]:
                    close(kind, number, event.time)
            case "nursery_open":
                nests["nursery", event.nursery] = event.task, event.time
            case "nursery_close":
                close("nursery", event.nursery, event.time)
            case "scope_open":
                nests["cancel scope", event.scope] = event.task, event.time
            case "scope_close":
                close("cancel scope", event.scope, event.time)
            case "cancel_request":
                cancelled.add(event.scope)
            case "task_cancelled":
                found.reached += event.scope in cancelled
    for name, why, since, *_ in now.values():
        found.states.setdefault((name, why), []).append(end - since)
        found.left[name, why] += 1
    for kind, number in list(nests):
        close(kind, number, end)
    return found


SYNC = [
    Reason.CHANNEL_SEND,
    Reason.CHANNEL_RECEIVE,
    Reason.LOCK,
    Reason.SEMAPHORE,
    Reason.LIMITER,
    Reason.CONDITION,
    Reason.EVENT,
    Reason.NURSERY,
]
NET = [Reason.READABLE, Reason.WRITABLE]
