"""A day of a thousand programs (`benchmarks.loadmodel`), in minutes, against a real service; is everything there?

    python -m benchmarks.campaigns day --minutes 8 --json

All of the day happens, with the pauses left out: every event, every session with its restart or crash, every broken
connection, every follower, question and look at /metrics.  Only posts are joined: one stands for all that its program
sent in ten minutes, for a day has 86 million of them; what a post itself costs is measured by `benchmarks.service`.
At the end the service is asked for every session (frames, events, bytes, ledger), and once it has stopped every byte
that was acknowledged is looked for in its files.
"""

from __future__ import annotations

import json as json_module
import random
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import trio

from benchmarks.driver import Driver, percentile
from benchmarks.loadmodel import DAY, Life, Load, Plan, plans, totals
from benchmarks.serving import MIB, Server, raise_limit, service

__all__ = ["main", "measure", "part"]

JOINED: Final = 600.0
"""seconds of the day whose posts are one"""
EVERY: Final = 1.0
"""seconds between samples of the service"""


class Day:
    """The day, under way; ``speed``: its seconds in one of ours."""

    def __init__(self, load: Load, driver: Driver, speed: float) -> None:
        self._load, self._driver, self._speed = load, driver, speed
        self._began = trio.current_time()
        self.late = 0.0
        """seconds that a post came too late at worst, by our clock"""
        self.most = 0

    async def reach(self, second: float) -> None:
        """Wait for that time of the day."""
        due = self._began + second / self._speed
        self.late = max(self.late, trio.current_time() - due)
        await trio.sleep_until(due)

    async def program(self, plan: Plan) -> None:
        """One program's day."""
        chance = random.Random(plan.name)
        for life in plan.lives:
            await self.reach(life.begin)
            await self._live(plan, life, chance)

    async def _live(self, plan: Plan, life: Life, chance: random.Random) -> None:
        driver, load = self._driver, self._load
        pushed = await driver.begin(plan.name)
        at, rest = life.begin, 0.0
        while at < life.end:
            until = min(life.end, at + JOINED * chance.uniform(0.5, 1.5))
            await self.reach(until)
            rest += plan.events(at, until)
            before = pushed.program.events
            body = pushed.program.some(int(rest))
            rest -= pushed.program.events - before
            if body:
                await driver.push(pushed, body, broken=chance.random() < load.broken)
            at = until
        await driver.finish(pushed, crashed=life.crashed)

    async def readers(self) -> None:
        """Followers, questions, /metrics."""
        load, chance = self._load, random.Random(self._load.seed)
        todo = [(chance.uniform(0, DAY), "follow") for _ in range(load.followers)]
        todo += [(chance.uniform(0, DAY), "ask") for _ in range(load.questions)]
        todo += [(i * load.scrape, "scrape") for i in range(int(DAY / load.scrape))]
        async with trio.open_nursery() as nursery:
            for second, what in sorted(todo):
                await trio.sleep_until(self._began + second / self._speed)
                if what == "follow":
                    lasts = chance.expovariate(1 / load.follow) / self._speed
                    nursery.start_soon(self._driver.follow, lasts)
                elif what == "ask":
                    nursery.start_soon(self._driver.ask)
                else:
                    nursery.start_soon(self._driver.get, "metrics", "/metrics")

    async def watch(self, server: Server) -> None:
        """Until cancelled: how much memory the service has."""
        while True:
            self.most = max(self.most, server.resident())
            await trio.sleep(EVERY)


async def run(load: Load, server: Server, minutes: float) -> dict[str, Any]:
    """The day; its figures, and what is wrong."""
    driver = Driver(server.port, load.seed)
    day = Day(load, driver, DAY / (minutes * 60))
    processor, began = server.processor(), time.monotonic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(day.watch, server)
        async with trio.open_nursery() as people:
            people.start_soon(day.readers)
            for plan in plans(load):
                people.start_soon(day.program, plan)
        nursery.cancel_scope.cancel()
    seconds = time.monotonic() - began
    processor = server.processor() - processor
    wrong = await driver.settle()
    found = {name: sorted(values) for name, values in driver.seconds.items()}
    return {
        "minutes": minutes,
        "seconds": seconds,
        "cpu_seconds": processor,
        "late": day.late,
        "mib_most": day.most / MIB,
        "counts": dict(driver.counts),
        "seconds_of": {
            name: {
                "n": len(values),
                "p50": percentile(values, 0.5),
                "p99": percentile(values, 0.99),
                "most": values[-1],
            }
            for name, values in found.items()
        },
        "wrong": wrong,
        "driver": driver,
    }


def part(programs: int) -> Load:
    """The model's day of fewer programs, with as many fewer readers."""
    whole = Load()
    share = programs / whole.programs
    return replace(
        whole,
        programs=programs,
        followers=int(whole.followers * share),
        questions=int(whole.questions * share),
        scrape=whole.scrape / share,
    )


def measure(minutes: float, programs: int = 1000) -> tuple[dict[str, Any], list[str]]:
    """The day's figures, and which sessions are not as they should be."""
    raise_limit()
    load = part(programs)
    with tempfile.TemporaryDirectory(prefix="tracesvc-day-") as data:
        with service(data) as server:
            figures = trio.run(run, load, server, minutes)
        driver: Driver = figures.pop("driver")
        wrong = [*figures["wrong"], *driver.compare(Path(data))]
    figures |= {"wrong": len(wrong), "programs": programs, "model": asdict(totals(load))}
    return figures, wrong


def main(json: bool = False, minutes: float = 8.0, programs: int = 1000) -> int:
    """Print the figures; how many sessions are not as they should be."""
    figures, wrong = measure(minutes, programs)
    if json:
        print(json_module.dumps(figures, indent=2))
    else:
        counts = figures["counts"]
        print(
            f"day: {programs} programs, {figures['seconds']:.0f} s, the service took {figures['cpu_seconds']:.0f} s "
            f"of a processor and {figures['mib_most']:.0f} MiB at most; a post was late by {figures['late']:.1f} s\n"
            + ", ".join(f"{what}: {count:,}" for what, count in sorted(counts.items()))
        )
        for name, one in sorted(figures["seconds_of"].items()):
            print(
                f"{name:12}{one['n']:>9,} times, p50 {1000 * one['p50']:.0f} ms, p99 {1000 * one['p99']:.0f}, "
                f"most {1000 * one['most']:.0f}"
            )
        print(f"sessions that are not as they should be: {len(wrong)}")
    for line in wrong[:20]:
        print(line, file=sys.stderr)
    return len(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
