"""How fast a trace is read: frames of 2,048 events, checksums, unpacking, every column, absolute times.

Printed per way of reading, in CPU time (the file lies in memory, nothing is waited for), best of several rounds:

* ``chunks``: `Trace.chunks`, all columns, times, procs and sequence numbers of 128 K events at a time (the goal:
  at least 20 million events/s)
* ``columns``: the same for the whole file at once
* ``batches``: frames found, checked and unpacked, columns left as they are
* ``events``: one typed object per event
"""

from __future__ import annotations

import argparse
import json as json_module
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tracesvc.events as ev
from tracesvc.format import End, Generation, Header, ProcRow, SessionWriter
from tracesvc.model.reader import Trace, read

SESSION = "12345678-1234-4234-8234-123456789abc"
BATCH = 2048
PER_GENERATION = 200_000


def make(path: Path, events: int, seed: int = 1) -> None:
    """A trace like that of a server: tasks that step, block and are woken, spans, counters, I/O waits."""
    rng = random.Random(seed)
    writer, now, written, generation = SessionWriter(), 10**12, 0, 0
    with path.open("wb") as file:
        file.write(writer.header(Header(SESSION, {"name": "benchmark"}, now, now)).data)
        row = ProcRow(1, int(ev.ProcKind.RUN), "run", 1, 0, 0, live=True)
        records: list[Any] = []
        task, span = 100, 1
        while written < events:
            if written >= generation * PER_GENERATION:
                clock = Generation(generation, now, now, SESSION)
                row = row._replace(emitted=written)
                file.writelines(f.data for f in writer.generation(clock, [row]))
                generation += 1
            while len(records) < BATCH * 5:
                task = 100 + rng.randrange(160)
                step = now + rng.randrange(9_000)
                block = step + rng.randrange(60_000)
                reason = rng.choice((1, 2, 3, 8, 10, 10, 10))
                records += [5, now, task, rng.choice((0, 0, 100 + rng.randrange(160))), 0]
                records += [6, step, task, 0, 0]
                if rng.random() < 0.1:
                    span += 1
                    attributes = {"path": "/items", "n": span} if span % 4 == 0 else None
                    records += [16, step, span, 0, (task, "GET /items", attributes)]
                    records += [17, block, span, task, 0]
                if rng.random() < 0.4:
                    records += [7, block, task, 0, 0]
                else:
                    records += [8, block, task, reason, rng.randrange(3000)]
                now = block + rng.randrange(5_000)
                if rng.random() < 0.1:
                    records += [10, now, 10**9, 0, 0]
                    records += [21, now, "trio.run_queue", 3.0, 0]
                    now += rng.randrange(50_000)
                    records += [11, now, 0, 0, 0]
            for frame in writer.events(1, written, records[: BATCH * 5]):
                file.write(frame.data)
            del records[: BATCH * 5]
            written += BATCH
        file.write(writer.end(End(now, now, written, 0)).data)


def _chunks(trace: Trace) -> int:
    total = 0
    for columns in trace.chunks():
        assert len(columns.time) == len(columns.proc) == len(columns.seq)
        total += len(columns)
    return total


def _columns(trace: Trace) -> int:
    columns = trace.columns()
    assert len(columns.time) == len(columns.proc) == len(columns.seq)
    return len(columns)


def _batches(trace: Trace) -> int:
    return sum(batch.count for batch in trace.batches())


def _events(trace: Trace) -> int:
    return sum(1 for _ in trace)


WAYS: dict[str, tuple[Callable[[Trace], int], int]] = {
    "chunks": (_chunks, 15),
    "columns": (_columns, 5),
    "batches": (_batches, 7),
    "events": (_events, 1),
}


GOAL: int = 20_000_000
"""events/s in chunks of columns"""


def main(json: bool = False, events: int = 4_000_000) -> int:
    """Print the figures; 1 if the goal is missed."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "benchmark.trace"
        make(path, events)
        size = path.stat().st_size
        figures: dict[str, Any] = {}
        for name, (way, rounds) in WAYS.items():
            best = float("inf")
            for _ in range(rounds):
                began = time.process_time()
                with read(path) as trace:
                    read_events = way(trace)
                best = min(best, time.process_time() - began)
            figures[name] = {
                "events_per_s": round(read_events / best),
                "bytes_per_s": round(size / best),
            }
    result = {"events": read_events, "bytes_per_event": round(size / read_events, 2), **figures}
    if json:
        print(json_module.dumps({"reader": result}))
    else:
        print(f"reader: {read_events:,} events, {result['bytes_per_event']} bytes each")
        for name in WAYS:
            rate = figures[name]["events_per_s"] / 1e6
            print(
                f"  {name:<8} {rate:8.2f} million events/s {figures[name]['bytes_per_s'] / 1e6:8.0f} MB/s"
            )
    return int(figures["chunks"]["events_per_s"] < GOAL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--events", type=int, default=4_000_000)
    arguments = parser.parse_args()
    raise SystemExit(main(arguments.json, arguments.events))
