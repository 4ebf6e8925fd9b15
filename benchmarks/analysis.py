"""How fast questions are answered: a trace of 10 million events, made here, and asked one question after the other.

Per question, in a process of its own: events per second of CPU time (one core), and the largest resident set.  Then the
same trace is exported for Go and for Perfetto, and their own tools read what came out.
The bars: `summary` at least 5 million events/s and at most 500 MB, each export at least half a million events/s.
"""

from __future__ import annotations

import argparse
import json as json_module
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import tracesvc.events as ev
from benchmarks.exports import BARS, JUDGES, exported
from tracesvc.format import End, Generation, Header, ProcRow, SessionWriter, Snapshot
from tracesvc.format.records import RegionRow, SpanRow, TaskRow
from tracesvc.model.reader import Trace, read

__all__ = ["make"]

SESSION: Final = "12345678-1234-4234-8234-123456789abc"
BATCH: Final = 2048
PER_GENERATION: Final = 200_000
WORKERS: Final = 160
SPEED: Final = 5_000_000
"""events/s of `summary`"""
MEMORY: Final = 500_000_000
"""bytes of `summary`, at most"""
RUN: Final = 1


class Server:
    """A server that never was: workers that sleep, wait for sockets, channels, locks, wake each other, come and go.

    Every event is legal where it stands; `tracesvc verify` finds nothing wrong with the trace.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 10**12
        self.records: list[Any] = []
        self.tasks = 2
        self.span = 0
        self.waiting: dict[int, tuple[int, int, int, int]] = {}
        """task -> number of its name, since, reason, object"""
        self.order: list[int] = []
        self.fresh: list[tuple[int, int]] = []
        """tasks that have had no step yet"""
        self.begin()

    def emit(self, type_: type[ev.Event], *fields: Any) -> None:
        a, b, c = (*fields, 0, 0, 0)[:3] if len(fields) <= 3 else (*fields[:2], fields[2:])
        self.records += (type_.number, self.now, a, b, c)

    def begin(self) -> None:
        self.emit(ev.ProcStart, int(ev.ProcKind.RUN), 1, "run")
        self.emit(ev.TaskCreate, 1, 0, 0, "<init>", "init")
        self.emit(ev.StepStart, 1)
        self.emit(ev.TaskCreate, 2, 1, 1, "app.main", "main")
        self.emit(ev.StepBlock, 1, int(ev.Reason.NURSERY), 1)
        self.emit(ev.StepStart, 2)
        for _ in range(WORKERS):
            self.create()
        self.emit(ev.StepBlock, 2, int(ev.Reason.NURSERY), 2)

    def create(self) -> None:
        self.tasks += 1
        kind = self.tasks % 7
        self.emit(ev.TaskCreate, self.tasks, 2, 2, f"app.worker{kind}", "worker")
        self.fresh.append((self.tasks, kind))

    def first_steps(self) -> None:
        for task, kind in self.fresh:
            self.now += 3_000
            self.emit(ev.StepStart, task)
            self.block(task, kind)
        self.fresh = []

    def block(self, task: int, kind: int) -> None:
        pick = self.random.random()
        reason = next(r for bound, r in _REASONS if pick < bound)
        object_ = self.random.randrange(3, 3000) if reason not in _NO_OBJECT else 0
        self.now += self.random.randrange(1_000, 60_000)
        self.emit(ev.StepBlock, task, int(reason), object_)
        self.waiting[task] = kind, self.now, int(reason), object_
        self.order.append(task)

    def turn(self) -> None:
        """One wake-up and what follows."""
        pick = self.random
        if self.fresh:
            self.first_steps()
        at = pick.randrange(len(self.order))
        task, self.order[at] = self.order[at], self.order[-1]
        del self.order[-1]
        kind = self.waiting.pop(task)[0]
        if pick.random() < 0.3:
            self.emit(ev.IoWaitStart, 10**9)
            self.now += pick.randrange(50_000)
            self.emit(ev.TaskRunnable, task, 0)
            self.emit(ev.IoWaitEnd)
        else:
            self.emit(ev.TaskRunnable, task, 0)
        self.now += pick.randrange(2_000)
        self.emit(ev.StepStart, task)
        if pick.random() < 0.2:
            self.span += 1
            attributes = {"path": "/items", "n": self.span} if self.span % 4 == 0 else None
            self.emit(ev.SpanBegin, self.span, 0, task, "GET /items", attributes)
            self.now += pick.randrange(20_000)
            self.emit(ev.SpanEnd, self.span, task)
        while pick.random() < 0.4:
            self.now += pick.randrange(1_000, 30_000)
            self.emit(ev.StepYield, task)
            self.now += pick.randrange(3_000)
            self.emit(ev.StepStart, task)
        if self.order and pick.random() < 0.3:
            self.wake(task, kind)
            return
        if pick.random() < 0.01:
            self.create()
            self.emit(ev.TaskExit, task)
            return
        self.block(task, kind)

    def wake(self, task: int, kind: int) -> None:
        """The task wakes another one, which runs next."""
        at = self.random.randrange(len(self.order))
        other, self.order[at] = self.order[at], self.order[-1]
        del self.order[-1]
        theirs = self.waiting.pop(other)[0]
        self.emit(ev.TaskRunnable, other, task)
        self.block(task, kind)
        self.now += self.random.randrange(2_000)
        self.emit(ev.StepStart, other)
        self.block(other, theirs)


_REASONS: Final = (
    (0.4, ev.Reason.READABLE),
    (0.6, ev.Reason.CHANNEL_RECEIVE),
    (0.75, ev.Reason.LOCK),
    (0.9, ev.Reason.SLEEP),
    (1.1, ev.Reason.EVENT),
)
_NO_OBJECT: Final = {ev.Reason.SLEEP}


def make(path: Path, events: int, seed: int = 1) -> int:
    """Write a trace of about so many events; returns how many."""
    server, writer, written, generation = Server(seed), SessionWriter(), 0, 0
    began = server.now
    with path.open("wb") as file:
        file.write(writer.header(Header(SESSION, {"name": "benchmark"}, began, began)).data)
        row = ProcRow(RUN, int(ev.ProcKind.RUN), "run", 1, 0, 0, live=True)
        while True:
            if written >= generation * PER_GENERATION:
                if server.fresh:
                    server.first_steps()
                if generation:
                    written = _write(file, writer, server, written)
                clock = Generation(generation, server.now, server.now, SESSION)
                row = row._replace(emitted=written)
                file.writelines(f.data for f in writer.generation(clock, [row]))
                if generation:
                    _snapshot(file, writer, server, written, began)
                generation += 1
                if written >= events:
                    break
            while len(server.records) < BATCH * 5:
                server.turn()
            written = _write(file, writer, server, written)
        file.writelines(f.data for f in writer.procs([row._replace(live=False)]))
        file.write(writer.end(End(server.now, server.now, written, 0)).data)
    return written


def _write(file: Any, writer: SessionWriter, server: Server, written: int) -> int:
    if server.records:
        for frame in writer.events(RUN, written, server.records):
            file.write(frame.data)
        written += len(server.records) // 5
        server.records = []
    return written


def _snapshot(file: Any, writer: SessionWriter, server: Server, written: int, began: int) -> None:
    nursery, waiting = int(ev.Reason.NURSERY), int(ev.TaskState.WAITING)
    intern = writer.intern
    first, main = intern("init"), intern("main")
    rows = [
        TaskRow(1, 0, 0, intern("<init>"), first, waiting, began, nursery, 1),
        TaskRow(2, 1, 1, intern("app.main"), main, waiting, began, nursery, 2),
    ]
    entry = intern("worker")
    rows += [
        TaskRow(task, 2, 2, intern(f"app.worker{kind}"), entry, waiting, since, reason, object_)
        for task, (kind, since, reason, object_) in server.waiting.items()
    ]
    nothing: tuple[list[SpanRow], list[RegionRow]] = ([], [])
    for part in (Snapshot(RUN, written, 0, 1, rows), Snapshot(0, 0, 0, 1, [], *nothing)):
        file.writelines(f.data for f in writer.snapshot(part))


# --- questions -----------------------------------------------------------------------------------


def _replay(trace: Trace) -> object:
    from tracesvc.model.replay import Replay

    return sum(len(part.phases) for part in Replay(trace).parts())


def _ask(name: str) -> Callable[[Trace], object]:
    from tracesvc import analysis

    sql = "select reason, sum(duration) from waits group by reason"
    ways: dict[str, Callable[[Trace], object]] = {
        "summary": analysis.summarize,
        "model": _replay,
        "tasks": analysis.tasks_at,
        "latency": analysis.latencies,
        "stalls": analysis.stalls,
        "why": analysis.why,
        "lint": analysis.lint,
        "query": lambda trace: analysis.query(trace, sql),
    }
    return ways[name]


QUESTIONS: Final = ("summary", "model", "tasks", "latency", "stalls", "why", "lint", "query")


def ask(name: str, path: Path, rounds: int) -> dict[str, float]:
    """Seconds of CPU, the best of several rounds, and the largest resident set of this process in bytes."""
    question, best = _ask(name), float("inf")
    for _ in range(rounds):
        began = time.process_time()
        with read(path) as trace:
            question(trace)
        best = min(best, time.process_time() - began)
    return {"seconds": best, "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def main(json: bool = False, events: int = 10_000_000) -> int:
    """Print the figures; 1 if a bar is missed."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "benchmark.trace"
        count = make(path, events)
        size = path.stat().st_size
        figures: dict[str, Any] = {}
        for name in QUESTIONS:
            words = [
                "--ask",
                name,
                "--file",
                str(path),
                "--rounds",
                str(5 if name == "summary" else 1),
            ]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.analysis", *words],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found = json_module.loads(done.stdout)
            rate = round(count / found["seconds"])
            figures[name] = {"events_per_s": rate, "rss": round(found["rss"]), **found}
        exports = []
        for name in JUDGES:
            out = Path(directory) / f"out.{name}"
            exports.append(exported(path, name, out))
            out.unlink()
    result = {"events": count, "bytes": size, "questions": figures, "exports": exports}
    if json:
        print(json_module.dumps({"analysis": result}))
    else:
        print(f"analysis: {count:,} events, {size / 1e6:.0f} MB")
        print(f"  {'question':<10} {'million events/s':>17} {'MB resident':>12}")
        for name, one in figures.items():
            print(f"  {name:<10} {one['events_per_s'] / 1e6:>17.2f} {one['rss'] / 1e6:>12.0f}")
        print("\n  export     million events/s   MiB")
        for row in exports:
            line = f"  {row['format']:<10} {row['rate'] / 1e6:>16.2f} {row['memory']:>5}"
            if "tool_rate" in row:
                line += f"   {row['tool']} reads {row['tool_rate'] / 1e6:.2f}"
                line += f": 1 : {row['rate'] / row['tool_rate']:.1f}"
            print(line)
    summary = figures["summary"]
    missed = summary["events_per_s"] < SPEED or summary["rss"] > MEMORY
    return int(missed or any(row["rate"] < BARS[row["format"]] for row in exports))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--ask", choices=QUESTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ask:
        print(json_module.dumps(ask(arguments.ask, arguments.file, arguments.rounds)))
        raise SystemExit(0)
    raise SystemExit(main(arguments.json, arguments.events))
