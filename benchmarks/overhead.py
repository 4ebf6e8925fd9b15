"""What tracing costs the program, in instructions, with the reader and the file included.

Each variant runs once under ``valgrind --tool=callgrind``, which counts the instructions of all its threads.  A
workload runs twice, once as long as the other; the difference is the cost of what the longer one did more, so that
starting up, opening the tracer and draining it cancel out.  The HTTP client is a process of its own, and not counted.

callgrind runs a program some fifty times slower than it is.  What the tracer does by the clock, a few times a second,
would then be counted fifty times too often: its intervals are stretched by the factor that a loop is measured to be
slower.

Beside that stands processor time, as the minimum over rounds in which the variants take turns; it has noise of some
per cent.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import json as json_module
import os
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import trio

import tracesvc
from benchmarks.callgrind import counts, mark
from benchmarks.workloads import SERVERS, round_trips, run_seeded, serve_http, spawns, steps
from tracesvc.recorder.options import OptionKeywords

__all__ = ["main"]

SMALL: Final = ("checkpoint step", "channel round trip", "spawn and exit")
BARS: Final = {
    # variant: (of a request, of each of the small workloads) to the same untraced, in instructions, at most
    "recorder, scheduler": (0.99, 0.98),
    "file": (1.02, None),
    "file, all stacks": (1.05, None),
    "file, Python, scheduler": (1.12, None),
    "file, Python, public, scheduler": (1.25, None),
}


@dataclass(frozen=True)
class Workload:
    """Something to repeat ``n`` times."""

    name: str
    run: Any
    counted: int
    """n of the shorter run under callgrind"""
    timed: int
    """n of a round by the clock"""


WORKLOADS: Final = (
    Workload("checkpoint step", steps, 2000, 20_000),
    Workload("channel round trip", round_trips, 1000, 5_000),
    Workload("spawn and exit", spawns, 500, 2_000),
    *(
        Workload(f"request, {name}", functools.partial(serve_http, name), 150, 300)
        for name in SERVERS
    ),
)
VARIANTS: Final = {
    "untraced": "nothing is recorded",
    "recorder": "everything is recorded, and dropped where a buffer is full: nobody reads",
    "recorder, scheduler": "the same without nurseries and cancels",
    "recorder, scopes": "the same with nurseries, cancels and scopes",
    "recorder, watch": "as recorder, with a counter of every channel, lock, limiter and condition",
    "file": "open_tracer(FileSink)",
    "flight": "open_tracer(FlightRecorder)",
    "flight, triggers": "the same, with seven triggers that watch and do not fire",
    "recorder, box": "as recorder, with a black box",
    "flight, box": "open_tracer(FlightRecorder, black_box=True)",
    "file, all stacks": "the same with stacks='all'",
    "file, zstd": "the same, compressed",
    "file, Python": "the recorder's twin in Python, on the direct way",
    "file, Python, public": "the same by trio's public instruments",
    "file, Python, scheduler": "the twin on the direct way, without nurseries and cancels",
    "file, Python, public, scheduler": "the same by trio's public instruments",
    "empty hooks": "nothing is recorded: three empty Python hooks, for reference",
}
OPTIONS: Final[dict[str, OptionKeywords]] = {
    "recorder, scheduler": {"groups": ["!nurseries", "!cancels"]},
    "recorder, scopes": {"groups": ["+scopes"]},
    "recorder, watch": {"watch": "all"},
    "file, all stacks": {"stacks": "all"},
    "file, Python": {"native": False, "way": "direct"},
    "file, Python, public": {"native": False, "way": "public"},
    "file, Python, scheduler": {
        "native": False,
        "way": "direct",
        "groups": ["!nurseries", "!cancels"],
    },
    "file, Python, public, scheduler": {
        "native": False,
        "way": "public",
        "groups": ["!nurseries", "!cancels"],
    },
}


def _triggers() -> list[tracesvc.triggers.Trigger]:
    """Those of docs/flight.md, out of reach: callgrind's steps are long."""
    triggers = tracesvc.triggers
    return [
        triggers.LongStep(1e6),
        triggers.LoopLag(1e6),
        triggers.SlowSpan("checkout*", 1e6),
        triggers.FailedSpan("checkout*"),
        triggers.NurseryFailed(),
        triggers.TasksAbove(1_000_000),
        triggers.CounterAbove("jobs.*", 1e9),
    ]


class EmptyHooks(trio.abc.Instrument):
    """What trio's own dispatch costs."""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        pass

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        pass

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        pass


_slower = [1.0]
"""how many times slower than usual this runs"""


@contextlib.asynccontextmanager
async def traced(variant: str, path: Path) -> AsyncIterator[None]:
    """Record the body as the variant says."""
    options: OptionKeywords = {
        "slow_block_s": 0.001 * _slower[0],
        "stall_s": 0.1 * _slower[0],
        **OPTIONS.get(variant, {}),
    }
    if variant.endswith("box"):
        options["black_box"] = path.parent / "boxes"
    if variant.startswith("recorder"):
        options["queue_buffers"] = 2
        bare = tracesvc.Tracer(**options)
        bare.start()
        yield
        await bare.stop()
        assert bare.statistics().native, "the native recorder was not built"
    elif variant.startswith(("file", "flight")):
        compression: Literal["zstd"] | None = "zstd" if variant.endswith("zstd") else None
        sink: tracesvc.Sink = tracesvc.FileSink(path, compression=compression)
        if variant.startswith("flight"):
            sink = tracesvc.FlightRecorder(triggers=_triggers() if "triggers" in variant else [])
        async with tracesvc.open_tracer(sink, **options) as tracer:
            yield
        statistics = tracer.statistics()
        assert not statistics.lost, f"events were lost: {statistics.lost}"
        assert statistics.native == ("Python" not in variant), "the native recorder was not built"
        assert statistics.way == ("public" if "public" in variant else "direct")
    else:
        yield


def once(workload: Workload, n: int, variant: str, path: Path) -> None:
    """One run of a workload."""

    async def run() -> None:
        async with traced(variant, path):
            await workload.run(n)

    run_seeded(run, [EmptyHooks()] if variant == "empty hooks" else [])


# --- instructions --------------------------------------------------------------------------------


def _loop() -> float:
    """Seconds that a loop takes here."""
    began = time.perf_counter()
    total = 0
    for i in range(200_000):
        total += i & 3
    return time.perf_counter() - began


def _stretch(factor: float) -> None:
    """Do by the clock what is done by the clock ``factor`` times less often."""
    from tracesvc.recorder import beat, drain, recording, tracer

    _slower[0] = factor
    for module, name in ((recording, "SAMPLE_EVERY"), (drain, "GENERATION"), (beat, "OLD")):
        setattr(module, name, int(getattr(module, name) * factor))
    interval = 0.25 * factor
    vars(tracer)["Pacer"] = functools.partial(vars(tracer)["Pacer"], interval=interval)


def count(variant: str, native: float, path: Path) -> None:
    """Under callgrind: every workload, with a mark before and after each of its runs."""
    _stretch(_loop() / native)
    for workload in WORKLOADS:
        once(workload, 100 if workload.counted > 200 else 20, variant, path)
        for n in (workload.counted, 2 * workload.counted):
            gc.collect()
            gc.freeze()  # whether a full collection of what a program has loaded falls into a run would be chance
            mark()
            once(workload, n, variant, path)
            mark()


def counted(variant: str, native: float) -> list[float]:
    """Instructions per operation of each workload."""
    arguments = ["-m", "benchmarks.overhead", "--count", variant, str(native)]
    marks = counts(arguments, 4 * len(WORKLOADS))
    pairs = zip(marks[1::4], marks[3::4], WORKLOADS, strict=True)
    return [(long - short) / workload.counted for short, long, workload in pairs]


# --- processor time ------------------------------------------------------------------------------


def timed(rounds: int) -> dict[str, list[float]]:
    """Seconds of processor time per operation, of this process and all its threads: the least of some rounds."""
    best = {variant: [float("inf")] * len(WORKLOADS) for variant in VARIANTS}
    with tempfile.TemporaryDirectory(prefix="tracesvc-bench-") as directory:
        for _ in range(rounds):
            for i, workload in enumerate(WORKLOADS):
                for variant, row in best.items():
                    gc.collect()
                    began = time.process_time()
                    once(workload, workload.timed, variant, Path(directory, "trace"))
                    row[i] = min(row[i], (time.process_time() - began) / workload.timed)
    return best


# --- report --------------------------------------------------------------------------------------


def main(json: bool = False, rounds: int = 9, only: str = "") -> int:
    """Count and time every variant; how many `BARS` are missed."""
    variants = [v for v in VARIANTS if not only or v in ("untraced", *only.split("+"))]
    native = min(_loop() for _ in range(5))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        instructions = dict(
            zip(variants, pool.map(lambda v: counted(v, native), variants), strict=True)
        )
    seconds = timed(rounds) if rounds else {}
    result: dict[str, Any] = {}
    for i, workload in enumerate(WORKLOADS):
        rows = result[workload.name] = {}
        for variant in variants:
            rows[variant] = {
                "instructions": round(instructions[variant][i]),
                "ratio": round(instructions[variant][i] / instructions["untraced"][i], 3),
            }
            if seconds:
                rows[variant]["microseconds"] = round(seconds[variant][i] * 1e6, 2)
                rows[variant]["time_ratio"] = round(seconds[variant][i] / seconds["untraced"][i], 3)
    missed = []
    for workload_name, rows in result.items():
        for variant, row in rows.items():
            bar = BARS.get(variant, (None, None))[workload_name in SMALL]
            if bar is not None and row["ratio"] > bar:
                missed.append(f"{workload_name}, {variant}: {row['ratio']} x untraced, not {bar}")
    if json:
        print(json_module.dumps({"overhead": result, "missed": missed}))
    else:
        _print(result)
        for miss in missed:
            print("  missed:", miss)
    return len(missed)


def _print(result: dict[str, Any]) -> None:
    print("overhead: instructions per operation and processor time, with their ratios to untraced")
    for workload, rows in result.items():
        print(f"  {workload}")
        for variant, row in rows.items():
            line = f"    {variant:<32}{row['instructions']:>12,} {row['ratio']:>8.3f} x"
            if "microseconds" in row:
                line += f"{row['microseconds']:>12,.2f} µs {row['time_ratio']:>7.3f} x"
            print(line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--rounds", type=int, default=9, help="of processor time; 0: only count instructions"
    )
    parser.add_argument("--only", default="", help="variants beside untraced, joined by +")
    parser.add_argument("--count", nargs=2, metavar=("VARIANT", "SECONDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.count:
        count(arguments.count[0], float(arguments.count[1]), Path("trace"))
    else:
        raise SystemExit(main(arguments.json, arguments.rounds, arguments.only) > 0)
