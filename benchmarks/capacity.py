"""Measures what docs/capacity.md is calculated from, and writes it down as docs/capacity.json.

    python -m benchmarks.campaigns capacity [--minutes 8]

`python -m docs.capacity` makes the page of it; a test holds the page to the figures.
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from benchmarks import day, followers
from benchmarks import service as carried
from benchmarks.pushing import Poster, Program, Scene
from benchmarks.serving import raise_limit, service

__all__ = ["FIGURES", "main", "small_posts"]

FIGURES: Final = Path(__file__).parents[1] / "docs" / "capacity.json"
CLIENTS: Final = 8
SMALL: Final = 60
"""events in a small post"""


def small_posts(posts: int = 400) -> dict[str, float]:
    """What a post costs in which there is next to nothing: eight clients, each post durable before the next."""
    with tempfile.TemporaryDirectory(prefix="tracesvc-small-") as data, service(data) as server:
        scenes = [Scene(SMALL, 1)]
        posters = [
            Poster(server.port, Program(scenes, f"small-{i}", level=1)) for i in range(CLIENTS)
        ]
        for poster in posters:
            poster.post(poster.program.begin())
        size = sum(poster.offset for poster in posters)

        def push(poster: Poster) -> None:
            for _ in range(posts):
                poster.post(poster.program.play(0))

        found = []
        for _ in range(3):
            threads = [threading.Thread(target=push, args=(poster,)) for poster in posters]
            before, began = server.processor(), time.monotonic()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            seconds = time.monotonic() - began
            found.append(((server.processor() - before) / posts / CLIENTS, seconds))
        size = sum(poster.offset for poster in posters) - size
    n = posts * CLIENTS
    return {
        "cpu_ms_per_post": 1000 * statistics.median(cpu for cpu, _ in found),
        "posts_per_s": n / statistics.median(seconds for _, seconds in found),
        "bytes_per_post": size / n / 3,
        "events_per_post": scenes[0].count,
    }


def main(
    minutes: float = 8.0, parts: str = "small,service,followers,day", programs: int = 1000
) -> int:
    """Measure ``parts``, and put them into the file; how many sessions of the day are not as they should be."""
    raise_limit()
    figures: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    figures["machine"] = {
        "cores": 2,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }
    wrong = 0
    for part in parts.split(","):
        if part == "small":
            figures[part] = small_posts()
        elif part == "service":
            with tempfile.TemporaryDirectory(prefix="tracesvc-service-") as directory:
                figures[part] = carried.measure(carried.ROUNDS, Path(directory))
        elif part == "followers":
            figures[part] = followers.alone(1000, 50, 30.0)
        else:
            figures[part], found = day.measure(minutes, programs)
            wrong += len(found)
        print(part, json.dumps(figures[part])[:300], flush=True)
        FIGURES.write_text(json.dumps(_rounded(figures), indent=1, sort_keys=True) + "\n")
    return wrong


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return value
