"""Does a tracer keep to its budget, and is what it measures of itself what it costs?

**Honest**: the same work in turns recorded and not, in one run of one tracer.  What the processor took more, by the
clock of the process with all its threads, is compared with what the tracer says that it took more.

**Settled**: a load that costs a little less than a budget of one per cent, then ten times that load.  Five seconds
later the tracer must use 0.7 to 1.3 times its budget, as the mean over ten seconds, by its own measure and by that
measure corrected by what was found out above.
"""

from __future__ import annotations

import json as json_module
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import trio

import tracesvc

__all__ = ["main"]

BUDGET: Final = 0.01
BARS: Final = (0.7, 1.3)
HONEST: Final = (0.75, 1.33)
"""what the tracer says, over what the processor's clock says"""
TASKS: Final = 4
TICK: Final = 0.01
"""seconds"""
ROUNDS: Final = 24
LOADS: Final = (5, 15)
"""the same at once the load: not so little that ten times of it cost little, nor so much that it fills the processor"""
PROBE: Final = 10
"""steps of each task in a tick, to find out what they cost"""
SETTLING, MEASURED = 5.0, 10.0
"""seconds"""


async def steps(n: int) -> None:
    for _ in range(n):
        await trio.lowlevel.checkpoint()


async def burst(n: int) -> None:
    """One tick's work."""
    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(steps, n)


async def load(n: float, seconds: float) -> None:
    """``n`` steps of each task in every tick, on average."""
    due, owed = trio.current_time(), 0.0
    end = due + seconds
    while due < end:
        owed += n
        await burst(int(owed))
        owed -= int(owed)
        due += TICK
        await trio.sleep_until(due)


# --- honest --------------------------------------------------------------------------------------


async def honest(path: Path) -> dict[str, float]:
    """ns of processor time per hook call of what recording costs: by the process's clock, and by the tracer's."""
    by_clock, by_tracer = [], []
    async with tracesvc.open_tracer(tracesvc.FileSink(path), budget=1.0) as tracer:
        regulator: Any = tracer._regulator
        meter: Any = tracer._session.meter  # type: ignore[union-attr]
        for _ in range(ROUNDS):
            took = {}
            for dark in (True, False):
                regulator._set_dark(dark)
                await trio.sleep(0.05)
                before = time.process_time_ns(), meter.total(list(tracer._runs))
                await burst(8_000)
                tracer.seal_all()
                await trio.sleep(0.1)  # the reader and the sink are through
                took[dark] = (
                    time.process_time_ns() - before[0],
                    meter.total(list(tracer._runs)) - before[1],
                )
            by_clock.append(took[False][0] - took[True][0])
            by_tracer.append(took[False][1] - took[True][1])
    return {
        "by_clock_ms": statistics.median(by_clock) / 1e6,
        "by_tracer_ms": statistics.median(by_tracer) / 1e6,
        "ratio": statistics.median(by_tracer) / statistics.median(by_clock),
    }


# --- settled -------------------------------------------------------------------------------------


async def settled(path: Path) -> dict[str, Any]:
    """Shares of the budget, second by second."""
    seconds: list[dict[str, Any]] = []
    async with tracesvc.open_tracer(tracesvc.FileSink(path), budget=BUDGET) as tracer:

        def share(ns: int, passed: float) -> float:
            return ns / 1e9 / passed / BUDGET

        async def used(n: float, length: float) -> float:
            before, began = tracer.statistics().overhead.ns, time.monotonic()  # type: ignore[union-attr]
            await load(n, length)
            return share(tracer.statistics().overhead.ns - before, time.monotonic() - began)  # type: ignore[union-attr]

        async def watch() -> None:
            before, began = tracer.statistics().overhead, time.monotonic()
            while True:
                await trio.sleep(1)
                now, ended = tracer.statistics().overhead, time.monotonic()
                assert before is not None
                assert now is not None
                seconds.append(
                    {"share": share(now.ns - before.ns, ended - began), "level": now.level}
                )
                before, began = now, ended

        await load(1, 1)
        idle = await used(0, 2)
        some = await used(PROBE, 2)
        once = PROBE * (0.9 - idle) / max(0.01, some - idle)
        once = min(max(once, LOADS[0]), LOADS[1])
        await load(once, 3)
        first = await used(once, 3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await load(10 * once, SETTLING)
            then = await used(10 * once, MEASURED)
            nursery.cancel_scope.cancel()
    with tracesvc.read(path) as trace:
        events = sum(1 for _ in trace)
    return {
        "share_of_budget_idle": idle,
        "steps_per_second": round(once * TASKS / TICK),
        "share_of_budget_at_once_the_load": first,
        "share_of_budget_at_ten_times_the_load": then,
        "seconds_at_ten_times_the_load": seconds,
        "events_stored": events,
        "events_lost": tracer.statistics().lost,
    }


def main(json: bool = False) -> int:
    """Measure; how many bars are missed."""
    with tempfile.TemporaryDirectory(prefix="tracesvc-bench-") as directory:
        truth = trio.run(honest, Path(directory, "honest.trace"))
        result = trio.run(settled, Path(directory, "settled.trace"))
    share = result["share_of_budget_at_ten_times_the_load"]
    corrected = result["corrected"] = share / truth["ratio"]
    missed = []
    if not HONEST[0] <= truth["ratio"] <= HONEST[1]:
        missed.append(f"the tracer says {truth['ratio']:.2f} times what the processor's clock says")
    for what, value in (("by the tracer", share), ("corrected", corrected)):
        if not BARS[0] <= value <= BARS[1]:
            missed.append(f"{value:.2f} of the budget {what}, not {BARS[0]} to {BARS[1]}")
    if json:
        print(json_module.dumps({"governor": {**truth, **result}, "missed": missed}))
        return len(missed)
    print("governor: a budget of one per cent of a processor, FileSink")
    print(
        f"  recording {TASKS * 8_000:,} steps: {truth['by_clock_ms']:.2f} ms by the processor's clock, "
        f"{truth['by_tracer_ms']:.2f} ms by the tracer: {truth['ratio']:.2f}"
    )
    once, idle = result["share_of_budget_at_once_the_load"], result["share_of_budget_idle"]
    print(f"  idle: {idle:.2f} of the budget; {result['steps_per_second']:,} steps/s: {once:.2f}")
    print(f"  ten times that, settled: {share:.2f}, corrected {corrected:.2f}")
    line = " ".join(
        f"{s['share']:.2f}({s['level']})" for s in result["seconds_at_ten_times_the_load"]
    )
    print(f"  share (level), second by second: {line}")
    print(f"  {result['events_stored']:,} events stored, lost: {result['events_lost']}")
    for miss in missed:
        print("  missed:", miss)
    return len(missed)


if __name__ == "__main__":
    raise SystemExit(main("--json" in sys.argv) > 0)
