"""Why a task was woken: what the causes mean to whoever asks what a wait was for."""

from __future__ import annotations

from typing import Final

from tracesvc.events import WakeCause

__all__ = ["GIVEN_UP", "cause_name"]

GIVEN_UP: Final = {int(WakeCause.CANCEL), int(WakeCause.TIMER), int(WakeCause.SIGNAL)}
"""causes that are not what a task waited for, unless it slept or waited for just that"""


def cause_name(number: int) -> str:
    """What a cause is called; empty for what is not known."""
    return WakeCause(number).name.lower() if number and number in set(WakeCause) else ""
