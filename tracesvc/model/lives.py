"""Tasks from their creation to their end: what they are called, whose children they are, in which nursery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import TaskCreate, TaskExit
from tracesvc.model.columns import Columns
from tracesvc.model.phases import NAMELESS
from tracesvc.model.pieces import OPEN
from tracesvc.model.walk import Healed

__all__ = ["LifeMaker", "Lives"]

Integers: TypeAlias = NDArray[np.int64]


@dataclass(slots=True)
class Lives:
    """Tasks, in arrays of equal length."""

    task: Integers
    proc: Integers
    """the run"""
    parent: Integers
    """task that owns the nursery; 0: none, or not known"""
    nursery: Integers
    begin: Integers
    """ns of its creation, or of when tracing began; `OPEN`: not in the trace"""
    end: Integers
    """ns of its exit; `OPEN`: it lives, or its exit is not in the trace"""
    outcome: Integers
    """an `Outcome`; 0: not known"""
    lost: NDArray[np.bool_]
    """whether its end is not known because events were lost"""
    name: NDArray[np.object_]
    entry: NDArray[np.object_]
    """function and place"""

    def __len__(self) -> int:
        return len(self.task)

    def take(self, where: Any) -> Lives:
        """Those that an index or mask chooses."""
        return Lives(*(getattr(self, f.name)[where] for f in fields(self)))

    @staticmethod
    def join(parts: Sequence[Lives]) -> Lives:
        """All of them, one after the other."""
        parts = [_lives([]), *parts]
        return Lives(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Lives)))


def _lives(rows: Sequence[tuple[Any, ...]]) -> Lives:
    columns = list(zip(*rows, strict=True)) or [()] * len(fields(Lives))
    arrays: list[Any] = [np.array(column, np.int64) for column in columns[:7]]
    arrays.append(np.array(columns[7], np.bool_))
    for column in columns[8:]:
        texts = np.empty(len(column), object)
        texts[:] = column
        arrays.append(texts)
    return Lives(*arrays)


class LifeMaker:
    """Turns the events of a `tracesvc.model.walk.Walk` into lives; memory goes with the live tasks."""

    def __init__(self) -> None:
        self._live: Final[list[Lives]] = []
        self._blind: set[int] = set()

    @property
    def live(self) -> Lives:
        """Those that live."""
        if len(self._live) != 1:
            self._live[:] = [Lives.join(self._live)]
        return self._live[0]

    def _keep(self, lives: Lives) -> None:
        self._live[:] = [lives]

    def add(self, columns: Columns) -> Lives:
        """Those that end in a chunk."""
        created, exits = columns.of(TaskCreate), columns.of(TaskExit)
        if len(created):
            count = len(created)
            strings = np.array(columns.strings, object)
            self._live.append(
                Lives(
                    created.task,
                    created.proc,
                    created.parent,
                    created.nursery,
                    created.time,
                    np.full(count, OPEN, np.int64),
                    np.zeros(count, np.int64),
                    np.zeros(count, np.bool_),
                    strings[created.name],
                    strings[created.entry],
                )
            )
        if not len(exits):
            return _lives([])
        live = self.live
        order = np.argsort(live.task, kind="stable")
        at = np.searchsorted(live.task, exits.task, sorter=order)
        found = np.zeros(len(exits), np.bool_)
        inside = at < len(live)
        found[inside] = live.task[order[at[inside]]] == exits.task[inside]
        places = order[at[found]]
        live.end[places] = np.maximum(exits.time[found], live.begin[places])
        live.outcome[places] = exits.outcome[found]
        ended = live.take(places)
        alive = np.ones(len(live), np.bool_)
        alive[places] = False
        self._keep(live.take(alive))
        strangers = np.flatnonzero(~found).tolist()
        if not strangers:
            return ended
        rows = [
            (t, p, 0, 0, OPEN, e, o, False, NAMELESS, "")
            for t, p, e, o in zip(
                exits.task[strangers].tolist(),
                exits.proc[strangers].tolist(),
                exits.time[strangers].tolist(),
                exits.outcome[strangers].tolist(),
                strict=True,
            )
        ]
        return Lives.join([ended, _lives(rows)])

    def adopt(self, piece: Healed) -> Lives:
        """A snapshot after a gap; gives those that ended in it, nobody knows when."""
        live = self.live
        said = np.array([row.task for row in piece.rows], np.int64)
        here = np.isin(live.task, said) | (live.proc != piece.proc)
        gone, known = live.take(~here), set(live.task.tolist())
        gone.lost[:] = True
        text = piece.text
        news = [
            (
                r.task,
                piece.proc,
                r.parent,
                r.nursery,
                OPEN,
                OPEN,
                0,
                False,
                text(r.name),
                text(r.entry),
            )
            for r in piece.rows
            if r.task not in known
        ]
        self._keep(Lives.join([live.take(here), _lives(news)]))
        return gone

    def end(self, proc: int) -> Lives:
        """A run is over, or the trace of it is; gives the tasks that lived."""
        live = self.live
        mine = live.proc == proc
        self._keep(live.take(~mine))
        return live.take(mine)
