"""Records -> frames, without I/O: numbers the frames of a session and keeps the tables of the generation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final, Protocol

from tracesvc.events import FrameKind
from tracesvc.format.batch import MAX_EVENTS, SLOTS, encode_batch
from tracesvc.format.clocks import Clocks, Exchange
from tracesvc.format.errors import FormatError
from tracesvc.format.frames import HEADER_SIZE, MAX_FRAME, Frame, encode_frame
from tracesvc.format.records import (
    End,
    Generation,
    Header,
    Loss,
    LossRow,
    ProcRow,
    Procs,
    Snapshot,
    Stacks,
    Strings,
    digest_of,
)

__all__ = ["SessionWriter"]

ROWS_PER_FRAME: Final = 256
"""rows of names (up to 1 KiB each) that surely fit in one frame"""


class _Record(Protocol):
    kind: ClassVar[FrameKind]

    def pack(self) -> list[object]: ...


class _StringTable(dict[str, int]):
    """name -> id; a name not seen yet gets the next id and is noted in ``new``."""

    def __init__(self) -> None:
        super().__init__({"": 0})
        self.new: list[tuple[int, str]] = []

    def __missing__(self, name: str) -> int:
        number = len(self)
        self[name] = number
        self.new.append((number, name))
        return number


class _StackTable(dict[Any, int]):
    """A stack -> its id: an object that is told apart by what it is, with its ``frames``; see `Frames`."""

    def __init__(self, intern: Callable[[str], int]) -> None:
        super().__init__({None: 0})
        self._intern = intern
        self.new: list[tuple[int, list[tuple[int, int, int]]]] = []

    def __missing__(self, stack: Any) -> int:
        number = self[stack] = len(self)
        self.new.append((number, self.rows(stack)))
        return number

    def rows(self, stack: Any) -> list[tuple[int, int, int]]:
        """Its frames, with ids in the place of names."""
        frames = stack.frames if hasattr(stack, "frames") else stack
        return [
            (self._intern(function), self._intern(file), line) for function, file, line in frames
        ]


class EncodesItself(Protocol):
    """Records of one proc, in order of time, that are not kept in a list; as if each were ``(type, time, a, b, c)``."""

    def __len__(self) -> int:
        """Events."""

    @property
    def first_time(self) -> int: ...

    @property
    def last_time(self) -> int: ...

    def record(self, i: int, /) -> tuple[Any, ...]: ...

    def encode(
        self, proc: int, first: int, strings: dict[str, int], stacks: dict[Any, int], /
    ) -> list[object]:
        """What `encode_batch` would make of them."""


class SessionWriter:
    """Makes the frames of one session, in order.

    Every method returns the frames to append to the stream; numbering and string tables are taken care of.  The order
    that a valid stream has: header, then generations, each: `generation`, `snapshot`s, then `events` and `losses`;
    at the end `end`.
    """

    def __init__(self) -> None:
        self._number = 0
        self._offset = 0
        self._new_tables()
        self._digests: dict[int, int] = {}
        """of each proc: the control total of its EVENTS frames"""

    @classmethod
    def going_on(
        cls,
        number: int,
        offset: int,
        strings: dict[int, str],
        stacks: dict[int, list[tuple[int, int, int]]],
        digests: dict[int, int],
    ) -> SessionWriter:
        """One that goes on within a generation which another has begun: what a `StreamDecoder` knows at its end."""
        self = cls()
        self._number, self._offset, self._digests = number, offset, dict(digests)
        for i in range(1, max(strings, default=0) + 1):
            # an id whose text is not known, or was there before, keeps its place
            text = strings.get(i, "")
            self._strings.setdefault(text if text not in self._strings else f"\0{i}", i)
        for i in range(1, max(stacks, default=0) + 1):
            frames = tuple(
                (strings.get(a, ""), strings.get(b, ""), n) for a, b, n in stacks.get(i, ())
            )
            self._stacks[frames if frames not in self._stacks else i] = i
        self._names_told, self._stacks_told = len(self._strings), len(self._stacks)
        return self

    def _new_tables(self) -> None:
        self._strings = _StringTable()
        self._stacks = _StackTable(self._strings.__getitem__)
        self._names_told, self._stacks_told = len(self._strings), len(self._stacks)
        self._tell_again = False

    @property
    def frames(self) -> int:
        """Frames made so far."""
        return self._number

    def _frame(self, record: _Record) -> Frame:
        return self._seal(record.kind, record.pack())

    def _seal(self, kind: FrameKind, body: object, *events: int) -> Frame:
        data = encode_frame(kind, self._number, body)
        frame = Frame(kind, self._number, data, self._offset, *events)
        self._number += 1
        self._offset += len(data)
        return frame

    def header(self, header: Header) -> Frame:
        return self._frame(header)

    def generation(self, generation: Generation, procs: Sequence[ProcRow]) -> list[Frame]:
        """Begin a generation: tables start empty, and every live proc is accounted for."""
        self._new_tables()
        return [self._frame(generation), *self.procs(procs)]

    def procs(self, rows: Sequence[ProcRow]) -> list[Frame]:
        """Accounts; their control totals are filled in."""
        rows = [row._replace(digest=self._digests.get(row.proc, 0)) for row in rows]
        return [
            self._frame(Procs(list(rows[i : i + ROWS_PER_FRAME])))
            for i in range(0, len(rows) or 1, ROWS_PER_FRAME)
        ]

    def intern(self, name: str) -> int:
        """Id of a name in this generation, for a `snapshot`."""
        return self._strings[name]

    def intern_stack(self, stack: Any) -> int:
        """Id of a stack in this generation, for a `snapshot`; 0 for None."""
        return self._stacks[stack]

    def snapshot(self, snapshot: Snapshot) -> list[Frame]:
        """A part of a snapshot whose names and stacks were given by `intern` and `intern_stack`."""
        body = snapshot.pack()
        return [
            *self._new_strings(),
            *self._new_stacks(),
            self._seal(FrameKind.SNAPSHOT, body),
        ]

    def mark(self, proc: int) -> tuple[int, ...]:
        """Where the stream stands, before something of ``proc`` is made; for `rewind`."""
        digest = self._digests.setdefault(proc, 0)
        return self._number, self._offset, self._names_told, self._stacks_told, proc, digest

    def rewind(self, mark: tuple[int, ...]) -> None:
        """The frames made since then are lost, and with them names that they told: those are to be told yet."""
        self._number, self._offset, self._names_told, self._stacks_told, proc, digest = mark
        self._digests[proc] = digest
        self._tell_again = True  # later: it may be memory that was missing

    def _note_untold(self) -> None:
        """The names and stacks that no frame has told, under the ids that they have."""
        stacks = [one for one in self._stacks.items() if one[1] >= self._stacks_told]
        self._stacks.new = [(number, self._stacks.rows(stack)) for stack, number in stacks]
        names = [one for one in self._strings.items() if one[1] >= self._names_told]
        self._strings.new = [(number, name) for name, number in names]
        self._tell_again = False

    def events(self, proc: int, first: int, records: list[Any] | EncodesItself) -> list[Frame]:
        """A batch, cut into as many frames as its size asks for; ``records`` as `encode_batch` takes them.

        Raises:
          FormatError: a single event is larger than a frame.
        """
        count = len(records) // SLOTS if isinstance(records, list) else len(records)
        if not count:
            return []
        before = self.mark(proc)
        try:
            return self._events(proc, first, records, count)
        except (FormatError, MemoryError):
            self.rewind(before)
            raise

    def _events(
        self, proc: int, first: int, records: list[Any] | EncodesItself, count: int
    ) -> list[Frame]:
        tables: list[Frame] = []
        if count <= MAX_EVENTS:
            if isinstance(records, list):
                names, stacks = self._strings.__getitem__, self._stacks.__getitem__
                body = encode_batch(proc, first, records, names, stacks)
                start, end = records[1], records[1 - SLOTS]
            else:
                body = records.encode(proc, first, self._strings, self._stacks)
                start, end = records.first_time, records.last_time
            tables = [*self._new_strings(), *self._new_stacks()]
            try:
                frame = self._seal(FrameKind.EVENTS, body, proc, first, count, start, end)
                self._digests[proc] = digest_of(frame, self._digests.get(proc, 0))
                return [*tables, frame]
            except FormatError:
                if count == 1:
                    raise
        if not isinstance(records, list):
            records = [slot for i in range(count) for slot in records.record(i)]
        half = count // 2
        return [
            *tables,
            *self.events(proc, first, records[: half * SLOTS]),
            *self.events(proc, first + half, records[half * SLOTS :]),
        ]

    def losses(self, rows: Iterable[LossRow]) -> list[Frame]:
        listed = list(rows)
        return [self._frame(Loss(listed[i : i + 4096])) for i in range(0, len(listed), 4096)]

    def end(self, end: End) -> Frame:
        return self._frame(end)

    def clocks(self, rows: Sequence[Exchange]) -> list[Frame]:
        """What is known of other clocks, if anything is."""
        return [self._frame(Clocks(list(rows)))] if rows else []

    def aside(
        self, rows: Sequence[ProcRow], end: End, exchanges: Sequence[Exchange] = ()
    ) -> list[Frame]:
        """Accounts and end mark for one reader that leaves now; the stream of the others goes on without them."""
        before = self._number, self._offset
        frames = [*self.clocks(exchanges), *self.procs(rows), self.end(end)]
        self._number, self._offset = before
        return frames

    def _new_strings(self) -> list[Frame]:
        if self._tell_again:
            self._note_untold()
        new, self._strings.new = self._strings.new, []
        self._names_told = len(self._strings)
        return [
            self._frame(Strings(new[i : i + ROWS_PER_FRAME]))
            for i in range(0, len(new), ROWS_PER_FRAME)
        ]

    def _new_stacks(self) -> list[Frame]:
        new, self._stacks.new = self._stacks.new, []
        self._stacks_told = len(self._stacks)
        return [
            self._frame(Stacks(new[i : i + ROWS_PER_FRAME]))
            for i in range(0, len(new), ROWS_PER_FRAME)
        ]


assert ROWS_PER_FRAME * (1024 + 64) < MAX_FRAME - HEADER_SIZE
