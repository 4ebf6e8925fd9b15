"""Programs that are made up, and push their sessions over plain sockets, as cheaply as can be.

What they push is a valid trace: tasks that wait, are woken, step, log and count.  Encoding it costs more than taking it
does, so what the tasks do is rehearsed once (`Scene`) and played again and again, with other numbers and times.
"""

from __future__ import annotations

import random
import socket
import uuid
import zlib
from collections.abc import Sequence
from typing import Any, Final

from tracesvc.events import EVENTS, ProcKind, Reason, TaskState, WakeCause
from tracesvc.format import End, Generation, Header, ProcRow, SessionWriter, Snapshot, compress
from tracesvc.format.batch import SLOTS, encode_batch
from tracesvc.format.frames import Frame
from tracesvc.format.records import TaskRow

__all__ = ["Connection", "Poster", "Program", "RefusedError", "Scene"]

SECOND: Final = 10**9
RUN: Final = 1
TASKS: Final = 50
NUMBERS: Final = {event.type: number for number, event in EVENTS.items()}
NAMES: Final = (
    *(f"shop.worker{i}" for i in range(8)),
    *(f"worker (shop.py:{i})" for i in range(8)),
    *("queue.depth", "orders.open", "run", "order taken", "cache is cold, asking the store"),
)
"""every name that events have; all are told at the start of each generation, so that a scene's numbers hold"""
WAITS: Final = (
    (Reason.SLEEP, WakeCause.TIMER),
    (Reason.READABLE, WakeCause.IO),
    (Reason.CHANNEL_RECEIVE, WakeCause.TASK),
    (Reason.EVENT, WakeCause.TASK),
)


class Scene:
    """About so many events of `TASKS` tasks, all of which wait before and after; begins at time 0."""

    def __init__(self, events: int, seed: int) -> None:
        self._chance = random.Random(seed)
        self._now = 0
        self._records: list[Any] = []
        self.waits: dict[int, tuple[int, ...]] = {}
        """of each task at the end, if it did anything: since when, for what reason, object"""
        while len(self._records) < events * SLOTS:
            self._round()
        self.count = len(self._records) // SLOTS
        first = self._records[1]
        self.waits = {task: (since - first, *rest) for task, (since, *rest) in self.waits.items()}
        self.length = self._now - first
        """ns"""
        table: dict[str, int] = {"": 0}
        for name in NAMES:
            table[name] = len(table)
        self._body = encode_batch(RUN, 0, self._records, table.__getitem__)
        del self._records

    def _emit(self, kind: str, *fields: Any) -> None:
        self._now += self._chance.randrange(200, 9000)
        rest = [*fields[:2], tuple(fields[2:])] if len(fields) > 3 else [*fields, 0, 0, 0][:3]
        self._records += [NUMBERS[kind], self._now, *rest]

    def _round(self) -> None:
        """The run loop waits, some tasks are woken, step, and wake others, until all wait again."""
        chance, emit = self._chance, self._emit
        emit("io_wait_start", chance.randrange(10**6, 10**8))
        self._now += chance.randrange(10_000, 3_000_000)
        emit("io_wait_end")
        ready = chance.sample(range(1, TASKS + 1), chance.randrange(1, 6))
        for task in ready:
            emit("task_runnable", task, 0, int(chance.choice((WakeCause.IO, WakeCause.TIMER))))
        while ready:
            task = ready.pop(0)
            emit("step_start", task)
            roll = chance.random()
            if roll < 0.04:
                emit("log", task, 0, 20, 0, NAMES[19], {"order": chance.randrange(10**6)})
            elif roll < 0.05:
                emit("log", task, 0, 30, 0, NAMES[20], None)
            elif roll < 0.09:
                emit("counter", NAMES[16 + chance.randrange(2)], float(len(ready)), task)
            elif roll < 0.35:
                other = chance.randrange(1, TASKS + 1)
                if other != task and other not in ready:
                    emit("task_runnable", other, task, int(WakeCause.TASK))
                    ready.append(other)
            reason, _ = chance.choice(WAITS)
            thing = 0 if reason is Reason.SLEEP else 100 + task
            emit("step_block", task, int(reason), thing)
            self.waits[task] = (self._now, int(reason), thing)

    def at(self, time: int) -> _Played:
        """The same, beginning at ``time``."""
        return _Played(self, self._body, time)


class _Played:
    """A scene as records that encode themselves: see `tracesvc.format.writer.EncodesItself`."""

    def __init__(self, scene: Scene, body: list[object], time: int) -> None:
        self._body, self._count = body, scene.count
        self.first_time, self.last_time = time, time + scene.length

    def __len__(self) -> int:
        return self._count

    def record(self, _i: int, /) -> tuple[Any, ...]:
        raise NotImplementedError("a scene fits in one frame")

    def encode(
        self, proc: int, first: int, _strings: dict[str, int], _stacks: dict[Any, int], /
    ) -> list[object]:
        return [proc, first, self.first_time, *self._body[3:]]


class Program:
    """A traced program: makes the bytes of its session, piece by piece."""

    def __init__(
        self,
        scenes: Sequence[Scene],
        name: str,
        session: str | None = None,
        *,
        wall: int = 0,
        level: int | None = None,
    ) -> None:
        """``wall``: ns since the epoch, when it starts; ``level``: of the compression, None: none."""
        self.session = session or str(uuid.uuid4())
        self.name = name
        self.events = 0
        self._scenes, self._level = scenes, level
        self._writer = SessionWriter()
        self._time = self._start = SECOND
        self._wall = wall
        self._generation = 0
        self._waits: dict[int, tuple[int, ...]] = {}

    @property
    def frames(self) -> int:
        """Made so far."""
        return self._writer.frames

    def begin(self) -> bytes:
        """Header, first generation, the tasks' making."""
        source = {"name": self.name, "host": "model", "pid": 1}
        header = self._writer.header(
            Header(self.session, source, self._start, self._wall + self._start)
        )
        frames = [header, *self._new_generation(snapshot=False)]
        records: list[Any] = []

        def emit(kind: str, *fields: Any) -> None:
            self._time += 1000
            rest = [*fields[:2], tuple(fields[2:])] if len(fields) > 3 else [*fields, 0, 0, 0][:3]
            records.extend((NUMBERS[kind], self._time, *rest))

        emit("proc_start", int(ProcKind.RUN), 1, NAMES[18])
        for task in range(1, TASKS + 1):
            emit("task_create", task, 0, 0, NAMES[task % 8], NAMES[8 + task % 8])
        for task in range(1, TASKS + 1):
            emit("step_start", task)
            emit("step_block", task, int(Reason.SLEEP), 0)
            self._waits[task] = (self._time, int(Reason.SLEEP), 0)
        frames += self._writer.events(RUN, self.events, records)
        self.events += len(records) // SLOTS
        return self._bytes(frames)

    def play(self, which: int, gap: int = 0) -> bytes:
        """One of the scenes, so many ns after what came last."""
        scene = self._scenes[which]
        self._time += gap + 1000
        began = self._time
        frames = self._writer.events(RUN, self.events, scene.at(began))
        self.events += scene.count
        self._time += scene.length
        for task, (since, *rest) in scene.waits.items():
            self._waits[task] = (began + since, *rest)
        return self._bytes(frames)

    def some(self, events: int) -> bytes:
        """About so many events, in a generation of their own; none where no scene is so short."""
        parts: list[bytes] = []
        for which in sorted(range(len(self._scenes)), key=lambda i: -self._scenes[i].count):
            count = self._scenes[which].count
            times, events = divmod(events, count)
            if times and not parts:
                parts.append(self.generation())
            parts += [self.play(which, 1_000_000) for _ in range(times)]
        return b"".join(parts)

    def generation(self) -> bytes:
        """A new one begins."""
        return self._bytes(self._new_generation())

    def end(self) -> bytes:
        """Accounts, and the end mark."""
        self._time += 1000
        frames = self._writer.procs([self._row(live=False)])
        end = End(self._time, self._wall + self._time, self.events, 0)
        return self._bytes([*frames, self._writer.end(end)])

    def _row(self, *, live: bool) -> ProcRow:
        return ProcRow(RUN, int(ProcKind.RUN), "run", 1, self.events, 0, live)

    def _new_generation(self, *, snapshot: bool = True) -> list[Frame]:
        begins = Generation(self._generation, self._time, self._wall + self._time, self.session)
        self._generation += 1
        frames = self._writer.generation(begins, [self._row(live=True)] if snapshot else [])
        ids = [self._writer.intern(name) for name in NAMES]
        waiting = int(TaskState.WAITING)
        rows = [
            TaskRow(task, 0, 0, ids[task % 8], ids[8 + task % 8], waiting, *wait)
            for task, wait in self._waits.items()
            if snapshot
        ]
        frames += self._writer.snapshot(Snapshot(RUN if rows else 0, self.events, 0, 1, rows))
        if rows:
            frames += self._writer.snapshot(Snapshot(0, 0, 0, 1))
        return frames

    def _bytes(self, frames: Sequence[Frame]) -> bytes:
        if self._level is None:
            return b"".join(frame.data for frame in frames)
        return b"".join(compress(frame.data, self._level) for frame in frames)


class RefusedError(Exception):
    """The service did not take a post."""

    def __init__(self, status: int, content: bytes) -> None:
        super().__init__(f"the service answered {status}: {content[:300]!r}")
        self.status, self.content = status, content


class Connection:
    """A keep-alive connection; each request waits for the whole answer to the one before."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port), 120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._socket.close()

    def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """(status, body).

        Raises:
          OSError: the server has hung up, or does not answer.
        """
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/vnd.tracesvc\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode())
        self._socket.sendall(body)
        answer, wanted = b"", 0
        while not wanted or len(answer) < wanted:
            part = self._socket.recv(1 << 16)
            if not part:
                raise ConnectionError(f"the server hung up after {answer[:100]!r}")
            answer += part
            end = answer.find(b"\r\n\r\n")
            if end >= 0 and not wanted:
                length = answer[:end].lower().partition(b"content-length:")[2].split(b"\r\n")[0]
                wanted = end + 4 + int(length)
        head_end = answer.find(b"\r\n\r\n")
        if b"\r\nconnection: close" in answer[:head_end].lower():  # as after a thousand requests
            self.close()
            self._connect()
        return int(answer[9:12]), answer[head_end + 4 :]

    def post(self, session: str, offset: int, body: bytes) -> int:
        """Push a piece of a stream; the durable offset.

        Raises:
          RefusedError: it was not taken.
        """
        path = f"/v1/sessions/{session}/frames?offset={offset}"
        status, content = self.request("POST", path, body)
        if status != 200:
            raise RefusedError(status, content)
        return int(content[11:-1])


class Poster:
    """A program, and its connection to the service."""

    def __init__(self, port: int, program: Program) -> None:
        self._connection = Connection(port)
        self.program = program
        self.offset = self.crc = 0

    def post(self, body: bytes) -> None:
        """Push what comes next."""
        self.offset = self._connection.post(self.program.session, self.offset, body)
        self.crc = zlib.crc32(body, self.crc)
