"""Chrome's JSON trace format: for chrome://tracing, Perfetto, and whatever else reads it.

A row per task (with a slice for each state), per run (with its steps, and its waits for I/O) and per proc that lost
events; spans and regions are asynchronous events, wake-ups flows.  Rows never have number 0 or that of the process:
some readers would merge them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from tracesvc.events import (
    Counter,
    Frames,
    GcEnd,
    GcStart,
    IoWaitEnd,
    IoWaitStart,
    Log,
    RegionBegin,
    RegionEnd,
    SpanBegin,
    SpanEnd,
    ThreadEnd,
    ThreadStart,
)
from tracesvc.export.lives import CREATE, RUNNABLE
from tracesvc.export.nests import DRAWN, Nests
from tracesvc.export.notes import leave_out, notes_in
from tracesvc.export.pairs import Pairs
from tracesvc.export.replay import NAMELESS, Chunk, Replay
from tracesvc.export.report import Exported
from tracesvc.export.wait_stacks import WaitStacks
from tracesvc.export.words import LEVELS, lost_text, state_of
from tracesvc.model.states import State
from tracesvc.model.wakes import cause_name

__all__ = ["write"]

PID: Final = 1
ROWS: Final = 16
TASK, RUN, LOSSES, GC = 2, 3, 4, 5
"""kinds of row; a row's number is that of its task or proc times ROWS, and its kind"""


def write(replay: Replay, out: Callable[[bytes], Any]) -> Exported:
    """Write all of a trace; ``out`` takes the bytes, piece by piece."""
    writer = _Writer(replay, out)
    out(b'{"displayTimeUnit":"ns","traceEvents":[\n')
    writer.meta("process_name", 0, str(replay.source.get("name", "trio")))
    for chunk in replay.chunks():
        writer.chunk(chunk)
    report = writer.report
    report.events, report.repaired = replay.events, replay.lives.repaired
    other = {
        "session": replay.trace.session.id if replay.trace.session else None,
        "source": replay.source,
        "lost_events": report.lost,
    }
    tail = json.dumps(other, default=repr)
    out(f'\n],"otherData":{tail}}}\n'.encode())
    return report


def _us(time: int) -> str:
    return f"{time // 1000}.{time % 1000:03}"


class _Writer:
    def __init__(self, replay: Replay, out: Callable[[bytes], Any]) -> None:
        self._replay, self._out = replay, out
        self.report: Final = Exported()
        self._lines: list[str] = []
        self._first = True
        self._rows: set[int] = set()
        self._io, self._gc, self._calls = Pairs(), Pairs(), Pairs()
        self._names: dict[str, str] = {}
        self._stacks = WaitStacks()
        self._nests = Nests(self.report)
        self._spans: dict[int, str] = {}
        self._regions: dict[int, str] = {}

    def _flush(self) -> None:
        if self._lines:
            self._out((("" if self._first else ",\n") + ",\n".join(self._lines)).encode())
            self._first = False
            self._lines = []

    def meta(self, what: str, row: int, name: str) -> None:
        """Name a row, or the process."""
        args = json.dumps({"name": name})
        self._lines.append(f'{{"ph":"M","pid":{PID},"tid":{row},"name":"{what}","args":{args}}}')

    def _text(self, text: str) -> str:
        quoted = self._names.get(text)
        if quoted is None:
            quoted = self._names[text] = json.dumps(text)
        return quoted

    def _slice(
        self, row: int, begin: int, end: int, name: str, category: str, args: str = ""
    ) -> None:
        more = f',"args":{args}' if args else ""
        self._lines.append(
            f'{{"ph":"X","pid":{PID},"tid":{row},"ts":{_us(begin)},"dur":{_us(max(0, end - begin))},'
            f'"name":{self._text(name)},"cat":"{category}"{more}}}'
        )
        self.report.written["slice"] += 1

    def chunk(self, chunk: Chunk) -> None:
        """Everything in a chunk."""
        self._tasks(chunk)
        self._pairs(chunk)
        self._annotations(chunk)
        self._structure(chunk)
        leave_out(chunk.columns, self.report, DRAWN)
        self._flush()

    def _name_row(self, number: int, kind: int, name: str) -> int:
        row = number * ROWS + kind
        if row not in self._rows:
            self._rows.add(row)
            self.meta("thread_name", row, name)
        return row

    def _tasks(self, chunk: Chunk) -> None:
        moves, strings = chunk.moves, chunk.columns.strings
        created = np.flatnonzero(moves.move == CREATE)
        for task, name in zip(
            moves.task[created].tolist(), moves.name[created].tolist(), strict=True
        ):
            self.meta("thread_name", task * ROWS + TASK, f"{strings[name] or NAMELESS} {task}")
        for proc in np.unique(moves.proc).tolist():
            self._name_row(proc, RUN, f"run {proc}")
        ended = np.flatnonzero(moves.before != State.ABSENT)
        columns = (
            moves.task,
            moves.proc,
            moves.since,
            moves.time,
            moves.before,
            moves.reason,
            moves.name,
            moves.waker,
            moves.cause,
            self._stacks.of(chunk)[1],
        )
        for task, proc, since, time, state, reason, name, waker, cause, stack in zip(
            *(column[ended].tolist() for column in columns), strict=True
        ):
            row = task * ROWS + TASK
            args = ""
            if stack:
                args = self._stack(chunk.columns.stacks[stack])
            elif cause and state == State.RUNNABLE:
                args = f'{{"cause":"{cause_name(cause)}"}}'
            self._slice(row, since, time, state_of(state, reason), "state", args)
            if state == State.RUNNING:
                self._slice(proc * ROWS + RUN, since, time, strings[name] or NAMELESS, "step")
            elif waker and state == State.RUNNABLE:
                self._flow("f", row, task, since)
        woken = np.flatnonzero((moves.move == RUNNABLE) & (moves.x != 0))
        for task, waker, time in zip(
            moves.task[woken].tolist(),
            moves.x[woken].tolist(),
            moves.time[woken].tolist(),
            strict=True,
        ):
            self._flow("s", waker * ROWS + TASK, task, time)
            self.report.written["flow"] += 1

    def _stack(self, frames: Frames) -> str:
        lines = [f"{function} ({file}:{line})" for function, file, line in frames]
        return f'{{"stack":{self._text(chr(10).join(lines))}}}'

    def _flow(self, phase: str, row: int, task: int, time: int) -> None:
        self._arrow("wake", phase, row, time, f"{task}.{time}")

    def _arrow(self, kind: str, phase: str, row: int, time: int, id_: str) -> None:
        bind = ',"bp":"e"' if phase == "f" else ""
        self._lines.append(
            f'{{"ph":"{phase}","pid":{PID},"tid":{row},"ts":{_us(time)},"id":"{id_}",'
            f'"name":"{kind}","cat":"{kind}"{bind}}}'
        )

    def _structure(self, chunk: Chunk) -> None:
        for edge in self._nests.edges(chunk.columns, chunk.moves):
            args, phase = json.dumps(edge.details), "b" if edge.begins else "e"
            self._async(phase, edge.kind, edge.id, edge.task, edge.time, edge.kind, args)
            self.report.written[edge.kind] += edge.begins
        for arrow in self._nests.arrows(chunk.columns):
            self._instant(
                arrow.task, arrow.time, "is cancelled", "cancelled", json.dumps(arrow.details)
            )
            if arrow.asked < 0:
                continue
            id_ = f"cancel {arrow.details['scope']}.{arrow.task}.{arrow.time}"
            self._arrow("cancel", "s", arrow.by * ROWS + TASK, arrow.asked, id_)
            self._arrow("cancel", "f", arrow.task * ROWS + TASK, arrow.time, id_)
            self.report.written["flow"] += 1

    def _pairs(self, chunk: Chunk) -> None:
        columns, strings = chunk.columns, chunk.columns.strings
        for loss in chunk.losses:
            self.report.lost += loss.last - loss.first + 1
            row = self._name_row(loss.proc, LOSSES, f"lost events of proc {loss.proc}")
            self._slice(row, loss.start, loss.end, lost_text(loss), "lost")
            for pairs in (self._io, self._gc, self._calls):
                pairs.forget(loss.proc)
        waits = self._io.take(columns.of(IoWaitStart), columns.of(IoWaitEnd))
        gcs = self._gc.take(columns.of(GcStart), columns.of(GcEnd), "generation")
        calls = self._calls.take(columns.of(ThreadStart), columns.of(ThreadEnd), "function")
        for paired, kind, title in (
            (waits, RUN, "run"),
            (gcs, GC, "garbage collection"),
            (calls, RUN, "thread"),
        ):
            for proc, begin, end, what in zip(
                paired.proc.tolist(),
                paired.begin.tolist(),
                paired.end.tolist(),
                paired.what.tolist(),
                strict=True,
            ):
                row = self._name_row(proc, kind, f"{title} {proc}")
                name = "I/O wait" if paired is waits else f"generation {what}"
                self._slice(row, begin, end, strings[what] if paired is calls else name, title)

    def _annotations(self, chunk: Chunk) -> None:
        columns = chunk.columns
        for one in chunk.opened:
            known = self._spans if one.kind == "span" else self._regions
            self._begin(known, one.kind, one.id, one.task, one.since, one.name, one.attributes)
        spans, regions = columns.of(SpanBegin), columns.of(RegionBegin)
        for known, kind, table, ids in (
            (self._spans, "span", spans, spans.span),
            (self._regions, "region", regions, regions.region),
        ):
            for number, task, time, name, attributes in zip(
                ids.tolist(),
                table.task.tolist(),
                table.time.tolist(),
                table.names("name"),
                table.attributes,
                strict=True,
            ):
                self._begin(known, kind, number, task, time, name, attributes)
        span_ends, region_ends = columns.of(SpanEnd), columns.of(RegionEnd)
        for known, kind, table, ids in (
            (self._spans, "span", span_ends, span_ends.span),
            (self._regions, "region", region_ends, region_ends.region),
        ):
            for number, task, time in zip(
                ids.tolist(), table.task.tolist(), table.time.tolist(), strict=True
            ):
                self._async("e", kind, number, task, time, known.pop(number, kind), "")
        logs = columns.of(Log)
        for task, time, level, message, attributes in zip(
            logs.task.tolist(),
            logs.time.tolist(),
            logs.level.tolist(),
            logs.message,
            logs.attributes,
            strict=True,
        ):
            args = json.dumps(
                {"level": LEVELS.get(level, level), **(attributes or {})}, default=repr
            )
            self._instant(task, time, str(message), "log", args)
        for notes in notes_in(columns):
            for task, time, text, detail in zip(
                notes.tasks.tolist(),
                notes.table.time.tolist(),
                notes.texts,
                notes.details,
                strict=True,
            ):
                self._instant(task, time, text, notes.kind, json.dumps(detail))
        table = columns.of(Counter)
        for name, time, value in zip(
            table.names("name"), table.time.tolist(), table.value.tolist(), strict=True
        ):
            self.report.written["sample"] += 1
            sample = json.dumps({"value": value})
            self._lines.append(
                f'{{"ph":"C","pid":{PID},"tid":{ROWS},"ts":{_us(time)},"name":{self._text(name)},"args":{sample}}}'
            )

    def _instant(self, task: int, time: int, text: str, category: str, args: str) -> None:
        self.report.written["instant"] += 1
        row = task * ROWS + TASK
        self._lines.append(
            f'{{"ph":"i","s":"t","pid":{PID},"tid":{row},"ts":{_us(time)},"name":{json.dumps(text)},'
            f'"cat":"{category}","args":{args}}}'
        )

    def _begin(
        self,
        known: dict[int, str],
        kind: str,
        number: int,
        task: int,
        time: int,
        name: str,
        attributes: Any,
    ) -> None:
        if number not in known:
            known[number] = name
            args = json.dumps({"task": task, **(attributes or {})}, default=repr)
            self._async("b", kind, number, task, time, name, args)
            self.report.written[kind] += 1

    def _async(
        self, phase: str, kind: str, number: int, task: int, time: int, name: str, args: str
    ) -> None:
        more = f',"args":{args}' if args else ""
        self._lines.append(
            f'{{"ph":"{phase}","pid":{PID},"tid":{task * ROWS + TASK},"ts":{_us(time)},"id":"{kind}{number}",'
            f'"name":{self._text(name)},"cat":"{kind}"{more}}}'
        )
