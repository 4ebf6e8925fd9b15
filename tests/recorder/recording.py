"""Record a program and read the recording back: what every test of the recorder stands on.

`trace` records a program from outside, with nothing of the tracer's in its run, so that whole sequences can be
compared; `Memory` is a sink for `open_tracer`.  Every recording is judged when it is read: no damage, every sequence
number stored or told to be lost, time never decreasing within a proc, the ledger exact, and `verify` content.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import trio

from tracesvc import Sink, Tracer, TracerStatistics
from tracesvc.events import EVENTS, LossCause, Reason
from tracesvc.format import (
    Batch,
    Damage,
    End,
    Header,
    Item,
    Loss,
    LossRow,
    ProcRow,
    Procs,
    Snapshot,
    StreamDecoder,
)
from tracesvc.model.verify import verify

STRUCTURE = {"nursery_open", "nursery_close", "task_error", "cancel_request", "task_cancelled"}
"""stories are about the scheduler"""
OWN = "tracesvc "
"""names of the tracer's own tasks begin with this"""


class Memory(Sink):
    """A sink that keeps what it is given."""

    def __init__(self, name: str = "memory") -> None:
        super().__init__(name)
        self.data = b""

    async def run(self, frames):
        self._begin(frames)
        try:
            while batch := await frames.get():
                data = b"".join(frame.data for frame in batch)
                self.data += data
                self._stored(len(batch), sum(frame.count for frame in batch), len(data))
        finally:
            self._end()


class Recording:
    """A decoded stream. ``whole``: it has its end mark, and the ledger must close."""

    def __init__(
        self,
        data: bytes,
        *,
        whole: bool = True,
        statistics: TracerStatistics | None = None,
        result: Any = None,
    ) -> None:
        self.data = data
        self.statistics = statistics
        self.result = result
        self.events: list[Any] = []
        self.losses: list[LossRow] = []
        self.rows: dict[int, ProcRow] = {}
        """the last account of each proc"""
        self.first: dict[int, int] = {}
        """events of each proc before this stream began, where it did not begin with the session"""
        self.snapshots: list[tuple[Snapshot, dict[int, str]]] = []
        """with the string table that they refer to"""
        self.generations = 0
        self.header: Header | None = None
        self.end: End | None = None
        decoder = StreamDecoder()
        decoder.feed(data)
        decoder.close()
        for item in decoder:
            if isinstance(item, Damage):
                assert not whole and item.reason == "truncated", item
            else:
                self._take(item, decoder)
        self.names = {e.task: short(e.name) for e in self.of("task_create")}
        for snapshot, strings in self.snapshots:
            for row in snapshot.tasks:
                self.names.setdefault(row.task, short(strings[row.name]))
        self._judge(whole)

    def _take(self, item: Item, decoder: StreamDecoder) -> None:
        match item.record:
            case Header() as header:
                self.header = header
            case Batch() as batch:
                self.events += decoder.events(batch)
            case Loss(rows):
                self.losses += rows
            case Procs(rows):
                if not self.rows:
                    self.first = {row.proc: row.emitted for row in rows}
                self.rows.update((row.proc, row) for row in rows)
            case Snapshot() as snapshot:
                self.snapshots.append((snapshot, decoder.strings))
            case End() as end:
                self.end = end
            case record:
                self.generations += type(record).__name__ == "Generation"

    def _judge(self, whole: bool) -> None:
        numbers: dict[int, list[int]] = {}
        times: dict[int, int] = {}
        for event in self.events:
            numbers.setdefault(event.proc, []).append(event.seq)
            assert event.time >= times.get(event.proc, 0), f"time decreases at {event}"
            times[event.proc] = event.time
        for row in self.losses:
            numbers.setdefault(row.proc, []).extend(range(row.first, row.last + 1))
        for proc, seen in numbers.items():
            first = self.first.get(proc, 0)
            assert sorted(seen) == list(range(first, first + len(seen))), f"gap in proc {proc}"
        if whole:
            assert self.end is not None
            for proc, row in self.rows.items():
                first = self.first.get(proc, 0)
                assert row.emitted == first + len(numbers.get(proc, ())), row
        report = verify(self.data)
        assert report.ok, [str(violation) for violation in report.violations[:10]]
        assert report.ended or not whole
        if whole and self.statistics is not None:
            close_ledger(self.statistics)
            assert not any(row.live for row in self.rows.values())
            assert self.statistics.stored == len(self.events)
            assert sum(self.statistics.lost.values()) == self.lost.total()
            assert self.end is not None
            assert (self.end.emitted, self.end.lost) == (self.statistics.events, self.lost.total())

    @property
    def lost(self) -> Counter[LossCause]:
        """Events lost, by cause, as the stream tells."""
        lost: Counter[LossCause] = Counter()
        for row in self.losses:
            lost[LossCause(row.cause)] += row.last - row.first + 1
        return lost

    def of(self, *types: str, task: str | None = None) -> list[Any]:
        """The events of some types, of one task if asked."""
        known = {event.type for event in EVENTS.values()}
        assert known.issuperset(types), types
        found = [event for event in self.events if event.type in types]
        return found if task is None else [e for e in found if self.names[e.task] == task]

    def story(self, *tasks: str) -> list[str]:
        """What the tasks with these names went through, a line per event."""
        return [
            line for event in self.events if (line := self._line(event, set(tasks))) is not None
        ]

    def _line(self, event: Any, tasks: set[str]) -> str | None:
        name = self.names.get(getattr(event, "task", 0))
        if name not in tasks:
            return None
        match event.type:
            case (
                "task_stack" | "step_stack"
            ):  # whether there is one depends on the time that it took
                return None
            case kind if kind in STRUCTURE:
                return None
            case "task_create":
                return f"{name} is created by {self.names.get(event.parent, 'nobody')}"
            case "task_waiting":
                return f"{name} waits: {Reason(event.reason).name}"
            case "task_runnable":
                return f"{name} is woken by {self.names.get(event.waker, 'nobody')}"
            case "step_start":
                return f"{name} runs"
            case "step_yield":
                return f"{name} yields"
            case "step_block":
                return f"{name} blocks: {Reason(event.reason).name}"
            case "task_exit":
                return f"{name} exits"
            case "span_begin" | "region_begin" | "counter" | "thread_start" as kind:
                return f"{name}: {kind} {getattr(event, 'name', '')}".rstrip()
            case "log":
                return f"{name} logs {event.message}"
            case kind:
                return f"{name}: {kind}"

    def blocks(self, task: str) -> list[tuple[Reason, int]]:
        """(reason, object) of every block of a task."""
        return [(Reason(e.reason), e.object) for e in self.of("step_block", task=task)]


def short(name: str) -> str:
    """The last part of a task's name: what its function is called."""
    return name.rsplit(".", 1)[-1]


def close_ledger(statistics: TracerStatistics) -> None:
    """Emitted = stored + lost, to the event."""
    assert statistics.events == statistics.stored + sum(statistics.lost.values()), statistics


def trace(program: Any, *args: Any, run: dict[str, Any] | None = None, **options: Any) -> Recording:
    """Record ``trio.run(program, *args)`` from outside: nothing but the program is in its run, proc 1."""
    tracer = Tracer(name="program", **options)
    tracer.start()
    try:
        result = trio.run(program, *args, **(run or {}))
    finally:
        data = trio.run(finish, tracer)
    recording = Recording(data, statistics=tracer.statistics(), result=result)
    ours = {event.proc for event in recording.of("task_create", task="finish")}
    recording.events = [event for event in recording.events if event.proc not in ours]
    return recording


async def finish(tracer: Tracer) -> bytes:
    """Stop a tracer that nobody has read yet; all that it gives."""
    data = b""

    async def read() -> None:
        nonlocal data
        while (piece := await tracer.read()) is not None:
            data += piece

    async with trio.open_nursery() as nursery:
        tracer.attach_reader()
        nursery.start_soon(read, name="tracesvc reader")
        await tracer.stop()
    return data


def read_tasks_again(tracer: Tracer) -> None:
    """As the tracer does it by the clock, at most once a second."""
    for run in tracer._runs:
        run.asked = 0
    tracer._beat()
