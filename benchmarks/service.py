"""What the service carries: durable events for a second of its processor, and its bytes a second beside other ways.

Posts of 256 KiB with some 20,000 events each, from 1, 8 and 64 clients, each with a session of its own and each waiting
for the answer before it sends more.  In turn, in one run, the same bytes go

* to the service, which answers when they are on the disk;
* to the same HTTP server with a handler that keeps nothing;
* into files, a thread and a file for each client, with an ``fdatasync`` behind each body;
* to JetStream (a real nats-server, one replica, files, synced when it likes: every two minutes), published by the
  official client from one process, each publish waiting for its acknowledgement.

Medians of the rounds.  The goals are for the ratio to the null handler.
"""

from __future__ import annotations

import asyncio
import json as json_module
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.ingest import GOALS, Session, converse
from benchmarks.serving import NULL, Server, service, serving

__all__ = ["main"]

CLIENTS: Final = (1, 8, 64)
ROUNDS: Final = 5
POSTS: Final = 256
"""in one round, of all clients"""


# --- one round, in a process of its own ----------------------------------------------------------


def _http(target: str, sessions: Sequence[Session]) -> Callable[[int], None]:
    def send(posts: int) -> None:
        _in_threads([lambda s=s: converse(int(target), s, posts) for s in sessions])  # type: ignore[misc]

    return send


def _files(target: str, sessions: Sequence[Session]) -> Callable[[int], None]:
    def write(session: Session, fd: int, posts: int) -> None:
        for _ in range(posts):
            body = next(session.bodies)
            os.pwrite(fd, body, session.offset)
            os.fdatasync(fd)
            session.offset += len(body)

    fds = [os.open(Path(target) / s.name, os.O_CREAT | os.O_WRONLY, 0o600) for s in sessions]

    def send(posts: int) -> None:
        pairs = zip(sessions, fds, strict=True)
        _in_threads([lambda s=s, fd=fd: write(s, fd, posts) for s, fd in pairs])  # type: ignore[misc]

    return send


def _jetstream(target: str, sessions: Sequence[Session]) -> Callable[[int], None]:
    from nats.aio.client import Client

    runner = asyncio.Runner()
    client = Client()

    async def connect() -> Any:
        await client.connect(f"nats://127.0.0.1:{target}")
        stream = client.jetstream(timeout=60)
        await stream.add_stream(name="frames", subjects=["frames.*"])
        return stream

    stream = runner.run(connect())

    async def publish(session: Session, posts: int) -> None:
        for _ in range(posts):
            await stream.publish(f"frames.{session.name}", next(session.bodies))

    async def all_of_them(posts: int) -> None:
        async with asyncio.TaskGroup() as group:
            for session in sessions:
                group.create_task(publish(session, posts))

    return lambda posts: runner.run(all_of_them(posts))


WAYS: Final[dict[str, Callable[[str, Sequence[Session]], Callable[[int], None]]]] = {
    "service": _http,
    "null": _http,
    "files": _files,
    "jetstream": _jetstream,
}


def _in_threads(jobs: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def load(way: str, target: str, clients: str, posts: str) -> None:
    """Everything is made before it is needed; the first post of each session is no part of the round."""
    sessions = [Session(int(posts) + 1) for _ in range(int(clients))]
    send = WAYS[way](target, sessions)
    send(1)
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    send(int(posts))
    print(time.perf_counter() - began, flush=True)


# --- all of them in turn -------------------------------------------------------------------------


def one_round(way: str, target: str, clients: int, server: Server | None) -> tuple[float, float]:
    """(seconds, seconds of the server's processor)."""
    command = [sys.executable, "-m", "benchmarks.service", way, target, str(clients)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, str(POSTS // clients)], **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{way}: the clients failed, see above")
        before = server.processor() if server else 0.0
        process.stdin.write("\n")
        process.stdin.flush()
        seconds = float(process.stdout.readline())
        return seconds, (server.processor() if server else 0.0) - before


@contextmanager
def nats(directory: Path) -> Iterator[Server | None]:
    """A nats-server with JetStream; None where there is none."""
    binary = shutil.which("nats-server")
    if binary is None:
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [binary, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(directory)]
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as process:
        try:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.02)
            yield Server(process.pid, port)
        finally:
            process.send_signal(signal.SIGKILL)


def measure(rounds: int, directory: Path) -> dict[str, dict[str, float]]:
    """A row for each number of clients."""
    rows: dict[str, dict[str, float]] = {}
    for name in ("service", "files", "nats"):
        (directory / name).mkdir()
    example = Session(4)
    events, size = example.events / 4, sum(map(len, example.bodies)) / 4
    with (
        service(directory / "service", "--keep-free", "0") as real,
        serving("-c", NULL) as null,
        nats(directory / "nats") as jetstream,
    ):
        targets: dict[str, tuple[str, Server | None]] = {
            "service": (str(real.port), real),
            "null": (str(null.port), null),
            "files": (str(directory / "files"), None),
        }
        if jetstream is not None:
            targets["jetstream"] = (str(jetstream.port), jetstream)
        for clients in CLIENTS:
            found: dict[str, list[tuple[float, float]]] = {way: [] for way in targets}
            for _ in range(rounds):
                for way, (target, server) in targets.items():
                    found[way].append(one_round(way, target, clients, server))
                for path in (directory / "files").iterdir():
                    path.unlink()
            posts = POSTS // clients * clients
            row: dict[str, float] = {
                "goal": GOALS.get(clients, 0.0),
                "events per post": events,
                "bytes per post": size,
            }
            for way, pairs in found.items():
                seconds = statistics.median(took for took, _ in pairs)
                row[f"{way} MB/s"] = posts * size / seconds / 1e6
                row[f"{way} cpu ms/post"] = (
                    statistics.median(cpu for _, cpu in pairs) / posts * 1000
                )
            for way in targets:
                both = zip(found[way], found["service"], strict=True)
                row[f"to {way}"] = statistics.median(other / own for (other, _), (own, _) in both)
            row["events/cpu-s"] = events / (row["service cpu ms/post"] / 1000)
            rows[f"{clients} clients"] = row
    return rows


def main(json: bool = False, rounds: int = ROUNDS) -> int:
    """Print the table, or the figures as JSON; how many goals are missed."""
    with tempfile.TemporaryDirectory(prefix="tracesvc-service-") as directory:
        figures = measure(rounds, Path(directory))
    if json:
        print(json_module.dumps(figures))
    else:
        print(
            f"{'':12}{'':16}"
            + "".join(f"{way:>12}" for way in WAYS)
            + f"{'goal':>8}\n"
            + "\n".join(_lines(figures))
        )
    return sum(row["to null"] < row["goal"] for row in figures.values())


def _lines(figures: dict[str, dict[str, float]]) -> Iterator[str]:
    for name, row in figures.items():
        for what, form in (("{} MB/s", ".0f"), ("{} cpu ms/post", ".2f"), ("to {}", ".2f")):
            cells = [row.get(what.format(way)) for way in WAYS]
            shown = "".join(f"{'' if cell is None else format(cell, form):>12}" for cell in cells)
            goal = f"{row['goal']:8.2f}" if what == "to {}" and row["goal"] else ""
            yield f"{name if what == '{} MB/s' else '':12}{what.format('').strip():16}{shown}{goal}"
        yield f"{'':12}{row['events/cpu-s']:,.0f} durable events for a second of the service's processor"


if __name__ == "__main__":
    load(*sys.argv[1:])
