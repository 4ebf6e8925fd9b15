"""When a tracer must leave out more, or may leave out less, to keep to its budget. No clock, no I/O, no threads.

Theory of operation
===================

Whoever drives a `Governor` tells it, some ten times a second, how much the tracer has used up to then; what it answers
is a level, and whether the stretch of time that begins is recorded at all.  All is counted in parts of the budget: a
share of 1 uses just what is allowed.

Every level leaves out what the one before it does, and more, cheapest to miss first (`LEFT_OUT`).  A window of half a
second over the budget goes one level up.  At the last level there is an account: time pays into it, use is taken out
of it; when it is empty the recording stops, and when it holds `START` it goes on, with a snapshot.  So on average the
budget is used, whatever the load, and what is recorded is recorded whole: single events of the scheduler are never
left out, for they would make the ones after them wrong.

One level down it goes when the share has been low for a while (at the last level: when the recording did not have to
stop).  If it then must go up again soon, the next try waits twice as long.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LEFT_OUT", "Governor"]

LEFT_OUT: Final = ("", "stacks", "most logs", "most annotations", "stretches of everything")
"""what each level leaves out, besides what the ones before it do"""
LAST: Final = len(LEFT_OUT) - 1
SECOND: Final = 1_000_000_000
WINDOW: Final = SECOND // 2
"""ns over which a share is measured"""
HIGH: Final = 1.1
"""share above which more is left out"""
LOW: Final = 0.6
"""share below which less may be"""
PATIENCE: Final = 2 * SECOND
"""ns that a share must be low"""
LONGEST_PATIENCE: Final = 120 * SECOND
RELAPSE: Final = 10 * SECOND
"""ns within which going up again means that going down was a mistake"""
START: Final = SECOND // 5
"""ns of the budget in the account with which a stretch begins"""
LOWEST: Final = -30 * SECOND
"""no more debt than that is remembered"""


class Governor:
    """Keeps use at a share of 1. Times are ns of any clock that does not go back."""

    def __init__(self, time: int) -> None:
        self.level = 0
        """what is left out: `LEFT_OUT` up to here"""
        self.dark = False
        """nothing is recorded now; only at the last level"""
        self.share = 0.0
        """use in the last whole window, by the budget"""
        self._time = self._window_began = time
        self._used = 0.0
        """ns of the budget, in this window"""
        self._account = 0.0
        self._low_since = time
        self._patience = PATIENCE
        self._went_down = time - RELAPSE
        self._relapsed = False
        """the last step down was a mistake"""

    def look(self, time: int, used: float) -> bool:
        """Take in what was used since the last look, in ns of the budget; returns whether level or stretch changed."""
        before = self.level, self.dark
        passed, self._time = time - self._time, time
        self._used += used
        if self.level == LAST:
            self._account = max(LOWEST, min(self._account + passed - used, START + passed))
            self._alternate(time)
        if time - self._window_began >= WINDOW:
            self.share = self._used / (time - self._window_began)
            self._window_began, self._used = time, 0.0
            self._judge(time)
        return (self.level, self.dark) != before

    def _alternate(self, time: int) -> None:
        if self._account <= 0:
            self.dark = True
            self._low_since = time
        elif self._account >= START:
            self.dark = False

    def _judge(self, time: int) -> None:
        if self.level == LAST:
            low = not self.dark  # the account never came to its end since then
        elif self.share > HIGH:
            self._up(time)
            return
        else:
            low = self.share < LOW
        if not low:
            self._low_since = time
        elif self.level and time - self._low_since >= self._patience:
            self._down(time)

    def _up(self, time: int) -> None:
        if time - self._went_down < RELAPSE:
            self._patience = min(self._patience * 2, LONGEST_PATIENCE)
            self._relapsed = True
            self._went_down = time - RELAPSE  # the steps that follow are the same relapse
        self.level += 1
        self._low_since = time
        self._account = START / 2

    def _down(self, time: int) -> None:
        if not self._relapsed:
            self._patience = PATIENCE
        self._relapsed = False
        self.level -= 1
        self.dark = False
        self._low_since = self._went_down = time
