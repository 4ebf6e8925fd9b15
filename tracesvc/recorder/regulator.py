"""Keeps a tracer to its budget: asks the meter, tells the governor, has runs and annotations do what it says."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from tracesvc.events import Counter, Overhead
from tracesvc.frozen import Frozen, frozen
from tracesvc.recorder.clock import now
from tracesvc.recorder.governor import LEFT_OUT, Governor
from tracesvc.recorder.policy import ERROR, WARNING, Policy

if TYPE_CHECKING:
    from tracesvc.recorder.drain import Drain
    from tracesvc.recorder.hooks import RunHooks
    from tracesvc.recorder.meter import Meter
    from tracesvc.recorder.session import Session

__all__ = ["Budget", "OverheadStatistics", "Regulator"]

SELDOM: Final = 0.25
"""seconds between looks"""
OFTEN: Final = 0.1
"""the same at the last level, where it is decided whether anything is recorded"""
KEPT: Final = 16
"""one of so many logs, spans, regions, counters is kept where most are left out"""
SHARE: Final = "tracesvc.overhead"
"""counter: what the tracer uses of its budget; 1 is all of it"""


@frozen
class Budget(Frozen):
    """What a tracer may use."""

    processor: float | None
    """of one processor; None: any"""
    bytes: float | None
    """of the trace, a second; None: any"""


@frozen
class OverheadStatistics(Frozen):
    """What a tracer with a budget costs."""

    share: float
    """of the budget that it used, in the last half second or so"""
    level: int
    left_out: str
    """what is left out now, "" for nothing"""
    ns: int
    """processor time so far"""
    parts: dict[str, int]
    """the same by what it is for: hooks, annotations, tasks, threads"""
    ns_per_call: float
    """of a hook, on average"""


class Regulator:
    """Looks a few times a second, in the pacer's thread."""

    def __init__(
        self, session: Session, drain: Drain, runs: list[RunHooks], meter: Meter, budget: Budget
    ) -> None:
        """``runs`` are those that are recorded, as they come and go."""
        self._session: Final = session
        self._drain: Final = drain
        self._runs: Final = runs
        self._meter: Final = meter
        self._budget: Final = budget
        self._governor: Final = Governor(now())
        self._slow: Final = session.slow
        self._policy: Final = session.policy or Policy()
        self._always: Final = session.policy is not None
        self._level = 0
        self._ns = meter.total(runs)
        self._bytes = 0
        self._told = now()

    def tick(self) -> float:
        """Look; returns the seconds until the next look."""
        self.look()
        return OFTEN if self._level == len(LEFT_OUT) - 1 else SELDOM

    def look(self, time: int | None = None) -> None:
        """Measure, decide, do. ``time`` is in ns, by any clock that does not go back; None: it is now."""
        if not self._session.open:
            return
        governor, time = self._governor, now() if time is None else time
        changed = governor.look(time, self._used())
        if governor.level != self._level:
            self._level = governor.level
            self._set_level(governor.level)
            left_out = self.left_out
            event = (Overhead.number, now(), governor.level, governor.share, left_out)
            self._session.process.extend(event)
        if changed or governor.dark:
            self._set_dark(governor.dark)
        choice = self._session.choice
        if time - self._told >= 1_000_000_000 and (choice is None or "counters" in choice):
            self._told = time
            self._session.process.extend((Counter.number, now(), SHARE, governor.share, 0))

    @property
    def left_out(self) -> str:
        """What the present level leaves out."""
        return ", ".join(LEFT_OUT[1 : self._level + 1])

    def statistics(self) -> OverheadStatistics:
        """A look at it; any thread."""
        meter, governor = self._meter, self._governor
        return OverheadStatistics(
            governor.share, self._level, self.left_out, self._ns, meter.parts, meter.ns_per_call
        )

    def _used(self) -> float:
        """Since the last look, in ns of the budget."""
        ns, size = self._meter.total(list(self._runs)), self._drain.bytes
        used = 0.0
        if self._budget.processor is not None:
            used = (ns - self._ns) / self._budget.processor
        if self._budget.bytes is not None:
            used = max(used, (size - self._bytes) * 1e9 / self._budget.bytes)
        self._ns, self._bytes = ns, size
        return used

    def _set_level(self, level: int) -> None:
        session, policy = self._session, self._policy
        session.slow = self._slow if level < 1 else -1
        for run in list(self._runs):
            if run.recording is not None:
                run.recording.slow = session.slow
        policy.logs = KEPT if level >= 2 else 1
        policy.others = KEPT if level >= 3 else 1
        session.policy = policy if self._always or level >= 2 else None

    def _set_dark(self, dark: bool) -> None:
        self._policy.dark = dark
        self._policy.spared = ERROR if dark else WARNING
        for run in list(self._runs):
            if run.proc is None or run.dark == dark:
                continue
            if dark:
                run.darken()
            else:
                run.read_tasks(functools.partial(self._drain.repair, run.proc.number), light=True)
