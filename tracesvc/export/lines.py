"""``jsonl`` and ``text``: every event on a line, in stored order; so is everything that says what is missing."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from tracesvc.events import EVENTS, CancelSource, Outcome, ProcKind, Reason, WakeCause
from tracesvc.export.books import Books
from tracesvc.export.report import Exported
from tracesvc.export.words import cause_of, lost_text
from tracesvc.format import (
    Batch,
    Clocks,
    Damage,
    End,
    Exchange,
    FormatError,
    Generation,
    Header,
    Item,
    Loss,
    LossRow,
    Procs,
)
from tracesvc.model.reader import Trace

__all__ = ["write_jsonl", "write_text"]

_FIELDS: Final = {n: [field.name for field in event.fields] for n, event in EVENTS.items()}
_ROLES: Final[dict[str, type[enum.IntEnum]]] = {
    "reason": Reason,
    "cause": WakeCause,
    "outcome": Outcome,
    "cancel source": CancelSource,
    "proc kind": ProcKind,
}
_WORDS: Final = {
    event.type: [
        (field.name, {int(one): one.name.lower() for one in _ROLES[field.role]})
        for field in event.fields
        if field.role in _ROLES
    ]
    for event in EVENTS.values()
}
"""type of event -> its fields with numbers that are words to people"""
PIECE: Final = 4096
"""lines that are written together"""

Row = dict[str, Any]


def write_jsonl(trace: Trace, out: Callable[[bytes], Any]) -> Exported:
    """A JSON object per line: ``{"type": "step_start", "time": ..., "proc": ..., "seq": ..., "task": ...}``.

    What is no event has its type in capitals: HEADER, GENERATION, EXCHANGE, LOSS, DAMAGE, END.
    """
    dump = json.JSONEncoder(default=repr, ensure_ascii=False, separators=(",", ":")).encode
    return _write(trace, out, dump)


def write_text(trace: Trace, out: Callable[[bytes], Any]) -> Exported:
    """Lines for people: seconds since the beginning, the proc, the event and its fields."""
    began: int | None = None

    def line(row: Row) -> str:
        nonlocal began
        time = row.pop("time", None)
        if began is None and time is not None:
            began = time
        clock = "" if time is None else f"{(time - (began or 0)) / 1e9:.9f}"
        if row["type"] == "LOSS":
            return f"{clock:>14} proc {row['proc']:<4} LOSS {row['text']}"
        kind, proc = row.pop("type"), row.pop("proc", None)
        row.pop("seq", None)
        for name, words in _WORDS.get(kind, ()):
            row[name] = words.get(row[name], row[name])
        fields = " ".join(f"{key}={_shown(value)}" for key, value in row.items() if value != "")
        where = "" if proc is None else f"proc {proc}"
        return f"{clock:>14} {where:<9} {kind} {fields}".rstrip()

    return _write(trace, out, line)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=repr, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False) if " " in text or "\n" in text else text


def _write(trace: Trace, out: Callable[[bytes], Any], line: Callable[[Row], str]) -> Exported:
    report, lines = Exported(), []
    for row in _rows(trace, report):
        lines.append(line(row))
        if len(lines) >= PIECE:
            out(("\n".join(lines) + "\n").encode("utf-8", "replace"))
            lines = []
    if lines:
        out(("\n".join(lines) + "\n").encode("utf-8", "replace"))
    return report


def _rows(trace: Trace, report: Exported) -> Iterator[Row]:
    books, newest = Books(), 0
    begun = False
    exchanges: set[Exchange] = set()
    for item in trace.items():
        if isinstance(item, Damage):
            report.written["DAMAGE"] += 1
            yield {
                "type": "DAMAGE",
                "start": item.start,
                "end": item.end,
                "reason_text": item.reason,
            }
            continue
        if not isinstance(item.record, Generation | Procs):
            books.late = False
        match item.record:
            case Header() as header:
                report.written["HEADER"] += 1
                yield {
                    "type": "HEADER",
                    "time": header.monotonic,
                    "wall": header.wall,
                    "session": header.session,
                    "source": header.source,
                }
            case Generation(number, monotonic, wall):
                books.late, begun = not begun and number > 0, True
                report.written["GENERATION"] += 1
                yield {"type": "GENERATION", "time": monotonic, "number": number, "wall": wall}
            case Clocks(rows):
                for one in rows:
                    if one not in exchanges:  # they are told again in every generation
                        exchanges.add(one)
                        report.written["EXCHANGE"] += 1
                        yield {"type": "EXCHANGE", "time": one.sent, **one._asdict()}
            case Procs(accounts):
                for account in accounts:
                    books.account(account)
            case Loss(rows):
                for loss in rows:
                    books.loss(loss)
                    yield _loss(loss, report)
            case Batch() as batch:
                books.events(batch.proc, batch.first, batch.count)
                yield from _events(trace, item, batch, report)
                newest = max(newest, batch.t0)
            case End(monotonic, wall, emitted, lost):
                report.written["END"] += 1
                yield {
                    "type": "END",
                    "time": monotonic,
                    "wall": wall,
                    "emitted": emitted,
                    "lost": lost,
                }
    for loss in books.unexplained(newest):
        yield _loss(loss, report)


def _loss(row: LossRow, report: Exported) -> Row:
    report.lost += row.last - row.first + 1
    report.written["LOSS"] += 1
    return {
        "type": "LOSS",
        "time": row.start,
        "end": row.end,
        "proc": row.proc,
        "first": row.first,
        "last": row.last,
        "cause": cause_of(row),
        "text": lost_text(row),
    }


def _events(trace: Trace, item: Item, batch: Batch, report: Exported) -> Iterator[Row]:
    try:
        records = list(batch.records(trace.text, trace.stack))
    except FormatError as exc:
        report.written["DAMAGE"] += 1
        start, end = item.frame.offset, item.frame.end
        yield {"type": "DAMAGE", "start": start, "end": end, "reason_text": str(exc)}
        return
    report.events += len(records)
    for seq, (number, time, fields) in enumerate(records, batch.first):
        if number not in EVENTS:
            report.left_out[f"type {number}"] += 1
            continue
        kind = EVENTS[number].type
        report.written[kind] += 1
        row = {"type": kind, "time": time, "proc": batch.proc, "seq": seq}
        row.update(zip(_FIELDS[number], fields, strict=True))
        yield row
