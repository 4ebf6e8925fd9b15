"""The bodies of all frames that are not batches of events: typed here, plain msgpack arrays on the wire.

Every record has ``kind`` (which frame it is the body of), ``pack()`` (the msgpack value) and ``unpack(body)``, which
raises `FormatError` for anything it cannot be.  Elements that a newer writer appended to an array are passed over.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Sequence
from dataclasses import field
from typing import Any, ClassVar, Final, NamedTuple

from tracesvc.events import EVENTS, FrameKind
from tracesvc.format.columns import decode_column, encode_column
from tracesvc.format.errors import FormatError, VersionError
from tracesvc.format.frames import Frame
from tracesvc.frozen import Frozen, frozen

__all__ = [
    "VERSION",
    "End",
    "Generation",
    "Header",
    "Loss",
    "LossRow",
    "ProcRow",
    "Procs",
    "RegionRow",
    "Snapshot",
    "SpanRow",
    "Stacks",
    "Strings",
    "TaskRow",
    "digest_of",
    "vocabulary",
]

VERSION: Final = 1
"""major version of the format: a reader refuses a higher one"""


def vocabulary() -> list[list[object]]:
    """The event table as it stands in a header: ``[number, name, [[field, storage], ...]]`` per type."""
    return [[n, e.type, [[f.name, f.storage.value] for f in e.fields]] for n, e in EVENTS.items()]


def _refuse_newer(body: object, at: int) -> None:
    """Look at the version before anything else: a newer one may have changed the rest."""
    if (
        isinstance(body, list)
        and len(body) > at
        and isinstance(body[at], int)
        and body[at] > VERSION
    ):
        raise VersionError(
            f"this trace is of format version {body[at]}; this tracesvc reads up to {VERSION}: upgrade"
        )


def _row(kind: str, value: object, types: Sequence[type | tuple[type, ...]]) -> list[Any]:
    """``value`` as a list whose first elements are of the types given."""
    if not isinstance(value, list) or len(value) < len(types):
        raise FormatError(f"{kind}: not an array of at least {len(types)}")
    for i, (item, wanted) in enumerate(zip(value, types, strict=False)):
        if not isinstance(item, wanted):
            raise FormatError(f"{kind}: element {i} is {type(item).__name__}")
    return value


@frozen
class Header(Frozen):
    """Who was traced, and with which vocabulary."""

    kind: ClassVar[FrameKind] = FrameKind.HEADER

    session: str
    """UUID, in its usual spelling"""
    source: dict[str, Any]
    """``name``, ``host``, ``pid``, ``python``, ``trio``, ``tracesvc``, ``argv``: what is known of the program"""
    monotonic: int
    """ns, `time.monotonic_ns` at the start"""
    wall: int
    """ns since the epoch at the same moment"""
    options: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION
    events: list[Any] = field(default_factory=vocabulary)

    def pack(self) -> list[object]:
        session = uuid.UUID(self.session).bytes
        return [
            self.version,
            session,
            self.source,
            self.monotonic,
            self.wall,
            self.options,
            self.events,
        ]

    @classmethod
    def unpack(cls, body: object) -> Header:
        _refuse_newer(body, 0)
        version, session, source, mono, wall, options, events = _row(
            "header", body, (int, bytes, dict, int, int, dict, list)
        )[:7]
        if len(session) != 16:
            raise FormatError("header: the session is not a UUID")
        return cls(str(uuid.UUID(bytes=session)), source, mono, wall, options, version, events)


@frozen
class Generation(Frozen):
    """A generation begins. From here on the string and stack tables are empty."""

    kind: ClassVar[FrameKind] = FrameKind.GENERATION

    number: int
    monotonic: int
    wall: int
    session: str
    version: int = VERSION

    def pack(self) -> list[object]:
        return [self.number, self.monotonic, self.wall, uuid.UUID(self.session).bytes, self.version]

    @classmethod
    def unpack(cls, body: object) -> Generation:
        _refuse_newer(body, 4)
        number, mono, wall, session, version = _row(
            "generation", body, (int, int, int, bytes, int)
        )[:5]
        if len(session) != 16:
            raise FormatError("generation: the session is not a UUID")
        return cls(number, mono, wall, str(uuid.UUID(bytes=session)), version)


class ProcRow(NamedTuple):
    """The account of one proc up to this place in the stream."""

    proc: int
    kind: int
    """`tracesvc.events.ProcKind`"""
    name: str
    thread: int
    emitted: int
    """events so far, lost ones included: the next sequence number"""
    lost: int
    live: bool
    """False: the proc has ended and this is its last account"""
    digest: int | None = None
    """control total over its EVENTS frames so far, see `digest_of`; `SessionWriter` fills it in"""


def digest_of(frame: Frame, before: int) -> int:
    """The control total of a proc with one more EVENTS frame.

    Raises:
      FormatError: the frame cannot be decompressed.
    """
    return zlib.crc32(frame.checksum(), before)


@frozen
class Procs(Frozen):
    """Accounts: of every live proc at the start of a generation and before the end, of an ended one once more."""

    kind: ClassVar[FrameKind] = FrameKind.PROCS

    rows: list[ProcRow]

    def pack(self) -> list[object]:
        return [list(row if row.digest is not None else row[:7]) for row in self.rows]

    @classmethod
    def unpack(cls, body: object) -> Procs:
        if not isinstance(body, list):
            raise FormatError("procs: not an array")
        rows = [_row("procs", row, (int, int, str, int, int, int, bool)) for row in body]
        if not all(type(row[7]) is int for row in rows if len(row) > 7):
            raise FormatError("procs: a digest is not a number")
        return cls([ProcRow(*row[:8]) for row in rows])


@frozen
class Strings(Frozen):
    """New rows of the string table. Id 0 is the empty string and never listed."""

    kind: ClassVar[FrameKind] = FrameKind.STRINGS

    rows: list[tuple[int, str]]

    def pack(self) -> list[object]:
        return [list(row) for row in self.rows]

    @classmethod
    def unpack(cls, body: object) -> Strings:
        if not isinstance(body, list):
            raise FormatError("strings: not an array")
        rows = [_row("strings", row, (int, str)) for row in body]
        if not all(row[0] > 0 for row in rows):
            raise FormatError("strings: an id is not positive")
        return cls([(row[0], row[1]) for row in rows])


@frozen
class Stacks(Frozen):
    """New rows of the stack table: id and frames, innermost first, each (function, file, line); names as string ids."""

    kind: ClassVar[FrameKind] = FrameKind.STACKS

    rows: list[tuple[int, list[tuple[int, int, int]]]]

    def pack(self) -> list[object]:
        return [[number, [list(frame) for frame in frames]] for number, frames in self.rows]

    @classmethod
    def unpack(cls, body: object) -> Stacks:
        if not isinstance(body, list):
            raise FormatError("stacks: not an array")
        rows = []
        for row in body:
            number, frames = _row("stacks", row, (int, list))[:2]
            places = [_row("stacks", frame, (int, int, int)) for frame in frames]
            rows.append((number, [(place[0], place[1], place[2]) for place in places]))
        return cls(rows)


class LossRow(NamedTuple):
    """Events ``first`` to ``last`` (inclusive) of a proc that are not in the stream."""

    proc: int
    first: int
    last: int
    cause: int
    """`tracesvc.events.LossCause`"""
    start: int
    """ns: none of them is older"""
    end: int
    """ns: none of them is younger"""


@frozen
class Loss(Frozen):
    """What was lost since the last such frame."""

    kind: ClassVar[FrameKind] = FrameKind.LOSS

    rows: list[LossRow]

    def pack(self) -> list[object]:
        return [list(row) for row in self.rows]

    @classmethod
    def unpack(cls, body: object) -> Loss:
        if not isinstance(body, list):
            raise FormatError("loss: not an array")
        return cls([LossRow(*_row("loss", row, (int,) * 6)[:6]) for row in body])


class TaskRow(NamedTuple):
    """One live task in a snapshot; strings as ids."""

    task: int
    parent: int
    nursery: int
    name: int
    entry: int
    state: int
    """`tracesvc.events.TaskState`"""
    since: int
    """ns: when it came into this state"""
    reason: int
    object: int
    stack: int = 0
    """where it is suspended, as far as that is known; not in traces of earlier versions"""


class SpanRow(NamedTuple):
    """One open span in a snapshot."""

    span: int
    parent: int
    task: int
    since: int
    name: int
    attributes: dict[str, Any] | None


class RegionRow(NamedTuple):
    """One open region in a snapshot."""

    region: int
    task: int
    since: int
    name: int
    attributes: dict[str, Any] | None


@frozen
class Snapshot(Frozen):
    """One part of the state at this place in the stream: after event ``seq - 1`` of ``proc``."""

    kind: ClassVar[FrameKind] = FrameKind.SNAPSHOT

    proc: int
    """the run whose tasks these are; spans and regions come with proc 0"""
    seq: int
    part: int
    parts: int
    tasks: list[TaskRow] = field(default_factory=list)
    spans: list[SpanRow] = field(default_factory=list)
    regions: list[RegionRow] = field(default_factory=list)

    def pack(self) -> list[object]:
        columns = [encode_column(column) for column in zip(*self.tasks, strict=True)]
        return [
            self.proc,
            self.seq,
            self.part,
            self.parts,
            len(self.tasks),
            columns,
            [list(row) for row in self.spans],
            [list(row) for row in self.regions],
        ]

    @classmethod
    def unpack(cls, body: object) -> Snapshot:
        proc, seq, part, parts, n, columns, spans, regions = _row(
            "snapshot", body, (int, int, int, int, int, list, list, list)
        )[:8]
        required = len(TaskRow._fields) - len(TaskRow._field_defaults)
        if not 0 <= n <= 1 << 16 or (n and len(columns) < required):
            raise FormatError("snapshot: columns of the tasks are missing")
        decoded = [decode_column(column, n) for column in columns[: len(TaskRow._fields)]]
        attributes = (dict, type(None))
        return cls(
            proc,
            seq,
            part,
            parts,
            [TaskRow(*row) for row in zip(*decoded, strict=True)],
            [
                SpanRow(*_row("snapshot span", row, (int, int, int, int, int, attributes))[:6])
                for row in spans
            ],
            [
                RegionRow(*_row("snapshot region", row, (int, int, int, int, attributes))[:5])
                for row in regions
            ],
        )


@frozen
class End(Frozen):
    """The session was stopped and this is the whole of it."""

    kind: ClassVar[FrameKind] = FrameKind.END

    monotonic: int
    wall: int
    emitted: int
    """events of all procs of the session"""
    lost: int
    """of them, lost before they reached any sink; what this stream's own sink lost stands in LOSS frames only"""

    def pack(self) -> list[object]:
        return [self.monotonic, self.wall, self.emitted, self.lost]

    @classmethod
    def unpack(cls, body: object) -> End:
        return cls(*_row("end", body, (int, int, int, int))[:4])
