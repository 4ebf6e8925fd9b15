"""What states, reasons and losses are called in every format."""

from __future__ import annotations

from typing import Final

from tracesvc.events import LossCause, Reason
from tracesvc.export.lives import UNKNOWN
from tracesvc.format import LossRow
from tracesvc.model.states import State

__all__ = ["LEVELS", "STATES", "cause_of", "lost_text", "reason_of", "state_of"]

LEVELS: Final = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}
STATES: Final = {
    int(State.NEW): "runnable",
    int(State.RUNNABLE): "runnable",
    int(State.RUNNING): "running",
    int(State.WAITING): "waiting",
    UNKNOWN: "unknown",
}


def reason_of(number: int) -> str:
    """What a task waits for: ``channel send``."""
    return (
        (Reason(number) if 0 <= number < len(Reason) else Reason.PARKED)
        .name.lower()
        .replace("_", " ")
    )


def state_of(state: int, reason: int) -> str:
    """A state, and in it the reason: ``waiting: lock``."""
    if state == State.WAITING:
        return f"waiting: {reason_of(reason)}"
    return STATES[state] if state != UNKNOWN else "unknown: events lost"


def cause_of(row: LossRow) -> str:
    """Why events were lost: ``queue_full``."""
    return LossCause(row.cause).name.lower() if row.cause in set(LossCause) else str(row.cause)


def lost_text(row: LossRow) -> str:
    """``12 events lost: queue_full``."""
    return f"{row.last - row.first + 1} events lost: {cause_of(row)}"
