"""Streams made by hand: every number in them is chosen, so every number of a summary is known."""

import uuid

from tests.traces import NUMBERS, record
from tracesvc.events import LossCause, ProcKind
from tracesvc.format import End, Generation, Header, LossRow, ProcRow, SessionWriter, Snapshot
from tracesvc.format.records import TaskRow

WALL = 1_700_000_000_000_000_000
SESSION = str(uuid.UUID(int=7, version=4))


class Hand:
    """Writes a stream piece by piece; times are ns."""

    def __init__(self, begin=0, session=SESSION):
        self.writer = SessionWriter()
        self.session = session
        self.frames = [self.writer.header(Header(session, {"name": "by hand"}, begin, WALL))]
        self.emitted, self.lost, self.kinds = {}, {}, {}
        self.generations = 0

    def rows(self, live=True):
        return [
            ProcRow(proc, int(self.kinds[proc]), f"proc {proc}", 1, n, self.lost.get(proc, 0), live)
            for proc, n in self.emitted.items()
        ]

    def generation(self, time):
        clock = Generation(self.generations, time, WALL + time, self.session)
        self.frames += self.writer.generation(clock, self.rows())
        self.generations += 1
        return self

    def events(self, proc, *events, kind=ProcKind.RUN):
        """Each event is (type, time, fields...)."""
        self.kinds.setdefault(proc, kind)
        first = self.emitted.get(proc, 0)
        records = [
            slot
            for type_, time, *fields in events
            for slot in record(NUMBERS[type_], time, *fields)
        ]
        self.frames += self.writer.events(proc, first, records)
        self.emitted[proc] = first + len(events)
        return self

    def lose(self, proc, count, start, end, cause=LossCause.QUEUE_FULL):
        first = self.emitted.get(proc, 0)
        self.frames += self.writer.losses(
            [LossRow(proc, first, first + count - 1, int(cause), start, end)]
        )
        self.emitted[proc] = first + count
        self.lost[proc] = self.lost.get(proc, 0) + count
        return self

    def snapshot(self, proc, *tasks):
        """Each task is (id, name, state, since, reason)."""
        rows = [
            TaskRow(t, 0, 0, self.writer.intern(name), 0, state, since, reason, 0)
            for t, name, state, since, reason in tasks
        ]
        self.frames += self.writer.snapshot(Snapshot(proc, self.emitted[proc], 0, 1, rows))
        return self

    def end(self, time):
        self.frames += self.writer.procs(self.rows(live=False))
        end = End(time, WALL + time, sum(self.emitted.values()), sum(self.lost.values()))
        self.frames.append(self.writer.end(end))
        return self

    @property
    def data(self):
        return b"".join(frame.data for frame in self.frames)
