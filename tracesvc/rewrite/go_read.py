"""`import_go`: a ``go 1.11 trace`` as one of ours.

A goroutine becomes a task, a user task a span, and all Ps together one run.  So a Go program that used several Ps has
several tasks running at once in it, which no trio run has: `verify` says so, and all sums are right none the less.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tracesvc.events import EVENTS, ProcKind, Reason
from tracesvc.format import End, FormatError, Generation, Header, ProcRow, SessionWriter
from tracesvc.rewrite.go_parse import GoEvent, GoTrace, parse

__all__ = ["Imported", "import_go"]

NUMBERS: Final = {event.type: number for number, event in EVENTS.items()}
REASONS: Final = {
    "GoSleep": Reason.SLEEP,
    "GoBlock": Reason.PARKED,
    "GoBlockSend": Reason.CHANNEL_SEND,
    "GoBlockRecv": Reason.CHANNEL_RECEIVE,
    "GoBlockSelect": Reason.CHANNEL_RECEIVE,
    "GoBlockSync": Reason.LOCK,
    "GoBlockCond": Reason.CONDITION,
    "GoBlockNet": Reason.READABLE,
    "GoBlockGC": Reason.PARKED,
    "GoSysBlock": Reason.THREAD,
}
"""how a goroutine blocks -> what a task waits for"""
COUNTERS: Final = {
    "HeapAlloc": "process.rss",
    "HeapGoal": "go.heap_goal",
    "Gomaxprocs": "go.maxprocs",
}
BATCH: Final = 4096
RUN: Final = 1
INFO: Final = 20

Record = tuple[Any, ...]


@dataclass(slots=True)
class Imported:
    """What was read."""

    read: Counter[str] = field(default_factory=Counter)
    """events by Go's names"""
    written: Counter[str] = field(default_factory=Counter)
    """events by ours"""
    left_out: Counter[str] = field(default_factory=Counter)
    """events of Go that say nothing that ours could"""


def import_go(source: str | Path | bytes, out: Callable[[bytes], Any]) -> Imported:
    """Write a Go trace as one of ours; ``out`` takes the bytes, piece by piece.

    Raises:
        OSError: The file cannot be read.
        FormatError: It is no such file, or damaged.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    done = Imported()
    # The same file always gives the same session.
    session = str(uuid.UUID(bytes=hashlib.blake2b(data, digest_size=16).digest(), version=4))
    name = "go" if isinstance(source, bytes) else Path(source).stem
    try:
        records = _Import(parse(data), done).run()
        _write(records, session, name, out)
    except (IndexError, OverflowError) as exc:
        raise FormatError(
            f"a damaged Go trace: a record with values that cannot be ({exc})"
        ) from exc
    return done


class _Import:
    def __init__(self, trace: GoTrace, done: Imported) -> None:
        self._trace, self._done = trace, done
        self._records: list[Record] = []
        self._regions: dict[int, list[tuple[int, int, int]]] = {}
        self._spans: dict[int, int] = {}
        self._ids = 0
        self._collecting = self._begun = False

    def run(self) -> list[Record]:
        for event in self._trace.events:
            self._done.read[event.name.removesuffix("Local")] += 1
            if not self._task(event) and not self._other(event):
                self._done.left_out[event.name] += 1
        return self._records

    def _emit(self, kind: str, time: int, *fields: Any) -> bool:
        if not self._begun and kind not in ("task_create", "task_waiting"):
            # What comes before lived already when tracing began.
            self._begun = True
            self._emit("proc_start", time, int(ProcKind.RUN), 1, "go")
        self._records.append((kind, time, *fields))
        self._done.written[kind] += 1
        return True

    def _task(self, event: GoEvent) -> bool:
        name, time, args, g = event.name, event.time, event.args, event.g
        if name == "GoCreate":
            frames = self._trace.stack(args[1])
            function, file, line = frames[0] if frames else ("", "", 0)
            entry = f"{function} ({Path(file).name}:{line})" if file else function
            # A goroutine has no nursery: all that one starts are taken to be in one of its own.
            return self._emit("task_create", time, args[0], g, g, _cut(function), _cut(entry))
        if name in ("GoWaiting", "GoInSyscall"):
            reason = Reason.THREAD if name == "GoInSyscall" else Reason.PARKED
            return self._emit("task_waiting", time, args[0], int(reason), 0)
        if name in ("GoStart", "GoStartLocal", "GoStartLabel"):
            return self._emit("step_start", time, g)
        if name in ("GoUnblock", "GoUnblockLocal", "GoSysExit", "GoSysExitLocal"):
            return self._emit("task_runnable", time, args[0], 0 if "Sys" in name else g)
        if not g:
            return False
        if name in ("GoSched", "GoPreempt"):
            return self._emit("step_yield", time, g)
        if name in ("GoEnd", "GoStop"):
            return self._emit("task_exit", time, g)
        if name in REASONS:
            return self._emit("step_block", time, g, int(REASONS[name]), 0)
        return False

    def _other(self, event: GoEvent) -> bool:
        name, time, args, g = event.name, event.time, event.args, event.g
        text = self._trace.strings.get
        match name:
            case "GCStart" if not self._collecting:
                self._collecting = True
                return self._emit("gc_start", time, 0)
            case "GCDone" if self._collecting:
                self._collecting = False
                return self._emit("gc_end", time, 0, 0)
            case "HeapAlloc" | "HeapGoal" | "Gomaxprocs":
                return self._emit("counter", time, COUNTERS[name], float(args[0]), g)
            case "UserTaskCreate" if args[0] not in self._spans:
                span = self._spans[args[0]] = self._new_id()
                parent = self._spans.get(args[1], 0)
                return self._emit(
                    "span_begin", time, span, parent, g, _cut(text(args[2], "")), None
                )
            case "UserTaskEnd" if args[0] in self._spans:
                return self._emit("span_end", time, self._spans.pop(args[0]), g)
            case "UserRegion" if g:
                return self._region(event, _cut(text(args[2], "")))
            case "UserLog":
                more = {"category": text(args[1], "")} if args[1] else None
                span = self._spans.get(args[0], 0)
                return self._emit("log", time, g, span, INFO, 0, event.text[:4096], more)
        return False

    def _new_id(self) -> int:
        self._ids += 1
        return self._ids

    def _region(self, event: GoEvent, name: str) -> bool:
        task, mode, string = event.args[:3]
        opened = self._regions.setdefault(event.g, [])
        if mode == 0:
            region = self._new_id()
            opened.append((region, task, string))
            return self._emit("region_begin", event.time, region, event.g, name, None)
        if not opened or opened[-1][1:] != (task, string):
            return False
        return self._emit("region_end", event.time, opened.pop()[0], event.g)


def _cut(text: str) -> str:
    data = text.encode("utf-8", "replace")
    return text if len(data) <= 1024 else data[:1021].decode("utf-8", "ignore") + "…"


def _write(records: list[Record], session: str, name: str, out: Callable[[bytes], Any]) -> None:
    """A session of one run, in one generation."""
    writer = SessionWriter()
    out(writer.header(Header(session, {"name": name}, 0, 0)).data)

    def account(*, live: bool) -> list[ProcRow]:
        return [ProcRow(RUN, int(ProcKind.RUN), "go", 1, 0 if live else len(records), 0, live)]

    for frame in writer.generation(Generation(0, 0, 0, session), account(live=True)):
        out(frame.data)
    for first in range(0, len(records), BATCH):
        flat: list[Any] = []
        for kind, time, *fields in records[first : first + BATCH]:
            rest = [*fields[:2], tuple(fields[2:])] if len(fields) > 3 else [*fields, 0, 0, 0][:3]
            flat += [NUMBERS[kind], time, *rest]
        for frame in writer.events(RUN, first, flat):
            out(frame.data)
    for frame in writer.procs(account(live=False)):
        out(frame.data)
    end = max((time for _, time, *_ in records), default=0)
    out(writer.end(End(end, end, len(records), 0)).data)
