"""The account of one session: what its stream says was emitted, what of that is stored, what was lost and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgpack

from tracesvc.events import LossCause
from tracesvc.format import Clocks, End, Exchange, Generation, Header, Loss, Procs
from tracesvc.store.offset import ClockOffset, offset_of

__all__ = ["MAX_PROCS", "Glance", "Ledger", "ProcAccount"]

MAX_PROCS: Final = 1 << 16
"""procs in one session, at most: bounds what a stream can cost in memory"""
MAX_EXCHANGES: Final = 4
"""with services, the last ones, that are kept"""
MAX_NAME: Final = 1024
"""characters of a name that are kept"""
MAX_SOURCE: Final = 64
"""facts about a source that are kept"""

_CAUSES: Final = {cause.value: cause.name.lower() for cause in LossCause}


class Glance(NamedTuple):
    """What the ledger needs of EVENTS frames that follow one another; nobody looks at their columns before a reader."""

    proc: int
    first: int
    events: int
    frames: int = 1


@dataclass(slots=True)
class ProcAccount:
    """Counts of events of one proc."""

    name: str = ""
    emitted: int = 0
    """the next sequence number, as far as the stream tells"""
    stored: int = 0
    lost: dict[int, int] = field(default_factory=dict)
    before: int = 0
    """events from before this stream began, where its sink joined a session that was running"""

    @property
    def closed(self) -> bool:
        """Whether every event is accounted for."""
        return self.emitted == self.before + self.stored + sum(self.lost.values())


@dataclass(slots=True)
class Ledger:
    """Grows record by record, in the order of the stream."""

    session: str = ""
    source: dict[str, Any] = field(default_factory=dict)
    started: int = 0
    frames: int = 0
    events: int = 0
    ended: bool = False
    total: int = 0
    """events of all procs, as the end mark says"""
    last_number: int = -1
    """of the last frame"""
    lost: dict[str, int] = field(default_factory=dict)
    """events of all procs, by cause"""
    late: bool = False
    """the stream does not begin with the session's first generation"""
    opening: bool = False
    """the accounts that follow are those from before it"""
    procs: dict[int, ProcAccount] = field(default_factory=dict)
    monotonic: int = 0
    """the session's clock when it was ``started``"""
    exchanges: list[Exchange] = field(default_factory=list)
    """the last ones with services"""
    _offset: ClockOffset | None = field(default=None, compare=False, repr=False)
    _offset_by: list[Exchange] | None = field(default=None, compare=False, repr=False)

    def note(self, number: int, record: object) -> None:
        """Enter one frame and what it says (see `tracesvc.store.intake.record_of`)."""
        if self.opening and not isinstance(record, Procs):
            self.opening = False
        match record:
            case Glance(proc, first, count, frames):
                self.frames += frames - 1
                end = first + count
                account = self._proc(proc)
                account.stored += count
                account.emitted = max(account.emitted, end)
                self.events += count
            case Loss(rows):
                for loss in rows:
                    account = self._proc(loss.proc)
                    lost = loss.last - loss.first + 1
                    account.lost[loss.cause] = _sum(account.lost.get(loss.cause, 0), lost)
                    cause = _cause(loss.cause)
                    self.lost[cause] = _sum(self.lost.get(cause, 0), lost)
                    account.emitted = max(account.emitted, loss.last + 1)
            case Procs(rows):
                for row in rows:
                    account = self._proc(row.proc)
                    account.name = row.name[:MAX_NAME]
                    if self.opening:
                        account.before = row.emitted
                    account.emitted = max(account.emitted, row.emitted)
            case Generation(number=generation) if self.frames == 1:
                self.late = self.opening = generation > 0
            case Header():
                self.session, self.started = record.session, record.wall
                self.monotonic = record.monotonic
                self.source = _tidied(record.source)
            case Clocks(rows):
                known = dict.fromkeys([*self.exchanges, *sorted(rows)])
                self.exchanges = list(known)[-MAX_EXCHANGES:]
            case End():
                self.ended, self.total = True, record.emitted
            case _:
                pass
        self.frames += 1
        self.last_number = number

    def _proc(self, proc: int) -> ProcAccount:
        account = self.procs.get(proc)
        if account is None:
            account = self.procs[proc] = ProcAccount()
        return account

    @property
    def closed(self) -> bool:
        """Whether the session has ended and emitted = stored + lost holds for every proc and for the whole.

        A stream that begins late knows nothing of procs that had ended by then, which its end mark counts.
        """
        total = sum(account.emitted for account in self.procs.values())
        return (
            self.ended
            and (self.total == total or (self.late and self.total > total))
            and all(account.closed for account in self.procs.values())
        )

    def as_dict(self) -> dict[str, Any]:
        """As `tracesvc.store.Store.ledger` promises."""
        procs = {
            str(proc): {
                "name": account.name,
                "emitted": account.emitted - account.before,
                "stored": account.stored,
                "lost": {_cause(cause): n for cause, n in account.lost.items()},
            }
            for proc, account in sorted(self.procs.items())
        }
        return {"procs": procs, "closed": self.closed}

    @property
    def clock(self) -> list[Any]:
        """What is known of the session's clock, to be packed."""
        return [self.monotonic, [list(one) for one in self.exchanges]]

    @property
    def offset(self) -> ClockOffset | None:
        """How far the session's time of day is from the service's."""
        if self._offset_by is not self.exchanges:  # they are replaced, not changed
            self._offset_by = self.exchanges
            self._offset = offset_of(self.source, self.monotonic, self.started, self.exchanges)
        return self._offset

    def pack(self) -> bytes:
        """For the catalogue."""
        procs = [
            [proc, a.name, a.emitted, a.stored, a.lost, a.before] for proc, a in self.procs.items()
        ]
        fields = [
            self.session,
            self.source,
            self.started,
            self.frames,
            self.events,
            self.ended,
            self.total,
            self.last_number,
            self.lost,
            self.late,
            self.opening,
            self.clock,
            procs,
        ]
        packed: bytes = msgpack.packb(fields)
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> Ledger:
        *fields, procs = msgpack.unpackb(packed, strict_map_key=False)
        ledger = cls(*fields[:11])
        if len(fields) > 11:  # an older one wrote none
            ledger.monotonic, rows = fields[11]
            ledger.exchanges = [Exchange(*row) for row in rows]
        ledger.procs = {proc: ProcAccount(*account) for proc, *account in procs}
        return ledger


def _sum(a: int, b: int) -> int:
    """Their sum, within what can be stored: rows that claim absurd losses are a lie, but no reason to fail."""
    return min(a + b, (1 << 63) - 1)


def _tidied(source: dict[Any, Any]) -> dict[str, Any]:
    """The parts of a source that are plain and short: it is listed for every session."""
    tidied: dict[str, Any] = {}
    for key, value in list(source.items())[:MAX_SOURCE]:
        if isinstance(value, str):
            tidied[str(key)[:MAX_NAME]] = value[:MAX_NAME]
        elif isinstance(value, int) or value is None:
            tidied[str(key)[:MAX_NAME]] = value
        elif isinstance(value, list):
            tidied[str(key)[:MAX_NAME]] = [str(item)[:MAX_NAME] for item in value[:MAX_SOURCE]]
    return tidied


def _cause(cause: int) -> str:
    return _CAUSES.get(cause, f"cause_{cause}")
