"""What has an instant rather than a length, or is rare: counters, messages, losses, stalls, stacks."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import Counter, Frames, Log, StepStack, TaskStack
from tracesvc.format import LossRow
from tracesvc.model.columns import Columns
from tracesvc.model.phases import Phases
from tracesvc.model.states import State

__all__ = ["Counters", "Logs", "Losses", "Message", "Places", "Stall", "Stalls", "Texts"]

Integers: TypeAlias = NDArray[np.int64]

STALL: Final = 10_000_000
"""ns; a step of that length is a stall, as in `tracesvc.analysis.stalls`"""
STALLS: Final = 5000
MESSAGES: Final = 100_000
"""messages that are kept, the latest"""
LOSSES: Final = 10_000
"""losses that are told of one by one, the first"""
STACKS: Final = 500_000
"""stacks whose time and place are kept, the latest"""


class Texts:
    """Texts by number; the same text has the same number."""

    def __init__(self) -> None:
        self.all: Final[list[str]] = [""]
        self._ids: Final[dict[str, int]] = {"": 0}

    def index(self, text: str) -> int:
        """Its number."""
        number = self._ids.get(text)
        if number is None:
            number = self._ids[text] = len(self.all)
            self.all.append(text)
        return number


class _Series:
    """Values of one counter."""

    def __init__(self) -> None:
        self._times: list[Integers] = []
        self._values: list[NDArray[np.float64]] = []

    def add(self, times: Integers, values: NDArray[np.float64]) -> None:
        self._times.append(times)
        self._values.append(values)

    def forget(self, time: int) -> None:
        times, values = self.all()
        kept = times >= time
        self._times, self._values = [times[kept]], [values[kept]]

    def all(self) -> tuple[Integers, NDArray[np.float64]]:
        if len(self._times) != 1:
            times, values = np.concatenate(self._times), np.concatenate(self._values)
            if (times[1:] < times[:-1]).any():  # of several procs
                order = np.argsort(times, kind="stable")
                times, values = times[order], values[order]
            self._times, self._values = [times], [values]
        return self._times[0], self._values[0]


class Counters:
    """Values of all counters, by name."""

    def __init__(self) -> None:
        self._series: dict[str, _Series] = {}
        self._count = 0

    @property
    def nbytes(self) -> int:
        return 16 * self._count

    def names(self) -> list[str]:
        """Those that there are."""
        return sorted(self._series)

    def add(self, columns: Columns) -> None:
        """Those of a chunk."""
        table = columns.of(Counter)
        self._count += len(table)
        for i in np.unique(table.name).tolist() if len(table) else ():
            chosen = table.name == i
            series = self._series.setdefault(columns.strings[i], _Series())
            series.add(table.time[chosen], table.value[chosen])

    def forget(self, time: int) -> None:
        """Let go of what is older."""
        for series in self._series.values():
            series.forget(time)
        self._count = sum(len(series.all()[0]) for series in self._series.values())

    def of(self, name: str) -> tuple[Integers, NDArray[np.float64]]:
        """Times and values, in order of time."""
        series = self._series.get(name)
        return (np.zeros(0, np.int64), np.zeros(0)) if series is None else series.all()


class Message(NamedTuple):
    """A message of the program."""

    time: int
    proc: int
    seq: int
    task: int
    span: int
    level: int
    text: str
    attributes: dict[str, Any] | None


class Logs:
    """The latest messages."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._sorted = True
        self.count = 0

    def add(self, columns: Columns) -> None:
        """Those of a chunk."""
        table = columns.of(Log)
        if not len(table):
            return
        self.count += len(table)
        self._sorted = False
        texts = [m if isinstance(m, str) else repr(m) for m in table.message]
        numbers = (table.time, table.proc, table.seq, table.task, table.span, table.level)
        columns_ = (*(a.tolist() for a in numbers), texts, table.attributes)
        self._messages += [Message(*row) for row in zip(*columns_, strict=True)]
        if len(self._messages) > 2 * MESSAGES:
            self._messages = self.all()[-MESSAGES:]

    def all(self) -> list[Message]:
        """In order of time."""
        if not self._sorted:
            self._messages.sort(key=lambda message: message.time)
            self._sorted = True
        return self._messages

    def within(self, start: int, end: int) -> list[Message]:
        """Those in a window."""
        messages = self.all()
        low = bisect_left(messages, start, key=lambda message: message.time)
        return messages[low : bisect_left(messages, end + 1, key=lambda message: message.time)]


class Losses:
    """What the trace says is not in it."""

    def __init__(self) -> None:
        self.all: Final[list[LossRow]] = []
        self.count = 0
        self.events = 0

    def add(self, rows: list[LossRow]) -> None:
        """Some more."""
        self.count += len(rows)
        self.events += sum(row.last - row.first + 1 for row in rows)
        self.all.extend(rows[: max(0, LOSSES - len(self.all))])


class Stall(NamedTuple):
    """A long step."""

    start: int
    end: int
    proc: int
    task: int


class Stalls:
    """The longest steps."""

    def __init__(self) -> None:
        self._stalls: list[Stall] = []
        self.count = 0

    def add(self, phases: Phases) -> None:
        """Those among some phases."""
        long = np.flatnonzero(
            (phases.state == State.RUNNING) & (phases.end - phases.start >= STALL)
        )
        self.count += len(long)
        for i in long.tolist():
            row = (phases.start[i], phases.end[i], phases.proc[i], phases.task[i])
            self._stalls.append(Stall(*map(int, row)))
        if len(self._stalls) > 2 * STALLS:
            self._stalls.sort(key=lambda stall: stall.start - stall.end)
            del self._stalls[STALLS:]

    def within(self, start: int, end: int) -> list[Stall]:
        """Those that touch a window, in order of time."""
        return sorted(stall for stall in self._stalls if stall.start <= end and stall.end >= start)


class Places:
    """Where tasks were: the stacks of long waits and long steps."""

    def __init__(self) -> None:
        self._of: dict[int, list[tuple[int, Frames, bool]]] = {}
        self._count = 0

    def add(self, columns: Columns) -> None:
        """Those of a chunk."""
        for event in (TaskStack, StepStack):
            table = columns.of(event)
            rows = zip(table.time.tolist(), table.task.tolist(), table.stack.tolist(), strict=True)
            for time, task, i in rows:
                frames = columns.stacks[i]
                if frames:
                    self._of.setdefault(task, []).append((time, frames, event is StepStack))
                    self._count += 1
        if self._count > 2 * STACKS:
            for task in list(self._of)[: len(self._of) // 2]:
                self._count -= len(self._of.pop(task))

    def of(self, task: int, start: int, end: int, *, step: bool = False) -> Frames:
        """The last stack of a task's wait (or ``step``) taken in an interval, its ends included; () for none."""
        found: Frames = ()
        for time, frames, of_step in self._of.get(task, ()):
            if start <= time <= end and of_step == step:
                found = frames
        return found
