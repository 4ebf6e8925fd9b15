"""What an exporter hands back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Exported"]


@dataclass(slots=True)
class Exported:
    """What was written."""

    events: int = 0
    """of the trace, read"""
    written: Counter[str] = field(default_factory=Counter)
    """records of each type, in the words of the other format"""
    left_out: Counter[str] = field(default_factory=Counter)
    """events, by type, for which the other format has no place"""
    lost: int = 0
    """events that the trace says were lost, or that are missing in it"""
    repaired: int = 0
    """moves of tasks that were put in or left out because events around them are missing"""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "events": self.events,
            "written": dict(self.written),
            "left_out": dict(self.left_out),
            "lost": self.lost,
            "repaired": self.repaired,
        }
