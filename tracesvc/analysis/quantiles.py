"""Quantiles of very many durations in bounded memory."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Durations", "Quantiles"]

KEPT: Final = 1 << 16
"""durations of one name that are kept as they are"""
BITS: Final = 8
"""leading binary digits that are kept of any further ones"""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """How long the pieces of work of one name took, in ns; all 0 where none has ended."""

    count: int
    """pieces that have ended"""
    total: int
    p50: int
    p90: int
    p99: int
    max: int


class Durations:
    """Takes durations in ns, one by one.

    Up to 65,536 of them the quantiles are exact: the smallest duration that at least that share does not exceed.  From
    then on they are counted by their first eight binary digits, which is right to within 0.4 %; count, total and
    maximum stay exact.
    """

    __slots__ = ("_counted", "_max", "_total", "add", "kept")

    def __init__(self) -> None:
        self.kept = array("q")
        self.add = self.kept.append
        """call it for each duration; `fold` now and then"""
        self._counted: Counter[int] = Counter()
        self._total = self._max = 0

    def extend(self, durations: NDArray[np.int64]) -> None:
        """Many at once."""
        self.kept.frombytes(np.ascontiguousarray(durations, np.int64).tobytes())
        self.fold()

    def fold(self) -> None:
        """Bound the memory: count what is too much to keep."""
        if len(self.kept) <= KEPT:
            return
        values = np.maximum(np.array(self.kept, np.int64), 0)
        self._total += int(values.sum())
        self._max = max(self._max, int(values.max()))
        digits = np.frexp(values.astype(np.float64))[1] - BITS
        shift = np.maximum(digits, 0).astype(np.int64)
        rounded, counts = np.unique(
            (values >> shift << shift) + (1 << shift >> 1), return_counts=True
        )
        self._counted.update(dict(zip(rounded.tolist(), counts.tolist(), strict=True)))
        del self.kept[:]

    def quantiles(self) -> Quantiles:
        """Of all durations so far."""
        counts = self._counted + Counter(self.kept)
        values = np.array(sorted(counts), np.int64)
        if not len(values):
            return Quantiles(0, 0, 0, 0, 0, 0)
        until = np.cumsum([counts[value] for value in values.tolist()])
        count = int(until[-1])
        largest = max(self._max, max(self.kept, default=0))
        ranks = [-(-count * percent // 100) for percent in (50, 90, 99)]
        p50, p90, p99 = (min(int(v), largest) for v in values[np.searchsorted(until, ranks)])
        return Quantiles(count, self._total + sum(self.kept), p50, p90, p99, largest)
