"""How many bytes an event takes on disk, and where they go: an HTTP server under load, into two files at once.

The bars: 10 bytes per event as they are, 4 with zstd.
"""

from __future__ import annotations

import json as json_module
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import trio

import tracesvc
from benchmarks.workloads import VARIED, serve_http
from tracesvc.events import EVENTS, FRAME_KINDS
from tracesvc.format import Batch, Item, StreamDecoder

__all__ = ["main"]

BARS: Final = {"plain": 10.0, "zstd": 4.0}
REQUESTS: Final = 3_000


async def record(directory: Path) -> None:
    """Serve the requests, traced into ``plain`` and ``zstd``."""
    sinks = (
        tracesvc.FileSink(directory / "plain"),
        tracesvc.FileSink(directory / "zstd", compression="zstd"),
    )
    async with tracesvc.open_tracer(*sinks, name="size"):
        await serve_http("hypercorn", REQUESTS, connections=8, paths=VARIED)


def measure(path: Path) -> dict[str, Any]:
    """Bytes of a file by kind of frame, its events by type, and the bytes of their columns before compression."""
    decoder = StreamDecoder()
    decoder.feed(path.read_bytes())
    decoder.close()
    kinds: Counter[str] = Counter()
    events: Counter[str] = Counter()
    for item in decoder:
        if not isinstance(item, Item):
            raise RuntimeError(f"{path}: {item}")
        kinds[FRAME_KINDS[item.frame.kind].name.lower()] += len(item.frame.data)
        if isinstance(item.record, Batch):
            types = Counter(item.record.types)
            events.update({EVENTS[number].type: n for number, n in types.items()})
    total = path.stat().st_size
    count = sum(events.values())
    return {
        "bytes": total,
        "events": count,
        "bytes_per_event": total / count,
        "by_kind": dict(kinds.most_common()),
        "by_type": dict(events.most_common()),
    }


def main(json: bool = False) -> int:
    """Print the figures; returns 1 if a bar is missed, else 0."""
    with tempfile.TemporaryDirectory(prefix="tracesvc-size-") as directory:
        trio.run(record, Path(directory))
        figures = {name: measure(Path(directory) / name) for name in BARS}
    if json:
        print(json_module.dumps(figures, indent=2))
    else:
        for name, bar in BARS.items():
            row = figures[name]
            print(
                f"{name:6}{row['events']:>10,} events {row['bytes']:>11,} bytes"
                f"{row['bytes_per_event']:8.2f} bytes per event   bar <= {bar:g}"
            )
            for kind, size in row["by_kind"].items():
                print(f"{'':8}{kind:12}{size:>11,} bytes{size / row['events']:8.3f} per event")
        for kind, count in figures["plain"]["by_type"].items():
            print(f"{'':8}{kind:16}{count:>9,} events")
    missed = [name for name, bar in BARS.items() if figures[name]["bytes_per_event"] > bar]
    for name in missed:
        print(f"MISSED: {name}", file=sys.stderr)
    return 1 if missed else 0
