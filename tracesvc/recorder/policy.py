"""What becomes of spans, regions, logs and counters before they are recorded: left out, sampled, redacted.

A session has a `Policy` only while there is something to decide; else its annotations do not come by here.

What is filtered out was not asked for, and is in no account.  What is sampled out is lost for `LossCause.SAMPLED`.
Spans and regions are sampled as wholes: with a span goes what lies in it, so that no child is without its parent.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from tracesvc.recorder.redaction import Redaction

if TYPE_CHECKING:
    from tracesvc.recorder.proc import Proc

__all__ = ["ERROR", "WARNING", "Policy"]

WARNING: Final = 30
ERROR: Final = 40


class Policy:
    """The decisions of one session."""

    def __init__(
        self,
        *,
        groups: Container[str] = frozenset(("spans", "regions", "logs", "counters")),
        tasks: Container[int] | None = None,
        named: Callable[[str], bool] | None = None,
        redaction: Redaction | None = None,
    ) -> None:
        """``groups`` are recorded, of ``tasks``, the spans and regions that are ``named`` so; None: all."""
        self._groups: Final = groups
        self._tasks: Final = tasks
        self._named: Final = named
        self._redaction: Final = redaction
        self.logs = 1
        """of about so many logs one is kept"""
        self.dark = False
        """only what ends is recorded, and logs that are spared"""
        self._others = 1
        self._since = 0
        self.spared = WARNING
        """logs of this level, or above, are not sampled"""
        self._turns: Final = count().__next__

    @property
    def others(self) -> int:
        """Of so many counters one is kept, and of spans and regions that lie in no other begun since this was set."""
        return self._others

    @others.setter
    def others(self, others: int) -> None:
        self._since, self._others = 0, others

    def _wanted(self, group: str, task: int) -> bool:
        return group in self._groups and (self._tasks is None or not task or task in self._tasks)

    def log(
        self, proc: Proc, task: int, level: int, message: object, attributes: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]] | None:
        """Message and attributes as they may be recorded; None: not at all."""
        if not self._wanted("logs", task):
            return None
        if self.dark and level < self.spared:
            proc.skipped.append(0)
            return None
        if self.logs > 1 and level < self.spared and _scattered(self._turns()) % self.logs:
            proc.skipped.append(0)
            return None
        if self._redaction is not None:
            message = self._redaction.text(message)
            attributes = self._redaction.attributes(attributes)
        return message, attributes

    def work(self, work: Any, proc: Proc, task: int) -> tuple[Any, dict[str, Any]] | None:
        """Name and attributes of a span or region that begins; None: it is not to be recorded, nor its end."""
        if not self._wanted(work.kind + "s", task):
            return None
        if self._named is not None and not self._named(work.name):
            return None
        if self.dark or (self._others > 1 and _scattered(self._whole(work).id) % self._others):
            proc.skipped.extend(b"\0\0")  # its end too
            return None
        name, attributes = work.name, work._attributes
        if self._redaction is not None:
            name = self._redaction.text(name)
            attributes = self._redaction.attributes(attributes)
        return name, attributes

    def counter(self, proc: Proc, task: int) -> bool:
        """Whether a counter's value is recorded."""
        if not self._wanted("counters", task):
            return False
        if self.dark or (self._others > 1 and _scattered(self._turns()) % self._others):
            proc.skipped.append(0)
            return False
        return True

    def _whole(self, work: Any) -> Any:
        """The span or region around it, or itself, with which it is kept or not; not one from before the sampling."""
        self._since = self._since or work.id
        while work.outer is not None and work.outer.id >= self._since:
            work = work.outer
        return work


def _scattered(number: int) -> int:
    """A number without a pattern, so that what a program does by turns is not always or never what is kept."""
    number = (number ^ number >> 16) * 0x45D9F3B & 0xFFFFFFFF
    number = (number ^ number >> 16) * 0x45D9F3B & 0xFFFFFFFF
    return number ^ number >> 16
