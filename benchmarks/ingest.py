"""How fast the service takes a trace, every post durable, against the same server with a handler that keeps nothing.

Posts of 256 KiB over plain sockets, one client and eight (each its own session).  Both servers run at the same time and
are asked in turn, so that what else the machine does hits both.  Printed: posts and MB per second, and the ratio of
their rates, median of the rounds (the goals: at least 0.35 with one client, 0.75 with eight).  The same again with
the data in memory tells the disk's part from the processor's.
"""

from __future__ import annotations

import json as json_module
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from benchmarks.serving import NULL, service, serving
from tracesvc.events import FrameKind
from tracesvc.format import Generation, Header, SessionWriter
from tracesvc.format.batch import SLOTS
from tracesvc.format.frames import encode_frame

POST = 256 << 10
ROUNDS = 7
POSTS = 320
"""in one round, of all clients"""
GOALS = {1: 0.35, 8: 0.75}


class Session:
    """The bodies of a valid session, made before they are needed: sealing a frame takes longer than sending it."""

    def __init__(self, posts: int) -> None:
        self.name = str(uuid.uuid4())
        self.offset = 0
        header = SessionWriter()
        frames = [
            header.header(Header(self.name, {"name": "benchmark"}, 0, 0)).data,
            *(frame.data for frame in header.generation(Generation(0, 0, 0, self.name), [])),
        ]
        self._number, self._first = header.frames, 0
        self._body, self._count = _batch()
        self.bodies = iter(
            [b"".join([*(frames if not i else []), *self._frames()]) for i in range(posts)]
        )
        self.events = self._first
        """in all of them"""

    def _frames(self) -> Iterator[bytes]:
        size = 0
        while True:
            self._body[1] = self._first
            data = encode_frame(FrameKind.EVENTS, self._number, self._body)
            size += len(data)
            if size > POST:
                return
            self._number += 1
            self._first += self._count
            yield data


def _batch() -> tuple[list[object], int]:
    """The body of a frame with 4,096 scheduler events, some 50 KiB."""
    records: list[object] = []
    now, count = 0, 4096
    for i in range(count):
        now += 997 * (i % 613)
        records += [5 + i % 3, now, i * 7919 % 5003, i % 11, 0]
    writer = SessionWriter()
    body = writer.events(0, 0, records)[-1].body()
    assert isinstance(body, list)
    assert len(records) == count * SLOTS
    return body, count


def converse(port: int, session: Session, posts: int) -> None:
    """Post so many bodies over one connection, each after the answer to the one before."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(posts):
            body = next(session.bodies)
            head = (
                f"POST /v1/sessions/{session.name}/frames?offset={session.offset} HTTP/1.1\r\nhost: x\r\n"
                f"content-type: application/vnd.tracesvc\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode())
            connection.sendall(body)
            answer = b""
            while not answer.endswith(b"}"):
                part = connection.recv(4096)
                answer += part
                if not part:
                    break
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"the server answered {answer!r}")
            session.offset += len(body)


def load(port: str, clients: str, posts: str) -> None:
    """One round, in a process of its own; prints how many seconds it took. The sessions are there already."""
    sessions = [Session(int(posts) + 1) for _ in range(int(clients))]
    for session in sessions:
        converse(int(port), session, 1)
    threads = [
        threading.Thread(target=converse, args=(int(port), session, int(posts)))
        for session in sessions
    ]
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(time.perf_counter() - began, flush=True)


def one_round(port: int, clients: int) -> float:
    """Seconds."""
    arguments = [
        sys.executable,
        "-m",
        "benchmarks.ingest",
        str(port),
        str(clients),
        str(POSTS // clients),
    ]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        return float(process.stdout.readline())


def main(json: bool = False) -> int:
    """Print the table, or the figures as JSON; how many goals are missed."""
    figures: dict[str, dict[str, float]] = {}
    for place, parent in (("", Path.cwd()), (" in memory", Path("/dev/shm"))):
        if parent.is_dir():
            figures |= _measure(place, parent)
    if json:
        print(json_module.dumps(figures))
    else:
        print(
            "ingest, 256 KiB posts, fsync before each answer; beside it a handler that keeps nothing\n"
        )
        print(f"{'':20}{'null':>10}{'service':>10}{'':>14}{'ratio':>8}{'goal':>8}")
        for name, row in figures.items():
            rate = f"{row['posts/s'] * POST / 1e6:.0f} MB/s"
            goal = f"{row['goal']:8.2f}" if row["goal"] else ""
            print(
                f"{name:20}{row['null posts/s']:>8.0f}/s{row['posts/s']:>8.0f}/s{rate:>14}"
                f"{row['ratio']:>8.2f}{goal}"
            )
    return sum(row["ratio"] < row["goal"] for row in figures.values())


def _measure(place: str, parent: Path) -> dict[str, dict[str, float]]:
    """The rows of one place for the data; in memory there is no disk to wait for, and no goal."""
    figures: dict[str, dict[str, float]] = {}
    with (
        tempfile.TemporaryDirectory(dir=parent) as directory,
        service(directory) as real,
        serving("-c", NULL) as null,
    ):
        for clients, goal in GOALS.items():
            seconds = [
                (one_round(null.port, clients), one_round(real.port, clients))
                for _ in range(ROUNDS)
            ]
            figures[f"{clients} clients{place}"] = {
                "null posts/s": POSTS / statistics.median(a for a, _ in seconds),
                "posts/s": POSTS / statistics.median(b for _, b in seconds),
                "ratio": statistics.median(a / b for a, b in seconds),
                "goal": 0.0 if place else goal,
            }
    return figures


if __name__ == "__main__":
    load(*sys.argv[1:])
