"""What a tracer does by the clock, about four times a second, in the pacer's thread."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Final

from tracesvc.events import Counter
from tracesvc.recorder.clock import now
from tracesvc.recorder.drain import Drain
from tracesvc.recorder.hooks import RunHooks
from tracesvc.recorder.pacer import ResidentMemory
from tracesvc.recorder.regulator import Regulator
from tracesvc.recorder.session import Session

__all__ = ["Beat"]

RSS: Final = "process.rss"
"""counter: bytes of memory that the process has resident"""
RSS_STEP: Final = 64 << 10
USUAL: Final = 200_000_000
"""ns between beats, at least"""
OLD: Final = 1_000_000_000
"""ns after which a buffer is handed over though it is not full"""


class Beat:
    """Seals what is old, looks at memory and at who waits for long, has runs read anew after a loss."""

    def __init__(
        self,
        session: Session,
        drain: Drain,
        runs: list[RunHooks],
        then: Callable[[], None],
        regulator: Regulator | None,
    ) -> None:
        """``runs`` are those that are recorded, as they come and go; ``then`` is called at last.

        A ``regulator``, where there is a budget, may want to look more often.
        """
        self._session: Final = session
        self._drain: Final = drain
        self._runs: Final = runs
        self._then: Final = then
        self._memory: Final = ResidentMemory()
        self._rss = 0
        self._regulator: Final = regulator
        self._due = 0

    def __call__(self) -> float | None:
        """Returns the seconds until the next, if it is not to be as it was."""
        if not self._session.open:
            return None
        interval = None if self._regulator is None else self._regulator.tick()
        time = now()
        if interval is None or time >= self._due:
            self._due = time + USUAL
            self._all()
        return interval

    def _all(self) -> None:
        session = self._session
        session.end_procs_of_dead_threads()
        session.wake_reader()
        if session.choice is None or "counters" in session.choice:
            self._look_at_memory()
        old = now() - OLD
        for proc in list(session.procs.values()):
            with contextlib.suppress(IndexError):  # its owner sealed it meanwhile
                if proc.stuck or proc.records.first_time <= old:
                    proc.seal(everything=True)
        if session.slow >= 0:
            for run in list(self._runs):
                run.tell_stacks()
        self._ask_for_tasks(old)
        self._then()

    def close(self) -> None:
        """There will be none any more."""
        self._memory.close()

    def _look_at_memory(self) -> None:
        rss = self._memory.read()
        if abs(rss - self._rss) >= RSS_STEP:
            self._rss = rss
            self._session.process.extend((Counter.number, now(), RSS, float(rss), 0))

    def _ask_for_tasks(self, old: int) -> None:
        """After a loss: have the tasks of a run read anew, at most once a second."""
        stale = self._drain.stale
        for run in list(self._runs) if stale else ():
            if run.proc is None or run.dark or run.asked > old:
                continue
            if run.proc.number in stale:
                run.read_tasks(functools.partial(self._drain.repair, run.proc.number))
