"""Why a task was woken, in vocabularies whose `TaskRunnable` says so; in others nothing is known."""

from __future__ import annotations

import enum
from typing import Final

from tracesvc import events

__all__ = ["CANCELLED", "cause_name"]


def _causes() -> dict[int, str]:
    for kind in vars(events).values():
        if isinstance(kind, type) and issubclass(kind, enum.IntEnum) and kind.__name__ in _ENUMS:
            return {int(member): member.name.lower() for member in kind}
    return {}


_ENUMS: Final = {"Wake", "WakeCause", "WakeReason", "Cause"}
_CAUSES: Final = _causes()
CANCELLED: Final = next((n for n, name in _CAUSES.items() if name.startswith("cancel")), None)
"""the cause of a task that was woken because it was cancelled; None: the vocabulary has none"""


def cause_name(number: int) -> str:
    """What a cause is called; empty for 0 and for what is not known."""
    return _CAUSES.get(number, "") if number else ""
