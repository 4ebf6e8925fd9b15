"""What a program says besides: counters and log messages."""

from __future__ import annotations

from collections import Counter as Tally
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tracesvc.events import Counter, Log
from tracesvc.model.columns import Columns

__all__ = ["CounterValues", "Counters", "Logs", "Message", "Messages"]

MESSAGES: Final = 10
"""messages that are kept, the last ones"""


@dataclass(slots=True)
class CounterValues:
    """The values of one counter."""

    count: int
    last: float
    min: float
    max: float
    time: int
    """ns of the last value, by the clock of the trace"""


class Counters:
    """Adds up the counters, by name."""

    def __init__(self) -> None:
        self._names: dict[str, CounterValues] = {}

    def add(self, columns: Columns) -> None:
        """The counters of a chunk."""
        table = columns.of(Counter)
        if not len(table):
            return
        order = np.lexsort((table.time, table.name))
        names, values, times = table.name[order], table.value[order], table.time[order]
        starts = np.flatnonzero(np.concatenate(([True], names[1:] != names[:-1])))
        ends = np.append(starts[1:], len(names)) - 1
        lows, highs = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
        for start, end, low, high in zip(starts, ends, lows, highs, strict=True):
            name, count = columns.strings[names[start]], int(end - start) + 1
            last, time = float(values[end]), int(times[end])
            known = self._names.get(name)
            if known is None:
                self._names[name] = CounterValues(count, last, float(low), float(high), time)
                continue
            known.count += count
            known.min, known.max = min(known.min, float(low)), max(known.max, float(high))
            if time >= known.time:
                known.last, known.time = last, time

    def result(self) -> dict[str, CounterValues]:
        """By name, in order of the alphabet."""
        return dict(sorted(self._names.items()))


@dataclass(frozen=True, slots=True)
class Message:
    """A log message."""

    time: int
    """ns, by the clock of the trace"""
    level: int
    message: str
    attributes: dict[str, Any] | None
    cut: int
    """characters that were cut off"""


@dataclass(frozen=True, slots=True)
class Logs:
    """The program's messages: how many by level, and the last few."""

    levels: dict[int, int]
    last: list[Message]


class Messages:
    """Counts the messages and keeps the last."""

    def __init__(self) -> None:
        self._levels: Tally[int] = Tally()
        self._last: list[Message] = []

    def add(self, columns: Columns) -> None:
        """The messages of a chunk."""
        table = columns.of(Log)
        if not len(table):
            return
        self._levels.update(table.level.tolist())
        last: deque[Message] = deque(self._last)
        for i in np.argsort(table.time, kind="stable")[-MESSAGES:].tolist():
            text, attributes = table.message[i], table.attributes[i]
            last.append(
                Message(
                    int(table.time[i]),
                    int(table.level[i]),
                    text if isinstance(text, str) else repr(text),
                    attributes if isinstance(attributes, dict) else None,
                    int(table.cut[i]),
                )
            )
        self._last = sorted(last, key=lambda message: message.time)[-MESSAGES:]

    def result(self) -> Logs:
        return Logs(dict(sorted(self._levels.items())), self._last)
