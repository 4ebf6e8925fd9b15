"""What `tracesvc.model.verify` hands back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tracesvc.events import LossCause, ProcKind

__all__ = ["Account", "Report", "Violation"]

MAX_LISTED: Final = 1000


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing in a trace that cannot be right."""

    code: str
    """which check failed; the keys of `Report.counts`"""
    text: str
    offset: int
    """where in the stream the frame begins that gave it away, in bytes"""
    frame: int | None = None
    """number of that frame"""
    proc: int | None = None
    seq: int | None = None
    """sequence number of the event"""

    def __str__(self) -> str:
        place = f"byte {self.offset:,}"
        if self.frame is not None:
            place += f", frame {self.frame}"
        if self.proc is not None:
            place += f", proc {self.proc}"
        if self.seq is not None:
            place += f", event {self.seq}"
        return f"{place}: {self.text} [{self.code}]"


@dataclass(slots=True)
class Account:
    """What became of the events of one proc."""

    proc: int
    kind: str = ""
    name: str = ""
    emitted: int = 0
    """as far as the trace tells: the next sequence number"""
    stored: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    """events by cause"""
    missing: int = 0
    """events that are neither stored nor said to be lost"""
    before: int = 0
    """events emitted before this stream begins (of a sink that joined a running tracer)"""

    @property
    def closed(self) -> bool:
        """Whether emitted = stored + lost."""
        return self.emitted == self.before + self.stored + sum(self.lost.values())

    def describe(self, kind: int, name: str) -> None:
        self.kind = ProcKind(kind).name.lower() if kind in set(ProcKind) else str(kind)
        self.name = name

    def lose(self, cause: int, count: int) -> None:
        name = LossCause(cause).name.lower() if cause in set(LossCause) else str(cause)
        self.lost[name] = self.lost.get(name, 0) + count


@dataclass(slots=True)
class Report:
    """The result of verifying a trace."""

    session: str | None = None
    ended: bool = False
    """whether the end mark is there; a trace without one is being written, or its program was killed"""
    bytes: int = 0
    frames: int = 0
    generations: int = 0
    events: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    """events by type"""
    accounts: list[Account] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    """the first 1,000"""
    counts: dict[str, int] = field(default_factory=dict)
    """violations by code, all of them"""
    notes: list[str] = field(default_factory=list)
    """what is worth knowing and no violation"""

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return not self.counts

    @property
    def account(self) -> Account:
        """The sum over all procs."""
        total = Account(-1, "", "all")
        for account in self.accounts:
            total.emitted += account.emitted
            total.stored += account.stored
            total.missing += account.missing
            total.before += account.before
            for cause, count in account.lost.items():
                total.lost[cause] = total.lost.get(cause, 0) + count
        return total

    def add(self, violation: Violation) -> None:
        self.counts[violation.code] = self.counts.get(violation.code, 0) + 1
        if len(self.violations) < MAX_LISTED:
            self.violations.append(violation)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "ok": self.ok,
            "session": self.session,
            "ended": self.ended,
            "bytes": self.bytes,
            "frames": self.frames,
            "generations": self.generations,
            "events": self.events,
            "by_type": self.by_type,
            "total": _account(self.account),
            "procs": [_account(account) for account in self.accounts],
            "counts": self.counts,
            "violations": [asdict(violation) for violation in self.violations],
            "notes": self.notes,
        }


def _account(account: Account) -> dict[str, Any]:
    return {**asdict(account), "closed": account.closed}
