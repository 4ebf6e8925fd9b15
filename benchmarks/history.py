"""What it costs that finished sessions also become tables, and what SQL over many of them costs.

A recorded HTTP server and a made trace of a million events are compacted in the process that a service starts for it:
CPU-s and MB per million events, beside the trace's own MB, and the largest resident set.  Then acknowledgements of a
store that compacts all the while are timed against those of one that does not, in turns; and a query over many
sessions.  The bars: compaction at most 5 CPU-s per million events of the made trace, within 512 MiB.
"""

from __future__ import annotations

import json as json_module
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio

import tracesvc
from benchmarks.analysis import make
from benchmarks.workloads import VARIED, serve_http
from tracesvc.analysis.history import query_many
from tracesvc.format import Generation, Header, ProcRow, SessionWriter
from tracesvc.store import FileStore
from tracesvc.store.compacting import compact
from tracesvc.store.compaction import Compact, in_child
from tracesvc.store.segments import segment_name
from tracesvc.store.tables import Compacted, found_tables

__all__ = ["main"]

EVENTS: Final = 1_000_000
REQUESTS: Final = 3_000
SESSIONS: Final = 100
PIECES: Final = 150
ROUNDS: Final = 4
MEMORY: Final = 512 << 20
CPU: Final = 5.0
SQL: Final = "select source, name, count(*), sum(duration) from spans group by all"


def _sessions(root: Path) -> dict[str, Path]:
    """Directories with a session each, as a store has them."""
    places = {name: root / name / str(uuid.uuid4()) for name in ("http server", "made")}
    for place in places.values():
        place.mkdir(parents=True)

    async def record() -> None:
        sink = tracesvc.FileSink(places["http server"] / segment_name(0))
        async with tracesvc.open_tracer(sink, name="http"):
            await serve_http("hypercorn", REQUESTS, connections=8, paths=VARIED)

    trio.run(record)
    make(places["made"] / segment_name(0), EVENTS)
    return places


def _cost(place: Path) -> dict[str, Any]:
    """Of compacting one session in its process."""
    size = (place / segment_name(0)).stat().st_size
    words = [place, place.name, size, place, MEMORY]
    near, far = os.pipe()
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "tracesvc.store.compacting", *map(str, words)], stdin=near
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    os.close(near)
    os.close(far)
    found = found_tables(place, size)
    if child.returncode or found is None:
        raise RuntimeError(f"compaction failed with {child.returncode}")
    events = found.tables["events"].rows
    return {
        "events": events,
        "cpu_s_per_million": (used.ru_utime + used.ru_stime) * 1e6 / events,
        "trace_mb_per_million": size / events,
        "tables_mb_per_million": found.room / events,
        "seconds": time.monotonic() - began,
        "resident_bytes": used.ru_maxrss * 1024,
    }


class _Pusher:
    """A session that goes on in pieces, each acknowledged before the next."""

    def __init__(self) -> None:
        self.name, self.writer = str(uuid.uuid4()), SessionWriter()
        row = ProcRow(0, 1, "run", 0, 0, 0, live=True)
        header = self.writer.header(Header(self.name, {"name": "pusher"}, 1, 10**18))
        begin = self.writer.generation(Generation(0, 1, 10**18, self.name), [row])
        self.first = b"".join(frame.data for frame in (header, *begin))
        self.emitted, self.offset = 0, 0

    def piece(self) -> bytes:
        records: list[Any] = []
        for i in range(500):
            records += [21, 1000 + self.emitted + i, "count", 0.5 * i, 0]
        frames = self.writer.events(0, self.emitted, records)
        self.emitted += 500
        return b"".join(frame.data for frame in frames)


async def _acks(root: Path, during: Callable[[], Any] | None) -> list[float]:
    """Seconds until pieces were acknowledged, while ``during`` runs in a loop."""
    taken: list[float] = []
    async with FileStore.open(root) as store, trio.open_nursery() as nursery:

        async def busy() -> None:
            while during is not None:
                await during()

        nursery.start_soon(busy)
        pusher = _Pusher()
        offset = (await store.append(pusher.name, 0, pusher.first)).durable
        for _ in range(PIECES):
            data = pusher.piece()
            began = time.perf_counter()
            offset = (await store.append(pusher.name, offset, data)).durable
            taken.append(time.perf_counter() - began)
            await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    return taken


def _beside(root: Path, place: Path) -> dict[str, float]:
    """Milliseconds of acknowledgements, with and without a compaction all the while, in turns."""
    size = (place / segment_name(0)).stat().st_size

    async def again() -> None:
        await in_child(place, place.name, size, root / "again", Compact().memory)

    (root / "again").mkdir()
    alone: list[float] = []
    beside: list[float] = []
    for n in range(ROUNDS):
        alone += trio.run(_acks, root / f"alone{n}", None)
        beside += trio.run(_acks, root / f"beside{n}", again)
    return {
        "alone_median_ms": statistics.median(alone) * 1e3,
        "beside_median_ms": statistics.median(beside) * 1e3,
        "alone_p99_ms": statistics.quantiles(alone, n=100)[98] * 1e3,
        "beside_p99_ms": statistics.quantiles(beside, n=100)[98] * 1e3,
    }


def _asked(root: Path, place: Path) -> dict[str, float]:
    """Of one query over many copies of a session's tables."""
    size = (place / segment_name(0)).stat().st_size
    found: list[tuple[Path, Compacted]] = []
    for n in range(SESSIONS):
        home = root / "many" / str(n)
        home.mkdir(parents=True)
        if n:
            (home / "parquet").symlink_to(root / "many" / "0" / "parquet")
            found.append((home, found[0][1]))
        else:
            found.append((home, compact(place, str(uuid.uuid4()), size, home)))

    def files(table: str) -> list[str]:
        return [str(home / "parquet" / one.name / f"{table}.parquet") for home, one in found]

    cpu, began = time.process_time(), time.monotonic()
    rows = query_many(files, SQL).rows
    if not rows:
        raise RuntimeError("the query gave nothing")
    return {
        "sessions": SESSIONS,
        "events": SESSIONS * found[0][1].tables["events"].rows,
        "cpu_s": time.process_time() - cpu,
        "seconds": time.monotonic() - began,
    }


def main(json: bool = False) -> int:
    """Print the figures; returns 1 if a bar is missed, else 0."""
    with tempfile.TemporaryDirectory(prefix="tracesvc-history-") as directory:
        root = Path(directory)
        places = _sessions(root)
        cost = {name: _cost(place) for name, place in places.items()}
        beside = _beside(root, places["made"])
        asked = _asked(root, places["http server"])
    if json:
        print(json_module.dumps({"cost": cost, "beside": beside, "asked": asked}, indent=2))
    else:
        for name, row in cost.items():
            print(
                f"{name:12}{row['events']:>10,} events  per million: {row['cpu_s_per_million']:.2f} CPU-s, "
                f"{row['tables_mb_per_million']:.1f} MB of tables, {row['trace_mb_per_million']:.1f} MB of trace; "
                f"{row['resident_bytes'] >> 20} MiB resident"
            )
        print(
            f"acknowledged in {beside['alone_median_ms']:.2f} ms (p99 {beside['alone_p99_ms']:.1f}), beside a "
            f"compaction in {beside['beside_median_ms']:.2f} ms (p99 {beside['beside_p99_ms']:.1f})"
        )
        print(
            f"a query over {asked['sessions']} sessions, {asked['events']:,} events: {asked['cpu_s']:.2f} CPU-s, "
            f"{asked['seconds']:.2f} s"
        )
    made = cost["made"]
    missed = made["cpu_s_per_million"] > CPU or any(
        row["resident_bytes"] > MEMORY for row in cost.values()
    )
    if missed:
        print("MISSED: compaction", file=sys.stderr)
    return 1 if missed else 0
