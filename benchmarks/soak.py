"""Does memory grow? A traced and pushing program and the service it pushes to, for minutes; slope of their RSS.

    python -m benchmarks.campaigns soak --minutes 10

The slope is that of a straight line through the samples after a warm-up: a third of the time, at least half a minute.
The bar: less than 1 MiB in 10 minutes, for each.
"""

from __future__ import annotations

import json as json_module
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import trio

from tracesvc.demo.show import drive, process

__all__ = ["main"]

BAR: Final = 1.0
"""MiB in 10 minutes"""
EVERY: Final = 2.0
"""seconds between samples"""
PAUSE: Final = 0.05
"""seconds that each of the eight clients waits between requests: some hundred requests a second"""


def resident(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def slope(samples: list[tuple[float, int]]) -> float:
    """Least-squares slope in MiB per 10 minutes."""
    n = len(samples)
    mean_time = sum(time for time, _ in samples) / n
    mean_size = sum(size for _, size in samples) / n
    above = sum((time - mean_time) * (size - mean_size) for time, size in samples)
    below = sum((time - mean_time) ** 2 for time, _ in samples)
    return above / below * 600 / (1 << 20)


async def soak(minutes: float) -> dict[str, dict[str, Any]]:
    """Run both and sample them; returns their figures."""
    samples: dict[str, list[tuple[float, int]]] = {"service": [], "program": []}
    tally = [0, 0]
    with tempfile.TemporaryDirectory(prefix="tracesvc-soak-") as data:
        serve = ("tracesvc", "serve", "--listen", "127.0.0.1:0", "--data", data)
        async with process(*serve) as (service, says):
            url = (await says()).rsplit(" ", 1)[1]
            async with process("tracesvc.demo.shop", "--push", url) as (shop, shop_says):
                shop_url = await shop_says()
                await shop_says()

                def sample(gone: float) -> None:
                    last = samples["service"][-1][0] if samples["service"] else -EVERY
                    if gone - last >= EVERY:
                        samples["service"].append((gone, resident(service.pid)))
                        samples["program"].append((gone, resident(shop.pid)))

                random.seed(1)
                await drive(shop_url, minutes * 60, tally, sample, PAUSE)
                shop.terminate()
                ending = json_module.loads(await shop_says())
                await shop.wait()
            service.terminate()
            await service.wait()
    warm = max(30.0, minutes * 20)
    figures: dict[str, dict[str, Any]] = {}
    for who, seen in samples.items():
        late = [entry for entry in seen if entry[0] >= warm]
        figures[who] = {
            "mib_by_minute": [round(size / (1 << 20), 2) for _, size in seen[:: int(60 / EVERY)]],
            "first_mib": late[0][1] / (1 << 20),
            "last_mib": late[-1][1] / (1 << 20),
            "slope_mib_per_10_min": slope(late),
        }
    figures["run"] = {"minutes": minutes, "requests": tally[0], "failed": tally[1], **ending}
    return figures


def main(json: bool = False, minutes: float = 10.0) -> int:
    """Print the figures; returns 1 if a bar is missed, else 0."""
    figures = trio.run(soak, minutes)
    if json:
        print(json_module.dumps(figures, indent=2))
    else:
        run = figures["run"]
        print(
            f"soak: {run['minutes']:g} min, {run['requests']:,} requests, "
            f"{run['events']:,} events, {run['lost']:,} lost"
        )
        print(
            f"{'':10}{'MiB at first':>14}{'MiB at last':>14}{'MiB per 10 min':>16}   bar < {BAR:g}"
        )
        for who in ("program", "service"):
            row = figures[who]
            print(
                f"{who:10}{row['first_mib']:14.1f}{row['last_mib']:14.1f}{row['slope_mib_per_10_min']:16.2f}"
            )
            print(f"{'':10}minute by minute:", *row["mib_by_minute"])
    missed = [who for who in ("program", "service") if figures[who]["slope_mib_per_10_min"] >= BAR]
    if figures["run"]["lost"] or figures["run"]["failed"]:
        missed.append("nothing lost, no request failed")
    for what in missed:
        print(f"MISSED: {what}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main(minutes=float(sys.argv[1]) if len(sys.argv) > 1 else 10.0))
