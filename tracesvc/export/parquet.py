"""Parquet: a directory with a file per table, for DuckDB, Spark, pandas and whatever else reads it.

`SCHEMAS` says what the tables have.  Times are ns of the trace's clock; ``wall`` in the file's metadata is the time of
day of one of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from tracesvc.events import EVENTS, Counter, Log, StepBlock, TaskRunnable, TaskWaiting
from tracesvc.export.lives import BLOCK, CREATE, EXIT, GONE, LOST, RUNNABLE, YIELD
from tracesvc.export.pieces import Piece, Pieces
from tracesvc.export.replay import Chunk, Replay
from tracesvc.export.report import Exported
from tracesvc.export.words import STATES, cause_of, reason_of
from tracesvc.model.states import State

__all__ = ["SCHEMAS", "write"]

SCHEMAS: Final[dict[str, dict[str, str]]] = {
    "events": {
        "time": "int64",
        "proc": "int64",
        "seq": "int64",
        "type": "text",
        "task": "int64",
        "waker": "int64",
        "reason": "text",
        "object": "int64",
    },
    "tasks": {
        "task": "int64",
        "parent": "int64",
        "proc": "int64",
        "name": "text",
        "entry": "text",
        "began": "int64",
        "ended": "int64",
        "exited": "bool",
    },
    "steps": {
        "task": "int64",
        "proc": "int64",
        "name": "text",
        "began": "int64",
        "ended": "int64",
        "ended_by": "text",
    },
    "waits": {
        "task": "int64",
        "proc": "int64",
        "name": "text",
        "state": "text",
        "reason": "text",
        "object": "int64",
        "waker": "int64",
        "began": "int64",
        "ended": "int64",
        "over": "bool",
    },
    "spans": {
        "span": "int64",
        "parent": "int64",
        "task": "int64",
        "name": "text",
        "began": "int64",
        "ended": "int64",
        "attributes": "string",
    },
    "regions": {
        "region": "int64",
        "task": "int64",
        "name": "text",
        "began": "int64",
        "ended": "int64",
        "attributes": "string",
    },
    "logs": {
        "time": "int64",
        "proc": "int64",
        "task": "int64",
        "span": "int64",
        "level": "int64",
        "message": "string",
        "attributes": "string",
    },
    "counters": {
        "time": "int64",
        "proc": "int64",
        "task": "int64",
        "name": "text",
        "value": "double",
    },
    "losses": {
        "proc": "int64",
        "first": "int64",
        "last": "int64",
        "events": "int64",
        "cause": "text",
        "began": "int64",
        "ended": "int64",
    },
}
"""table -> column -> type; "text" is a string with few values, which lies there as a dictionary"""
GROUP: Final = 1 << 17
"""rows of the smaller tables that are written together"""
_ENDINGS: Final = {YIELD: "yield", BLOCK: "block", EXIT: "exit", GONE: "open", LOST: "lost"}


def write(replay: Replay, directory: Path) -> Exported:
    """Write all of a trace into a directory, which is made.

    Raises:
      ImportError: PyArrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: F401
    except ImportError as exc:
        raise ImportError("Parquet needs PyArrow: pip install 'tracesvc[analysis]'") from exc
    directory.mkdir(parents=True, exist_ok=True)
    writer = _Writer(replay, directory)
    try:
        for chunk in replay.chunks():
            writer.chunk(chunk)
        writer.finish()
    finally:
        writer.close()
    report = writer.report
    report.events, report.repaired = replay.events, replay.lives.repaired
    return report


class _Table:
    """One file."""

    def __init__(self, path: Path, columns: dict[str, str], metadata: dict[bytes, bytes]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self._pa = pa
        types = {
            "int64": pa.int64(),
            "bool": pa.bool_(),
            "double": pa.float64(),
            "string": pa.string(),
            "text": pa.dictionary(pa.int32(), pa.string()),
        }
        self._types = columns
        self._schema = pa.schema([(name, types[kind]) for name, kind in columns.items()], metadata)
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[tuple[Any, ...]] = []
        self.count = 0

    def add(self, *values: Any) -> None:
        """Columns: arrays, lists, or for texts (indexes, the texts)."""
        n = len(values[0])
        if not n:
            return
        arrays = []
        for value, kind, field in zip(values, self._types.values(), self._schema, strict=True):
            if kind == "text" and isinstance(value, tuple):
                codes, texts = value
                arrays.append(self._texts(codes, texts))
            elif kind == "text":
                arrays.append(self._pa.array(value, self._pa.string()).dictionary_encode())
            else:
                arrays.append(self._pa.array(value, field.type))
        self._writer.write_table(self._pa.Table.from_arrays(arrays, schema=self._schema))
        self.count += n

    def _texts(self, codes: Any, texts: Any) -> Any:
        used, places = np.unique(codes, return_inverse=True)
        words = [texts[i] for i in used.tolist()]
        absent = np.array([word is None for word in words], np.bool_)[places]
        indexes = self._pa.array(places.astype(np.int32), mask=absent)
        dictionary = self._pa.array([word or "" for word in words], self._pa.string())
        return self._pa.DictionaryArray.from_arrays(indexes, dictionary)

    def row(self, *values: Any) -> None:
        """One row, of a table that has few."""
        self._rows.append(values)
        if len(self._rows) >= GROUP:
            self.flush()

    def flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self.add(*map(list, zip(*rows, strict=True)))

    def close(self) -> None:
        self.flush()
        self._writer.close()


class _Writer:
    def __init__(self, replay: Replay, directory: Path) -> None:
        session = replay.trace.session
        about = {
            "session": session.id if session else None,
            "source": replay.source,
            "wall": replay.wall,
        }
        metadata = {b"tracesvc": json.dumps(about, default=repr).encode()}
        self._tables = {
            name: _Table(directory / f"{name}.parquet", columns, metadata)
            for name, columns in SCHEMAS.items()
        }
        self.report: Final = Exported()
        self._spans, self._regions = Pieces("span"), Pieces("region")
        self._created: dict[int, int] = {}

    def close(self) -> None:
        """Close all files."""
        for name, table in self._tables.items():
            table.close()
            self.report.written[name] = table.count

    def chunk(self, chunk: Chunk) -> None:
        """Everything in a chunk."""
        self._events(chunk)
        self._tasks(chunk)
        self._states(chunk)
        for pieces, put in ((self._spans, self._span), (self._regions, self._region)):
            pieces.begun(chunk)
            for piece in pieces.ended(chunk):
                put(piece)
        columns = chunk.columns
        logs = columns.of(Log)
        texts = [str(message) for message in logs.message]
        attributes = [_json(one) for one in logs.attributes]
        self._tables["logs"].add(
            logs.time, logs.proc, logs.task, logs.span, logs.level, texts, attributes
        )
        counters = columns.of(Counter)
        names = counters.name, columns.strings
        self._tables["counters"].add(
            counters.time, counters.proc, counters.task, names, counters.value
        )
        for row in chunk.losses:
            count = row.last - row.first + 1
            self.report.lost += count
            where = row.proc, row.first, row.last
            self._tables["losses"].row(*where, count, cause_of(row), row.start, row.end)

    def _events(self, chunk: Chunk) -> None:
        columns = chunk.columns
        n = len(columns)
        task, waker, object_ = (np.zeros(n, np.int64) for _ in range(3))
        reason = np.zeros(n, np.int64)
        for event in EVENTS.values():
            if any(field.name == "task" for field in event.fields):
                table = columns.of(event)
                task[table.index] = table.task
        waking = columns.of(TaskRunnable)
        waker[waking.index] = waking.waker
        for blocking in (columns.of(StepBlock), columns.of(TaskWaiting)):
            reason[blocking.index] = np.clip(blocking.reason, 0, 15)
            object_[blocking.index] = blocking.object
        types = columns.type, {number: event.type for number, event in EVENTS.items()}
        types[1].update({n: f"type {n}" for n in range(256) if n not in EVENTS})
        reasons = reason, [reason_of(i) if i else None for i in range(16)]
        self._tables["events"].add(
            columns.time, columns.proc, columns.seq, types, task, waker, reasons, object_
        )

    def _tasks(self, chunk: Chunk) -> None:
        moves, strings = chunk.moves, chunk.columns.strings
        created = moves.move == CREATE
        self._created.update(
            zip(moves.task[created].tolist(), moves.time[created].tolist(), strict=True)
        )
        ended = np.flatnonzero((moves.move == EXIT) | (moves.move == GONE))
        tasks = moves.task[ended].tolist()
        begins = [
            self._created.pop(task, time)
            for task, time in zip(tasks, moves.time[ended].tolist(), strict=True)
        ]
        self._tables["tasks"].add(
            moves.task[ended],
            moves.parent[ended],
            moves.proc[ended],
            (moves.name[ended], strings),
            (moves.entry[ended], strings),
            begins,
            moves.time[ended],
            moves.move[ended] == EXIT,
        )

    def _states(self, chunk: Chunk) -> None:
        moves, strings = chunk.moves, chunk.columns.strings
        at = np.flatnonzero(moves.before == State.RUNNING)
        self._tables["steps"].add(
            moves.task[at],
            moves.proc[at],
            (moves.name[at], strings),
            moves.since[at],
            moves.time[at],
            (moves.move[at], _ENDINGS),
        )
        at = np.flatnonzero((moves.before != State.ABSENT) & (moves.before != State.RUNNING))
        before = moves.before[at]
        reason = np.where(before == State.WAITING, np.clip(moves.reason[at], 0, 15), -1)
        woken = np.where(moves.move[at] == RUNNABLE, moves.x[at], 0)
        self._tables["waits"].add(
            moves.task[at],
            moves.proc[at],
            (moves.name[at], strings),
            (before, STATES),
            (reason, {-1: None, **{i: reason_of(i) for i in range(16)}}),
            moves.object[at] * (before == State.WAITING),
            np.where(before == State.RUNNABLE, moves.waker[at], woken),
            moves.since[at],
            moves.time[at],
            moves.move[at] != GONE,
        )

    def _span(self, piece: Piece) -> None:
        row = piece.id, piece.parent, piece.task, piece.name, piece.begin, piece.end
        self._tables["spans"].row(*row, _json(piece.attributes))

    def _region(self, piece: Piece) -> None:
        row = piece.id, piece.task, piece.name, piece.begin, piece.end
        self._tables["regions"].row(*row, _json(piece.attributes))

    def finish(self) -> None:
        """What has not ended has no end."""
        for piece in self._spans.rest():
            self._span(piece)
        for piece in self._regions.rest():
            self._region(piece)


def _json(attributes: Any) -> str | None:
    return json.dumps(attributes, default=repr, ensure_ascii=False) if attributes else None
