"""Does anything grow? A service under half the load that it can take, for half an hour; slopes of memory and files.

    python -m benchmarks.campaigns soak --minutes 30

The load is mixed: the demo's shop, really traced, pushes its session through; beside it made-up programs push sessions
that begin and end (one in five without an end mark), their connections break, others follow (some without ever
reading), ask questions and look at the page, and sessions older than two minutes are deleted.  What the service can
take is found out first: the same programs, as fast as they are answered.  The slope is that of a straight line through
the samples after a warm-up, a third of the time.  The bars: less than 1 MiB in 10 minutes for service and shop, and no
more file descriptors at the end than after the warm-up (medians of a third of what is left: clients come and go).
"""

from __future__ import annotations

import json as json_module
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import trio

from benchmarks.driver import Driver, percentile
from benchmarks.serving import MIB, Server, raise_limit, slope
from tracesvc.demo.show import drive, process

__all__ = ["main"]

BAR: Final = 1.0
"""MiB in 10 minutes"""
FILES: Final = 8.0
"""file descriptors more at the end than after the warm-up: so much do clients come and go"""
EVERY: Final = 2.0
"""seconds between samples"""
PAUSE: Final = 0.1
"""seconds that each of the shop's eight clients waits between requests"""
PROGRAMS: Final = 48
PIECE: Final = 250
"""events in a post: what indexes and answers take for a while is to be little beside what a leak would be"""
LIFE: Final = 40.0
"""seconds of a session, on the mean"""
KEEP: Final = "2m"
CALIBRATE: Final = 15.0
"""seconds"""


class Soak:
    """The load, and what was seen meanwhile."""

    def __init__(self, driver: Driver, server: Server) -> None:
        self.driver, self.server = driver, server
        self.samples: list[tuple[float, int, int]] = []
        """(seconds, resident bytes, file descriptors) of the service"""

    async def capacity(self) -> float:
        """Posts a second that the service takes from these programs at most."""
        driver = self.driver
        before = driver.counts["posts"]

        async def hurry(i: int) -> None:
            pushed = await driver.begin(f"hurry-{i}")
            while trio.current_time() < end:
                await driver.push(pushed, pushed.program.some(PIECE))
            await driver.finish(pushed, crashed=False)

        end = trio.current_time() + CALIBRATE
        async with trio.open_nursery() as nursery:
            for i in range(PROGRAMS):
                nursery.start_soon(hurry, i)
        found = (driver.counts["posts"] - before) / CALIBRATE
        driver.counts.clear()
        driver.seconds.clear()
        driver.sessions.clear()
        return found

    async def load(self, posts: float) -> None:
        """So many posts a second, and all the others, until cancelled."""
        async with trio.open_nursery() as nursery:
            for i in range(PROGRAMS):
                nursery.start_soon(self._program, i, PROGRAMS / posts)
            for i in range(20):
                nursery.start_soon(self._followers, i)
            nursery.start_soon(self.driver.every, 0.5, self.driver.ask)
            nursery.start_soon(self.driver.every, 15.0, self._scrape)

    async def _scrape(self) -> None:
        await self.driver.get("metrics", "/metrics")

    async def _program(self, i: int, interval: float) -> None:
        driver, chance = self.driver, random.Random(i)
        await trio.sleep(chance.uniform(0, LIFE / 4))
        while True:
            pushed = await driver.begin(f"program-{i:02}")
            due = trio.current_time()
            end = due + max(2.0, chance.expovariate(1 / LIFE))
            while due < end:
                body = pushed.program.some(PIECE)
                await driver.push(pushed, body, broken=chance.random() < 1 / 400)
                due += interval * chance.uniform(0.5, 1.5)
                driver.counts["late"] += trio.current_time() > due + 1.0
                await trio.sleep_until(due)
            await driver.finish(pushed, crashed=chance.random() < 0.2)

    async def _followers(self, i: int) -> None:
        chance = random.Random(1000 + i)
        while True:
            await self.driver.follow(chance.uniform(2, 40), stalled=i < 3)
            await trio.sleep(chance.uniform(0, 2))

    def sample(self, gone: float) -> None:
        """Look at the service, if it is time."""
        if not self.samples or gone - self.samples[-1][0] >= EVERY:
            self.samples.append((gone, self.server.resident(), self.server.open_files()))


async def soak(minutes: float, data: str) -> dict[str, Any]:
    """Run everything and sample it; the figures."""
    tally = [0, 0]
    shop_samples: list[tuple[float, int]] = []
    serve = ("tracesvc", "serve", "--listen", "127.0.0.1:0", "--data", data, "--keep", KEEP)
    async with process(*serve) as (child, says):
        url = (await says()).rsplit(" ", 1)[1]
        server = Server(child.pid, int(url.rpartition(":")[2]))
        load = Soak(Driver(server.port), server)
        most = await load.capacity()
        async with process("tracesvc.demo.shop", "--push", url) as (shop, shop_says):
            shop_url = await shop_says()
            await shop_says()
            program = Server(shop.pid)

            def sample(gone: float) -> None:
                load.sample(gone)
                if len(load.samples) > len(shop_samples):
                    shop_samples.append((gone, program.resident()))

            random.seed(1)
            processor = server.processor()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.load, most / 2)
                await drive(shop_url, minutes * 60, tally, sample, PAUSE)
                nursery.cancel_scope.cancel()
            processor = server.processor() - processor
            shop.terminate()
            ending = json_module.loads(await shop_says())
            await shop.wait()
        child.terminate()
        await child.wait()
    return _figures(minutes, load, most, processor, shop_samples, tally, ending)


def _figures(
    minutes: float,
    load: Soak,
    most: float,
    processor: float,
    shop: list[tuple[float, int]],
    tally: list[int],
    ending: dict[str, Any],
) -> dict[str, Any]:
    warm = minutes * 20
    late = [entry for entry in load.samples if entry[0] >= warm]
    few, third = int(60 / EVERY), max(1, len(late) // 3)
    seconds = {name: sorted(found) for name, found in load.driver.seconds.items()}
    memory = {
        who: {
            "mib_by_minute": [round(size / MIB, 1) for _, size in seen[::few]],
            "first_mib": statistics.median(size for _, size in part[:third]) / MIB,
            "last_mib": statistics.median(size for _, size in part[-third:]) / MIB,
            "slope_mib_per_10_min": slope(part),
        }
        for who, seen in (("program", shop), ("service", [entry[:2] for entry in load.samples]))
        if (part := [entry for entry in seen if entry[0] >= warm])
    }
    return {
        **memory,
        "files": {
            "by_minute": [files for *_, files in load.samples[::few]],
            "first": statistics.median(files for *_, files in late[:third]),
            "last": statistics.median(files for *_, files in late[-third:]),
        },
        "run": {
            "minutes": minutes,
            "posts_per_s_at_most": most,
            "posts_per_s": load.driver.counts["posts"] / minutes / 60,
            "cpu_share": processor / minutes / 60,
            "requests": tally[0],
            "failed": tally[1],
            **ending,
        },
        "counts": dict(load.driver.counts),
        "seconds": {
            name: {"p50": percentile(found, 0.5), "p99": percentile(found, 0.99), "most": found[-1]}
            for name, found in seconds.items()
        },
    }


def main(json: bool = False, minutes: float = 10.0) -> int:
    """Print the figures; returns 1 if a bar is missed, else 0."""
    raise_limit()
    with tempfile.TemporaryDirectory(prefix="tracesvc-soak-") as data:
        figures = trio.run(soak, minutes, data)
        left = sum(1 for _ in (Path(data) / "sessions").iterdir())
    run, files, counts = figures["run"], figures["files"], figures["counts"]
    if json:
        print(json_module.dumps(figures, indent=2))
    else:
        print(
            f"soak: {run['minutes']:g} min at {run['posts_per_s']:.0f} posts/s of {run['posts_per_s_at_most']:.0f}, "
            f"{run['cpu_share']:.2f} of a processor; the shop: {run['requests']:,} requests, "
            f"{run['events']:,} events, {run['lost']:,} lost\n"
            + ", ".join(f"{what}: {count:,}" for what, count in sorted(counts.items()))
            + f"; sessions left: {left:,}\n"
            + ", ".join(
                f"{name}: {1000 * one['p50']:.0f} / {1000 * one['p99']:.0f} / {1000 * one['most']:.0f} ms"
                for name, one in sorted(figures["seconds"].items())
            )
        )
        print(f"\n{'':10}{'first':>10}{'last':>10}{'in 10 min':>12}")
        for who in ("program", "service"):
            row = figures[who]
            print(
                f"{who:10}{row['first_mib']:6.1f} MiB{row['last_mib']:6.1f} MiB"
                f"{row['slope_mib_per_10_min']:8.2f} MiB   bar < {BAR:g}"
            )
            print(f"{'':10}minute by minute:", *row["mib_by_minute"])
        print(f"{'files':10}{files['first']:10.0f}{files['last']:10.0f}")
        print(f"{'':10}minute by minute:", *files["by_minute"])
    missed = [who for who in ("program", "service") if figures[who]["slope_mib_per_10_min"] >= BAR]
    if run["lost"] or run["failed"]:
        missed.append("nothing lost, no request failed")
    if files["last"] > files["first"] + FILES:
        missed.append("file descriptors")
    for what in missed:
        print(f"MISSED: {what}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(minutes=float(sys.argv[1]) if len(sys.argv) > 1 else 10.0))
