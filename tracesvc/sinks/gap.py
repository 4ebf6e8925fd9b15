"""A gap in one sink's stream: what was dropped there, and the frames that say so.

The frames that stand for a gap take the numbers of the last frames that were dropped, so that frame numbers stay
strictly ascending.  There are never fewer of those than needed: every dropped frame brings at most what fits in one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from tracesvc.events import FrameKind, LossCause
from tracesvc.format.frames import Frame, encode_frame
from tracesvc.format.records import Loss, LossRow, ProcRow, Procs

__all__ = ["Gap"]

LOSS_ROWS: Final = 4096
"""rows in one LOSS frame, as `tracesvc.format.SessionWriter` cuts them"""
PROC_ROWS: Final = 256
"""rows in one PROCS frame, likewise"""
ROWS_PER_PROC: Final = 256
"""loss rows kept apart per proc; beyond that they are folded"""


class Gap:
    """Frames dropped in a row."""

    def __init__(self) -> None:
        self.rows = 0
        """rows that the account of this gap has: what it costs to remember"""
        self._last = -1
        self._losses: dict[int, list[LossRow]] = {}
        self._procs: dict[int, ProcRow] = {}

    def add(self, frame: Frame, cause: LossCause) -> None:
        """Note what went with a frame.

        Raises:
          FormatError: the body of a LOSS or PROCS frame is not one.
        """
        self._last = frame.number
        if frame.count:
            last = frame.first + frame.count - 1
            self._lose(LossRow(frame.proc, frame.first, last, cause, frame.oldest, frame.newest))
        elif frame.kind == FrameKind.LOSS:
            for row in Loss.unpack(frame.body()).rows:
                self._lose(row)
        elif frame.kind == FrameKind.PROCS:
            for account in Procs.unpack(frame.body()).rows:
                self.rows += account.proc not in self._procs
                self._procs[account.proc] = account

    def frames(self, *, closing: bool) -> list[Frame]:
        """The account: losses first, then the last account of every proc that ended meanwhile.

        ``closing``: the session ends here, so the latest account of every other proc is wanted too.
        """
        losses = [row for proc in sorted(self._losses) for row in self._losses[proc]]
        procs = [row for row in self._procs.values() if closing or not row.live]
        records: list[Loss | Procs] = [
            Loss(losses[i : i + LOSS_ROWS]) for i in range(0, len(losses), LOSS_ROWS)
        ]
        records += [Procs(procs[i : i + PROC_ROWS]) for i in range(0, len(procs), PROC_ROWS)]
        if not records:
            records.append(Loss([]))  # no events went; still the missing numbers are explained
        number = self._last - len(records)
        return [
            Frame(record.kind, n, encode_frame(record.kind, n, record.pack()))
            for n, record in enumerate(records, number + 1)
        ]

    def _lose(self, row: LossRow) -> None:
        rows = self._losses.setdefault(row.proc, [])
        before = rows[-1] if rows else None
        if before is not None and before.cause == row.cause and before.last + 1 == row.first:
            rows[-1] = _joined(before, row)
            return
        rows.append(row)
        self.rows += 1
        if len(rows) > ROWS_PER_PROC:
            self.rows -= len(rows)
            rows[:] = _folded(rows)
            self.rows += len(rows)


def _joined(a: LossRow, b: LossRow) -> LossRow:
    return a._replace(last=b.last, start=min(a.start, b.start), end=max(a.end, b.end))


def _folded(rows: Iterable[LossRow]) -> list[LossRow]:
    """Fewer rows with the same count per cause: in each unbroken range of numbers, one row per cause.

    Which of these numbers went for which cause, and when exactly, is given up.  That bounds the memory of a sink that
    stands still for hours while the reader is behind as well.
    """
    folded: list[LossRow] = []
    run: list[LossRow] = []

    def close() -> None:
        counts: Counter[int] = Counter()
        for row in run:
            counts[row.cause] += row.last - row.first + 1
        first, start, end = run[0].first, min(r.start for r in run), max(r.end for r in run)
        for cause, n in counts.items():
            folded.append(LossRow(run[0].proc, first, first + n - 1, cause, start, end))
            first += n

    for row in sorted(rows, key=lambda row: row.first):
        if run and row.first != run[-1].last + 1:
            close()
            run = []
        run.append(row)
    close()
    return folded
