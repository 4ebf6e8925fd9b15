"""What was chosen to be recorded, as the header of a trace says; where not all was, what is missing is no loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Choice"]


@dataclass(frozen=True, slots=True)
class Choice:
    """None: nothing was left out."""

    groups: tuple[str, ...] | None = None
    """of events that are recorded"""
    tasks: tuple[str, ...] | None = None
    """patterns of the names of those that are recorded, with all below them"""
    spans: tuple[str, ...] | None = None
    """patterns of the names of spans and regions that are recorded"""
    redacted: bool = False
    """texts and attributes may have been changed or taken out"""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Choice:
        """By the options in a header."""
        groups, tasks, spans = (_texts(options.get(name)) for name in ("groups", "tasks", "spans"))
        return cls(groups, tasks, spans, options.get("redacted") is True)

    @property
    def some_tasks(self) -> bool:
        """Whether there are tasks that are not recorded."""
        return self.tasks is not None or (
            self.groups is not None and "scheduler" not in self.groups
        )

    def notes(self) -> list[str]:
        """A line for each of them."""
        notes = [
            f"only {what} {', '.join(chosen) or 'none'} are recorded"
            for what, chosen in (
                ("the groups", self.groups),
                ("the tasks", self.tasks),
                ("the spans and regions", self.spans),
            )
            if chosen is not None
        ]
        return [*notes, "texts and attributes are redacted"] if self.redacted else notes


def _texts(value: object) -> tuple[str, ...] | None:
    return tuple(str(item) for item in value) if isinstance(value, list | tuple) else None
