"""A critical path as people read it: stretches of a kind together, the longest first, in words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from tracesvc.analysis.path import Kind, Stretch
from tracesvc.model.wakes import GIVEN_UP, cause_name
from tracesvc.model.words import duration

__all__ = ["Group", "account", "sentence", "short"]

CLAUSES: Final = 3
"""things that are told of one group, and of a whole; the others are summed up"""
SMALL: Final = 0.02
"""share of the whole below which a thing is not worth a clause"""

_WAITS: Final = {
    "sleep": "sleeping",
    "channel_send": "waiting for room in a channel",
    "channel_receive": "waiting for an item of a channel",
    "lock": "waiting for a lock",
    "semaphore": "waiting for a semaphore",
    "limiter": "waiting for a limiter",
    "condition": "waiting for a condition",
    "event": "waiting for an event",
    "nursery": "waiting for children",
    "readable": "waiting for I/O (readable)",
    "writable": "waiting for I/O (writable)",
    "thread": "waiting for a thread",
    "process": "waiting for a process",
    "signal": "waiting for a signal",
    "parked": "waiting",
}
"""what a wait is called where no more is known than its reason"""


@dataclass(slots=True)
class Group:
    """All stretches of one kind, of the same task or for the same waker."""

    kind: Kind
    name: str
    """of the task, of the waker (WAITING), of the function (THREAD)"""
    reason: str
    total: int = 0
    """ns"""
    count: int = 0
    longest: int = 0
    """ns"""
    cause: str = ""
    """of waits that were given up: ``cancel``, ``timer``, ``signal``"""
    objects: set[int] = field(default_factory=set)
    places: dict[str, int] = field(default_factory=dict)
    """where the tasks were suspended in long waits -> ns"""
    groups: list[Group] = field(default_factory=list)
    """what it was spent on in turn; adds up to ``total``, or is empty"""

    def text(self, *, past: bool = False) -> str:
        """What it is, without how long."""
        match self.kind:
            case Kind.RUNNING:
                steps = f"{self.count} step{'s' if self.count > 1 else ''}"
                return f"ran {steps}" if past else f"running task {short(self.name)}, {steps}"
            case Kind.RUNNABLE:
                return ("was " if past else "") + "runnable" + self._behind()
            case Kind.BEHIND:
                return f"behind task {short(self.name)}"
            case Kind.LOOP:
                return "the run loop itself"
            case Kind.WAITING:
                return self._waiting(past)
            case Kind.THREAD:
                return f"{short(self.name)} in a thread"
            case Kind.HANDOVER:
                return "to and from the thread"
            case Kind.OUTSIDE:
                return "waited for another thread" if past else "waiting for another thread"
        return "not known: events were lost, or are not in the trace"

    def _behind(self) -> str:
        behind = [group for group in self.groups if group.kind is Kind.BEHIND]
        if not behind:
            return ""
        more = len(behind) - 1
        return f" behind task {short(behind[0].name)}" + (f" and {more} more" if more else "")

    def _waiting(self, past: bool) -> str:
        what = _WAITS.get(self.reason, f"waiting ({self.reason})")
        if self.reason == "thread" and self.groups:
            calls = [short(group.name) for group in self.groups if group.kind is Kind.THREAD]
            what = f"waiting for thread {', '.join(calls[:2])}"
        elif self.name:
            kind = "children, the last of them" if self.reason == "nursery" else "task"
            via = "" if self.reason == "nursery" else f" ({self.reason.replace('_', ' ')})"
            what = f"waiting for {kind} {short(self.name)}{via}"
        if len(self.objects) == 1 and self.reason in ("readable", "writable"):
            what = what.removesuffix(")") + f", file {next(iter(self.objects))})"
        if self.cause:
            what += f", {_GIVEN_UP[self.cause]}"
            if self.cause == "cancel" and self.name:
                what = f"{_WAITS.get(self.reason, 'waiting')}, cancelled by task {short(self.name)}"
        if past:
            return what.replace("waiting", "waited", 1).replace("sleeping", "slept", 1)
        return what

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kind": str(self.kind),
            "name": self.name,
            "reason": self.reason,
            "text": self.text(),
            "total": self.total,
            "count": self.count,
            "longest": self.longest,
            "cause": self.cause,
            "places": self.places,
            "groups": [group.as_dict() for group in self.groups],
        }


_DOTTED: Final = re.compile(r"(?:(?:\w+|<\w+>)\.)+\w+")


def short(name: str) -> str:
    """The last part of the name of a function; any other name as it is."""
    return name.rsplit(".", 1)[-1] if _DOTTED.fullmatch(name) else name


def account(path: Iterable[Stretch]) -> list[Group]:
    """Put stretches together by what they are; the totals add up to theirs, at every level."""
    groups: dict[tuple[str, ...], Group] = {}
    parts: dict[tuple[str, ...], list[Stretch]] = {}
    for stretch in path:
        key = _key(stretch)
        group = groups.get(key)
        if group is None:
            group = groups[key] = Group(stretch.kind, key[1], stretch.reason, cause=key[-1])
        group.total += stretch.duration
        group.count += 1
        group.longest = max(group.longest, stretch.duration)
        if stretch.object:
            group.objects.add(stretch.object)
        if stretch.place:
            group.places[stretch.place] = group.places.get(stretch.place, 0) + stretch.duration
        # Of some stretches more is known than of others of their group: what is not known is one as well.
        parts.setdefault(key, []).extend(stretch.parts or [_bare(stretch)])
    for key, group in groups.items():
        if any(part.kind is not group.kind or part.parts for part in parts[key]):
            group.groups = account(parts[key])
    return sorted(groups.values(), key=lambda group: -group.total)


def _bare(stretch: Stretch) -> Stretch:
    return Stretch(
        stretch.kind, stretch.task, stretch.name, stretch.start, stretch.end, stretch.reason
    )


def _key(stretch: Stretch) -> tuple[str, ...]:
    match stretch.kind:
        case Kind.WAITING:
            by_task = bool(stretch.parts) and stretch.reason != "thread"
            given_up = stretch.cause in _GIVEN_UP and stretch.reason not in _TIMED
            name = stretch.waker_name if by_task else ""
            return stretch.kind, name, stretch.reason, stretch.cause if given_up else ""
        case Kind.RUNNING | Kind.BEHIND | Kind.THREAD:
            return stretch.kind, stretch.name, "", ""
        case Kind.OUTSIDE:
            return stretch.kind, "", stretch.reason, ""
    return stretch.kind, "", "", ""


_GIVEN_UP: Final = {
    cause_name(number): said
    for number, said in zip(
        sorted(GIVEN_UP),
        ("until a timeout", "until it was cancelled", "until a signal"),
        strict=True,
    )
}
_TIMED: Final = {"sleep", "signal"}


def sentence(groups: list[Group]) -> str:
    """``140 ms waiting for task db-writer (lock), which ran 3 steps (20 ms) and ...; 31 ms runnable behind task x``."""
    whole = sum(group.total for group in groups)
    told = [group for group in groups if group.total > whole * SMALL][: CLAUSES + 1] or groups[:1]
    if len(groups) == len(told) + 1:
        told = groups
    clauses = [f"{duration(group.total)} {group.text()}{_which(group)}" for group in told]
    left = whole - sum(group.total for group in told)
    if left:
        clauses.append(f"{duration(left)} other things")
    return "; ".join(clauses)


def _which(group: Group) -> str:
    if group.kind is not Kind.WAITING or not group.groups or group.reason == "thread":
        return ""
    told = [g for g in group.groups if g.total > group.total * SMALL][:CLAUSES]
    phrases = []
    for inner in told:
        mine = inner.kind is not Kind.RUNNING or inner.name == group.name
        text = inner.text(past=True) if mine else f"let task {short(inner.name)} run"
        phrases.append(f"{text} ({duration(inner.total)})")
    if not phrases:
        return ""
    return f", which {' and '.join([', '.join(phrases[:-1])] * (len(phrases) > 1) + phrases[-1:])}"
