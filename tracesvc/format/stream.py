"""Bytes -> records and batches, without I/O: what a reader of a stream works with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tracesvc.events import Event, FrameKind, Frames
from tracesvc.format.batch import Batch
from tracesvc.format.clocks import Clocks
from tracesvc.format.errors import FormatError, VersionError
from tracesvc.format.frames import Damage, Frame, FrameDecoder
from tracesvc.format.records import End, Generation, Header, Loss, Procs, Snapshot, Stacks, Strings
from tracesvc.frozen import Frozen, frozen

__all__ = ["Item", "Record", "StreamDecoder"]

Record = Header | Generation | Procs | Strings | Stacks | Snapshot | Loss | End | Clocks | Batch

_UNPACK: dict[int, Callable[[object], Record]] = {
    FrameKind.HEADER: Header.unpack,
    FrameKind.GENERATION: Generation.unpack,
    FrameKind.PROCS: Procs.unpack,
    FrameKind.STRINGS: Strings.unpack,
    FrameKind.STACKS: Stacks.unpack,
    FrameKind.EVENTS: Batch,
    FrameKind.SNAPSHOT: Snapshot.unpack,
    FrameKind.LOSS: Loss.unpack,
    FrameKind.END: End.unpack,
    FrameKind.CLOCKS: Clocks.unpack,
}


@frozen
class Item(Frozen):
    """A good frame and what it says; ``record`` is None where the kind of frame is not known to this version."""

    frame: Frame
    record: Record | None


class StreamDecoder:
    """``feed()`` bytes in pieces of any size, iterate: an `Item` for each good frame, a `Damage` for anything else.

    A frame whose checksum is right but whose body is not what its kind demands is a `Damage` too, and so is all that
    belongs to another session than the first, or to a newer version of the format.  Keeps the string and stack tables
    of the generation that it is in: ``text(id)`` resolves a name as of the item that came last.  Where frames miss
    that may have begun a generation the tables are emptied: a name is rather unknown than wrong.
    """

    def __init__(self, offset: int = 0) -> None:
        self._frames = FrameDecoder(offset)
        self._next: int | None = None
        self._refused: str | None = None
        self.strings: dict[int, str] = {0: ""}
        """the string table; a new object for every generation"""
        self.stacks: dict[int, list[tuple[int, int, int]]] = {}
        """the stack table; a new object for every generation"""
        self.session: str | None = None

    @property
    def offset(self) -> int:
        """Offset behind the last item."""
        return self._frames.offset

    @property
    def pending(self) -> int:
        """Bytes held back for an incomplete frame."""
        return self._frames.pending

    @property
    def lost(self) -> bool:
        """Whether the last bytes fed are within damage: no good frame has come since."""
        return self._frames.lost

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        self._frames.feed(data)

    def close(self) -> None:
        """Nothing follows: an incomplete frame at the end becomes a `Damage`."""
        self._frames.close()

    def resync(self) -> bool:
        """See `FrameDecoder.resync`."""
        return self._frames.resync()

    def text(self, number: int) -> str:
        """The name with this id; ``"?7"`` for an id whose table row is missing (its frame was damaged or skipped)."""
        text = self.strings.get(number)
        return f"?{number}" if text is None else text

    def knows(self, number: int) -> bool:
        """Whether the string table has this id."""
        return number in self.strings

    def stack(self, number: int) -> Frames:
        """The stack with this id, innermost frame first; () for none, and where its table row is missing."""
        return tuple(
            (self.text(function), self.text(file), line)
            for function, file, line in self.stacks.get(number, ())
        )

    def events(self, batch: Batch) -> Iterator[Event]:
        """The events of a batch of the current generation, typed."""
        return batch.events(self.text, self.stack)

    def __iter__(self) -> Iterator[Item | Damage]:
        for frame in self._frames:
            if isinstance(frame, Damage):
                yield frame
                continue
            missing = 0 if self._next is None else frame.number - self._next
            self._next = frame.number + 1
            # GENERATION is always followed by PROCS: a single missing frame before any other kind was none.
            if missing > 1 or (missing == 1 and frame.kind == FrameKind.PROCS):
                self._forget()
            unpack = _UNPACK.get(frame.kind)
            try:
                record = unpack(frame.body()) if unpack is not None else None
                self._note(record)
            except FormatError as exc:
                if frame.kind in (FrameKind.GENERATION, FrameKind.STRINGS):
                    self._forget()
                if isinstance(exc, VersionError):
                    self._refused = str(exc)
                yield Damage(frame.offset, frame.end, str(exc))
            else:
                yield Item(frame, record)

    def _forget(self) -> None:
        self.strings, self.stacks = {0: ""}, {}

    def _note(self, record: Record | None) -> None:
        if isinstance(record, Header | Generation):
            if self.session is None:
                self.session = record.session
            self._refused = None
            if record.session != self.session:
                self._refused = (
                    f"a frame of session {record.session} in the stream of {self.session}"
                )
        if self._refused is not None:
            raise FormatError(self._refused)
        match record:
            case Generation():
                self._forget()
            case Strings(rows):
                self.strings.update(rows)
            case Stacks(rows):
                self.stacks.update(rows)
