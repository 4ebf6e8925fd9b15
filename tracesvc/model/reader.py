"""`read`: a trace from a file, a stream or bytes; its events one by one, in batches or in columns.

A `Trace` is read like a file: once, from front to back, by whatever way of iteration, and `Trace.rewind` begins again.
Only the frames at hand are in memory.  A trace that is still being written is no special case: iteration ends where the
data end, an incomplete frame at the end is kept for later, and iterating again goes on with what has come since.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from tracesvc.events import Event, Frames
from tracesvc.format import (
    Batch,
    Damage,
    End,
    FormatError,
    Frame,
    FrameDecoder,
    Generation,
    Header,
    Item,
    LossRow,
    StreamDecoder,
)
from tracesvc.format.records import Loss
from tracesvc.model.choice import Choice
from tracesvc.model.source import open_trace

if TYPE_CHECKING:
    from tracesvc.model.columns import Builder, Columns

__all__ = ["MAX_LISTED", "Readable", "Session", "Source", "Trace", "read"]


class Readable(Protocol):
    """A binary file, or whatever reads like one."""

    def read(self, n: int, /) -> bytes: ...


Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable

PIECE: Final = 1 << 20
"""bytes read at a time"""
MAX_LISTED: Final = 1000
"""damages and losses kept as items; beyond that they are only counted"""


@dataclass(frozen=True, slots=True)
class Session:
    """One tracer from start to stop."""

    id: str
    """UUID"""
    source: dict[str, Any]
    """what is known of the program: ``name``, ``host``, ``pid``, ...; empty where the header is missing"""
    started: int | None
    """ns since the epoch"""
    monotonic: int | None
    """ns of the trace's clock at the same moment"""
    choice: Choice = field(default_factory=Choice)
    """what was chosen to be recorded"""
    origin: str = ""
    """of which session this is a part, and why it was made of it; empty: it is no part of another"""

    def wall(self, time: int) -> int | None:
        """Time of day, in ns since the epoch, of a time in the trace (by the clocks at the start)."""
        if self.started is None or self.monotonic is None:
            return None
        return self.started + time - self.monotonic


def _origin(options: dict[str, Any]) -> str:
    if "recovered_from" in options:
        return f"recovered from the black box of session {options['recovered_from']}"
    if "snapshot_of" not in options:
        return ""
    origin = f"a snapshot of session {options['snapshot_of']}"
    return (
        f"{origin}; {options['trigger']}: {options.get('why')}" if "trigger" in options else origin
    )


def read(source: Source) -> Trace:
    """Open a trace.

    ::

        with tracesvc.read("app.trace") as trace:
            for event in trace:
                print(event)

    Args:
        source: A path (of a file, or of a directory with the segments of a session, as a service keeps them), an open
            binary file (or anything with ``read(n)``), or the bytes themselves.

    Raises:
        OSError: The file cannot be opened.
        TypeError: ``source`` is none of these.
    """
    if isinstance(source, str | os.PathLike):
        return Trace(open_trace(Path(source)), owned=True)
    if isinstance(source, bytes | bytearray | memoryview):
        return Trace(io.BytesIO(source), owned=True)
    if not callable(getattr(source, "read", None)):
        raise TypeError(f"source must be a path, a binary file or bytes, not {source!r}")
    return Trace(source, owned=False)


class Trace:
    """A trace that is being read; made by `read`.

    Iterating gives the events, typed, in the order in which they are stored: that of the program for every single proc,
    but not between procs.  Sort by ``time`` where that matters.

    Closing it is needed only to give back the file early; a context manager does that.
    """

    def __init__(self, file: Readable, *, owned: bool) -> None:
        self._file = file
        self._owned = owned
        self._reset()

    def _reset(self) -> None:
        self._decoder = StreamDecoder()
        self._items = iter(self._decoder)
        self._ahead: deque[Item | Damage] = deque()
        self._header: Header | None = None
        self._frames = 0
        self._builder: Builder | None = None
        self.damage: list[Damage] = []
        """byte ranges that could not be read, as far as reading has come (the first 1,000)"""
        self.losses: list[LossRow] = []
        """what the recorder or a sink says was lost, as far as reading has come (the first 1,000)"""
        self.generation: Generation | None = None
        """the generation that reading has come to"""
        self.end: End | None = None
        """the end mark, once it has been read; without one the trace is being written, or was cut off"""

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, if `read` opened it."""
        if self._owned:
            file: Any = self._file
            file.close()

    def __del__(self) -> None:
        # `for event in read(path)` leaves nobody to close it, and that is no mistake to warn of.
        self.close()

    def rewind(self) -> None:
        """Begin again at the front.

        Raises:
          OSError: the source cannot seek.
          AttributeError: it has no ``seek`` at all.
        """
        file: Any = self._file
        file.seek(0)
        self._reset()

    # --- what it is ------------------------------------------------------------------------------

    @property
    def header(self) -> Header | None:
        """The header frame; None where it is damaged or has not been written yet."""
        self._look_ahead()
        return self._header

    @property
    def session(self) -> Session | None:
        """Whose trace it is; None as long as there is no frame that says so."""
        self._look_ahead()
        if self._header is not None:
            header = self._header
            choice = Choice.of(header.options)
            origin = _origin(header.options)
            return Session(
                header.session, header.source, header.wall, header.monotonic, choice, origin
            )
        if self._decoder.session is not None:
            return Session(self._decoder.session, {}, None, None)
        return None

    @property
    def offset(self) -> int:
        """Bytes read so far that belong to whole frames or to damage."""
        return self._decoder.offset

    @property
    def pending(self) -> int:
        """Bytes of an incomplete frame at the end of what has been read."""
        return self._decoder.pending

    def text(self, number: int) -> str:
        """A name of the current generation, for the ids in a `Batch`."""
        return self._decoder.text(number)

    def stack(self, number: int) -> Frames:
        """A stack of the current generation, for the ids in a `Batch`."""
        return self._decoder.stack(number)

    def knows(self, number: int) -> bool:
        """Whether the current generation has a name with this id."""
        return self._decoder.knows(number)

    # --- ways to read it -------------------------------------------------------------------------

    def items(self) -> Iterator[Item | Damage]:
        """Every frame with its decoded body, and every damage, in order.

        Raises:
          FormatError: the data do not even begin like a trace, and there is no frame in them.
        """
        while True:
            item = self._ahead.popleft() if self._ahead else self._pull()
            if item is None:
                return
            self._note(item)
            yield item

    def batches(self) -> Iterator[Batch]:
        """The batches of events, as they are stored.

        ``trace.text`` resolves the names of a batch until the next one is asked for.
        """
        for item in self.items():
            if isinstance(item, Item) and isinstance(item.record, Batch):
                yield item.record

    def __iter__(self) -> Iterator[Event]:
        for item in self.items():
            if isinstance(item, Item) and isinstance(item.record, Batch):
                try:
                    events = list(self._decoder.events(item.record))
                except FormatError as exc:
                    self._note_damage(Damage(item.frame.offset, item.frame.end, str(exc)))
                    continue
                yield from events

    def builder(self) -> Builder:
        """Makes columns of the batches that it is given from `items`; for who wants to see the other frames too.

        Raises:
          ImportError: NumPy is not installed.
        """
        if self._builder is None:
            try:
                from tracesvc.model.columns import Builder
            except ImportError as exc:
                raise ImportError("columns need NumPy: pip install 'tracesvc[analysis]'") from exc
            self._builder = Builder(self._decoder)
        return self._builder

    def chunks(self, events: int = 1 << 17) -> Iterator[Columns]:
        """Columns of about so many events at a time: what to analyse a large trace with.

        Raises:
          ImportError: NumPy is not installed.
        """
        builder = self.builder()
        for item in self.items():
            if builder.add(item) >= events:
                yield builder.take()
                self._note_damages(builder)
        if builder.count:
            yield builder.take()
        self._note_damages(builder)

    def columns(self) -> Columns:
        """All events from here to the end, as NumPy arrays.

        Raises:
          ImportError: NumPy is not installed.
        """
        builder = self.builder()
        for item in self.items():
            builder.add(item)
        columns = builder.take()
        self._note_damages(builder)
        return columns

    def frames(self) -> Iterator[Frame]:
        """Every good frame as it lies, from the front, for who wants to look into few of them; `rewind` when done.

        Raises:
          OSError: the source cannot seek, or cannot be read.
          AttributeError: it has no ``seek`` at all.
        """
        self.rewind()
        decoder = FrameDecoder()
        while data := self._file.read(PIECE):
            decoder.feed(data)
            yield from (found for found in decoder if isinstance(found, Frame))
        decoder.close()
        yield from (found for found in decoder if isinstance(found, Frame))

    # --- inside ----------------------------------------------------------------------------------

    def _look_ahead(self) -> None:
        if not self._frames and not self._ahead:
            item = self._pull()
            if item is not None:
                self._ahead.append(item)

    def _pull(self) -> Item | Damage | None:
        """The next item, or None at the present end of the data."""
        while True:
            item = next(self._items, None)
            if item is not None:
                if isinstance(item, Item):
                    self._frames += 1
                    if isinstance(item.record, Header) and self._header is None:
                        self._header = item.record
                return item
            self._items = iter(self._decoder)
            data = self._file.read(PIECE)
            if not isinstance(data, bytes | bytearray | memoryview):
                raise TypeError(f"read() of a trace's source gave {type(data).__name__}, not bytes")
            if data:
                self._decoder.feed(data)
            elif not self._frames and self._decoder.lost:
                raise FormatError("not a trace: there is no frame in it")
            elif not self._decoder.resync():
                return None

    def _note(self, item: Item | Damage) -> None:
        if isinstance(item, Damage):
            self._note_damage(item)
            return
        match item.record:
            case Generation() as generation:
                self.generation = generation
            case Loss(rows):
                self.losses += rows[: max(0, MAX_LISTED - len(self.losses))]
            case End() as end:
                self.end = end

    def _note_damage(self, damage: Damage) -> None:
        if len(self.damage) < MAX_LISTED:
            self.damage.append(damage)

    def _note_damages(self, builder: Builder) -> None:
        for damage in builder.damage:
            self._note_damage(damage)
        builder.damage.clear()
