"""Bytes -> records and batches, without I/O: what a reader of a stream works with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tracesvc.events import Event, FrameKind
from tracesvc.format.batch import Batch
from tracesvc.format.errors import FormatError
from tracesvc.format.frames import Damage, Frame, FrameDecoder
from tracesvc.format.records import End, Generation, Header, Loss, Procs, Snapshot, Stacks, Strings

__all__ = ["Record", "Item", "StreamDecoder"]

Record = Header | Generation | Procs | Strings | Stacks | Snapshot | Loss | End | Batch

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
}


@dataclass(frozen=True, slots=True)
class Item:
    """A good frame and what it says; ``record`` is None where the kind of frame is not known to this version."""

    frame: Frame
    record: Record | None


class StreamDecoder:
    """``feed()`` bytes in pieces of any size, iterate: an `Item` for each good frame, a `Damage` for anything else.

    A frame whose checksum is right but whose body is not what its kind demands is a `Damage` too.  Keeps the string
    and stack tables of the generation that it is in: ``text(id)`` resolves a name as of the item that came last.
    """

    def __init__(self, offset: int = 0) -> None:
        self._frames = FrameDecoder(offset)
        self._strings: dict[int, str] = {0: ""}
        self.stacks: dict[int, list[tuple[int, int, int]]] = {}
        self.session: str | None = None

    @property
    def offset(self) -> int:
        """Offset behind the last item."""
        return self._frames.offset

    @property
    def pending(self) -> int:
        """Bytes held back for an incomplete frame."""
        return self._frames.pending

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        self._frames.feed(data)

    def close(self) -> None:
        """Nothing follows: an incomplete frame at the end becomes a `Damage`."""
        self._frames.close()

    def text(self, number: int) -> str:
        """The name with this id; ``"?7"`` for an id whose table row is missing (its frame was damaged or skipped)."""
        text = self._strings.get(number)
        return f"?{number}" if text is None else text

    def knows(self, number: int) -> bool:
        """Whether the string table has this id."""
        return number in self._strings

    def events(self, batch: Batch) -> Iterator[Event]:
        """The events of a batch of the current generation, typed."""
        return batch.events(self.text)

    def __iter__(self) -> Iterator[Item | Damage]:
        for frame in self._frames:
            if isinstance(frame, Damage):
                yield frame
                continue
            unpack = _UNPACK.get(frame.kind)
            if unpack is None:
                yield Item(frame, None)
                continue
            try:
                record = unpack(frame.body())
                self._note(record)
            except FormatError as exc:
                yield Damage(frame.offset, frame.end, str(exc))
            else:
                yield Item(frame, record)

    def _note(self, record: Any) -> None:
        match record:
            case Strings(rows):
                self._strings.update(rows)
            case Stacks(rows):
                self.stacks.update(rows)
            case Header(session=session) | Generation(session=session):
                if self.session is not None and session != self.session:
                    raise FormatError(f"a frame of session {session} in the stream of {self.session}")
                self.session = session
                if isinstance(record, Generation):
                    self._strings, self.stacks = {0: ""}, {}
