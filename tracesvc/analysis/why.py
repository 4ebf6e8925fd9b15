"""`why`: what a span, or a stretch of time, was spent on, across tasks and wake-ups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracesvc.analysis.account import Group, account, sentence
from tracesvc.analysis.cancellation import Cancellation
from tracesvc.analysis.path import Kind, Stretch, critical_path, leaves
from tracesvc.analysis.window import Window, load
from tracesvc.model.pieces import OPEN, SPANS, ById, Pieces
from tracesvc.model.reader import Trace
from tracesvc.model.walk import Chunk, Opens, Walk
from tracesvc.model.words import duration

__all__ = ["NotFoundError", "Why", "why", "why_window"]


class NotFoundError(LookupError):
    """The trace has no such span, or nothing ran in the window."""


@dataclass(frozen=True, slots=True)
class Why:
    """The account of one span, or of a window of time.  Times are ns by the clock of the trace."""

    what: str
    """``span`` or ``window``"""
    name: str
    """of the span"""
    span: int
    """number of the span; 0: a window"""
    task: int
    """in which the span began; of a window: the one it is followed back from"""
    task_name: str
    start: int
    end: int
    open: bool
    """whether the span had not ended when the trace did"""
    attributes: dict[str, Any] | None
    rank: int
    """how many spans of the same name took longer"""
    count: int
    """how many spans of the same name have ended"""
    path: list[Stretch]
    """in order of time; the parts add up to the duration"""
    groups: list[Group]
    """the same, by what it was; the totals add up to the duration"""
    gaps: bool
    """whether events are missing within it"""
    cancelled: list[tuple[int, int, Cancellation]]
    """(when, task, what had it) of each cancellation that reached a task of the path within it"""

    @property
    def duration(self) -> int:
        """ns."""
        return self.end - self.start

    @property
    def unknown(self) -> int:
        """ns of which nothing is known."""
        return _unknown(self.path)

    @property
    def text(self) -> str:
        """All of it in a sentence."""
        what = f"span {self.name} ({self.span})" if self.span else "the window"
        took = "has taken" if self.open else "took"
        said = sentence(self.groups)
        return f"{what} {took} {duration(self.duration)}" + (f": {said}" if said else "")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "what": self.what,
            "name": self.name,
            "span": self.span,
            "task": self.task,
            "task_name": self.task_name,
            "start": self.start,
            "end": self.end,
            "duration": self.duration,
            "open": self.open,
            "attributes": self.attributes,
            "rank": self.rank,
            "count": self.count,
            "text": self.text,
            "gaps": self.gaps,
            "cancelled": [
                {"reached": time, "reached_task": task, **one.as_dict()}
                for time, task, one in self.cancelled
            ],
            "unknown": self.unknown,
            "groups": [group.as_dict() for group in self.groups],
            "path": [stretch.as_dict() for stretch in self.path],
        }


def _unknown(path: list[Stretch]) -> int:
    return sum(
        _unknown(s.parts) if s.parts else s.duration * (s.kind is Kind.UNKNOWN) for s in path
    )


def why(trace: Trace, span: str | int | None = None) -> Why:
    """Explain a span.

    ::

        with tracesvc.read("app.trace") as trace:
            print(why(trace, "checkout").text)

    The trace is read twice: for the span, and for what happened meanwhile.  Memory goes with the latter.

    Args:
        trace: From `tracesvc.read`, of something that can seek; it is read from the front.
        span: A name: the slowest of that name; a number: that one; None: the slowest of all.

    Raises:
        NotFoundError: There is no such span.
        FormatError: It is not a trace.
        OSError: It cannot be read.
    """
    trace.rewind()
    found = _find(trace, span)
    if found.chosen is None:
        which = "no span" if span is None else f"no span {span!r}"
        raise NotFoundError(f"the trace has {which}")
    spans, is_open = found.chosen, bool(found.chosen.end[0] == OPEN)
    start, task = int(spans.begin[0]), int(spans.task[0])
    end = max(start, found.ended) if is_open else int(spans.end[0])
    trace.rewind()
    window = load(trace, start, end)
    last = task if is_open else int(spans.end_task[0])
    if window.proc(last) is None and window.proc(task) is not None:
        last = task  # ended by a thread, or outside every task
    path = critical_path(window, last, start, end)
    name = str(spans.name[0])
    if isinstance(span, int):
        trace.rewind()
        found = _find(trace, name)
    rank, count = found.rank(name, end - start)
    return Why(
        what="span",
        name=name,
        span=int(spans.id[0]),
        task=task,
        task_name=window.name(task) if task else "",
        start=start,
        end=end,
        open=is_open,
        attributes=spans.attributes[0],
        rank=rank,
        count=count,
        path=path,
        groups=account(path),
        gaps=window.gaps,
        cancelled=_cancelled(window, path, start, end),
    )


def _cancelled(
    window: Window, path: list[Stretch], start: int, end: int
) -> list[tuple[int, int, Cancellation]]:
    if window.cancels is None:
        return []
    tasks = {stretch.task for stretch in [*path, *leaves(path)]}
    found = [
        (time, task, one)
        for task in tasks
        for time, one in window.cancels.of(task, start)
        if time <= end
    ]
    return sorted(found, key=lambda row: row[:2])


def why_window(trace: Trace, start: int, end: int, task: int | None = None) -> Why:
    """Explain a stretch of time: what led to what happened at its end.

    Args:
        trace: From `tracesvc.read`, of something that can seek; it is read from the front.
        start: ns by the clock of the trace.
        end: ns by the clock of the trace.
        task: Whose time it is; None: that of the task whose step was the last one.

    Raises:
        ValueError: ``end`` is before ``start``.
        NotFoundError: No task ran in the window, or ``task`` did not live in it.
        FormatError: It is not a trace.
        OSError: It cannot be read.
    """
    if end < start:
        raise ValueError(f"end ({end}) is before start ({start})")
    trace.rewind()
    window = load(trace, start, end)
    if task is None:
        found = window.last_step(start, end)
        if found is None:
            raise NotFoundError("no task ran in that time")
        task = found[0]
    elif window.proc(task) is None:
        raise NotFoundError(f"task {task} did not live in that time")
    path = critical_path(window, task, start, end)
    return Why(
        what="window",
        name="",
        span=0,
        task=task,
        task_name=window.name(task),
        start=start,
        end=end,
        open=False,
        attributes=None,
        rank=0,
        count=0,
        path=path,
        groups=account(path),
        gaps=window.gaps,
        cancelled=_cancelled(window, path, start, end),
    )


class _Found:
    """The span to explain, and how long the others took; memory goes with their number, and not with what they say."""

    def __init__(self) -> None:
        self.chosen: Pieces | None = None
        """the longest one that has ended; if none has, the one that is open since the longest"""
        self.ended = 0
        """ns of the end of the trace"""
        self._names: list[NDArray[np.object_]] = []
        self._lengths: list[NDArray[np.int64]] = []

    def add(self, spans: Pieces) -> None:
        """More of those that may be meant."""
        ended = spans.take(spans.end != OPEN)
        if len(ended):
            lengths = ended.end - ended.begin
            self._names.append(ended.name)
            self._lengths.append(lengths)
            best, at = self.chosen, int(np.argmax(lengths))
            if best is None or best.end[0] == OPEN or lengths[at] > best.end[0] - best.begin[0]:
                self.chosen = ended.take([at])
        elif len(spans) and self.chosen is None:
            self.chosen = spans.take([int(np.argmin(spans.begin))])

    def rank(self, name: str, length: int) -> tuple[int, int]:
        """How many spans of a name took longer, and how many have ended."""
        longer = count = 0
        for names, lengths in zip(self._names, self._lengths, strict=True):
            same = names == name
            count += int(same.sum())
            longer += int((lengths[same] > length).sum())
        return longer, count


def _find(trace: Trace, wanted: str | int | None) -> _Found:
    """The span asked for."""
    maker, found = ById(*SPANS), _Found()
    walk = Walk(trace)

    def keep(spans: Pieces) -> None:
        if isinstance(wanted, str):
            spans = spans.take(spans.name == wanted)
        elif wanted is not None:
            spans = spans.take(spans.id == wanted)
        found.add(spans)

    for piece in walk:
        match piece:
            case Chunk(columns):
                keep(maker.add(columns))
            case Opens(spans, _, text):
                rows = [
                    (s.span, s.parent, s.task, s.since, text(s.name), s.attributes) for s in spans
                ]
                # What has ended in a gap has no duration to explain.
                if wanted in maker.adopt(rows).id.tolist():
                    raise NotFoundError(f"the end of span {wanted} is among events that were lost")
    keep(maker.rest())
    found.ended = walk.ended
    return found
