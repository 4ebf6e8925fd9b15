"""Streams of a few events that are written down by hand."""

from __future__ import annotations

from typing import Any

from tests.traces import NUMBERS, START, WALL, record
from tracesvc.events import ProcKind, Reason
from tracesvc.format import End, Frame, Generation, Header, LossRow, ProcRow, SessionWriter

SESSION = "00000000-0000-4000-8000-000000000001"
RUN, THREAD, SIDE = 1, 2, 3
KINDS = {0: ProcKind.PROCESS, RUN: ProcKind.RUN, THREAD: ProcKind.THREAD, SIDE: ProcKind.TASK}
LOCK = int(Reason.LOCK)
NURSERY = int(Reason.NURSERY)

BEGIN: list[tuple[Any, ...]] = [
    ("proc_start", int(ProcKind.RUN), 101, "run"),
    ("task_create", 1, 0, 0, "<init>", "init"),
    ("step_start", 1),
    ("task_create", 2, 1, 50, "main", "main"),
    ("step_block", 1, NURSERY, 50),
    ("step_start", 2),
]
"""a run whose main task, number 2, is in its first step"""


class Small:
    """Writes a session frame by frame; every event is a microsecond after the one before."""

    def __init__(self) -> None:
        self.writer = SessionWriter()
        self.time = START
        self.next = dict.fromkeys(KINDS, 0)
        self.lost = dict.fromkeys(KINDS, 0)
        self.generations = 0
        self.frames: list[Frame] = [
            self.writer.header(Header(SESSION, {"name": "small"}, START, WALL))
        ]
        self.generation()

    def row(self, proc: int, *, live: bool = True) -> ProcRow:
        kind, name = KINDS[proc], KINDS[proc].name.lower()
        return ProcRow(proc, int(kind), name, 100 + proc, self.next[proc], self.lost[proc], live)

    def rows(self, *, live: bool = True) -> list[ProcRow]:
        return [self.row(proc, live=live) for proc in KINDS]

    def tick(self) -> int:
        self.time += 1000
        return self.time

    def generation(self) -> Small:
        clock = Generation(self.generations, self.tick(), WALL, SESSION)
        self.generations += 1
        self.frames += self.writer.generation(clock, self.rows())
        return self

    def events(self, *events: tuple[Any, ...], proc: int = RUN) -> Small:
        records: list[Any] = []
        for type_, *fields in events:
            records += record(NUMBERS[type_], self.tick(), *fields)
        self.frames += self.writer.events(proc, self.next[proc], records)
        self.next[proc] += len(events)
        return self

    def lose(self, count: int, cause: int = 1, proc: int = RUN, *, tell: bool = True) -> Small:
        first, start = self.next[proc], self.tick()
        self.next[proc] += count
        self.lost[proc] += count
        if tell:
            row = LossRow(proc, first, self.next[proc] - 1, cause, start, self.tick())
            self.frames += self.writer.losses([row])
        return self

    def add(self, *frames: Frame) -> Small:
        self.frames += frames
        return self

    @property
    def data(self) -> bytes:
        """What has been written so far."""
        return b"".join(frame.data for frame in self.frames)

    def end(self) -> bytes:
        """The whole stream."""
        self.frames += self.writer.procs(self.rows(live=False))
        emitted, lost = sum(self.next.values()), sum(self.lost.values())
        self.frames.append(self.writer.end(End(self.tick(), WALL, emitted, lost)))
        return self.data
