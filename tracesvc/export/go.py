"""``go 1.11 trace``: for ``go tool trace``.

A task is a goroutine, a proc is a P, a span is a user task, a region a user region, a log entry a user log.  What a
task waits for decides how its goroutine blocks (`BLOCKS`).  Garbage collections, and what was lost (as user logs of the
category ``tracesvc.lost``), are told by a P of their own at the end of the file.

The order of records is the one that Go 1.19 and later parsers both accept: the tasks that lived already, the first
step, Gomaxprocs twice, the body; at the end GoSched for what still runs, ProcStop, Frequency, strings, stacks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from tracesvc.events import (
    Counter,
    GcEnd,
    GcStart,
    Log,
    LossCause,
    ProcKind,
    ProcStop,
    Reason,
    SpanBegin,
    SpanEnd,
)
from tracesvc.export.go_regions import Regions
from tracesvc.export.go_rows import Rows
from tracesvc.export.go_stacks import ENTRY, WAKE, YIELD, Tables
from tracesvc.export.go_table import HEADER
from tracesvc.export.lives import (
    BLOCK,
    CREATE,
    EXIT,
    GONE,
    RUNNABLE,
    START,
    UNKNOWN,
    WAIT,
    Moves,
)
from tracesvc.export.lives import YIELD as YIELDS
from tracesvc.export.notes import leave_out, notes_in
from tracesvc.export.replay import Chunk, Replay
from tracesvc.export.report import Exported
from tracesvc.export.wait_stacks import WaitStacks
from tracesvc.model.states import State

__all__ = ["BLOCKS", "write"]

BLOCKS: Final = {
    Reason.NONE: "GoBlock",
    Reason.SLEEP: "GoSleep",
    Reason.CHANNEL_SEND: "GoBlockSend",
    Reason.CHANNEL_RECEIVE: "GoBlockRecv",
    Reason.LOCK: "GoBlockSync",
    Reason.SEMAPHORE: "GoBlockSync",
    Reason.LIMITER: "GoBlockSync",
    Reason.CONDITION: "GoBlockCond",
    Reason.EVENT: "GoBlockSync",
    Reason.NURSERY: "GoBlockSync",
    Reason.READABLE: "GoBlockNet",
    Reason.WRITABLE: "GoBlockNet",
    Reason.THREAD: "GoSysCall",
    Reason.PROCESS: "GoBlock",
    Reason.SIGNAL: "GoBlock",
    Reason.PARKED: "GoBlock",
}
"""what a task waits for -> how its goroutine blocks; GoSysCall is followed by GoSysBlock and another thread"""
LEVELS: Final = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}
MEMORY: Final = "process.rss"
"""the counter that Go has a place for: the heap"""
MAX_ASIDE: Final = 200_000
"""collections and losses that are told of"""
_HELD_RUNS: Final = (State.NEW, State.RUNNABLE)


def write(replay: Replay, out: Callable[[bytes], Any]) -> Exported:
    """Write all of a trace; ``out`` takes the bytes, piece by piece."""
    return _Writer(replay, out).run()


class _Writer:
    def __init__(self, replay: Replay, out: Callable[[bytes], Any]) -> None:
        self._replay = replay
        self._out = out
        self._report = Exported()
        self._tables = Tables()
        self._regions = Regions()
        self._wait_stacks = WaitStacks()
        self._rows = Rows(self._report.written)
        self._running: dict[int, int] = {}
        self._stack_of: dict[int, int] = {}
        """task -> the stack that says who it is"""
        self._begun = False
        self._runs: set[int] = set()
        self._threads = 1 << 20
        """ids for the threads that a run goes on in, as Go sees it, while a call blocks"""
        self._gc: dict[int, int] = {}
        self._aside: list[tuple[int, int, str, int, str]] = []
        """(time, order, record, value, text)"""

    def run(self) -> Exported:
        self._out(HEADER)
        chunk: Chunk | None = None
        for chunk in self._replay.chunks():
            self._chunk(chunk)
        report = self._report
        self._finish()
        report.events = self._replay.events
        report.repaired = self._replay.lives.repaired
        report.left_out["region_end"] += self._regions.left_out
        report.left_out = +report.left_out
        return report

    def _chunk(self, chunk: Chunk) -> None:
        rows = self._rows
        rows.begin(chunk.moves)
        self._moves(chunk)
        self._annotations(chunk)
        self._note_aside(chunk)
        self._start_procs(chunk)
        ended = chunk.moves.task[(chunk.moves.move == EXIT) | (chunk.moves.move == GONE)]
        for task in ended.tolist():
            self._stack_of.pop(task, None)
        self._running = self._replay.lives.running()
        self._out(rows.end())
        leave_out(chunk.columns, self._report)
        counts = np.bincount(chunk.columns.type, minlength=23)
        for number, name in ((10, "io_wait_start"), (11, "io_wait_end")):
            self._report.left_out[name] += int(counts[number])
        for number, name in ((12, "thread_start"), (13, "thread_end")):
            self._report.left_out[name] += int(counts[number])

    # --- tasks -----------------------------------------------------------------------------------

    def _moves(self, chunk: Chunk) -> None:
        moves, rows = chunk.moves, self._rows
        if not len(moves):
            return
        move, before, held = moves.move, moves.before, moves.held
        codes = np.where(move == YIELDS, YIELD, np.where(move == BLOCK, moves.x, ENTRY))
        codes = np.where((codes < 0) | (codes >= 64), int(Reason.PARKED), codes)
        codes[(move == WAIT)] = ENTRY
        stacks = self._tables.stacks(codes, moves.name, moves.entry, chunk.columns.strings)
        self._create(moves, stacks)
        suspended = self._wait_stacks.of(chunk)[0]
        for at in np.flatnonzero(suspended).tolist():
            index = int(suspended[at])
            frames = chunk.columns.stacks[index]
            stacks[at] = self._tables.suspended(int(stacks[at]), index, frames)

        def add(name: str, where: Any, sub: int, *values: Any) -> None:
            at = np.flatnonzero(where)
            if len(at):
                taken = [v[at] if isinstance(v, np.ndarray) else v for v in values]
                rows.moves(name, at, sub, *taken)

        task = moves.task
        unsure = before == UNKNOWN
        waited = unsure & (held == State.WAITING)
        # What the file believes of a task is what was known before the gap.
        doubled = (move == WAIT) & unsure & ~waited
        add(
            "GoWaiting",
            (move == WAIT) & (before == State.NEW) & (moves.x != Reason.THREAD),
            2,
            task,
        )
        add(
            "GoInSyscall",
            (move == WAIT) & (before == State.NEW) & (moves.x == Reason.THREAD),
            2,
            task,
        )
        wakes = (move == RUNNABLE) & ((before == State.WAITING) | waited)
        woken = wakes | ((move == START) & waited)
        called = moves.reason == Reason.THREAD
        add("GoSysExit", woken & called, 1, task, -1, 0)
        rest = np.flatnonzero(woken & ~called)
        if len(rest):
            wakers = np.where(move[rest] == RUNNABLE, moves.x[rest], 0)
            rows.moves("GoUnblockLocal", rest, 1, task[rest], self._who(wakers, wake=True))
        add("GoStartLocal", (move == START) | doubled, 2, task)
        add("GoSched", (move == YIELDS) | ((move == GONE) & (before == State.RUNNING)), 3, stacks)
        add("GoEnd", move == EXIT, 3)
        self._block(moves, (move == BLOCK) | doubled, stacks)

    def _create(self, moves: Moves, stacks: Any) -> None:
        at = np.flatnonzero(moves.move == CREATE)
        if not len(at):
            return
        self._stack_of.update(zip(moves.task[at].tolist(), stacks[at].tolist(), strict=True))
        parents = self._who(moves.x[at])
        self._rows.moves("GoCreate", at, 0, moves.task[at], stacks[at], parents)

    def _who(self, tasks: Any, *, wake: bool = False) -> Any:
        """The stack of each of these tasks, 0 for none."""
        used, places = np.unique(tasks, return_inverse=True)
        ids = [self._stack_of.get(task, 0) for task in used.tolist()]
        if wake:
            ids = [self._tables.waking(number, WAKE) for number in ids]
        return np.array(ids, np.int64)[places]

    def _block(self, moves: Moves, where: Any, stacks: Any) -> None:
        rows, reasons = self._rows, moves.x
        strange = (reasons < 0) | (reasons >= len(Reason))
        reasons = np.where(strange, int(Reason.PARKED), reasons)
        for name in dict.fromkeys(BLOCKS.values()):
            numbers = [int(reason) for reason, block in BLOCKS.items() if block == name]
            at = np.flatnonzero(where & np.isin(reasons, numbers))
            if not len(at):
                continue
            rows.moves(name, at, 3, stacks[at])
            if name == "GoSysCall":
                rows.moves("GoSysBlock", at, 4)
                rows.moves("ProcStop", at, 5)
                threads = np.arange(self._threads, self._threads + len(at))
                rows.moves("ProcStart", at, 6, threads)
                self._threads += len(at)

    # --- annotations -----------------------------------------------------------------------------

    def _annotations(self, chunk: Chunk) -> None:
        rows, columns, tables = self._rows, chunk.columns, self._tables
        begins, ends = columns.of(SpanBegin), columns.of(SpanEnd)
        if len(begins):
            used, places = np.unique(begins.name, return_inverse=True)
            ids = np.array([tables.string(columns.strings[i]) for i in used.tolist()], np.int64)
            whose = self._who(begins.task)
            rows.events("UserTaskCreate", begins, begins.span, begins.parent, ids[places], whose)
        if len(ends):
            rows.events("UserTaskEnd", ends, ends.span, self._who(ends.task))
        logs = columns.of(Log)
        if len(logs):
            keys = [LEVELS.get(level, str(level)) for level in logs.level.tolist()]
            key_ids = np.array([tables.string(key) for key in keys], np.int64)
            texts = [str(message).encode("utf-8", "replace") for message in logs.message]
            rows.events("UserLog", logs, logs.span, key_ids, self._who(logs.task), texts=texts)
        for notes in notes_in(columns):
            key = tables.string(f"tracesvc.{notes.kind}")
            texts = [text.encode("utf-8", "replace") for text in notes.texts]
            nothing = np.zeros(len(texts), np.int64)
            whose = self._who(notes.tasks)
            rows.events("UserLog", notes.table, nothing, nothing + key, whose, texts=texts)
        self._counters(chunk)
        for mark in self._regions.marks(chunk, self._running, self._replay.procs):
            stack = self._stack_of.get(mark.task, 0)
            rows.mark(mark, tables.string(mark.name), stack)

    def _counters(self, chunk: Chunk) -> None:
        table = chunk.columns.of(Counter)
        if not len(table):
            return
        names = chunk.columns.strings
        memory = [i for i in np.unique(table.name).tolist() if names[i] == MEMORY]
        at = np.isin(table.name, memory) & (table.value >= 0) & (table.value < 2.0**63)
        self._report.left_out["counter"] += int((~at).sum())
        if at.any():
            values = np.where(at, table.value, 0).astype(np.int64)
            self._rows.events("HeapAlloc", table, values, where=at)

    def _note_aside(self, chunk: Chunk) -> None:
        starts, ends = chunk.columns.of(GcStart), chunk.columns.of(GcEnd)
        if len(starts) or len(ends):
            found = [
                *zip(
                    starts.index.tolist(),
                    starts.proc.tolist(),
                    starts.time.tolist(),
                    [1] * len(starts),
                    strict=True,
                ),
                *zip(
                    ends.index.tolist(),
                    ends.proc.tolist(),
                    ends.time.tolist(),
                    [0] * len(ends),
                    strict=True,
                ),
            ]
            for _, proc, time, begins in sorted(found):
                if begins:
                    self._gc[proc] = time
                elif proc in self._gc and len(self._aside) < MAX_ASIDE:
                    self._aside.append((self._gc.pop(proc), 0, "gc", time, ""))
                else:
                    self._report.left_out["gc_end"] += 1
        for row in chunk.losses:
            count = row.last - row.first + 1
            self._report.lost += count
            cause = LossCause(row.cause).name.lower() if row.cause in set(LossCause) else row.cause
            text = f"{count} events of proc {row.proc} are missing: {cause}"
            if len(self._aside) < MAX_ASIDE:
                self._aside.append((row.start, 1, "lost", 0, text))

    # --- procs -----------------------------------------------------------------------------------

    def _start_procs(self, chunk: Chunk) -> None:
        """A P starts before its first goroutine does, and when the run is over it stops."""
        rows, moves = self._rows, chunk.moves
        starts = np.flatnonzero(moves.move == START)
        procs, first = np.unique(moves.proc[starts], return_index=True)
        for proc, at in sorted(
            zip(procs.tolist(), starts[first].tolist(), strict=True), key=lambda x: x[1]
        ):
            if not rows.started(proc):
                rows.start(proc, self._thread(proc), moves, at)
                self._runs.add(proc)
                for _ in range(1 if self._begun else 2):
                    count = np.array([len(self._runs)])
                    stack = self._stack_of.get(int(moves.task[at]), 0)
                    rows.moves("Gomaxprocs", np.array([at]), 2, count, np.array([stack]))
                self._begun = True
        rows.start_others(chunk.columns, self._is_run, self._thread)
        stops = chunk.columns.of(ProcStop)
        if len(stops):
            for proc in stops.proc.tolist():
                self._runs.discard(proc)
            rows.stop(stops)

    def _is_run(self, proc: int) -> bool:
        info = self._replay.procs.get(proc)
        return info is not None and info.kind == ProcKind.RUN

    def _thread(self, proc: int) -> int:
        info = self._replay.procs.get(proc)
        return max(1, info.thread) if info is not None else 1

    # --- the end ---------------------------------------------------------------------------------

    def _finish(self) -> None:
        rows, tables = self._rows, self._tables
        self._out(rows.stop_all(self._replay.ended))
        aside: list[tuple[str, int, tuple[int, ...], bytes | None]] = []
        over, seq = 0, 0
        lost = tables.string("tracesvc.lost")
        for time, _, what, end, text in sorted(self._aside):
            if what == "lost":
                aside.append(("UserLog", max(time, over), (0, lost, 0), text.encode()))
                over = max(time, over)
            elif time >= over:
                aside += [("GCStart", time, (seq, 0), None), ("GCDone", end, (), None)]
                over, seq = end, seq + 1
            else:
                self._report.left_out["gc_start"] += 1
                self._report.left_out["gc_end"] += 1
        self._out(rows.aside(aside, self._replay.began or 0, 1))
        if not self._begun:
            self._out(rows.nothing(self._replay.began or 0, self._replay.ended))
        self._out(rows.raw("Frequency", 10**9) + b"".join(tables.records()))
