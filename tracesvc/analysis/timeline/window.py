"""What is on the rows between two times: each thing where there is room for it, else sums per pixel.

Rows are named as in the outline: ``t12`` task, ``r1`` run, ``p4`` thread, ``s3`` spans by name and lane, ``c:NAME``
counter, ``gc``, ``logs``.  Times in answers are ns since the beginning of the trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.analysis.timeline.index import Index
from tracesvc.analysis.timeline.intervals import Intervals, Rows
from tracesvc.analysis.timeline.lanes import BLOCKED, READY, RUNNING, UNSURE, Slice
from tracesvc.events import ProcKind, Reason

__all__ = ["MAX_ROWS", "WIDEST", "all_rows", "first_rows", "sums", "window"]

Integers: TypeAlias = NDArray[np.int64]

MAX_ROWS: Final = 512
"""rows that are asked for at once"""
WIDEST: Final = 8192
"""pixels"""
CANCELS: Final = 1000
"""tasks that a cancellation reached, told one by one; of more the first"""
FEW: Final = 400
"""things on a row that are told one by one; more are summed up per pixel"""


_REASONS: Final = {int(r): r.name.lower() for r in Reason}


def window(index: Index, start: int, end: int, width: int, rows: Sequence[str]) -> dict[str, Any]:
    """The contents of ``rows`` from ``start`` to ``end`` (ns by the clock of the trace), ``width`` pixels wide.

    Rows that there are not are left out.
    """
    made = {}
    edges = start + (np.arange(width + 1, dtype=np.int64) * (end - start)) // width
    for row in rows:
        content = _row(index, row, start, end, edges)
        if content is not None:
            made[row] = content
    began = index.began
    return {
        "start": start - began,
        "end": end - began,
        "width": width,
        "ended": index.ended - began,
        "since": max(0, index.since - began),
        "rows": made,
        "stalls": _stalls(index, start, end, edges),
        "cancels": [
            [time - began, task, asked - began, by]
            for time, task, asked, by in index.fates.reached(start, end, CANCELS)
        ],
        "losses": [
            [row.proc, row.start - began, row.end - began, row.last - row.first + 1, row.cause]
            for row in index.losses.all
            if row.start <= end and row.end >= start
        ][:2000],
    }


def all_rows(index: Index) -> Iterator[str]:
    """Every row that there is, those of tasks last."""
    yield from (f"r{proc}" for proc in index.kinds(ProcKind.RUN))
    yield from ("gc", "logs", *(f"c{name}" for name in index.counters.names()))
    yield from (f"p{row}" for row in index.calls.rows())
    yield from (f"s{row}" for row in index.spans.rows())
    yield from (f"t{task}" for task in np.sort(index.lives.task).tolist())


def first_rows(index: Index) -> list[str]:
    """The rows that are at the top, 200 at most."""
    return list(islice(all_rows(index), 200))


def _row(index: Index, row: str, start: int, end: int, edges: Integers) -> Any:
    kind, rest = row[:1], row[1:]
    if row == "gc":
        return _intervals(index, index.collections, 0, start, end, edges)
    if row == "logs":
        return _logs(index, start, end, edges)
    if kind == "c":
        return _counter(index, rest, start, end, edges)
    if not (rest.isascii() and rest.isdigit() and len(rest) < 19):
        return None
    number = int(rest)
    match kind:
        case "t":
            return _task(index, number, start, end, edges)
        case "r":
            return _run(index, number, start, end, edges)
        case "p":
            return _intervals(index, index.calls, number, start, end, edges)
        case "s":
            return _intervals(index, index.spans, number, start, end, edges)
    return None


# --- tasks ---------------------------------------------------------------------------------------


def _task(index: Index, task: int, start: int, end: int, edges: Integers) -> dict[str, Any]:
    slices = index.lanes.of(task, start, end)
    began = index.began
    content: dict[str, Any] = {}
    regions = index.regions.count(task, start, end)
    if regions:
        content["regions"] = _intervals(index, index.regions, task, start, end, edges)
    count = sum(s.high - s.low for s in slices)
    content["count"] = count
    if count <= FEW:
        content.update(_exact(slices, began))
    else:
        content.update(_bins(slices, edges))
    return content


def _exact(slices: list[Slice], began: int) -> dict[str, Any]:
    def joined(field: str, type_: Any) -> bytes:
        parts = [getattr(s.segment.rows, field)[s.low : s.high] for s in slices]
        return np.concatenate(parts).astype(type_).tobytes() if parts else b""

    starts = [s.segment.rows.start[s.low : s.high] - began for s in slices]
    ends = [s.segment.rows.end[s.low : s.high] - began for s in slices]
    return {
        "begin": np.concatenate(starts).astype("<f8").tobytes() if slices else b"",
        "end": np.concatenate(ends).astype("<f8").tobytes() if slices else b"",
        "code": joined("code", np.uint8),
        "waker": joined("waker", "<f8"),
        "cause": joined("cause", np.uint8),
        "closed": joined("closed", np.uint8),
    }


def _bins(slices: list[Slice], edges: Integers) -> dict[str, Any]:
    width = len(edges) - 1
    middles = (edges[:-1] + edges[1:]) >> 1
    running, ready, unsure, lived = (np.zeros(width, np.int64) for _ in range(4))
    reason = np.zeros(width, np.uint8)
    for s in slices:
        segment, which = s.segment, s.which
        rows = segment.rows
        ran, waited, _ = segment.spent(which, edges)
        running += _between(ran)
        ready += _between(waited)
        first = int(rows.start[segment.at[which]])
        lived += _between(np.clip(edges, first, int(segment.stop[which])))
        for i in (s.low + np.flatnonzero(rows.code[s.low : s.high] == UNSURE)).tolist():
            unsure += _between(np.clip(edges, int(rows.start[i]), int(rows.end[i])))
        reason = np.maximum(reason, _reasons(segment, which, middles))
    blocked = lived - running - ready - unsure
    return {
        "running": _shares(running, edges),
        "ready": _shares(ready, edges),
        "blocked": _shares(blocked, edges),
        "unsure": _shares(unsure, edges) if unsure.any() else b"",
        "reason": reason.tobytes(),
    }


def _between(values: Integers) -> Integers:
    return values[1:] - values[:-1]


def _reasons(segment: Any, which: int, times: Integers) -> NDArray[np.uint8]:
    """What a task waits for at each of ``times``, or did the last time: one of the last three phases is a wait."""
    low, high = int(segment.at[which]), int(segment.at[which + 1])
    rows = segment.rows
    place = low + np.searchsorted(rows.start[low:high], times, "right") - 1
    inside = (place >= low) & (times < segment.stop[which])
    found = np.zeros(len(times), np.uint8)
    for back in range(3):
        code = rows.code[np.maximum(place - back, low)]
        found = np.where((found == 0) & (code >= BLOCKED), code, found)
    return np.where(inside, found, 0).astype(np.uint8)


def _shares(spent: Integers, edges: Integers) -> bytes:
    """Of each pixel, in 255ths; what is there at all is at least 1."""
    lengths = np.maximum(np.diff(edges), 1)
    shares = np.clip(-(-spent * 255 // lengths), 0, 255)
    return shares.astype(np.uint8).tobytes()


# --- runs ----------------------------------------------------------------------------------------


def _run(index: Index, proc: int, start: int, end: int, edges: Integers) -> dict[str, Any]:
    content: dict[str, Any] = {
        "waits": _intervals(index, index.io_waits, proc, start, end, edges),
    }
    steps = _steps(index, proc, start, end)
    if steps is not None:
        content["steps"] = steps
    first, last = index.procs.get(proc, (start, start))
    content["first"], content["last"] = first - index.began, last - index.began
    return content


def _steps(index: Index, proc: int, start: int, end: int) -> dict[str, Any] | None:
    """The steps of a run, if they are few."""
    found: list[tuple[Any, Any]] = []
    count = 0
    for segment in index.lanes.segments():
        steps = segment.steps.get(proc)
        if steps is None or segment.first > end or segment.last < start:
            continue
        low = max(0, _bisect(steps, segment.rows.start, start) - 1)
        high = _bisect(steps, segment.rows.start, end + 1)
        count += high - low
        if count > FEW:
            return None
        found.append((segment, steps[low:high]))
    if not count:
        return None
    rows = [(s.rows.start[i], s.rows.end[i], s.rows.task[i]) for s, i in found]
    begin, until, task = (np.concatenate(column) for column in zip(*rows, strict=True))
    order = np.argsort(begin, kind="stable")
    return {
        "begin": (begin[order] - index.began).astype("<f8").tobytes(),
        "end": (until[order] - index.began).astype("<f8").tobytes(),
        "task": task[order].astype("<f8").tobytes(),
    }


def _bisect(places: NDArray[Any], values: Integers, wanted: int) -> int:
    """The first of ``places`` whose value is not below ``wanted``."""
    low, high = 0, len(places)
    while low < high:
        middle = (low + high) // 2
        if values[places[middle]] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


# --- the rest ------------------------------------------------------------------------------------


def _intervals(
    index: Index, kept: Intervals, row: int, start: int, end: int, edges: Integers
) -> dict[str, Any]:
    count = kept.count(row, start, end)
    if count > FEW:
        return {"count": count, "share": _shares(kept.covered(row, edges), edges)}
    rows = kept.within(row, start, end)
    if rows is None:
        return {"count": 0}
    return {"count": len(rows), **_told(rows, index.began)}


def _told(rows: Rows, began: int) -> dict[str, Any]:
    return {
        "begin": (rows.begin - began).astype("<f8").tobytes(),
        "end": (rows.end - began).astype("<f8").tobytes(),
        "id": rows.id.astype("<f8").tobytes(),
        "task": rows.task.astype("<f8").tobytes(),
        "name": rows.name.astype("<i4").tobytes(),
        "open": rows.open.astype(np.uint8).tobytes(),
    }


def _counter(index: Index, name: str, start: int, end: int, edges: Integers) -> Any:
    times, values = index.counters.of(name)
    if not len(times):
        return None
    low = max(0, int(np.searchsorted(times, start, "right")) - 1)
    high = min(len(times), int(np.searchsorted(times, end, "right")) + 1)
    times, values = times[low:high], values[low:high]
    content: dict[str, Any] = {"count": len(times)}
    width = len(edges) - 1
    if len(times) <= max(FEW, 2 * width):
        content["time"] = (times - index.began).astype("<f8").tobytes()
        content["value"] = values.astype("<f8").tobytes()
        return content
    pixel = np.clip(np.searchsorted(edges, times, "right") - 1, 0, width - 1)
    starts = np.flatnonzero(np.concatenate(([True], pixel[1:] != pixel[:-1])))
    content["pixel"] = pixel[starts].astype("<i4").tobytes()
    content["low"] = np.minimum.reduceat(values, starts).astype("<f8").tobytes()
    content["high"] = np.maximum.reduceat(values, starts).astype("<f8").tobytes()
    content["last"] = values[np.append(starts[1:], len(values)) - 1].astype("<f8").tobytes()
    return content


def _logs(index: Index, start: int, end: int, edges: Integers) -> Any:
    messages = index.logs.within(start, end)
    content: dict[str, Any] = {"count": len(messages)}
    if len(messages) <= FEW:
        content["time"] = np.array([m.time - index.began for m in messages], "<f8").tobytes()
        content["level"] = [m.level for m in messages]
        content["task"] = [m.task for m in messages]
        content["text"] = [m.text[:200] for m in messages]
        return content
    times = np.array([m.time for m in messages], np.int64)
    levels = np.array([m.level for m in messages], np.int64)
    pixel = np.clip(np.searchsorted(edges, times, "right") - 1, 0, len(edges) - 2)
    starts = np.flatnonzero(np.concatenate(([True], pixel[1:] != pixel[:-1])))
    content["pixel"] = pixel[starts].astype("<i4").tobytes()
    content["worst"] = np.maximum.reduceat(levels, starts).tolist()
    return content


def _stalls(index: Index, start: int, end: int, edges: Integers) -> list[list[int]]:
    pixel = (end - start) / (len(edges) - 1)
    found = [s for s in index.stalls.within(start, end) if s.end - s.start >= pixel / 2]
    found = sorted(found, key=lambda s: s.start - s.end)[:FEW]
    began = index.began
    return [[s.start - began, s.end - began, s.proc, s.task] for s in sorted(found)]


def sums(index: Index, start: int, end: int, tasks: Sequence[int] | None = None) -> dict[str, Any]:
    """How long ``tasks`` (None: all) were in which state from ``start`` to ``end``, ns, exactly; waits by reason."""
    totals = np.zeros(256, np.int64)
    steps = 0
    if tasks is None:
        parts = [(segment, slice(None)) for segment in index.lanes.segments()]
    else:
        found = [s for task in tasks for s in index.lanes.of(task, start, end)]
        parts = [(s.segment, slice(s.low, s.high)) for s in found]
    for segment, part in parts:
        if segment.first <= end and segment.last >= start:
            rows = segment.rows
            spent = np.minimum(rows.end[part], end) - np.maximum(rows.start[part], start)
            code = rows.code[part]
            np.add.at(totals, code, np.maximum(spent, 0))
            steps += int(((code == RUNNING) & (spent > 0)).sum())
    return {
        "running": int(totals[RUNNING]),
        "ready": int(totals[READY]),
        "unsure": int(totals[UNSURE]),
        "blocked": {
            _REASONS.get(int(i) - BLOCKED, str(int(i) - BLOCKED)): int(totals[i])
            for i in np.flatnonzero(totals)
            if i >= BLOCKED
        },
        "steps": steps,
    }
