"""The books of one proc: every sequence number is stored once, or lost once and said to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tracesvc.events import LossCause
from tracesvc.format import LossRow, ProcRow
from tracesvc.model.report import Account

__all__ = ["Ledger"]

BY_THE_RECORDER: Final = {
    LossCause.QUEUE_FULL,
    LossCause.NO_READER,
    LossCause.CRASH,
    LossCause.NO_MEMORY,
    LossCause.SAMPLED,
    LossCause.OVER_BUDGET,
}
"""causes that a proc's own account counts; the others are those of a sink, or of what lies behind it"""


class Ledger:
    """Fed with what a stream says about one proc, in order; tells ``complain(code, text)`` what does not add up."""

    def __init__(self, proc: int, complain: Callable[[str, str], None]) -> None:
        self.account = Account(proc)
        self.next = 0
        """the sequence number that is due"""
        self.time = 0
        """ns of the last event"""
        self.row: ProcRow | None = None
        """the last account in the stream"""
        self.ended = False
        self._complain = complain
        self._gaps: list[tuple[int, int]] = []
        self._announced: list[LossRow] = []
        """losses of events that would come later than what the stream has come to"""
        self._lost_before = 0

    def begin_at(self, row: ProcRow) -> None:
        """The stream begins in the middle of the session: this much had been before."""
        self.next = self.account.before = row.emitted
        self._lost_before = row.lost

    def events(self, first: int, count: int) -> bool:
        """A batch is stored; returns whether it follows without a gap."""
        if self.ended:
            self._complain("ended", "events after the proc's last account")
        gap = first > self.next
        if gap:
            self._gaps.append((self.next, first - 1))
        elif first < self.next:
            self._complain("sequence", f"event {first} again: {self.next} is due")
        self.next = max(self.next, first + count)
        self.account.stored += count
        self._settle()
        return not gap

    def loss(self, row: LossRow) -> bool:
        """A row of a LOSS frame; returns whether it leaves a gap that had not been seen."""
        if row.cause not in set(LossCause):
            self._complain("loss", f"loss cause {row.cause} is none")
        if not 0 <= row.first <= row.last or row.start > row.end:
            self._complain("loss", f"a loss of events {row.first} to {row.last} cannot be")
            return False
        anywhere = not LossCause.loses_track(row.cause)
        if row.first >= self.next and row.start < self.time and not anywhere:
            self._complain("loss", "a loss that is older than the event before it")
        self.account.lose(row.cause, row.last - row.first + 1)
        self._announced.append(row)
        return self._settle()

    def _settle(self) -> bool:
        """Enter the announced losses up to where the stream has come to, or would come to with them."""
        moved = False
        for row in sorted(self._announced):
            if row.first > self.next:
                break
            self._announced.remove(row)
            if row.first < self.next:
                self._explain(row.first, min(row.last, self.next - 1))
            if row.last >= self.next:
                self.next = row.last + 1
                moved = True
        return moved

    def _explain(self, first: int, last: int) -> None:
        """These events, all of them missed before, are said to be lost."""
        left: list[tuple[int, int]] = []
        explained = 0
        for low, high in self._gaps:
            if high < first or last < low:
                left.append((low, high))
                continue
            explained += min(high, last) - max(low, first) + 1
            if low < first:
                left.append((low, first - 1))
            if last < high:
                left.append((last + 1, high))
        self._gaps = left
        if explained != last - first + 1:
            self._complain("loss", f"events {first} to {last} are said to be lost and are not")

    def accounted(self, row: ProcRow) -> bool:
        """An account in the stream; returns False where it speaks of events that the stream says nothing about."""
        before, self.row = self.row, row
        self.account.describe(row.kind, row.name)
        known = (row.kind, row.name, row.thread)
        if before is not None and known != (before.kind, before.name, before.thread):
            self._complain("account", "the kind, name or thread of a proc has changed")
        self.close()
        missing = row.emitted - self.next
        if missing:
            what = "are neither stored nor lost" if missing > 0 else "too many are there"
            self._complain(
                "account", f"{row.emitted} events emitted by its account: {abs(missing)} {what}"
            )
            self.account.missing += max(0, missing)
        self._check_lost(row)
        self.next = max(self.next, row.emitted)
        self.ended = self.ended or not row.live
        return missing <= 0

    def _check_lost(self, row: ProcRow) -> None:
        lost = self.account.lost
        recorder = self._lost_before + sum(lost.get(c.name.lower(), 0) for c in BY_THE_RECORDER)
        everything = self._lost_before + sum(lost.values())
        # A sink that drops a LOSS frame puts the losses in it under its own cause.
        if not recorder <= row.lost <= everything:
            self._complain(
                "account", f"{row.lost} events lost by its account, {recorder} by LOSS frames"
            )

    def close(self) -> None:
        """Everything up to here must be explained."""
        for first, last in self._gaps:
            self.account.missing += last - first + 1
            self._complain("gap", f"events {first} to {last} are neither stored nor lost")
        self._gaps.clear()
        for row in self._announced:
            self._complain(
                "loss", f"events {row.first} to {row.last} are said to be lost: {self.next} is due"
            )
        self._announced.clear()
        self.account.emitted = self.next
