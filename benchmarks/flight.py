"""The flight recorder under as many events a second as the machine gives: its memory, and every snapshot.

A task of the program emits counters as fast as it can into a proc of its own, two thousand between checkpoints.  Two
recorders stand beside each other: one that is always full, and one that reaches back by its age.  Snapshots are taken
of both in turn, and judged by `verify` in another process.
"""

from __future__ import annotations

import argparse
import json as json_module
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import trio

import tracesvc
from tracesvc.events import Counter
from tracesvc.model.verify import verify
from tracesvc.recorder.clock import now
from tracesvc.recorder.pacer import ResidentMemory

__all__ = ["main"]

BURST: Final = 2000
"""events between two checkpoints"""
SMALL: Final = 2 << 20
LARGE: Final = 16 << 20
AGE: Final = 0.25
"""seconds that the large one is to reach back: there is room for them, however fast it goes"""
CONSTANT: Final = 64 << 20
"""bytes that the process may grow by beside what the recorders may hold: buffers on their way to the reader, frames in
the inboxes, and two snapshots that are being written, with what they keep from going"""


class _Watch:
    """The most that is ever held and resident."""

    def __init__(self, recorders: list[tracesvc.FlightRecorder]) -> None:
        self._recorders: Final = recorders
        self._memory: Final = ResidentMemory()
        self.begin = self._memory.read()
        self.resident = self.begin
        self.held = [0] * len(recorders)

    def look(self) -> None:
        self.resident = max(self.resident, self._memory.read())
        for i, recorder in enumerate(self._recorders):
            self.held[i] = max(self.held[i], recorder.held_bytes)


def judge(path: Path) -> tuple[bool, int]:
    """Whether a snapshot is a right trace, and its events; the file goes."""
    report = verify(path)
    path.unlink()
    return report.ok and report.ended, report.events


def main(json: bool = False, seconds: float = 300.0, snapshots: int = 500, judges: int = 1) -> int:
    """Print the figures; 1 if something does not hold."""
    with tempfile.TemporaryDirectory(prefix="tracesvc-flight-") as directory:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(judges, mp_context=context) as pool:
            result = trio.run(_fly, seconds, snapshots, Path(directory), pool)
    faults = [name for name, count in result["faults"].items() if count]
    if json:
        print(json_module.dumps({"flight": result}))
    else:
        for name, value in result.items():
            print(f"  {name:<24} {value:,}" if isinstance(value, int) else f"  {name:<24} {value}")
    return int(bool(faults))


async def _fly(
    seconds: float, snapshots: int, directory: Path, pool: ProcessPoolExecutor
) -> dict[str, Any]:
    recorders = [
        tracesvc.FlightRecorder(10.0, SMALL, name="full"),
        tracesvc.FlightRecorder(AGE, LARGE, name="by age"),
    ]
    watch = _Watch(recorders)
    judged: list[Future[tuple[bool, int]]] = []
    short = 0
    async with tracesvc.open_tracer(*recorders) as tracer:
        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_emit, tracer, watch)
            await trio.sleep(1.0)
            while not recorders[0].window.begin:  # noqa: ASYNC110 - the first frames are on their way
                await trio.sleep(0.01)
            first = recorders[0].window.begin
            for i in range(snapshots):
                path = directory / f"{i}.trace"
                window = await recorders[i % 2].snapshot(path)
                wanted = min((window.end - first) / 1e9, recorders[i % 2].min_age)
                short += not (window.full or window.seconds >= wanted)
                judged.append(pool.submit(judge, path))
                if i >= 8:  # the judge must not fall behind
                    await trio.to_thread.run_sync(judged[i - 8].result)
                due = began + 1 + (seconds - 1) * (i + 1) / snapshots
                await trio.sleep(max(0.0, due - time.monotonic()))
            nursery.cancel_scope.cancel()
        took = time.monotonic() - began
        statistics = tracer.statistics()
    verdicts = [future.result() for future in judged]
    limits = [recorder.max_bytes for recorder in recorders]
    growth = watch.resident - watch.begin
    return {
        "seconds": round(took, 1),
        "events": statistics.events,
        "events_per_s": round(statistics.events / took),
        "lost": sum(statistics.lost.values()),
        "snapshots": len(verdicts),
        "events_in_snapshots": sum(events for _, events in verdicts),
        "held_most": watch.held,
        "max_bytes": limits,
        "resident_growth": growth,
        "constant": CONSTANT,
        "faults": {
            "snapshots that are no right traces": sum(not ok for ok, _ in verdicts),
            "snapshots too short and not full": short,
            "more held than max_bytes": sum(
                held > limit for held, limit in zip(watch.held, limits, strict=True)
            ),
            "more resident than that and the constant": int(growth > sum(limits) + CONSTANT),
        },
    }


async def _emit(tracer: tracesvc.Tracer, watch: _Watch) -> None:
    async with tracer.proc("emitter") as proc:
        assert proc is not None
        extend, number, names = proc.extend, Counter.number, _names()
        while True:
            name = next(names)
            for i in range(BURST):
                extend((number, now(), name, i, 0))
            proc.seal()
            watch.look()
            await trio.lowlevel.checkpoint()


def _names() -> Iterator[str]:
    while True:
        yield from (f"counter {i}" for i in range(50))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--snapshots", type=int, default=500)
    arguments = parser.parse_args()
    raise SystemExit(main(arguments.json, arguments.seconds, arguments.snapshots))
