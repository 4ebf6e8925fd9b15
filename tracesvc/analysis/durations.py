"""Durations: how many, how long in all, and where their quantiles lie; in bounded memory."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Durations", "Integers"]

Integers: TypeAlias = NDArray[np.int64]

EXACT: Final = 4096
"""so many durations are kept as they are"""
STEPS: Final = 128
"""buckets per doubling, beyond: a quantile is off by 0.3 % at most"""


class Durations:
    """A bag of durations in ns."""

    __slots__ = ("_buckets", "_exact", "count", "longest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.longest = 0
        self._exact: Integers = np.zeros(0, np.int64)
        self._buckets: Integers | None = None

    def add(self, durations: Integers) -> None:
        """Put them in; negative ones count as 0."""
        if not len(durations):
            return
        durations = np.maximum(durations, 0)
        self.count += len(durations)
        self.total += int(durations.sum())
        self.longest = max(self.longest, int(durations.max()))
        if self._buckets is None:
            self._exact = np.concatenate([self._exact, durations])
            if len(self._exact) <= EXACT:
                return
            durations, self._exact = self._exact, self._exact[:0]
            self._buckets = np.zeros(64 * STEPS, np.int64)
        places = (np.log2(np.maximum(durations, 1)) * STEPS).astype(np.int64)
        self._buckets += np.bincount(places, minlength=64 * STEPS)

    def quantile(self, share: float) -> int:
        """The shortest duration that at least this share of all does not exceed; 0 where there is none."""
        if not self.count:
            return 0
        rank = max(1, int(np.ceil(round(share * self.count, 6))))
        if self._buckets is None:
            return int(np.sort(self._exact)[rank - 1])
        if rank == self.count:
            return self.longest
        place = int(np.searchsorted(np.cumsum(self._buckets), rank))
        return min(int(2 ** ((place + 0.5) / STEPS)), self.longest)
