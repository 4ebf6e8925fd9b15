"""OpenTelemetry's protobuf: spans, with what their task did meanwhile as attributes, and their logs as events.

A file is one ``TracesData`` message, written in pieces: messages of this kind may be joined end to end.  Each piece by
itself is an ``ExportTraceServiceRequest``, which is what `tracesvc.export.otlp_push` sends.

A span that has no parent begins an OpenTelemetry trace of its own.  ``tracesvc.running_ns``, ``runnable_ns`` and
``waiting_ns.<reason>`` are those of the task in which the span began, between its begin and its end.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from tracesvc.events import Log
from tracesvc.export.lives import EXIT, GONE
from tracesvc.export.perfetto_proto import bytes_field, double_field, int_field, text_field
from tracesvc.export.pieces import Piece, Pieces
from tracesvc.export.replay import Chunk, Replay
from tracesvc.export.report import Exported
from tracesvc.export.wire import varint
from tracesvc.export.words import LEVELS, STATES, cause_of, lost_text, reason_of
from tracesvc.format.tracecontext import (
    ATTRIBUTE,
    RANDOM,
    SAMPLED,
    STATE_ATTRIBUTE,
    Parent,
    flags_of,
    parse,
    span_number,
    state_of,
    trace_number,
)
from tracesvc.model.states import State

__all__ = ["write"]

SPANS: Final = 512
"""spans in one piece"""
MAX_EVENTS: Final = 128
"""logs of one span that go with it; how many more there were is told"""
MAX_ROOTS: Final = 100_000
_INTERNAL: Final = 1
_HAS_REMOTE: Final = 0x100
"""flag of OpenTelemetry's: the next one says whether the parent is in another program"""
_IS_REMOTE: Final = 0x200


def write(replay: Replay, out: Callable[[bytes], Any]) -> Exported:
    """Write the spans of a trace; ``out`` takes one whole message at a time."""
    writer = _Writer(replay, out)
    for chunk in replay.chunks():
        writer.chunk(chunk)
    writer.finish()
    report = writer.report
    report.events, report.repaired = replay.events, replay.lives.repaired
    return report


class _Span:
    """A span under way: what its task did, and what was logged."""

    __slots__ = ("dropped", "logs", "piece", "root", "spent")

    def __init__(self, piece: Piece, root: int) -> None:
        self.piece, self.root = piece, root
        self.spent: dict[str, int] = {}
        self.logs: list[bytes] = []
        self.dropped = 0


class _Writer:
    def __init__(self, replay: Replay, out: Callable[[bytes], Any]) -> None:
        self._replay, self._out = replay, out
        self.report: Final = Exported()
        self._pieces = Pieces("span")
        self._spans: dict[int, _Span] = {}
        """open ones, and those that have ended in a state that has not"""
        self._of_task: dict[int, set[int]] = {}
        self._alone: set[int] = set()
        """open ones that have no task, or whose task has ended before them"""
        self._done: list[bytes] = []
        self._session = ""
        self._roots: dict[int, int] = {}
        """span -> the first of its ancestors, of the latest spans: a child may outlive its parent"""

        self._remote: dict[int, tuple[Parent, str, int]] = {}
        """span -> its parent in another program, the ``tracestate`` that came with it, and the flags of the trace"""

    def chunk(self, chunk: Chunk) -> None:
        """What ends in a chunk, as far as its task's state at that moment has ended too."""
        # Procs hand over their buffers one by one: a child may stand before its parent.
        for piece in sorted(self._pieces.begun(chunk), key=lambda piece: (piece.begin, piece.id)):
            parent = self._spans.get(piece.parent)
            root = parent.root if parent is not None else piece.parent or piece.id
            root = self._roots.get(piece.parent, root)
            given = piece.attributes or {}
            remote = parse(given.get(ATTRIBUTE))
            if remote is not None:  # a trace that began in another program goes on here
                state = state_of(given.get(STATE_ATTRIBUTE)) or ""
                flags = SAMPLED | flags_of(given[ATTRIBUTE]) & RANDOM
                root, self._remote[piece.id] = piece.id, (remote, state, flags)
            self._roots[piece.id] = root
            if len(self._roots) > MAX_ROOTS:
                oldest = next(iter(self._roots))
                del self._roots[oldest]
                self._remote.pop(oldest, None)
            self._spans[piece.id] = _Span(piece, root)
            self._of_task.setdefault(piece.task, set()).add(piece.id)
            if not piece.task:
                self._alone.add(piece.id)
        self._logs(chunk)
        for _ in self._pieces.ended(chunk):
            pass
        self._spend(chunk)
        for row in chunk.losses:
            count = row.last - row.first + 1
            self.report.lost += count
            more = {
                "tracesvc.lost_events": count,
                "tracesvc.proc": row.proc,
                "cause": cause_of(row),
            }
            ids = (
                self._id(f"loss {row.proc} {row.first}", 16),
                self._id(f"{row.proc} {row.first}", 8),
            )
            self._put(
                _span(
                    *ids, b"", lost_text(row), self._wall(row.start), self._wall(row.end), more, []
                )
            )

    def _spend(self, chunk: Chunk) -> None:
        moves = chunk.moves
        wanted = np.fromiter(self._of_task, np.int64, len(self._of_task))
        at = np.flatnonzero((moves.before != State.ABSENT) & np.isin(moves.task, wanted))
        columns = (moves.task, moves.since, moves.time, moves.before, moves.reason)
        for task, since, time, state, reason in zip(
            *(c[at].tolist() for c in columns), strict=True
        ):
            what = f"waiting_ns.{reason_of(reason).replace(' ', '_')}"
            if state != State.WAITING:
                what = f"{STATES[state]}_ns"
            for number in list(self._of_task.get(task, ())):
                span = self._spans[number]
                end = span.piece.end
                ns = min(time, time if end is None else end) - max(since, span.piece.begin)
                if ns > 0:
                    span.spent[what] = span.spent.get(what, 0) + ns
                if end is not None and time >= end:
                    self._finish(span)
        over = at[(moves.move[at] == EXIT) | (moves.move[at] == GONE)]
        for task in moves.task[over].tolist():
            self._alone |= self._of_task.get(task, set())
        for number in list(self._alone):
            if self._spans[number].piece.end is not None:
                self._finish(self._spans[number])

    def _logs(self, chunk: Chunk) -> None:
        logs = chunk.columns.of(Log)
        columns = logs.span.tolist(), logs.time.tolist(), logs.level.tolist()
        for span, time, level, message, attributes in zip(
            *columns, logs.message, logs.attributes, strict=True
        ):
            found = self._spans.get(span)
            if found is None:
                self.report.left_out["log"] += 1
            elif len(found.logs) >= MAX_EVENTS:
                found.dropped += 1
            else:
                more = {"level": LEVELS.get(level, level), **(attributes or {})}
                clock = _fixed(1, self._wall(time))
                found.logs.append(clock + text_field(2, str(message)) + _attributes(3, more))
                self.report.written["event"] += 1

    def _wall(self, time: int) -> int:
        return self._replay.at(time)

    @property
    def _known_session(self) -> str:
        if not self._session:
            session = self._replay.trace.session
            self._session = session.id if session is not None else "unknown"
        return self._session

    def _id(self, what: str, size: int) -> bytes:
        text = f"{self._known_session} {what}"
        return hashlib.blake2b(text.encode(), digest_size=size).digest()

    def _finish(self, span: _Span) -> None:
        piece = span.piece
        del self._spans[piece.id]
        self._alone.discard(piece.id)
        of_task = self._of_task[piece.task]
        of_task.discard(piece.id)
        if not of_task:
            del self._of_task[piece.task]
        more: dict[str, Any] = {f"tracesvc.{what}": ns for what, ns in sorted(span.spent.items())}
        more["tracesvc.task"] = piece.task
        if piece.end is None:
            more["tracesvc.open"] = True
        more.update(piece.attributes or {})
        end = self._replay.ended if piece.end is None else piece.end
        parent = span_number(self._known_session, piece.parent) if piece.parent else b""
        trace, remote = trace_number(self._known_session, span.root), self._remote.get(span.root)
        state, flags = "", SAMPLED | RANDOM
        if remote is not None:
            (trace, remote_span), state, flags = remote
            if span.root == piece.id:
                parent, flags = remote_span, flags | _IS_REMOTE
        context = _Context(state, flags | _HAS_REMOTE)
        ids = trace, span_number(self._known_session, piece.id), parent
        times = self._wall(piece.begin), self._wall(max(end, piece.begin))
        self._put(_span(*ids, piece.name, *times, more, span.logs, span.dropped, context))

    def _put(self, span: bytes) -> None:
        self._done.append(bytes_field(2, span))
        self.report.written["span"] += 1
        if len(self._done) >= SPANS:
            self._flush()

    def _flush(self) -> None:
        source = self._replay.source
        about = {
            "service.name": str(source.get("name", "trio")),
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "tracesvc",
            "host.name": source.get("host"),
            "process.pid": source.get("pid"),
            "tracesvc.session": self._session or None,
            "tracesvc.lost_events": self.report.lost,
        }
        known = {key: value for key, value in about.items() if value is not None}
        resource = bytes_field(1, _attributes(1, known))
        scope = bytes_field(1, text_field(1, "tracesvc"))
        self._out(bytes_field(1, resource + bytes_field(2, scope + b"".join(self._done))))
        self._done = []

    def finish(self) -> None:
        """What is open ends here."""
        self._pieces.rest()
        for span in list(self._spans.values()):
            self._finish(span)
        if self._done:
            self._flush()


def _fixed(number: int, value: int) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<Q", value & (1 << 64) - 1)


def _fixed32(number: int, value: int) -> bytes:
    return varint(number << 3 | 5) + struct.pack("<I", value)


class _Context(NamedTuple):
    """What a span says of its trace, beside the numbers."""

    state: str
    """``tracestate``"""
    flags: int
    """those of the W3C, and what OpenTelemetry adds"""


def _span(
    trace: bytes,
    number: bytes,
    parent: bytes,
    name: str,
    begin: int,
    end: int,
    attributes: Mapping[str, Any],
    logs: list[bytes],
    dropped: int = 0,
    context: _Context | None = None,
) -> bytes:
    ids = bytes_field(1, trace) + bytes_field(2, number)
    if context is not None and context.state:
        ids += text_field(3, context.state)
    if parent:
        ids += bytes_field(4, parent)
    body = ids + text_field(5, name) + int_field(6, _INTERNAL) + _fixed(7, begin) + _fixed(8, end)
    body += _attributes(9, attributes) + b"".join(bytes_field(11, log) for log in logs)
    body += int_field(12, dropped) if dropped else b""
    return body if context is None else body + _fixed32(16, context.flags)


def _attributes(number: int, attributes: Mapping[str, Any]) -> bytes:
    return b"".join(
        bytes_field(number, text_field(1, str(key)) + bytes_field(2, _value(value)))
        for key, value in attributes.items()
    )


def _value(value: Any) -> bytes:
    match value:
        case bool():
            return int_field(2, value)
        case int() if -(1 << 63) <= value < 1 << 63:
            return int_field(3, value)
        case float():
            return double_field(4, value)
        case str():
            return text_field(1, value)
        case bytes():
            return bytes_field(7, value)
        case list() | tuple():
            return bytes_field(5, b"".join(bytes_field(1, _value(item)) for item in value))
        case dict():
            return bytes_field(6, _attributes(1, value))
        case None:
            return b""
    return text_field(1, json.dumps(value, default=repr))
