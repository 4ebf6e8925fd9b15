"""Valid traces of programs that never ran: random schedules, turned into streams as a recorder does it.

`program` plays a random program event by event and gives a `Stream`.  It keeps the state of the tasks twice, on its
own, without any code of `tracesvc.model`: as it is in the program, and as it is at the place the stream has come to.
Snapshots are written from the latter, and from the former where a loss made it unknown.
"""

from __future__ import annotations

import copy
import random
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

from tracesvc.events import EVENTS, Event, FrameKind, LossCause, ProcKind, Reason, TaskState
from tracesvc.format import (
    End,
    Exchange,
    Frame,
    Generation,
    Header,
    Loss,
    LossRow,
    ProcRow,
    SessionWriter,
    Snapshot,
)
from tracesvc.format.records import RegionRow, SpanRow, TaskRow
from tracesvc.sinks.gap import Gap

NUMBERS = {event.type: number for number, event in EVENTS.items()}
NO_OBJECT = {Reason.SLEEP, Reason.THREAD, Reason.PROCESS, Reason.SIGNAL}
WALL = 1_700_000_000_000_000_000
START = 5_000_000_000_000
AHEAD = 77_000_000_000
"""ns by which a service's clock is"""
MILLISECOND = 1_000_000


def record(number: int, time: int, *fields: Any) -> list[Any]:
    """An event as the recorder stores it: five slots."""
    if len(fields) > 3:
        return [number, time, *fields[:2], tuple(fields[2:])]
    return [number, time, *fields, *(0,) * (3 - len(fields))]


def records_of(events: list[Event]) -> list[Any]:
    """The records of typed events, flat."""
    flat: list[Any] = []
    for event in events:
        flat += record(event.number, event.time, *(getattr(event, f.name) for f in event.fields))
    return flat


@dataclass
class World:
    """Live tasks (by proc), open spans and regions, as far as the events applied say."""

    tasks: dict[int, dict[int, TaskRow]] = field(default_factory=dict)
    spans: dict[int, SpanRow] = field(default_factory=dict)
    regions: dict[int, RegionRow] = field(default_factory=dict)
    orphans: set[int] = field(default_factory=set)
    """spans and regions whose end came before their begin"""
    names: dict[int, tuple[str, str]] = field(default_factory=dict)
    """name and entry of a task, name of a span or region (ids are unique across all three)"""

    def apply(self, event: Any) -> None:
        tasks = self.tasks.setdefault(event.proc, {})

        def move(state: TaskState, reason: int = 0, object_: int = 0) -> None:
            if event.task in tasks:
                tasks[event.task] = tasks[event.task]._replace(
                    state=int(state), since=event.time, reason=reason, object=object_
                )

        match event.type:
            case "task_create":
                tasks[event.task] = TaskRow(
                    event.task, event.parent, event.nursery, 0, 0, 1, event.time, 0, 0
                )
                self.names[event.task] = event.name, event.entry
            case "task_waiting" | "step_block":
                move(TaskState.WAITING, event.reason, event.object)
            case "task_runnable" | "step_yield":
                move(TaskState.RUNNABLE)
            case "step_start":
                move(TaskState.RUNNING)
            case "task_exit":
                tasks.pop(event.task, None)
            case "span_begin" if event.span not in self.orphans:
                self.spans[event.span] = SpanRow(
                    event.span, event.parent, event.task, event.time, 0, event.attributes
                )
                self.names[event.span] = event.name, ""
            case "region_begin" if event.region not in self.orphans:
                self.regions[event.region] = RegionRow(
                    event.region, event.task, event.time, 0, event.attributes
                )
                self.names[event.region] = event.name, ""
            case "span_end" if not self.spans.pop(event.span, None):
                self.orphans.add(event.span)
            case "region_end" if not self.regions.pop(event.region, None):
                self.orphans.add(event.region)


@dataclass
class Writer:
    """A proc: what was emitted and is not in the stream yet."""

    id: int
    kind: ProcKind
    name: str
    thread: int
    emitted: int = 0
    lost: int = 0
    live: bool = True
    reported: bool = False
    stored: int = 0
    """sequence number the stream has come to"""
    buffer: list[Event] = field(default_factory=list)
    capacity: int = 1
    """events after which the buffer is sealed next"""

    def row(self) -> ProcRow:
        return ProcRow(
            self.id, int(self.kind), self.name, self.thread, self.stored, self.lost, self.live
        )


@dataclass
class Run:
    """A ``trio.run`` of the program."""

    proc: Writer
    init: int
    running: int = 0
    nurseries: dict[int, tuple[int, set[int]]] = field(default_factory=dict)
    """nursery -> its owner and its live children"""
    open_regions: dict[int, list[int]] = field(default_factory=dict)
    created: dict[int, int] = field(default_factory=dict)
    errors: dict[int, int] = field(default_factory=dict)
    """nursery -> how many"""
    scopes: list[int] = field(default_factory=list)
    """that were cancelled"""
    threads: dict[int, tuple[Writer, str]] = field(default_factory=dict)
    """task -> the worker thread that runs a call for it"""


@dataclass
class Stream:
    """A whole stream; ``frames`` may be thinned out and joined again."""

    session: str
    frames: list[Frame] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    """in stored order"""
    losses: list[LossRow] = field(default_factory=list)

    @property
    def data(self) -> bytes:
        return b"".join(frame.data for frame in self.frames)

    def generations(self) -> list[int]:
        """Indexes of the GENERATION frames."""
        return [i for i, f in enumerate(self.frames) if f.kind == FrameKind.GENERATION]

    def joined_late(self, generation: int) -> Stream:
        """What a sink has that was added before this generation."""
        at = self.generations()[generation]
        kept = [self.frames[0], *self.frames[at:]]
        first = {f.proc: f.first for f in reversed(kept) if f.count}
        events = [e for e in self.events if e.seq >= first.get(e.proc, 1 << 63)]
        return replace(self, frames=kept, events=events, losses=[])

    def with_drops(self, first: int, generation: int) -> Stream:
        """What a sink has that dropped frame ``first`` and all that follow until a generation."""
        until = self.generations()[generation]
        gap = Gap()
        for frame in self.frames[first:until]:
            gap.add(frame, LossCause.SINK_FULL)
        account = gap.frames(closing=False)
        losses = [
            row
            for frame in account
            if frame.kind == FrameKind.LOSS
            for row in Loss.unpack(frame.body()).rows
        ]
        gone = {(row.proc, n) for row in losses for n in range(row.first, row.last + 1)}
        events = [e for e in self.events if (e.proc, e.seq) not in gone]
        frames = [*self.frames[:first], *account, *self.frames[until:]]
        return replace(self, frames=frames, events=events, losses=losses)


class Program:
    """A random program, its recorder and its reader in one; see `program`."""

    def __init__(self, seed: int, runs: int, losses: float, batch: int, nests: bool) -> None:
        self.nests = nests
        self.random = random.Random(seed)
        self.now = START
        self.ids = 0
        self.emitted = 0
        self.losing = losses
        self.batch = batch
        self.writer = SessionWriter()
        self.stream = Stream(str(uuid.UUID(int=self.random.getrandbits(128), version=4)))
        self.world, self.seen = World(), World()
        self.unsure = False
        self.generation = 0
        self.procs: dict[int, Writer] = {}
        self.lost_rows: list[LossRow] = []
        self.process = self.open_proc(ProcKind.PROCESS, "process")
        self.idle: list[Writer] = []
        self.objects = [self.new_id()]
        """channels, locks, events: numbered like nurseries"""
        self.side: list[tuple[int, Run, Writer]] = []
        """procs that tasks opened: (task, run, proc)"""
        self.runs = [self.attach() for _ in range(runs)]
        header = Header(self.stream.session, {"name": f"program {seed}"}, START, WALL)
        self.stream.frames.append(self.writer.header(header))
        self.begin_generation()

    # --- the recorder ----------------------------------------------------------------------------

    def open_proc(self, kind: ProcKind, name: str) -> Writer:
        proc = Writer(len(self.procs), kind, name, 1000 + len(self.procs))
        self.procs[proc.id] = proc
        return proc

    def new_id(self) -> int:
        self.ids += 1
        return self.ids

    def emit(self, proc: Writer, type_: str, *fields: Any) -> None:
        self.now += self.random.choice((0, 1, 900, 5_000, 40_000, 2_000_000))
        event = EVENTS[NUMBERS[type_]](self.now, proc.id, proc.emitted, *fields)
        proc.emitted += 1
        self.emitted += 1
        proc.buffer.append(event)
        self.world.apply(event)

    def flush(self, proc: Writer, *, keep: bool = False) -> None:
        """Seal the buffer of a proc; the full queue has no room for it now and then."""
        events, proc.buffer = proc.buffer, []
        if not events:
            return
        proc.stored = proc.emitted
        if not keep and self.random.random() < self.losing:
            first, last = events[0], events[-1]
            cause = self.random.choice((LossCause.QUEUE_FULL, LossCause.NO_READER))
            proc.lost += len(events)
            row = LossRow(proc.id, first.seq, last.seq, int(cause), first.time, last.time)
            self.lost_rows.append(row)
            self.stream.losses.append(row)
            self.unsure = True
            if self.random.random() < 0.5:
                self.tell_losses()
            return
        self.stream.events += events
        self.stream.frames += self.writer.events(proc.id, events[0].seq, records_of(events))
        for event in events:
            self.seen.apply(event)

    def tell_losses(self) -> None:
        self.stream.frames += self.writer.losses(self.lost_rows)
        self.lost_rows = []

    def accounts(self) -> list[ProcRow]:
        """Of all procs; an ended one is reported once more when all of it has come by."""
        rows = []
        for proc in self.procs.values():
            if not proc.reported:
                proc.reported = not proc.live and not proc.buffer
                rows.append(proc.row()._replace(live=not proc.reported))
        return rows

    def begin_generation(self) -> None:
        if self.unsure:
            for proc in self.procs.values():
                self.flush(proc, keep=True)
            self.seen, self.unsure = copy.deepcopy(self.world), False
        self.tell_losses()
        self.now += 1
        clock = Generation(self.generation, self.now, WALL + self.now - START, self.stream.session)
        self.stream.frames += self.writer.generation(clock, self.accounts())
        told = self.now - 900, self.now + AHEAD - 500, self.now + AHEAD - 400, self.now - 100
        exchange = Exchange(*told, WALL + told[2] - START - AHEAD, "service")
        self.stream.frames += self.writer.clocks([exchange])
        if self.generation:
            self.write_snapshots()
        self.generation += 1

    def write_snapshots(self) -> None:
        names, intern = self.seen.names, self.writer.intern
        for run in self.runs:
            rows = [
                row._replace(name=intern(names[row.task][0]), entry=intern(names[row.task][1]))
                for row in self.seen.tasks.get(run.proc.id, {}).values()
            ]
            pieces = [rows[i : i + 7] for i in range(0, len(rows), 7)]
            for i, piece in enumerate(pieces):
                part = Snapshot(run.proc.id, run.proc.stored, i, len(pieces), piece)
                self.stream.frames += self.writer.snapshot(part)
        spans = [row._replace(name=intern(names[row.span][0])) for row in self.seen.spans.values()]
        regions = [
            row._replace(name=intern(names[row.region][0])) for row in self.seen.regions.values()
        ]
        part = Snapshot(0, self.process.stored, 0, 1, [], spans, regions)
        self.stream.frames += self.writer.snapshot(part)

    # --- the program -----------------------------------------------------------------------------

    def attach(self) -> Run:
        """A run: new, or one that has been going on for a while."""
        number = len(self.procs)
        proc = self.open_proc(ProcKind.RUN, f"run {number}")
        init = self.new_id()
        run = Run(proc, init)
        old = self.random.random() < 0.5
        if not old:
            self.emit(proc, "proc_start", int(ProcKind.RUN), proc.thread, proc.name)
        self.emit(proc, "task_create", init, 0, 0, "<init>", "trio.Runner.init")
        if not old:
            return run
        system = self.open_nursery(run, init)
        main = self.spawn(run, init, system, "main")
        self.emit(proc, "task_waiting", init, int(Reason.NURSERY), system)
        nursery = self.open_nursery(run, main)
        for _ in range(self.random.randrange(12)):
            task = self.spawn(run, main, nursery, "old worker")
            if self.random.random() < 0.5:
                self.emit(proc, "task_waiting", task, *self.a_reason())
        span = self.new_id()
        self.emit(proc, "span_begin", span, 0, main, "old span", {"a": 1})
        region = self.new_id()
        self.emit(proc, "region_begin", region, main, "old region", None)
        run.open_regions[main] = [region]
        self.emit(proc, "proc_start", int(ProcKind.RUN), proc.thread, proc.name)
        self.start_step(run, main)
        return run

    def a_reason(self) -> tuple[int, int]:
        reason = self.random.choice([r for r in Reason if r not in (0, Reason.NURSERY, 12)])
        if reason in NO_OBJECT:
            return int(reason), 0
        if reason in (Reason.READABLE, Reason.WRITABLE):
            return int(reason), self.random.randrange(3, 40)
        if len(self.objects) < 40 and self.random.random() < 0.1:
            self.objects.append(self.new_id())
        return int(reason), self.random.choice(self.objects)

    def open_nursery(self, run: Run, owner: int) -> int:
        nursery = self.new_id()
        run.nurseries[nursery] = owner, set()
        run.created[nursery] = run.errors[nursery] = 0
        if self.nests:
            self.emit(run.proc, "nursery_open", owner, nursery)
        return nursery

    def close_nursery(self, run: Run, task: int, nursery: int) -> None:
        del run.nurseries[nursery]
        children, errors = run.created.pop(nursery), run.errors.pop(nursery)
        self.emit(run.proc, "nursery_close", task, nursery, children, errors)

    def cancel(self, run: Run, owner: int, nursery: int = 0, source: int = 1) -> None:
        scope = self.new_id()
        run.scopes.append(scope)
        why = "ValueError: no" if source == 3 else ""
        rest = (run.running, source, nursery, self.random.choice((-1, 10**9)), why)
        self.emit(run.proc, "cancel_request", scope, owner, *rest)

    def outcome(self, run: Run, task: int) -> int:
        """How a task ends; told, if by an exception."""
        if not self.nests:
            return 0
        mine = [n for n, (_, children) in run.nurseries.items() if task in children]
        if not mine or self.random.random() < 0.7:
            return self.random.choice((1, 3))
        nursery = mine[0]
        run.errors[nursery] += 1
        self.emit(run.proc, "task_error", task, nursery, "ValueError", "no")
        self.cancel(run, run.nurseries[nursery][0], nursery, 3)
        return 2

    def spawn(self, run: Run, parent: int, nursery: int, name: str) -> int:
        task = self.new_id()
        run.nurseries[nursery][1].add(task)
        run.created[nursery] += 1
        self.emit(run.proc, "task_create", task, parent, nursery, name, f"app.py:{name}")
        return task

    def start_step(self, run: Run, task: int) -> None:
        self.emit(run.proc, "step_start", task)
        run.running = task

    def wake(self, run: Run, task: int) -> None:
        causes = (1, 4, 5, 6) if run.running else (0, 2, 3, 6)
        cause = self.random.choice(causes)
        self.emit(run.proc, "task_runnable", task, run.running, cause)
        if cause in (3, 5) and run.scopes:  # there are none without nests
            self.emit(run.proc, "task_cancelled", task, self.random.choice(run.scopes))

    def turn(self, run: Run) -> None:
        """One thing happens in a run."""
        if run.running:
            return self.in_step(run)
        tasks = self.world.tasks[run.proc.id].values()
        ready = [row.task for row in tasks if row.state == TaskState.RUNNABLE]
        if self.random.random() < 0.1:
            self.emit(run.proc, "counter", "trio.run_queue", float(len(ready)), 0)
        if ready:
            return self.start_step(run, self.random.choice(ready))
        if self.random.random() < 0.9:
            self.emit(run.proc, "io_wait_start", self.random.randrange(1, 10**9))
            self.wake_some(run, [r for r in tasks if r.reason != Reason.NURSERY])
            self.emit(run.proc, "io_wait_end")
        return None

    def wake_some(self, run: Run, waiting: list[TaskRow]) -> None:
        for row in self.random.sample(waiting, min(len(waiting), self.random.randrange(4))):
            if row.task in run.threads:
                worker, function = run.threads.pop(row.task)
                self.emit(worker, "thread_start", row.task, function)
                self.annotate(run, worker, row.task, regions=False)
                self.emit(worker, "thread_end", row.task)
                self.idle.append(worker)
            self.wake(run, row.task)

    def in_step(self, run: Run) -> None:
        task, roll = run.running, self.random.random()
        waiting = [
            row
            for row in self.world.tasks[run.proc.id].values()
            if row.state == TaskState.WAITING and row.reason not in (Reason.NURSERY, Reason.THREAD)
        ]
        own = [n for n, (owner, _) in run.nurseries.items() if owner == task]
        if roll < 0.15:
            if not own or self.random.random() < 0.2:
                own = [self.open_nursery(run, task)]
            name = self.random.choice(("worker", "handler", "tracesvc reader", "größe"))
            self.spawn(run, task, self.random.choice(own), name)
        elif roll < 0.3 and waiting:
            self.wake(run, self.random.choice(waiting).task)
        elif roll < 0.45:
            self.annotate(run, run.proc, task)
        elif roll < 0.48:
            self.gc(run.proc)
        elif roll < 0.5:
            self.on_the_side(run, task)
        elif self.nests and roll < 0.52:
            self.cancel(run, task)
        elif self.nests and roll < 0.54 and own and not run.nurseries[own[-1]][1]:
            self.close_nursery(run, task, own[-1])
        elif roll < 0.65:
            self.emit(run.proc, "step_yield", task)
            run.running = 0
        elif roll < 0.75:
            self.leave(run, task)
        else:
            self.block(run, task, own)

    def block(self, run: Run, task: int, own: list[int]) -> None:
        busy = [n for n in own if run.nurseries[n][1]]
        reason, object_ = self.a_reason()
        if task == run.init or (busy and self.random.random() < 0.5):
            if not busy:  # only the init task: it always has something to wait for
                system = own[0] if own else self.open_nursery(run, task)
                self.spawn(run, task, system, "main")
                busy = [system]
            reason, object_ = int(Reason.NURSERY), busy[0]
        elif self.random.random() < 0.1:
            reason, object_ = int(Reason.THREAD), 0
            run.threads[task] = self.worker(), self.random.choice(("read", "hash"))
        self.emit(run.proc, "step_block", task, reason, object_)
        run.running = 0

    def worker(self) -> Writer:
        if self.idle:
            return self.idle.pop()
        proc = self.open_proc(ProcKind.THREAD, "trio.to_thread")
        self.emit(proc, "proc_start", int(ProcKind.THREAD), proc.thread, proc.name)
        return proc

    def leave(self, run: Run, task: int) -> None:
        if task == run.init or any(
            owner == task and children for owner, children in run.nurseries.values()
        ):
            return
        while run.open_regions.get(task):
            self.emit(run.proc, "region_end", run.open_regions[task].pop(), task)
        for side in [s for s in self.side if s[0] == task]:
            self.side.remove(side)
            self.emit(side[2], "proc_stop")
            side[2].live = False
        outcome = self.outcome(run, task)
        for nursery, (owner, children) in list(run.nurseries.items()):
            if owner == task:
                del run.nurseries[nursery]
            elif task in children:
                children.discard(task)
                row = self.world.tasks[run.proc.id][owner]
                joined = row.reason == Reason.NURSERY and row.object == nursery
                if joined and not children:
                    self.wake(run, owner)
        self.emit(run.proc, "task_exit", task, outcome)
        run.running = 0

    def on_the_side(self, run: Run, task: int) -> None:
        """The task has a proc of its own, or opens one."""
        mine = [proc for owner, _, proc in self.side if owner == task]
        if not mine:
            proc = self.open_proc(ProcKind.TASK, "ingest")
            proc.thread = run.proc.thread
            self.emit(proc, "proc_start", int(ProcKind.TASK), proc.thread, proc.name)
            self.side.append((task, run, proc))
            mine = [proc]
        self.annotate(run, mine[0], task, regions=False)

    def annotate(self, run: Run, proc: Writer, task: int, *, regions: bool = True) -> None:
        spans = list(self.world.spans)
        attributes = self.random.choice((None, {}, {"k": "v", "n": [1, 2.5, None]}))
        regions_of = run.open_regions.setdefault(task, [])
        match self.random.randrange(6):
            case 0 | 1 if len(spans) < 8:
                parent = self.random.choice([0, *spans])
                name = self.random.choice(("GET /", "query"))
                self.emit(proc, "span_begin", self.new_id(), parent, task, name, attributes)
            case 0 | 1 | 2 if spans:
                self.emit(proc, "span_end", self.random.choice(spans), task)
            case 3 if regions and len(regions_of) < 5:
                region = self.new_id()
                self.emit(proc, "region_begin", region, task, "parse", attributes)
                regions_of.append(region)
            case 3 | 4 if regions and regions_of:
                self.emit(proc, "region_end", regions_of.pop(), task)
            case 4:
                self.emit(proc, "counter", "requests", self.random.uniform(-1e9, 1e9), task)
            case _:
                span = self.random.choice([0, *spans])
                level = self.random.choice((10, 20, 30, 40))
                self.emit(proc, "log", task, span, level, 0, "a message", attributes)

    def gc(self, proc: Writer) -> None:
        generation = self.random.randrange(3)
        self.emit(proc, "gc_start", generation)
        self.emit(proc, "gc_end", generation, self.random.randrange(100))

    # --- the whole -------------------------------------------------------------------------------

    def play(self, events: int, generations: int) -> Stream:
        starts = [events * (i + 1) // generations for i in range(generations - 1)]
        while self.emitted < events:
            self.turn(self.random.choice(self.runs))
            if self.random.random() < 0.02:
                self.emit(self.process, "counter", "process.rss", 1e6, 0)
            if self.random.random() < 0.003:
                self.runs.append(self.attach())
            for proc in self.procs.values():
                if len(proc.buffer) >= proc.capacity:
                    self.flush(proc)
                    proc.capacity = self.random.choice((1, 5, self.batch // 2, self.batch))
            if starts and self.emitted >= starts[0]:
                del starts[0]
                self.begin_generation()
        return self.finish()

    def finish(self) -> Stream:
        caller = self.random.choice(self.runs)
        if not caller.running:
            tasks = self.world.tasks[caller.proc.id].values()
            ready = [row.task for row in tasks if row.state == TaskState.RUNNABLE]
            if ready:
                self.start_step(caller, ready[0])
        if caller.running:
            self.emit(caller.proc, "step_yield", caller.running)
            self.emit(caller.proc, "proc_stop")
            caller.proc.live = False
        for proc in self.procs.values():
            self.flush(proc)
        self.tell_losses()
        self.stream.frames += self.writer.procs(self.accounts())
        lost = sum(proc.lost for proc in self.procs.values())
        end = End(self.now + 1, WALL + self.now + 1 - START, self.emitted, lost)
        self.stream.frames.append(self.writer.end(end))
        return self.stream


def program(
    seed: int = 1,
    *,
    events: int = 1500,
    runs: int = 2,
    generations: int = 4,
    losses: float = 0.0,
    batch: int = 200,
    nests: bool = False,
) -> Stream:
    """The stream of a random program, complete and right.

    Args:
        seed: The same seed gives the same stream.
        events: About as many are emitted.
        runs: Runs that exist when the tracer starts; more may come.
        generations: As many, if there are events enough.
        losses: Share of the sealed buffers that find the full queue full.
        batch: Events in a frame, at most.
        nests: Whether it tells of nurseries, cancellation and outcomes too.
    """
    return Program(seed, runs, losses, batch, nests).play(events, generations)
