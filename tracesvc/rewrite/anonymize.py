"""`anonymize`: a trace without names, paths, texts and attributes; its structure and its times stay.

Every text is replaced by a hash of it and of a key, so equal texts stay equal within a trace, and in all traces that
are made with the same key.  Names that trio and tracesvc themselves give are kept: what a task waits for and which
counter is the size of the run queue tells nothing of the program.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from tracesvc.events import EVENTS, FrameKind, Storage
from tracesvc.format import Batch, Clocks, Damage, Header, Item, Procs, Snapshot, Strings, compress
from tracesvc.format.frames import Frame, encode_frame
from tracesvc.format.records import Stacks, digest_of
from tracesvc.model.choice import Choice
from tracesvc.model.reader import Source, Trace, read

__all__ = ["anonymize"]

KEPT: Final = ("trio.", "tracesvc", "<init>", "process.rss")
"""beginnings of texts that are kept"""
_KEPT_FACTS: Final = ("python", "trio", "tracesvc")


def anonymize(
    source: Source | Trace, out: Callable[[bytes], Any], *, key: bytes | None = None
) -> int:
    """Write a trace anew without what it could give away; returns how many events it has.

    Args:
        source: As for `tracesvc.read`.
        out: Takes the bytes, piece by piece.
        key: Whoever knows it can try whether a text was there; None: a new one, which is thrown away.

    Raises:
        FormatError: The source is not a trace.
    """
    trace = source if isinstance(source, Trace) else read(source)
    hasher = _Hasher(secrets.token_bytes(16) if key is None else key)
    digests: dict[int, int] = {}
    events = 0
    for item in trace.items():
        if isinstance(item, Damage) or item.record is None:
            continue
        data = _frame(item, hasher, digests)
        if isinstance(item.record, Batch):
            events += item.record.count
            proc = item.record.proc
            frame = Frame(FrameKind.EVENTS, item.frame.number, data)
            digests[proc] = digest_of(frame, digests.get(proc, 0))
        out(compress(data) if item.frame.compressed else data)
    return events


def _options(options: dict[str, Any], hasher: _Hasher) -> dict[str, Any]:
    """What was chosen to be recorded: without it, what is missing would seem wrong."""
    choice = Choice.of(options)
    said: dict[str, Any] = {} if choice.groups is None else {"groups": list(choice.groups)}
    for name, patterns in (("tasks", choice.tasks), ("spans", choice.spans)):
        if patterns is not None:
            said[name] = [hasher.text(pattern) for pattern in patterns]
    return said


def _frame(item: Item, hasher: _Hasher, digests: dict[int, int]) -> bytes:
    body: Any
    match item.record:
        case Header() as header:
            facts: dict[str, Any] = {
                name: header.source[name] for name in _KEPT_FACTS if name in header.source
            }
            name: dict[str, Any] = {"name": hasher.text(str(header.source.get("name", "")))}
            if "clock" in header.source:  # traces that share a clock still do
                name["clock"] = hasher.text(str(header.source["clock"]))
            # What the vocabulary says is the tracer's own.
            body = Header(
                header.session,
                name | facts,
                header.monotonic,
                header.wall,
                _options(header.options, hasher),
                header.version,
                header.events,
            ).pack()
        case Strings(rows):
            body = [[number, hasher.text(text)] for number, text in rows]
        case Stacks(stacks):
            body = [[number, [[f, file, 0] for f, file, _ in frames]] for number, frames in stacks]
        case Procs(accounts):
            kept = []
            for row in accounts:
                if row.digest is not None:
                    row = row._replace(digest=digests.setdefault(row.proc, row.digest))
                kept.append(row._replace(name=hasher.text(row.name)))
            body = Procs(kept).pack()
        case Snapshot() as snapshot:
            spans = [
                row._replace(attributes=hasher.attributes(row.attributes)) for row in snapshot.spans
            ]
            regions = [
                row._replace(attributes=hasher.attributes(row.attributes))
                for row in snapshot.regions
            ]
            body = Snapshot(
                snapshot.proc,
                snapshot.seq,
                snapshot.part,
                snapshot.parts,
                snapshot.tasks,
                spans,
                regions,
            ).pack()
        case Clocks(rows=exchanges):
            body = Clocks([e._replace(clock=hasher.text(e.clock)) for e in exchanges]).pack()
        case Batch():
            body = _batch(item, hasher)
        case _:
            return encode_frame(FrameKind(item.frame.kind), item.frame.number, item.frame.body())
    return encode_frame(FrameKind(item.frame.kind), item.frame.number, body)


def _batch(item: Item, hasher: _Hasher) -> list[Any]:
    """The columns stay; only what is no number is replaced."""
    raw: Any = item.frame.body()
    body = list(raw)
    data = []
    for row in body[6]:
        number, *fields = row
        event = EVENTS.get(number)
        if event is None:
            data.append([number, *([None] * len(values) for values in fields)])
            continue
        roles = [field.role for field in event.fields if field.storage is Storage.DATA]
        data.append(
            [
                number,
                *(
                    [
                        hasher.value(value) if role == "text" else hasher.attributes(value)
                        for value in values
                    ]
                    for role, values in zip(roles, fields, strict=False)
                ),
            ]
        )
    body[6] = data
    return body


class _Hasher:
    def __init__(self, key: bytes) -> None:
        self._key = key[:64]
        self._known: dict[str, str] = {}

    def text(self, text: str) -> str:
        """A name."""
        if not text or text.startswith(KEPT):
            return text
        found = self._known.get(text)
        if found is None:
            found = (
                "x"
                + hashlib.blake2b(
                    text.encode("utf-8", "replace"), digest_size=6, key=self._key
                ).hexdigest()
            )
            if len(self._known) < 100_000:
                self._known[text] = found
        return found

    def value(self, value: Any) -> Any:
        """A text, or whatever else an attribute may be: numbers tell too much."""
        if value is None or isinstance(value, bool):
            return value
        return self.text(value if isinstance(value, str) else repr(value))

    def attributes(self, attributes: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Attributes: keys and values."""
        if attributes is None:
            return None
        return {self.text(str(key)): self.value(value) for key, value in attributes.items()}
