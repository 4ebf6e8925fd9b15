"""Traces that say something else than what happened, with every checksum and batch right again.

A mutation changes one thing in the decoded stream: an event is dropped, doubled, swapped with another, an id or a count
is another one.  Then everything is encoded anew, so frames, checksums, columns and batch counts are those of a good
trace; what was said elsewhere about the changed thing stays as it was.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.traces import Stream, records_of
from tracesvc.events import EVENTS, Event, FrameKind
from tracesvc.format import Batch, Damage, End, Generation, Loss, Procs, Snapshot, StreamDecoder
from tracesvc.format.batch import encode_batch
from tracesvc.format.frames import encode_frame

ROLES = (
    *("task", "waker", "parent", "nursery", "object", "span", "parent span", "region"),
    *("scope", "requester"),
)


@dataclass
class Piece:
    """A frame, decoded; of an EVENTS frame the events too."""

    kind: int
    number: int
    record: Any
    first: int = 0
    proc: int = 0
    events: list[Event] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    data: bytes = b""

    def encode(self) -> bytes:
        if self.data:
            return self.data
        if self.kind == FrameKind.EVENTS:
            body: Any = encode_batch(
                self.proc, self.first, records_of(self.events), self.names.__getitem__
            )
        else:
            body = self.record.pack()
        return encode_frame(FrameKind(self.kind), self.number, body)


def _changed(event: Event, **new: Any) -> Event:
    names = ("time", "proc", "seq", *(f.name for f in event.fields))
    return type(event)(*(new.get(name, getattr(event, name)) for name in names))


def pieces_of(stream: Stream) -> list[Piece]:
    """The stream, decoded."""
    decoder, pieces = StreamDecoder(), []
    for frame in stream.frames:
        decoder.feed(frame.data)
        for item in decoder:
            assert not isinstance(item, Damage)
            piece = Piece(frame.kind, frame.number, item.record, data=frame.data)
            if isinstance(item.record, Batch):
                batch = item.record
                piece.proc, piece.first = batch.proc, batch.first
                piece.events = list(decoder.events(batch))
                piece.names = {text: number for number, text in decoder.strings.items()}
            pieces.append(piece)
    return pieces


class Mutator:
    """Makes mutants of one stream."""

    def __init__(self, stream: Stream, seed: int) -> None:
        self.random = random.Random(seed)
        self.pieces = pieces_of(stream)
        self.batches = [p for p in self.pieces if p.events]
        self.ids: dict[str, list[int]] = {role: [] for role in ROLES}
        self.places: dict[str, list[tuple[Piece, int, str]]] = {role: [] for role in ROLES}
        for piece in self.batches:
            for i, event in enumerate(piece.events):
                for f in event.fields:
                    if f.role in self.ids:
                        self.ids[f.role].append(getattr(event, f.name))
                        self.places[f.role].append((piece, i, f.name))

    def mutant(self) -> tuple[str, str, bytes]:
        """(kind of mutation, what was done, the stream); never the original."""
        original = b"".join(piece.data for piece in self.pieces)
        kinds: dict[str, Callable[[], tuple[str, list[Piece]]]] = {
            "event dropped": self._drop,
            "events swapped": self._swap,
            "event doubled": self._double,
            "id changed": self._change_id,
            "count changed": self._change_count,
        }
        while True:
            kind = self.random.choice(list(kinds))
            what, changed = kinds[kind]()
            replaced = {piece.number: piece for piece in changed}
            data = b"".join(replaced.get(p.number, p).encode() for p in self.pieces)
            if data != original:
                return kind, what, data

    def _with(self, piece: Piece, events: list[Event]) -> Piece:
        return replace(piece, events=events, data=b"")

    def _pick(self) -> tuple[Piece, int]:
        """Any event, each with the same chance."""
        piece = self.random.choices(self.batches, [len(p.events) for p in self.batches])[0]
        return piece, self.random.randrange(len(piece.events))

    def _drop(self) -> tuple[str, list[Piece]]:
        piece, i = self._pick()
        events = [*piece.events[:i], *piece.events[i + 1 :]]
        if not events:
            return "nothing", []
        return f"drop {piece.events[i]}", [self._with(piece, events)]

    def _double(self) -> tuple[str, list[Piece]]:
        piece, i = self._pick()
        events = [*piece.events[: i + 1], *piece.events[i:]]
        return f"double {piece.events[i]}", [self._with(piece, events)]

    def _swap(self) -> tuple[str, list[Piece]]:
        """Two events of a proc change places; the times stay, so that they still ascend."""
        a, i = self._pick()
        near = self.random.random() < 0.5
        others = [a] if near else [p for p in self.batches if p.proc == a.proc]
        b = self.random.choice(others)
        j = i + 1 if near else self.random.randrange(len(b.events))
        if j >= len(b.events):
            return "nothing", []
        one, two = a.events[i], b.events[j]
        pieces = {p.number: self._with(p, list(p.events)) for p in (a, b)}
        if set(pieces[b.number].names) != set(pieces[a.number].names):
            wanted = [
                getattr(e, f.name)
                for e in (one, two)
                for f in e.fields
                if f.storage.value == "string"
            ]
            if any(name not in p.names for p in (a, b) for name in wanted):
                return "nothing", []
        pieces[a.number].events[i] = _changed(two, time=one.time)
        pieces[b.number].events[j] = _changed(one, time=two.time)
        return f"swap {one} and {two}", list(pieces.values())

    def _other(self, old: int, ids: list[int]) -> int:
        new = (
            self.random.choice(ids)
            if self.random.random() < 0.8
            else old + self.random.choice((-1, 1))
        )
        return new if new != old else old + 1

    def _change_id(self) -> tuple[str, list[Piece]]:
        role = self.random.choice(ROLES)
        piece, i, name = self.random.choice(self.places[role])
        event = piece.events[i]
        new = self._other(getattr(event, name), self.ids[role])
        events = list(piece.events)
        events[i] = _changed(event, **{name: new})
        return f"{name} {new} in {event}", [self._with(piece, events)]

    def _change_count(self) -> tuple[str, list[Piece]]:
        piece = self.random.choice([p for p in self.pieces if self._counts(p)])
        change = self.random.choice(self._counts(piece))
        what, record = change(self.random.choice((-2, -1, 1, 2)))
        if isinstance(record, int):
            return what, [replace(piece, first=record, data=b"")]
        return what, [replace(piece, record=record, data=b"")]

    def _counts(self, piece: Piece) -> list[Callable[[int], tuple[str, Any]]]:
        record = piece.record
        found: list[Callable[[int], tuple[str, Any]]] = []

        def of_record(name: str) -> None:
            def change(by: int) -> tuple[str, Any]:
                return f"{name} of {type(record).__name__} {by:+}", record.__replace__(
                    **{name: getattr(record, name) + by}
                )

            found.append(change)

        def of_row(name: str) -> None:
            def change(by: int) -> tuple[str, Any]:
                i = self.random.randrange(len(record.rows))
                row = record.rows[i]
                rows = list(record.rows)
                rows[i] = row._replace(**{name: getattr(row, name) + by})
                return f"{name} of {row} {by:+}", record.__replace__(rows=rows)

            if record.rows:
                found.append(change)

        match record:
            case Batch():
                found.append(
                    lambda by: (f"first of {piece.number} {by:+}", max(0, piece.first + by))
                )
            case Procs():
                of_row("emitted")
                of_row("lost")
            case Loss():
                of_row("first")
                of_row("last")
            case Snapshot():
                of_record("part")
                of_record("parts")
                if record.proc:
                    of_record("seq")
            case Generation():
                of_record("number")
            case End():
                of_record("emitted")
                of_record("lost")
        return found


assert all(any(f.role == role for e in EVENTS.values() for f in e.fields) for role in ROLES)
