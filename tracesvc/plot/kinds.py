"""What a task can be in, as far as a picture tells it apart, and its colours.

The colours are those of Okabe and Ito ("Color Universal Design", 2008), which people with any common kind of colour
blindness tell apart; what is nobody's fault (sleeping, waiting for children) is grey.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import Reason
from tracesvc.model.phases import UNKNOWN
from tracesvc.model.states import State

__all__ = ["Kind", "kinds_of"]


class Kind(IntEnum):
    """In the order in which they are stacked, from below."""

    RUNNING = 0, "running", "#000000"
    RUNNABLE = 1, "runnable", "#d55e00"
    LOCK = 2, "lock, semaphore, limiter, condition", "#e69f00"
    CHANNEL = 3, "channel", "#009e73"
    EVENT = 4, "event, other", "#f0e442"
    IO = 5, "socket, pipe", "#56b4e9"
    OUTSIDE = 6, "thread, process, signal", "#cc79a7"
    SLEEP = 7, "sleep", "#b8b8b8"
    NURSERY = 8, "children", "#dedede"
    UNKNOWN = 9, "not known: events are missing", "#ffffff"

    text: str
    colour: str

    def __new__(cls, number: int, text: str = "", colour: str = "") -> Kind:
        self = int.__new__(cls, number)
        self._value_ = number
        self.text = text
        self.colour = colour
        return self


_OF_REASON: Final = {
    Reason.SLEEP: Kind.SLEEP,
    Reason.CHANNEL_SEND: Kind.CHANNEL,
    Reason.CHANNEL_RECEIVE: Kind.CHANNEL,
    Reason.LOCK: Kind.LOCK,
    Reason.SEMAPHORE: Kind.LOCK,
    Reason.LIMITER: Kind.LOCK,
    Reason.CONDITION: Kind.LOCK,
    Reason.NURSERY: Kind.NURSERY,
    Reason.READABLE: Kind.IO,
    Reason.WRITABLE: Kind.IO,
    Reason.THREAD: Kind.OUTSIDE,
    Reason.PROCESS: Kind.OUTSIDE,
    Reason.SIGNAL: Kind.OUTSIDE,
}
_REASONS: Final = np.array([int(_OF_REASON.get(reason, Kind.EVENT)) for reason in Reason], np.int64)
_STATES: Final = np.full(UNKNOWN + 1, int(Kind.UNKNOWN), np.int64)
_STATES[State.RUNNING] = Kind.RUNNING
_STATES[[State.RUNNABLE, State.NEW]] = Kind.RUNNABLE


def kinds_of(state: NDArray[np.int64], reason: NDArray[np.int64]) -> NDArray[np.int64]:
    """The `Kind` of each phase."""
    known = np.where((reason >= 0) & (reason < len(_REASONS)), reason, int(Reason.PARKED))
    found: NDArray[np.int64] = np.where(state == State.WAITING, _REASONS[known], _STATES[state])
    return found
