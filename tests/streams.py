"""Made streams: valid in every respect, of any size, with losses where they are wanted."""

import uuid
from dataclasses import dataclass, field

from tracesvc.events import LossCause, ProcKind
from tracesvc.format import (
    End,
    Frame,
    Generation,
    Header,
    LossRow,
    ProcRow,
    SessionWriter,
    Snapshot,
)

SECOND = 10**9
LOG = 20
COUNTER = 21


@dataclass
class Maker:
    """Writes a session piece by piece: `start`, then `generation`, `events`, `lose` in any order, and `end`."""

    session: str = field(default_factory=lambda: str(uuid.uuid4()))
    name: str = "made"
    procs: int = 1
    start_wall: int = 1_700_000_000 * SECOND
    text: str = "all is well"
    generations: int = -1

    def __post_init__(self):
        self.writer = SessionWriter()
        self.time = SECOND
        self.emitted = dict.fromkeys(range(self.procs), 0)
        self.lost = dict.fromkeys(range(self.procs), 0)
        self.ended: set[int] = set()

    def rows(self, procs=None):
        return [
            ProcRow(
                p, ProcKind.RUN, f"proc {p}", p, self.emitted[p], self.lost[p], p not in self.ended
            )
            for p in (self.emitted if procs is None else procs)
        ]

    def start(self) -> list[Frame]:
        source = {"name": self.name, "host": "test", "pid": 1}
        return [
            self.writer.header(Header(self.session, source, self.time, self.start_wall)),
            *self.generation(),
        ]

    def generation(self) -> list[Frame]:
        self.generations += 1
        wall = self.start_wall + self.time - SECOND
        live = [row for row in self.rows() if row.live]
        begin = Generation(self.generations, self.time, wall, self.session)
        frames = self.writer.generation(begin, live)
        return [*frames, *self.writer.snapshot(Snapshot(0, 0, 0, 1))]

    def events(self, n: int, proc: int = 0, number: int = COUNTER) -> list[Frame]:
        records: list[object] = []
        for i in range(n):
            self.time += 1000
            seq = self.emitted[proc] + i
            if number == COUNTER:
                records += [COUNTER, self.time, f"count.{seq % 5}", seq * 0.5, 0]
            else:
                records += [LOG, self.time, 0, 0, (20, 0, self.text, None)]
        first = self.emitted[proc]
        self.emitted[proc] += n
        return self.writer.events(proc, first, records)

    def lose(self, n: int, proc: int = 0, cause: LossCause = LossCause.QUEUE_FULL) -> list[Frame]:
        first, start = self.emitted[proc], self.time
        self.time += 1000 * n
        self.emitted[proc] += n
        self.lost[proc] += n
        return self.writer.losses([LossRow(proc, first, first + n - 1, cause, start, self.time)])

    def stop_proc(self, proc: int) -> list[Frame]:
        self.ended.add(proc)
        return self.writer.procs(self.rows([proc]))

    def end(self) -> list[Frame]:
        live = [row._replace(live=False) for row in self.rows() if row.live]
        total, lost = sum(self.emitted.values()), sum(self.lost.values())
        end = End(self.time, self.start_wall + self.time - SECOND, total, lost)
        return [*self.writer.procs(live), self.writer.end(end)]


def session(
    events: int = 1000, procs: int = 2, *, batch: int = 100, lost: int = 0, **options
) -> list[Frame]:
    """A whole session: ``events`` per proc in batches, a new generation for each ten of them, ``lost`` per proc."""
    made = Maker(procs=procs, **options)
    frames = made.start()
    for i, first in enumerate(range(0, events, batch)):
        if i % 10 == 9:
            frames += made.generation()
        for proc in range(procs):
            frames += made.events(min(batch, events - first), proc)
    for proc in range(procs):
        if lost:
            frames += made.lose(lost, proc)
    return [*frames, *made.end()]


def joined(frames: list[Frame]) -> bytes:
    return b"".join(frame.data for frame in frames)


def name_of(frames: list[Frame]) -> str:
    """The session's UUID."""
    return Header.unpack(frames[0].body()).session
