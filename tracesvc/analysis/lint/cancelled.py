"""Cancelled, and still running: tasks that do not end when they are told to."""

from __future__ import annotations

from dataclasses import dataclass

from tracesvc.analysis.lint.finding import Finding, Limits, Lint, short
from tracesvc.events import TaskRunnable
from tracesvc.model.pieces import OPEN
from tracesvc.model.replay import Part
from tracesvc.model.states import State
from tracesvc.model.wakes import CANCELLED
from tracesvc.model.words import duration

__all__ = ["CancelledStillRunning"]

MOST = 100_000
MANY = 20


@dataclass(slots=True)
class _Cancelled:
    time: int
    name: str
    proc: int
    waker: int


class CancelledStillRunning(Lint):
    """A task that another task cancelled, and that lives on for long.

    Only traces that say why a task was woken tell of it.  Only what another task did counts: a deadline that passes in
    the task's own scope is how timeouts are made.  A task that is cancelled along with others and lives on alone has a
    handler that does not come to its end, or is shielded.
    """

    def __init__(self, limits: Limits, names: list[str]) -> None:
        super().__init__(limits, names)
        self._cancelled: dict[int, _Cancelled] = {}
        self._late: dict[str, Finding] = {}

    def add(self, part: Part) -> None:
        if CANCELLED is None:
            return
        p = part.phases
        hit = p.take(
            (p.state == State.WAITING)
            & (p.closed == TaskRunnable.number)
            & (p.cause == CANCELLED)
            & (p.waker != p.task)
            & (p.waker > 0)
        )
        for i in range(len(hit)):
            if len(self._cancelled) >= MOST:
                break
            task, name = int(hit.task[i]), self.names[int(hit.name[i])]
            one = _Cancelled(int(hit.end[i]), name, int(hit.proc[i]), int(hit.waker[i]))
            self._cancelled.setdefault(task, one)
        lives = part.lives
        for task, end in zip(lives.task.tolist(), lives.end.tolist(), strict=True):
            if end != OPEN and task in self._cancelled:
                self._judge(task, self._cancelled.pop(task), end, ended=True)

    def _judge(self, task: int, one: _Cancelled, end: int, *, ended: bool) -> None:
        if end - one.time < self.limits.cancelled:
            return
        known = self._late.get(one.name)
        if known is not None:
            if len(known.tasks) < MANY:
                known.tasks.append(task)
            return
        what = "ended" if ended else "has not ended"
        self._late[one.name] = Finding(
            "cancelled-still-running",
            f"task {short(one.name)} {what} {duration(end - one.time)} after it was cancelled",
            one.proc,
            [task],
            [one.name],
            one.time,
            end,
            1,
            {"by": one.waker},
        )

    def findings(self, end: int) -> list[Finding]:
        for task, one in self._cancelled.items():
            self._judge(task, one, end, ended=False)
        return list(self._late.values())
