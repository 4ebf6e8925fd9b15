"""Triggers: when a flight recorder takes a snapshot by itself, and how often.

Most triggers look at the batches of events as they come out of the reader, and of these only at batches that have a
type of event they are about.  A few are told by the program's side: signals, spans that fail, the end of the program.
What a trigger finds is a reason, a line of text.  The recorder logs it, so that it is in the trace, waits for what
happens next, and writes.
"""

from __future__ import annotations

import logging
import signal as signals
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from itertools import compress
from types import FrameType, TracebackType
from typing import Any, ClassVar, Final

import trio

from tracesvc.events import (
    EVENTS,
    Counter,
    Event,
    NurseryClose,
    SpanBegin,
    SpanEnd,
    StepBlock,
    StepStart,
    StepYield,
    Storage,
    TaskCreate,
    TaskExit,
)
from tracesvc.format import Batch
from tracesvc.recorder.annotations import on_failed_span

__all__ = [
    "CounterAbove",
    "FailedSpan",
    "LongStep",
    "LoopLag",
    "NurseryFailed",
    "ProgramDies",
    "Signal",
    "SlowSpan",
    "TasksAbove",
    "Trigger",
    "When",
]

logger: Final = logging.getLogger("tracesvc")
LOOP_LAG: Final = "trio.loop_lag"
MAX_SPANS: Final = 100_000
"""open spans that are kept in mind"""
Tell = Callable[[str], None]
Text = Callable[[int], str]


class Trigger:
    """When to take a snapshot. The subclasses say of what; an object belongs to one recorder.

    Args:
      after: seconds of real time that the recording goes on before the snapshot is taken: what happened next belongs to
        it.
      every: seconds between two snapshots of this trigger, at least; what comes sooner is counted and not written.
      budget: snapshots in a session, at most.

    Raises:
      ValueError: one of them is negative.
    """

    types: frozenset[int] = frozenset()
    """numbers of the events that it is about; none: it is not asked about any"""

    def __init__(self, *, after: float = 1.0, every: float = 60.0, budget: int = 10) -> None:
        if not (0 <= after < 1e6 and 0 <= every < 1e9 and budget >= 0):
            raise ValueError("after, every and budget must not be negative")
        self.after: Final = after
        self.every: Final = every
        self.budget: Final = budget
        self.fired = 0
        """snapshots that it has asked for in this session"""
        self.suppressed = 0
        """how often it was too soon, or over its budget"""
        self._last: int | None = None

    @property
    def name(self) -> str:
        """What it is called in the trace and in the name of the file, such as ``long_step``."""
        kind = type(self).__name__
        return "".join("_" + c.lower() if c.isupper() else c for c in kind).lstrip("_")

    def allows(self, time: int) -> bool:
        """Whether it may fire at ``time``, in ns; if so, it has."""
        soon = self._last is not None and time - self._last < self.every * 1e9
        if soon or self.fired >= self.budget:
            self.suppressed += 1
            return False
        self._last = time
        self.fired += 1
        return True

    def open(self, tell: Tell) -> None:
        """A session begins. ``tell`` takes a reason, in any thread, and in a signal handler."""
        self.fired = self.suppressed = 0
        self._last = None

    def close(self) -> None:
        """It is over."""

    def worth_it(self, batch: Batch, newest: int) -> bool:
        """Whether a batch with events of its `types` is to be looked at; ``newest`` is the time of its last event.

        For what can be told without decoding the batch, which takes a hundred times as long.
        """
        return True

    def look(self, batch: Batch, text: Text) -> str | None:
        """The reason, where such a batch gives one; ``text`` resolves names."""
        return None

    def count(self, tasks: int) -> None:
        """So many tasks live where a generation begins."""


def records_of(batch: Batch, types: frozenset[int]) -> Iterator[tuple[int, int, int, Any]]:
    """(place, type, time, fields) of the events of some types; names as ids."""
    times = batch.times()
    rows = {n: zip(*batch.columns(n), strict=True) for n in batch.numbers if n in types}
    marks = batch.types.translate(bytes(n in types for n in range(256)))
    for place in compress(range(batch.count), marks):
        number = batch.types[place]
        yield place, number, times[place], next(rows[number])


def _ms(ns: float) -> str:
    return f"{ns / 1e6:.4g} ms"


# --- what batches tell ---------------------------------------------------------------------------


class LongStep(Trigger):
    """A step of a task ran for ``seconds`` or longer, and nothing else could run in its loop."""

    types = frozenset({StepStart.number, StepYield.number, StepBlock.number, TaskExit.number})
    _ENDS: ClassVar[bytes] = bytes(
        n in (StepYield.number, StepBlock.number, TaskExit.number) for n in range(256)
    )

    def __init__(self, seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self._limit: Final = int(seconds * 1e9)
        self._open: dict[int, Batch | tuple[int, int]] = {}
        """proc -> the step that ran when its last batch was over: (since when, its task), or the batch it began in"""

    def open(self, tell: Tell) -> None:
        super().open(tell)
        self._open.clear()

    def worth_it(self, batch: Batch, newest: int) -> bool:
        """Not where all of it, with the step that ran before, took less time than the limit: mostly so."""
        before = self._open.get(batch.proc)
        since = before.t0 if isinstance(before, Batch) else before[0] if before else batch.t0
        if newest - since >= self._limit:
            return True
        start = batch.types.rfind(StepStart.number)
        if batch.types.translate(self._ENDS).rfind(1) > start:
            self._open.pop(batch.proc, None)
        elif start >= 0:
            self._open[batch.proc] = batch
        return False

    def look(self, batch: Batch, text: Text) -> str | None:
        begun = self._open.pop(batch.proc, None)
        if isinstance(begun, Batch):
            place = begun.types.rfind(StepStart.number)
            begun = begun.times()[place], begun.columns(StepStart.number)[0][-1]
        long, who = 0, 0
        for _, number, time, fields in records_of(batch, self.types):
            if number == StepStart.number:
                begun = time, fields[0]
            elif begun is not None:
                if time - begun[0] > long:
                    long, who = time - begun[0], begun[1]
                begun = None
        if begun is not None:
            self._open[batch.proc] = begun
        return f"a step of task {who} ran for {_ms(long)}" if long >= self._limit else None


class CounterAbove(Trigger):
    """A counter whose name fits ``name`` (a pattern: ``jobs.*``) reaches ``bound``; again once it was below.

    The depth of a channel that is watched is a counter too.
    """

    types = frozenset({Counter.number})

    def __init__(self, name: str, bound: float, **options: Any) -> None:
        super().__init__(**options)
        self._pattern: Final = name
        self._bound: Final = bound
        self._above: set[str] = set()

    def open(self, tell: Tell) -> None:
        super().open(tell)
        self._above.clear()

    def look(self, batch: Batch, text: Text) -> str | None:
        names, values, *_ = batch.columns(Counter.number)
        reason = None
        for number, value in zip(names, values, strict=True):
            if value < self._bound and not self._above:
                continue
            name = text(number)
            if not fnmatchcase(name, self._pattern):
                continue
            if value < self._bound:
                self._above.discard(name)
            elif name not in self._above:
                self._above.add(name)
                reason = self._reason(name, value)
        return reason

    def _reason(self, name: str, value: float) -> str:
        return f"counter {name} is {value:g}"


class LoopLag(CounterAbove):
    """A pass of a run loop took ``seconds`` or more: so long a task that was ready may have waited."""

    def __init__(self, seconds: float, **options: Any) -> None:
        super().__init__(LOOP_LAG, seconds * 1e9, **options)

    def _reason(self, name: str, value: float) -> str:
        return f"a pass of the run loop took {_ms(value)}"


class TasksAbove(Trigger):
    """``bound`` tasks or more live; again once they were fewer."""

    types = frozenset({TaskCreate.number, TaskExit.number})

    def __init__(self, bound: int, **options: Any) -> None:
        super().__init__(**options)
        self._bound: Final = bound
        self._live = 0
        self._above = False

    def open(self, tell: Tell) -> None:
        super().open(tell)
        self._live, self._above = 0, False

    def count(self, tasks: int) -> None:
        self._live = tasks

    def worth_it(self, batch: Batch, newest: int) -> bool:
        """Not where it can cross no bound, in whatever order."""
        created = batch.types.count(TaskCreate.number)
        ended = batch.types.count(TaskExit.number)
        if self._above and self._live - ended < self._bound:
            return True
        if not self._above and self._live + created >= self._bound:
            return True
        self._live += created - ended
        return False

    def look(self, batch: Batch, text: Text) -> str | None:
        before, most = self._live, self._live
        for number in batch.types.translate(None, _NO_TASKS):
            self._live += 1 if number == TaskCreate.number else -1
            most = max(most, self._live)
        crossed = most >= self._bound and not self._above
        self._above = self._live >= self._bound
        return f"{most:,} tasks live, {before:,} before" if crossed else None


_NO_TASKS: Final = bytes(n for n in range(256) if n not in TasksAbove.types)


class SlowSpan(Trigger):
    """A span whose name fits ``name`` (a pattern) took ``seconds`` or more; known when it ends."""

    types = frozenset({SpanBegin.number, SpanEnd.number})

    def __init__(self, name: str, seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self._pattern: Final = name
        self._limit: Final = int(seconds * 1e9)
        self._open: dict[int, tuple[int, str]] = {}

    def open(self, tell: Tell) -> None:
        super().open(tell)
        self._open.clear()

    def look(self, batch: Batch, text: Text) -> str | None:
        reason = None
        for _, number, time, fields in records_of(batch, self.types):
            if number == SpanBegin.number:
                if len(self._open) < MAX_SPANS and fnmatchcase(text(fields[3]), self._pattern):
                    self._open[fields[0]] = time, text(fields[3])
                continue
            begun, name = self._open.pop(fields[0], (time, ""))
            if time - begun >= self._limit and name:
                reason = f"span {name} took {_ms(time - begun)}"
        return reason


class NurseryFailed(Trigger):
    """An exception group leaves a nursery, with ``errors`` exceptions or more."""

    types = frozenset({NurseryClose.number})

    def __init__(self, errors: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self._errors: Final = errors

    def look(self, batch: Batch, text: Text) -> str | None:
        tasks, nurseries, _, errors, *_ = batch.columns(NurseryClose.number)
        for task, nursery, count in zip(tasks, nurseries, errors, strict=True):
            if count >= self._errors:
                return f"{count:,} exceptions left nursery {nursery} of task {task}"
        return None


class When(Trigger):
    """``predicate`` is true of an event; of the classes given, e.g. ``tracesvc.events.Log``.

    It is called in the run of the recorder for every such event, and should take no more than a few microseconds.  One
    that raises is asked no more in this session, and that is a reason too.
    """

    def __init__(
        self, predicate: Callable[[Any], object], *events: type[Event], **options: Any
    ) -> None:
        super().__init__(**options)
        if not events:
            raise TypeError("When() takes a predicate and the classes of the events it is about")
        self.types = frozenset(event.number for event in events)
        self._predicate: Final = predicate
        self._failed = False

    def open(self, tell: Tell) -> None:
        super().open(tell)
        self._failed = False

    def look(self, batch: Batch, text: Text) -> str | None:
        if self._failed:
            return None
        for place, number, time, fields in records_of(batch, self.types):
            event = EVENTS[number]
            values = [
                text(value) if field.storage is Storage.STRING else value
                for field, value in zip(event.fields, fields, strict=True)
            ]
            made = event(time, batch.proc, batch.first + place, *values)
            try:
                if self._predicate(made):
                    return f"{_name_of(self._predicate)} is true of a {event.type} event"
            except Exception as exc:  # the predicate is the program's
                self._failed = True
                return f"{_name_of(self._predicate)} raised {exc!r}"
        return None


def _name_of(function: object) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


# --- what the program's side tells ---------------------------------------------------------------


class FailedSpan(Trigger):
    """A span whose name fits ``name`` (a pattern) ends in an exception; in a cancellation: no."""

    def __init__(self, name: str = "*", **options: Any) -> None:
        super().__init__(**options)
        self._pattern: Final = name
        self._tell: Tell | None = None

    def open(self, tell: Tell) -> None:
        super().open(tell)
        self._tell = tell
        on_failed_span(self._failed, True)

    def close(self) -> None:
        self._tell = None
        on_failed_span(self._failed, False)

    def _failed(self, name: str, exc: BaseException) -> None:
        if self._tell is None or is_cancellation(exc) or not fnmatchcase(str(name), self._pattern):
            return
        self._tell(f"span {name} ended in {type(exc).__name__}")


def is_cancellation(exc: BaseException) -> bool:
    """Whether nothing but a cancellation, or the end of a generator, is what passes through."""
    if isinstance(exc, BaseExceptionGroup):
        return all(map(is_cancellation, exc.exceptions))
    return isinstance(exc, trio.Cancelled | GeneratorExit)


class Signal(Trigger):
    """The process gets a signal. What was to happen with it before happens too, if that was a function of Python's.

    Only where the recorder is opened in the main thread; elsewhere it never fires, and one line in the log says so.
    """

    def __init__(self, number: int = signals.SIGUSR2, **options: Any) -> None:
        super().__init__(**{"after": 0.0, "every": 0.0, **options})
        self._number: Final = signals.Signals(number)
        self._before: Any = None
        self._tell: Tell | None = None

    def open(self, tell: Tell) -> None:
        super().open(tell)
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"{self._number.name} can be listened to in the main thread only")
        self._tell = tell
        self._before = signals.signal(self._number, self._handle)

    def close(self) -> None:
        if self._tell is None:
            return
        self._tell = None
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signals.getsignal(self._number) == self._handle:
            before = signals.SIG_DFL if self._before is None else self._before
            signals.signal(self._number, before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._tell is not None:
            self._tell(f"signal {self._number.name}")
        if callable(self._before):
            self._before(number, frame)


class ProgramDies(Trigger):
    """An exception that nobody handles ends the program: the snapshot is taken when Python is about to print it.

    By then the tracer has stopped; the recorder still holds its past.  A program that is killed may have a black box.
    """

    LATE: ClassVar[int] = 30_000_000_000
    """ns after the end of a session: what ends a program later has nothing to do with it"""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.write: Callable[[Trigger, str], None] | None = None
        """given by the recorder: takes the snapshot, here and now"""

    def open(self, tell: Tell) -> None:
        super().open(tell)
        _Hook.arm(self)

    def dies(self, exc: BaseException) -> None:
        """The program is about to die of this."""
        if self.write is not None and not isinstance(exc, KeyboardInterrupt | SystemExit):
            self.write(self, f"unhandled {type(exc).__name__}: {exc}"[:200])


class _Hook:
    """`sys.excepthook`, once."""

    armed: ClassVar[weakref.WeakSet[ProgramDies]] = weakref.WeakSet()
    before: Any = None

    @classmethod
    def arm(cls, trigger: ProgramDies) -> None:
        cls.armed.add(trigger)
        if sys.excepthook is not cls.call:
            cls.before, sys.excepthook = sys.excepthook, cls.call

    @staticmethod
    def call(
        kind: type[BaseException], exc: BaseException, traceback: TracebackType | None
    ) -> None:
        for trigger in list(_Hook.armed):
            try:
                trigger.dies(exc)
            except Exception:  # what the program dies of matters more
                logger.exception("tracesvc: no snapshot of the end of the program")
        _Hook.before(kind, exc, traceback)
