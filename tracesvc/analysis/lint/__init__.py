"""`lint`: problems that a trace shows by itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from tracesvc.analysis.lint.cancelled import CancelledStillRunning
from tracesvc.analysis.lint.deadlock import Deadlock
from tracesvc.analysis.lint.finding import Finding, Limits, Lint
from tracesvc.analysis.lint.growth import NurseryGrows, TaskLeak
from tracesvc.analysis.lint.locks import LockConvoy
from tracesvc.analysis.lint.lost import LostWakeup
from tracesvc.analysis.lint.steps import BusySelfWake, NeverYields
from tracesvc.model.reader import Trace
from tracesvc.model.replay import Replay

__all__ = ["LINTS", "Finding", "Limits", "Lints", "lint"]

LINTS: Final[dict[str, type[Lint]]] = {
    "never-yields": NeverYields,
    "task-leak": TaskLeak,
    "nursery-grows": NurseryGrows,
    "lost-wakeup": LostWakeup,
    "busy-self-wake": BusySelfWake,
    "lock-convoy": LockConvoy,
    "deadlock": Deadlock,
    "cancelled-still-running": CancelledStillRunning,
}
"""code -> what looks for it; in the order in which they are told"""
OWN: Final = "tracesvc "
"""what the names of the tracer's own tasks begin with"""


@dataclass(frozen=True, slots=True)
class Lints:
    """What the lints found."""

    findings: list[Finding]
    """deadlocks first"""
    notes: list[str]
    """what could not be looked for, and why"""
    gaps: int
    """places where events are missing"""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "findings": [finding.as_dict() for finding in self.findings],
            "notes": self.notes,
            "gaps": self.gaps,
        }


def lint(
    trace: Trace, limits: Limits | None = None, only: Collection[str] = (), *, own: bool = False
) -> Lints:
    """Look for problems.

    Args:
        trace: From `tracesvc.read`, of something that can seek; it is read from the front, once or twice.
        limits: From where on something is worth telling.
        only: Codes of lints; empty: all of them.
        own: Whether to tell of the tracer's own tasks as well.

    Raises:
        ValueError: There is no such lint.
        FormatError: It is not a trace.
        OSError: It cannot be read.
    """
    unknown = set(only) - LINTS.keys()
    if unknown:
        raise ValueError(f"no such lint: {', '.join(sorted(unknown))}")
    trace.rewind()
    replay = Replay(trace)
    chosen = [code for code in LINTS if not only or code in only]
    lints = {code: LINTS[code](limits or Limits(), replay.names) for code in chosen}
    for part in replay.parts():
        for one in lints.values():
            one.add(part)
    deadlock = lints.get("deadlock")
    if isinstance(deadlock, Deadlock):
        deadlock.choose()
        if deadlock.instants:
            _look_again(trace, deadlock)
    found = [f for one in lints.values() for f in one.findings(replay.walk.ended)]
    if not own:
        found = [f for f in found if not any(name.startswith(OWN) for name in f.names)]
    notes = []
    if replay.walk.gaps:
        notes.append(
            f"events are missing in {replay.walk.gaps:,} places: what was there is not known"
        )
    found.sort(key=lambda f: _ORDER.get(f.code, 9))
    return Lints(found, notes, replay.walk.gaps)


_ORDER: Final = {"deadlock": 0, "lost-wakeup": 1, "never-yields": 2, "cancelled-still-running": 3}


def _look_again(trace: Trace, deadlock: Deadlock) -> None:
    trace.rewind()
    replay = Replay(trace)
    deadlock.names = replay.names
    for part in replay.parts():
        deadlock.look(part)
