"""A generator of large traces: one run with a thousand tasks that wait for this and that, and wake one another."""

from __future__ import annotations

import random
import uuid
from pathlib import Path
from typing import Any, Final

from tracesvc.events import EVENTS, ProcKind, Reason
from tracesvc.format import End, Generation, Header, ProcRow, SessionWriter, compress

__all__ = ["write"]

NUMBERS: Final = {event.type: number for number, event in EVENTS.items()}
BATCH: Final = 4000
TASKS: Final = 1000
RUN: Final = 1
REASONS: Final = [
    int(r)
    for r in (
        Reason.SLEEP,
        Reason.CHANNEL_RECEIVE,
        Reason.LOCK,
        Reason.EVENT,
        Reason.READABLE,
        Reason.THREAD,
    )
]
FREE: Final = (Reason.SLEEP, Reason.THREAD)
"""reasons without an object"""


def write(path: Path, events: int, seed: int = 1, tasks: int = TASKS) -> int:
    """Write a trace of about so many events; returns how many they are."""
    return _Writer(path, seed, tasks).run(events)


class _Writer:
    def __init__(self, path: Path, seed: int, tasks: int) -> None:
        self._tasks = tasks
        self._random = random.Random(seed)
        self._writer = SessionWriter()
        self._path = path
        self._time = 1000
        self._count = self._stored = self._generations = 0
        self._records: list[Any] = []
        self._session = str(uuid.UUID(int=seed, version=4))

    def _emit(self, kind: str, *fields: Any) -> None:
        self._time += self._random.randrange(100, 4000)
        rest = [*fields[:2], tuple(fields[2:])] if len(fields) > 3 else [*fields, 0, 0, 0][:3]
        self._records += [NUMBERS[kind], self._time, *rest]
        self._count += 1

    def _row(self, *, live: bool) -> ProcRow:
        return ProcRow(RUN, int(ProcKind.RUN), "run", 1, self._stored, 0, live)

    def run(self, events: int) -> int:
        with self._path.open("wb") as file:
            self._file = file
            self._put([self._writer.header(Header(self._session, {"name": "synthetic"}, 0, 0))])
            self._generation()
            self._play(events)
            self._flush()
            self._put(self._writer.procs([self._row(live=False)]))
            self._put([self._writer.end(End(self._time, self._time, self._count, 0))])
        return self._count

    def _put(self, frames: Any) -> None:
        for frame in frames:
            self._file.write(compress(frame.data))

    def _generation(self) -> None:
        self._began = self._time
        clock = Generation(self._generations, self._time, self._time, self._session)
        self._put(self._writer.generation(clock, [self._row(live=True)]))
        self._generations += 1

    def _flush(self) -> None:
        self._put(self._writer.events(RUN, self._stored, self._records))
        self._stored, self._records = self._count, []

    def _play(self, events: int) -> None:
        choose, emit = self._random, self._emit
        emit("task_create", 1, 0, 0, "<init>", "init")
        emit("proc_start", int(ProcKind.RUN), 1, "run")
        emit("step_start", 1)
        for task in range(2, self._tasks + 2):
            emit(
                "task_create", task, 1, 50, f"app.worker{task % 40}", f"worker (app.py:{task % 40})"
            )
        emit("step_block", 1, int(Reason.NURSERY), 50)
        ready, span = list(range(2, self._tasks + 2)), 0
        waiting: list[int] = []
        while self._count < events:
            task = ready.pop(choose.randrange(len(ready)))
            emit("step_start", task)
            roll = choose.random()
            if roll < 0.03:
                span += 1
                emit("span_begin", span, 0, task, f"request{span % 10}", {"path": "/x"})
            elif roll < 0.05 and span:
                emit("log", task, span, 20, 0, "hello", None)
            elif roll < 0.07:
                emit("counter", "trio.run_queue", float(len(ready)), 0)
            while waiting and (len(ready) < 20 or choose.random() < 0.4):
                woken = waiting.pop(choose.randrange(len(waiting)))
                emit("task_runnable", woken, task)
                ready.append(woken)
            if roll < 0.03:
                emit("span_end", span, task)
            if choose.random() < 0.2:
                emit("step_yield", task)
                ready.append(task)
            else:
                reason = choose.choice(REASONS)
                emit("step_block", task, reason, 0 if reason in FREE else 100 + reason)
                waiting.append(task)
            if len(self._records) >= 5 * BATCH:
                self._flush()
                if self._time - self._began > 10**9:
                    self._time += 1
                    self._generation()
