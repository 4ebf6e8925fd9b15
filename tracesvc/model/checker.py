"""Everything that a stream says about its procs, against everything else it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracesvc.events import LossCause, ProcKind
from tracesvc.format import Batch, End, Frame, LossRow, ProcRow, Snapshot
from tracesvc.format.records import digest_of
from tracesvc.model.annotations import Annotations
from tracesvc.model.ledger import BY_THE_RECORDER, Ledger
from tracesvc.model.procs import ONLY_ON, Add, Place, Proc
from tracesvc.model.tasks import Nurseries, Run, task_of

__all__ = ["Checker"]


class Checker:
    """All procs of a session."""

    def __init__(self, add: Add, text: Callable[[int], str], knows: Callable[[int], bool]) -> None:
        self.place = Place(add)
        self.ledgers: dict[int, Ledger] = {}
        self.by_type: dict[int, int] = {}
        self.newest = 0
        """ns of the latest event so far"""
        self._knows = knows
        self._plain_text = text
        self._procs: dict[int, Proc] = {}
        self._nurseries = Nurseries()
        self._annotations = Annotations()
        self._opens_known = True
        self._opens_due = False
        """a generation has begun, and with it a snapshot of the open spans and regions is due"""
        self._damaged = False
        """frames are missing that nothing accounts for"""
        self._whole = True
        """the stream has all of the session"""

    def some_tasks(self) -> None:
        """The header says that not all tasks are recorded."""
        self._annotations.partial = True

    # --- state that is missing -------------------------------------------------------------------

    @property
    def is_blind(self) -> bool:
        """Whether something is missing that may explain what does not fit."""
        return self._annotations.blind

    def blind(self, *, frames: bool = False, damage: bool = False) -> None:
        """Something is missing: ``frames`` of which procs will show, or events of a known one.

        ``damage``: without an account, so the books need not close.
        """
        self._damaged = self._damaged or damage
        self._annotations.blind = True
        self._opens_known = False
        if frames:
            for proc in self._procs.values():
                proc.digest = None

    def _lose_track(self, proc: Proc) -> None:
        proc.lose_track()
        self.blind()

    def _proc(self, number: int) -> Proc:
        proc = self._procs.get(number)
        if proc is None:
            proc = Proc(number, self.place, self._annotations, self._nurseries)
            if self._annotations.partial:
                proc.run.some_tasks()
            self._procs[number] = proc
            self.ledgers[number] = proc.ledger
        return proc

    # --- accounts --------------------------------------------------------------------------------

    def accounts(self, rows: list[ProcRow], *, late: bool) -> None:
        """A PROCS frame; ``late``: the first of a stream that begins in the middle."""
        self._whole = self._whole and not late
        for row in rows:
            self.place.proc, self.place.seq = row.proc, None
            proc = self._proc(row.proc)
            if late:
                proc.digest = None
                proc.ledger.begin_at(row)
                self._lose_track(proc)
            if not proc.ledger.accounted(row):
                self._lose_track(proc)
            if row.kind not in set(ProcKind):
                self.place("account", f"proc kind {row.kind} is none")
            self._check_total(proc, row.digest)
            proc.is_of_kind(row.kind)
            proc.describe(row.kind, row.thread, row.name)

    def _check_total(self, proc: Proc, digest: int | None) -> None:
        if digest is not None and proc.digest not in (None, digest):
            self.place("total", f"the frames of proc {proc.number} are not those that were written")
        proc.digest = digest

    def loss(self, row: LossRow) -> None:
        """A row of a LOSS frame."""
        self.place.proc, self.place.seq = row.proc, row.first
        proc = self._proc(row.proc)
        if row.cause not in BY_THE_RECORDER:
            proc.digest = None
        gap = proc.ledger.loss(row)
        if LossCause.loses_track(row.cause):
            if gap:
                proc.lose_track()
            self.blind()

    def end(self, end: End) -> None:
        """The end mark."""
        self.place.proc = self.place.seq = None
        emitted = lost = 0
        for ledger in self.ledgers.values():
            row = ledger.row
            self.place.proc = ledger.account.proc
            ledger.close()
            if (row is None or row.emitted != ledger.next) and not self._damaged:
                self.place("account", f"no last account of proc {ledger.account.proc}")
            emitted += max(ledger.next, row.emitted if row else 0)
            lost += row.lost if row else 0
        self.place.proc = None
        less = end.emitted < emitted or end.lost < lost
        more = end.emitted > emitted or end.lost > lost
        if not self._damaged and (less or (more and self._whole)):
            said = f"{end.emitted} events emitted and {end.lost} lost"
            self.place("account", f"{said} by the end mark; {emitted} and {lost} by the accounts")
        if end.monotonic < self.newest:
            self.place("clock", "the end comes before an event ahead of it")
        if self._whole:
            self._annotations.finish()

    def leave_open(self) -> None:
        """The stream has no end: what is not explained yet may still be."""
        for ledger in self.ledgers.values():
            ledger.account.emitted = ledger.next

    # --- snapshots -------------------------------------------------------------------------------

    def begin_generation(self, number: int) -> None:
        """Snapshots follow, before any events."""
        self._opens_due = number > 0

    def state(self, snapshot: Snapshot) -> Any:
        """What a snapshot that begins here should say; None where that is not known."""
        self.place.proc, self.place.seq = snapshot.proc, None
        if snapshot.proc == 0:
            self._opens_due = False
            return self._opens() if self._opens_known else None
        proc = self._proc(snapshot.proc)
        proc.is_of_kind(ProcKind.RUN)
        if proc.ledger.next != snapshot.seq:
            self.place("snapshot", f"as of event {snapshot.seq}: {proc.ledger.next} is due")
        return proc.run.rows() if proc.run.known else None

    def _opens(self) -> Any:
        spans, regions = self._annotations.spans, self._annotations.regions
        return [{number: one.row() for number, one in opens.items()} for opens in (spans, regions)]

    def compare(self, snapshot: Snapshot, state: Any) -> None:
        """A whole snapshot against what should be in it; where that is not known, it is believed."""
        self.place.proc, self.place.seq = snapshot.proc, None
        if snapshot.proc == 0:
            self._compare_opens(snapshot, state)
            return
        run = self._proc(snapshot.proc).run
        tasks = [task_of(row, self._text) for row in snapshot.tasks]
        said = Run(Nurseries(), self.place)
        said.adopt(tasks)
        if len(said.tasks) != len(tasks):
            self.place("snapshot", "a task is in it twice")
        if state is not None:
            self._compare("task", said.rows(), state)
        elif not run.known and self._proc(snapshot.proc).ledger.next == snapshot.seq:
            run.adopt(tasks)
            for task in tasks:
                self._annotations.know_task(task.id)

    def _compare_opens(self, snapshot: Snapshot, state: Any) -> None:
        said = Annotations()
        said.adopt(snapshot.spans, snapshot.regions, self._text)
        if len(said.spans) + len(said.regions) != len(snapshot.spans) + len(snapshot.regions):
            self.place("snapshot", "a span or region is in it twice")
        if state is None:
            self._annotations.adopt(snapshot.spans, snapshot.regions, self._text)
            self._opens_known = True
            return
        for kind, opens, expected in zip(
            ("span", "region"), (said.spans, said.regions), state, strict=True
        ):
            self._compare(kind, {n: one.row() for n, one in opens.items()}, expected)
        if self.is_blind:
            self._annotations.adopt(snapshot.spans, snapshot.regions, self._text)

    def _compare(self, what: str, said: dict[int, Any], expected: dict[int, Any]) -> None:
        for number in said.keys() | expected.keys():
            if number not in expected:
                self.place("snapshot", f"{what} {number} is in it and should not be")
            elif number not in said:
                # An end that came by before its begin may be what is missing.
                if what == "task" or not self.is_blind:
                    self.place("snapshot", f"{what} {number} is not in it")
            elif said[number] != expected[number]:
                self.place(
                    "snapshot",
                    f"{what} {number} is {said[number]}, by the events {expected[number]}",
                )

    def _snapshots_over(self) -> None:
        self._opens_due = False
        if not self._opens_known:
            self._annotations.adopt([], [], self._text)
            self._opens_known = True
        elif self._annotations.spans or self._annotations.regions:
            self.place.proc, self.place.seq = 0, None
            self.place("snapshot", "no snapshot of the open spans and regions")

    # --- events ----------------------------------------------------------------------------------

    def _text(self, number: int) -> str:
        if not self._knows(number) and not self.is_blind:
            self.place("names", f"name {number} is not in the table")
        return self._plain_text(number)

    def batch(self, batch: Batch, frame: Frame) -> None:
        """The events of a batch, and the frame it came in.

        Raises:
          FormatError: its columns are damaged; nothing has been taken from it then.
        """
        if self._opens_due:
            self._snapshots_over()
        place = self.place
        place.proc, place.seq = batch.proc, batch.first
        place.offset, place.frame = frame.offset, frame.number
        records = batch.records(self._text)
        late = batch.deltas()[0]
        proc = self._proc(batch.proc)
        if proc.digest is not None:
            proc.digest = digest_of(frame, proc.digest)
        if not proc.ledger.events(batch.first, batch.count):
            self._lose_track(proc)
        if late:
            place("clock", "the first event of a batch is not at its time")
        time_before, seq, seen = proc.ledger.time, batch.first, self.by_type
        take = proc.take
        for number, time, fields in records:
            place.seq = seq
            seq += 1
            if time < time_before:
                place("clock", f"{time_before - time} ns before the event ahead of it")
            time_before = time
            seen[number] = seen.get(number, 0) + 1
            if proc.stopped:
                place("proc", "an event after proc_stop")
            only = ONLY_ON.get(number)
            if only is not None and proc.kind != only:
                proc.is_of_kind(only)
            if number in take:
                take[number](time, *fields)
        proc.ledger.time = time_before
        self.newest = max(self.newest, time_before)
