"""What a lint says, and what all of them have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any

from tracesvc.analysis.account import short
from tracesvc.model.replay import Part

__all__ = ["Finding", "Limits", "Lint", "short"]


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on something is worth telling.  Times in ns."""

    step: int = 200_000_000
    """a step of that length does not yield"""
    patience: int = 5_000_000_000
    """a wait, or a growth, of that length is for ever"""
    tasks: int = 20
    """tasks that pile up"""
    self_wakes: int = 1000
    """yields in a row with nothing else going on"""
    self_wake_step: int = 1_000_000
    """a task whose steps are longer on average works, and does not spin"""
    handovers: int = 20
    """of a lock, each with others waiting already"""
    queue: float = 2.0
    """tasks that wait for a lock on average"""
    convoy: int = 100_000_000
    """that tasks have waited in a convoy, all together"""
    cancelled: int = 5_000_000_000
    """from being cancelled to the end"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem.  Times are ns by the clock of the trace."""

    code: str
    """which lint; the keys of `tracesvc.analysis.lint.LINTS`"""
    text: str
    proc: int
    """the run"""
    tasks: list[int]
    """that it is about, the first 20"""
    names: list[str]
    """of those tasks, each once"""
    start: int
    end: int
    count: int
    """of what the text says"""
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Lint(ABC):
    """Looks at the parts of a trace in order, then says what it found."""

    def __init__(self, limits: Limits, names: list[str]) -> None:
        self.limits = limits
        self.names = names
        """of tasks: what `Phases.name` indexes"""

    @abstractmethod
    def add(self, part: Part) -> None:
        """The next part."""

    @abstractmethod
    def findings(self, end: int) -> list[Finding]:
        """After the last part; ``end``: ns of the end of the trace."""
