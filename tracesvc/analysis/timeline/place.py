"""What is known of one place on the picture: a task at an instant, a span, a region; and of all tasks at an instant."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.analysis.stacks import lines
from tracesvc.analysis.stacks import place as own_place
from tracesvc.analysis.timeline.index import LANES, Index
from tracesvc.analysis.timeline.intervals import Intervals, Rows
from tracesvc.analysis.timeline.lanes import BLOCKED, READY, RUNNING, UNSURE, Segment
from tracesvc.events import EVENTS, Reason, WakeCause

__all__ = ["KINDS", "everyone", "instances", "phase", "piece", "search"]

Integers: TypeAlias = NDArray[np.int64]

WOKEN: Final = 200
FOUND: Final = 200
NOT_SHARED: Final = (Reason.READABLE, Reason.WRITABLE)
"""the same file descriptor in two runs is not the same thing"""

_STATES: Final = {READY: "runnable", RUNNING: "running", UNSURE: "unknown"}
_REASONS: Final = {int(r): r.name.lower() for r in Reason}
_CAUSES: Final = {int(c): c.name.lower() for c in WakeCause}


def _event(number: int) -> str | None:
    return EVENTS[number].type if number in EVENTS else None


def phase(index: Index, task: int, time: int) -> dict[str, Any] | None:
    """The phase of a task at ``time`` (ns by the clock of the trace), or else the nearest; None: there is none.

    Times in it are ns since the beginning of the trace.
    """
    slices = index.lanes.of(task, time, time) or index.lanes.of(task, 0, time)
    s = next(iter(slices[-1:] or index.lanes.of(task, time, index.ended)), None)
    if s is None:
        return None
    starts = s.segment.rows.start
    at = s.low + max(0, int(np.searchsorted(starts[s.low : s.high], time, "right")) - 1)
    told = _phase(index, s.segment, at)
    start, end = told["start"] + index.began, told["end"] + index.began
    code = int(s.segment.rows.code[at])
    frames = index.places.of(task, start, end, step=code == RUNNING)
    told["stack"] = [list(frame) for frame in frames]
    told["place"] = own_place(frames)
    told["regions"] = _pieces(index, index.regions.within(task, start, start), "region")
    told["messages"] = [
        [m.time - index.began, m.level, m.text, m.attributes, m.seq]
        for m in index.logs.within(start, end)
        if m.task == task
    ][:50]
    told["woke"] = _woke(index, task, start, end) if code == RUNNING else []
    reason = code - BLOCKED
    told["named"] = index.fates.name(code - BLOCKED, told["object"]) if code >= BLOCKED else ""
    told["ending"] = index.fates.end(task)
    told["cancelled"] = _cancelled(index, s.segment, at)
    told["others"] = 0
    if told["object"] and reason not in NOT_SHARED:
        told["others"] = _waiting_for(index, reason, told["object"], start, task)
    return told


def _cancelled(index: Index, segment: Segment, at: int) -> dict[str, Any] | None:
    """Who cancelled a task in a phase, or ended its wait by it: that is told in the phase after the wait."""
    rows = segment.rows
    start, end, task = int(rows.start[at]), int(rows.end[at]), int(rows.task[at])
    if rows.code[at] >= BLOCKED and at + 1 < len(segment) and rows.task[at + 1] == task:
        start, end = end, int(rows.end[at + 1])
    told = index.fates.cancelled(task, start, end)
    if told is not None:
        told["asked"] -= index.began
    return told


def _phase(index: Index, segment: Segment, at: int) -> dict[str, Any]:
    rows, began = segment.rows, index.began
    code = int(rows.code[at])
    return {
        "task": int(rows.task[at]),
        "proc": int(rows.proc[at]),
        "start": int(rows.start[at]) - began,
        "end": int(rows.end[at]) - began,
        "state": _STATES.get(code, "waiting"),
        "reason": _REASONS.get(code - BLOCKED, str(code - BLOCKED)) if code >= BLOCKED else "",
        "code": code,
        "object": int(rows.object[at]),
        "waker": int(rows.waker[at]),
        "cause": _CAUSES.get(int(rows.cause[at]), ""),
        "opened": _event(int(rows.opened[at])),
        "closed": _event(int(rows.closed[at])),
        "seq": int(rows.seq[at]),
    }


def _woke(index: Index, task: int, start: int, end: int) -> list[list[Any]]:
    """[time, task, cause] of whom a task woke in one of its steps."""
    found = []
    for segment in index.lanes.segments():
        if segment.first > end or segment.last < start:
            continue
        rows = segment.rows
        chosen = (rows.waker == task) & (rows.end >= start) & (rows.end <= end)
        chosen &= rows.code >= BLOCKED
        for i in np.flatnonzero(chosen)[:WOKEN].tolist():
            cause = _CAUSES.get(int(rows.cause[i]), "")
            found.append([int(rows.end[i]) - index.began, int(rows.task[i]), cause])
    return sorted(found)[:WOKEN]


def _waiting_for(index: Index, reason: int, object_: int, time: int, but: int) -> int:
    count = 0
    for segment in index.lanes.segments():
        if segment.first <= time <= segment.last:
            rows = segment.rows
            chosen = (rows.object == object_) & (rows.code == BLOCKED + reason)
            chosen &= (rows.start <= time) & (rows.end > time) & (rows.task != but)
            count += int(chosen.sum())
    return count


def _pieces(index: Index, rows: Rows | None, kind: str) -> list[dict[str, Any]]:
    if rows is None:
        return []
    return [_piece(index, rows, i, kind) for i in range(min(len(rows), FOUND))]


def _piece(index: Index, rows: Rows, i: int, kind: str) -> dict[str, Any]:
    number = int(rows.id[i])
    return {
        "kind": kind,
        "id": number,
        "name": index.texts.all[int(rows.name[i])],
        "row": int(rows.row[i]),
        "task": int(rows.task[i]),
        "parent": int(rows.parent[i]),
        "start": int(rows.begin[i]) - index.began,
        "end": int(rows.end[i]) - index.began,
        "open": bool(rows.open[i]),
        "attributes": index.attributes.get((kind, number)),
    }


def piece(index: Index, kind: str, number: int) -> dict[str, Any] | None:
    """A span or region by its id, with its parents and children where it is a span; None: there is none."""
    kept: Intervals = index.spans if kind == "span" else index.regions
    rows = kept.find(number)
    if rows is None:
        return None
    told = _piece(index, rows, 0, kind)
    if kind == "span":
        told["parents"], told["children"] = _family(index, told)
        start, end = told["start"] + index.began, told["end"] + index.began
        told["messages"] = [
            [m.time - index.began, m.level, m.text, m.attributes, m.seq]
            for m in index.logs.within(start, end)
            if m.span == number
        ][:50]
    return told


def _family(index: Index, told: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    parents: list[Any] = []
    seen, parent = {told["id"]}, told["parent"]
    while parent and parent not in seen and len(parents) < 50:
        seen.add(parent)
        rows = index.spans.find(parent)
        if rows is None:
            break
        one = _piece(index, rows, 0, "span")
        parents.append(one)
        parent = one["parent"]
    return parents, _pieces(index, index.spans.children(told["id"]), "span")


def everyone(index: Index, time: int) -> dict[str, Any]:
    """What every task that lives at ``time`` (ns by the clock of the trace) is in; columns in order of task."""
    found: dict[int, tuple[Segment, int]] = {}
    for segment in index.lanes.segments():
        if segment.first > time:
            continue
        known, places = segment.at_time(time)
        # later segments know better
        found.update(
            zip(
                segment.tasks[known].tolist(),
                ((segment, place) for place in places.tolist()),
                strict=True,
            )
        )
    chosen = []
    for task, (segment, at) in sorted(found.items()):
        end, closed = int(segment.rows.end[at]), int(segment.rows.closed[at])
        if end > time or (end == time and not closed):
            chosen.append((task, segment, at))
    columns: dict[str, list[Any]] = {
        name: [] for name in ("task", "proc", "code", "since", "object", "waker", "place")
    }
    for task, segment, at in chosen:
        rows = segment.rows
        columns["task"].append(task)
        columns["proc"].append(int(rows.proc[at]))
        columns["code"].append(int(rows.code[at]))
        columns["since"].append(int(rows.start[at]) - index.began)
        columns["object"].append(int(rows.object[at]))
        ready = int(rows.code[at]) == READY
        columns["waker"].append(int(rows.waker[at]) if ready else 0)
        frames = index.places.of(task, int(rows.start[at]), int(rows.end[at]))
        columns["place"].append(own_place(frames) or (lines(frames)[0] if frames else ""))
    return {"time": time - index.began, **columns}


def search(index: Index, text: str) -> dict[str, Any]:
    """Spans, regions and messages whose name or text has ``text`` in it, whatever the case; the first 200 of each."""
    wanted = text.casefold()
    names = [i for i, name in enumerate(index.texts.all) if wanted in name.casefold()]
    messages = [
        [m.time - index.began, m.level, m.text[:300], m.task, m.span]
        for m in index.logs.all()
        if wanted in m.text.casefold()
    ]
    return {
        "spans": _pieces(index, index.spans.named(names, FOUND), "span"),
        "regions": _pieces(index, index.regions.named(names, FOUND), "region"),
        "messages": messages[:FOUND],
        "message_count": len(messages),
        "lanes": LANES,
    }


KINDS: Final = ("span", "region", "task", "step", "queue", "wait")
"""what `instances` finds, named as by `tracesvc.analysis.latencies`"""


def instances(
    index: Index, kind: str, name: str, low: int, high: int, most: int = 50
) -> dict[str, Any]:
    """The longest of a kind and name that took from ``low`` to ``high`` ns (inclusive), the longest first.

    ``name`` is that of a span, region or task, for waits the reason.  What has not ended is left out.
    """
    if kind in ("span", "region"):
        begin, end, task, number = _closed_pieces(index, kind, name)
    elif kind == "task":
        lives = index.lives
        chosen = (lives.name == name) & (lives.begin >= 0) & (lives.end >= 0)
        begin, end, task = lives.begin[chosen], lives.end[chosen], lives.task[chosen]
        number = task
    else:
        begin, end, task = _closed_phases(index, kind, name)
        number = task
    took = end - begin
    fitting = np.flatnonzero((took >= low) & (took <= high))
    order = fitting[np.argsort(-took[fitting], kind="stable")][:most].tolist()
    began = index.began
    return {
        "count": len(fitting),
        "found": [
            {
                "start": int(begin[i]) - began,
                "end": int(end[i]) - began,
                "task": int(task[i]),
                "id": int(number[i]),
            }
            for i in order
        ],
    }


def _closed_pieces(
    index: Index, kind: str, name: str
) -> tuple[Integers, Integers, Integers, Integers]:
    kept = index.spans if kind == "span" else index.regions
    rows = kept.named([index.texts.index(name)], 1 << 40)
    if rows is None:
        none = np.zeros(0, np.int64)
        return none, none, none, none
    rows = rows.take(~rows.open)
    return rows.begin, rows.end, rows.task, rows.id


def _closed_phases(index: Index, kind: str, name: str) -> tuple[Integers, Integers, Integers]:
    """Steps or times in the run queue of tasks of a name, or waits of a reason."""
    numbers = {reason: number for number, reason in _REASONS.items()}
    code = {"step": RUNNING, "queue": READY}.get(kind, BLOCKED + numbers.get(name, 255 - BLOCKED))
    mine = index.lives.task[index.lives.name == name]
    parts = []
    for segment in index.lanes.segments():
        rows = segment.rows
        chosen = (rows.code == code) & (rows.closed > 0)
        if kind != "wait":
            chosen &= np.isin(rows.task, mine)
        parts.append((rows.start[chosen], rows.end[chosen], rows.task[chosen].astype(np.int64)))
    parts.append((np.zeros(0, np.int64),) * 3)
    begin, end, task = (np.concatenate(column) for column in zip(*parts, strict=True))
    return begin, end, task
