"""Spans and regions of all procs, replayed and checked.

Procs hand over their buffers one by one, so what one proc says about another's span may come by before that span has
begun in the stream.  Such references are kept, and settled when their begin comes; what is open at the very end of a
whole trace was never begun.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tracesvc.format.records import RegionRow, SpanRow

__all__ = ["Annotations", "Ids", "Open"]

MAX_PENDING: Final = 10_000

Complain = Callable[[str, str], None]


class Here(Protocol):
    """Complains about the event that is being looked at."""

    def __call__(self, code: str, text: str) -> None: ...

    def kept(self) -> Complain:
        """The same for later."""


class Ids:
    """A set of numbers that were given out in about ascending order; kept as ranges."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def __contains__(self, number: int) -> bool:
        i = bisect_right(self._starts, number) - 1
        return i >= 0 and number < self._ends[i]

    def add(self, number: int) -> None:
        i = bisect_right(self._starts, number) - 1
        if i >= 0 and number < self._ends[i]:
            return
        after = i >= 0 and self._ends[i] == number
        before = i + 1 < len(self._starts) and self._starts[i + 1] == number + 1
        if after and before:
            self._ends[i] = self._ends.pop(i + 1)
            del self._starts[i + 1]
        elif after:
            self._ends[i] = number + 1
        elif before:
            self._starts[i + 1] = number
        else:
            self._starts.insert(i + 1, number)
            self._ends.insert(i + 1, number + 1)


@dataclass(slots=True)
class Open:
    """A span or region that has begun and not ended."""

    id: int
    parent: int
    task: int
    since: int
    name: str
    attributes: dict[str, Any] | None
    proc: int | None
    """where it began; None where only a snapshot told of it"""

    def row(self) -> tuple[Any, ...]:
        return self.parent, self.task, self.since, self.name, self.attributes


class Annotations:
    """What is open, and what has been spoken of."""

    def __init__(self) -> None:
        self.spans: dict[int, Open] = {}
        self.regions: dict[int, Open] = {}
        self.tasks: Final = Ids()
        """ids that tasks were created with"""
        self._seen: Final = {"span": Ids(), "region": Ids(), "task": self.tasks}
        self._stacks: dict[int, list[Open]] = {}
        """open regions of a task, in the order in which they came by"""
        self._early: dict[tuple[str, int], tuple[int, Complain]] = {}
        """ends that came before their begin: time, and how to complain about them"""
        self._unknown: dict[tuple[str, int], Complain] = {}
        """references to what has not come by yet"""
        self.partial = False
        """not all tasks are recorded: one that is named need not come by"""
        self.blind = False
        """something is missing: a begin that never comes proves nothing"""

    # --- events ----------------------------------------------------------------------------------

    def span_begin(self, complain: Here, span: Open) -> None:
        if span.parent == span.id:
            complain("span", f"span {span.id} is its own parent")
        self.refer(complain, "span", span.parent)
        self._begin(complain, "span", self.spans, span)

    def span_end(self, complain: Here, time: int, span: int) -> None:
        self._end(complain, "span", self.spans, span, time)

    def region_begin(self, complain: Here, region: Open) -> None:
        if self._begin(complain, "region", self.regions, region):
            self._stacks.setdefault(region.task, []).append(region)

    def region_end(self, complain: Here, proc: int, time: int, region: int, task: int) -> None:
        opened = self._end(complain, "region", self.regions, region, time)
        if opened is None:
            return
        if opened.task != task:
            complain("region", f"region {region} of task {opened.task} ends as one of task {task}")
        stack = self._stacks.get(opened.task, [])
        if opened in stack:
            inner = stack[stack.index(opened) + 1 :]
            # With several procs the order in the stream is not the order in time.
            if inner and {one.proc for one in (opened, *inner)} == {proc}:
                complain("region", f"region {region} ends before region {inner[-1].id} inside it")
            stack.remove(opened)
            if not stack:
                del self._stacks[opened.task]

    def refer(self, complain: Here, kind: str, number: int) -> None:
        """An event names a task, span or region."""
        if number < 0:
            complain("id", f"{kind} {number}")
        elif kind == "task" and self.partial:
            return
        elif number and number not in self._seen[kind] and len(self._unknown) < MAX_PENDING:
            self._unknown.setdefault((kind, number), complain.kept())

    def created(self, complain: Here, task: int) -> None:
        """A task was created."""
        self._enter(complain, "task", task)

    def _enter(self, complain: Here, kind: str, number: int) -> None:
        seen = self._seen[kind]
        if number <= 0:
            complain("id", f"{kind} {number}")
        elif number in seen:
            complain("id", f"{kind} {number} begins again")
        seen.add(number)
        self._unknown.pop((kind, number), None)

    def _begin(self, complain: Here, kind: str, opens: dict[int, Open], opened: Open) -> bool:
        self._enter(complain, kind, opened.id)
        early = self._early.pop((kind, opened.id), None)
        if early is None:
            opens[opened.id] = opened
            return True
        if early[0] < opened.since:
            complain(kind, f"{kind} {opened.id} ends before it begins")
        return False

    def _end(
        self, complain: Here, kind: str, opens: dict[int, Open], number: int, time: int
    ) -> Open | None:
        opened = opens.pop(number, None)
        if opened is not None:
            if time < opened.since:
                complain(kind, f"{kind} {number} ends before it begins")
        elif number <= 0:
            complain("id", f"{kind} {number}")
        elif number in self._seen[kind] or (kind, number) in self._early:
            complain(kind, f"{kind} {number} ends again")
        elif len(self._early) < MAX_PENDING:
            self._early[kind, number] = time, complain.kept()
        return opened

    # --- gaps and the end ------------------------------------------------------------------------

    def adopt(
        self, spans: list[SpanRow], regions: list[RegionRow], text: Callable[[int], str]
    ) -> None:
        """A snapshot says what is open."""
        self.spans, self.regions, self._stacks = {}, {}, {}
        for row in spans:
            name = text(row.name)
            self.spans[row.span] = Open(*row[:4], name, row.attributes, None)
            self._know("span", row.span)
        for region in regions:
            opened = Open(
                region.region,
                0,
                region.task,
                region.since,
                text(region.name),
                region.attributes,
                None,
            )
            self.regions[region.region] = opened
            self._stacks.setdefault(region.task, []).append(opened)
            self._know("region", region.region)

    def _know(self, kind: str, number: int) -> None:
        self._seen[kind].add(number)
        self._unknown.pop((kind, number), None)

    def know_task(self, task: int) -> None:
        """A snapshot has it."""
        self._know("task", task)

    def finish(self) -> None:
        """The end of a whole trace: what was spoken of must have come by."""
        if self.blind:
            return
        for (kind, number), (_, complain) in self._early.items():
            complain(kind, f"{kind} {number} ends and has never begun")
        for (kind, number), complain in self._unknown.items():
            complain(kind, f"{kind} {number} is named and never begins")
