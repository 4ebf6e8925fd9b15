"""What being attached to costs a real server: CPU per request of Hypercorn, attached and not, in turn in one run.

The server is a process of its own that has called `tracesvc.install`; all of its threads count, also those of the
tracer.  The bar: attached, at most 1.10 times as much.
"""

from __future__ import annotations

import json as json_module
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

import trio

import tracesvc
from benchmarks.workloads import serve_http_at
from tracesvc.control.attach import attach

__all__ = ["main"]

BAR: Final = 1.10
ROUNDS: Final = 9
REQUESTS: Final = 3_000
CONNECTIONS: Final = 8


def main(json: bool) -> int:
    """Measure and print; 1 if the bar is missed."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.attach"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        _load(port)  # warm
        pairs = [(_alone(server.pid, port), _attached(server.pid, port)) for _ in range(ROUNDS)]
    finally:
        server.kill()
        server.wait()
    alone, attached = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    if json:
        figures = {"alone_us": alone, "attached_us": attached, "ratio": ratio, "bar": BAR}
        print(json_module.dumps(figures))
    else:
        print(f"CPU per request: alone {alone:.0f} µs, attached {attached:.0f} µs")
        print(f"ratio (median of {ROUNDS} pairs): {ratio:.3f}, bar {BAR:.2f}")
    return int(ratio > BAR)


def _alone(pid: int, port: int) -> float:
    return _cpu_of(pid, port)


def _attached(pid: int, port: int) -> float:
    with attach(pid) as trace:
        drain = threading.Thread(target=lambda: [None for _ in trace])
        drain.start()
        figure = _cpu_of(pid, port)
        trace.stop()
        drain.join()
    return figure


def _cpu_of(pid: int, port: int) -> float:
    """µs of CPU that the server takes for a request."""
    before = _cpu(pid)
    _load(port)
    return (_cpu(pid) - before) * 1e6 / REQUESTS


def _cpu(pid: int) -> float:
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _load(port: int) -> None:
    client = Path(__file__).with_name("client.py")
    arguments: list[Any] = [port, "/", CONNECTIONS, REQUESTS // CONNECTIONS]
    subprocess.run(
        [sys.executable, "-I", str(client), *map(str, arguments)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _serve() -> None:
    """The server process."""
    tracesvc.install()
    trio.run(serve_http_at, "hypercorn", lambda port: print(port, flush=True))


if __name__ == "__main__":
    _serve()
