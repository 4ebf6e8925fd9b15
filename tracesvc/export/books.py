"""What is missing in a stream, by its sequence numbers and by what it says itself."""

from __future__ import annotations

from typing import Final

from tracesvc.events import LossCause
from tracesvc.format import LossRow, ProcRow

__all__ = ["Books"]

MAX_GAPS: Final = 100_000
"""ranges of missing events that are remembered; of what is missing beyond that, only LOSS frames tell"""


class Books:
    """Fed with batches, LOSS rows and accounts, in order; every method tells whether there is a gap now."""

    def __init__(self) -> None:
        self._next: dict[int, int] = {}
        self._gaps: list[tuple[int, int, int]] = []
        self._said: dict[int, list[tuple[int, int]]] = {}
        self.lost = 0
        """events that LOSS frames told of"""
        self.late = False
        """the stream begins in the middle of its session: a proc begins where its first account says"""

    def events(self, proc: int, first: int, count: int) -> bool:
        """A batch."""
        gap = self._up_to(proc, first)
        self._next[proc] = max(self._next[proc], first + count)
        return gap

    def loss(self, row: LossRow) -> bool:
        """A row of a LOSS frame; one that cannot be is passed over."""
        count = row.last - row.first + 1
        if row.first < 0 or count <= 0:
            return False
        self.lost += count
        self._said.setdefault(row.proc, []).append((row.first, row.last))
        due = self._next.setdefault(row.proc, row.first if self.late else 0)
        if row.last < due:
            return False
        self._up_to(row.proc, row.first)
        self._next[row.proc] = row.last + 1
        return True

    def account(self, row: ProcRow) -> bool:
        """A row of a PROCS frame."""
        return self._up_to(row.proc, row.emitted)

    def _up_to(self, proc: int, number: int) -> bool:
        due = self._next.setdefault(proc, number if self.late else 0)
        if number <= due:
            return False
        if len(self._gaps) < MAX_GAPS:
            self._gaps.append((proc, due, number - 1))
        self._next[proc] = number
        return True

    def unexplained(self, time: int) -> list[LossRow]:
        """What is missing and no LOSS frame told of, as rows with the cause DAMAGE; to be asked at the end."""
        rows = []
        at: dict[int, int] = {}
        said = {proc: sorted(ranges) for proc, ranges in self._said.items()}
        # In order of place, so that what was said is gone through once.
        for proc, first, last in sorted(self._gaps):
            told, place = said.get(proc, []), at.get(proc, 0)
            while first <= last:
                while place < len(told) and told[place][1] < first:
                    place += 1
                low, high = told[place] if place < len(told) else (last + 1, last)
                if low > first:
                    until = min(low - 1, last)
                    rows.append(LossRow(proc, first, until, int(LossCause.DAMAGE), time, time))
                first = high + 1
            at[proc] = place
        return rows
