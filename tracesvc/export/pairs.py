"""Things that begin and end in turn within one proc: waits for I/O, collections, calls in threads."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.model.columns import Table

__all__ = ["Paired", "Pairs"]

Integers: TypeAlias = NDArray[np.int64]


class Paired:
    """What has ended in a chunk: arrays of equal length."""

    def __init__(
        self, proc: Integers, begin: Integers, end: Integers, what: Integers, at: Integers
    ):
        self.proc = proc
        self.begin = begin
        """ns"""
        self.end = end
        """ns"""
        self.what = what
        """the value that came with the begin"""
        self.at = at
        """which event of the table of ends"""

    def __len__(self) -> int:
        return len(self.proc)


class Pairs:
    """Fed with the tables of a chunk; a begin that is followed by another has lost its end, and is forgotten."""

    def __init__(self) -> None:
        self.open: dict[int, tuple[int, int]] = {}
        """proc -> ns of the begin, and the value that came with it"""

    def take(self, begins: Table, ends: Table, field: str | None = None) -> Paired:
        """What ends here; ``field`` names the value of the begin that is kept."""
        what = np.zeros(len(begins), np.int64) if field is None else getattr(begins, field)
        known = np.array([(p, t, w) for p, (t, w) in self.open.items()], np.int64).reshape(-1, 3)
        n, m, k = len(known), len(begins), len(ends)
        proc = np.concatenate((known[:, 0], begins.proc, ends.proc))
        time = np.concatenate((known[:, 1], begins.time, ends.time))
        value = np.concatenate((known[:, 2], what, np.zeros(k, np.int64)))
        index = np.concatenate((np.full(n, -1), begins.index, ends.index))
        order = np.lexsort((index, proc))
        is_begin = order < n + m
        pair = np.zeros(len(order), np.bool_)
        same = proc[order[1:]] == proc[order[:-1]]
        pair[:-1] = is_begin[:-1] & ~is_begin[1:] & same
        last = np.ones(len(order), np.bool_)
        last[:-1] = ~same
        left = order[last & is_begin]
        self.open = {
            p: (t, w)
            for p, t, w in zip(
                proc[left].tolist(), time[left].tolist(), value[left].tolist(), strict=True
            )
        }
        first = np.flatnonzero(pair)
        a, b = order[first], order[first + 1]
        return Paired(proc[a], time[a], time[b], value[a], b - n - m)

    def forget(self, proc: int) -> None:
        """Events of a proc are missing."""
        self.open.pop(proc, None)
