"""Which rows there are: tasks with their parents and nurseries, runs, threads, spans by name, counters."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.analysis.timeline.index import LANES, Index
from tracesvc.events import Outcome, ProcKind
from tracesvc.model.lives import Lives
from tracesvc.model.phases import NAMELESS
from tracesvc.model.pieces import OPEN

__all__ = ["MAX_TASKS", "outline"]

Integers: TypeAlias = NDArray[np.int64]

MAX_TASKS: Final = 300_000
"""tasks that are listed; of more, those that lived the longest"""
SPAN_NAMES: Final = 200


def outline(index: Index) -> dict[str, Any]:
    """All there is to draw; times are ns since the beginning, but ``began`` is by the clock of the trace."""
    session = index.trace.session
    began, ended = index.began, index.ended
    began_wall = session.wall(began) if session is not None else None
    return {
        "session": session.id if session is not None else "",
        "source": session.source if session is not None else {},
        "began": str(began),  # a double does not hold it
        "wall": None if began_wall is None else str(began_wall),
        "ended": ended - began,
        "since": max(0, index.since - began),
        "closed": index.trace.end is not None,
        "events": index.events,
        "lost": index.losses.events,
        "gaps": index.replay.walk.gaps,
        "offset": index.trace.offset,
        "stalls": index.stalls.count,
        "messages": index.logs.count,
        "collections": len(index.collections),
        "generations": [[t - began, offset] for t, offset in index.trace.generations[-100_000:]],
        "runs": _procs(index, ProcKind.RUN),
        "threads": [
            row for row in _procs(index, ProcKind.THREAD) if index.calls.count(row[0], 0, 1 << 62)
        ],
        "spans": _spans(index),
        "counters": index.counters.names(),
        "texts": index.texts.all,
        "tasks": _tasks(index),
    }


def _procs(index: Index, kind: ProcKind) -> list[list[Any]]:
    began = index.began
    return [
        [proc, name, *(time - began for time in index.procs[proc])]
        for proc, name in index.kinds(kind).items()
        if proc in index.procs
    ]


def _spans(index: Index) -> list[list[int]]:
    """[index of the name, number of lanes], the busiest last names left out."""
    lanes: dict[int, int] = {}
    for row in index.spans.rows():
        name, lane = divmod(row, LANES)
        lanes[name] = max(lanes.get(name, 0), lane + 1)
    texts = index.texts.all
    return [[n, lanes[n]] for n in sorted(lanes, key=lambda n: texts[n])[:SPAN_NAMES]]


def _tasks(index: Index) -> dict[str, Any]:
    lives = Lives.join([index.lives, _nameless(index)])
    began, ended = index.began, index.ended
    begin = np.where(lives.begin == OPEN, max(began, index.since), lives.begin)
    end = np.where(lives.end == OPEN, ended, lives.end)
    chosen = np.arange(len(lives))
    if len(lives) > MAX_TASKS:
        chosen = np.sort(np.argsort(begin - end, kind="stable")[:MAX_TASKS])
    order = chosen[np.argsort(lives.task[chosen], kind="stable")]
    text = index.texts.index

    def names(values: NDArray[np.object_]) -> bytes:
        return np.fromiter((text(str(v)) for v in values[order]), "<i4", len(order)).tobytes()

    flags = (lives.end == OPEN) * 1 + lives.lost * 2 + (lives.begin == OPEN) * 4
    outcomes = index.fates.outcomes
    for flag, outcome in ((8, Outcome.RAISED), (16, Outcome.CANCELLED)):
        such = [task for task, what in outcomes.items() if what == outcome]
        flags = flags + np.isin(lives.task, such) * flag
    return {
        "count": len(order),
        "omitted": len(lives) - len(order),
        "task": lives.task[order].astype("<f8").tobytes(),
        "parent": lives.parent[order].astype("<f8").tobytes(),
        "nursery": lives.nursery[order].astype("<f8").tobytes(),
        "proc": lives.proc[order].astype("<i4").tobytes(),
        "begin": (begin[order] - began).astype("<f8").tobytes(),
        "end": (end[order] - began).astype("<f8").tobytes(),
        "name": names(lives.name),
        "entry": names(lives.entry),
        "flags": flags[order].astype(np.uint8).tobytes(),
    }


def _nameless(index: Index) -> Lives:
    """Tasks that only a few events tell of: their creation was lost, and no snapshot had them."""
    segments = list(index.lanes.segments())
    seen = [segment.tasks for segment in segments] or [np.zeros(0, np.int64)]
    tasks = np.setdiff1d(np.concatenate(seen), index.lives.task)
    procs, begins, ends = (np.zeros(len(tasks), np.int64) for _ in range(3))
    begins += index.ended
    for segment in segments:
        at = np.searchsorted(segment.tasks, tasks)
        here = np.flatnonzero(np.isin(tasks, segment.tasks))
        first = segment.at[at[here]]
        procs[here] = segment.rows.proc[first]
        begins[here] = np.minimum(begins[here], segment.rows.start[first])
        ends[here] = np.maximum(ends[here], segment.stop[at[here]])
    names, entries = (np.full(len(tasks), text, object) for text in (NAMELESS, ""))
    none = np.zeros(len(tasks), np.int64)
    lost = np.ones(len(tasks), np.bool_)
    return Lives(tasks, procs, none, none, begins, ends, none, lost, names, entries)
