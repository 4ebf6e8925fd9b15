"""Clients that do not behave, by the thousand: what does one that behaves notice of them?

    python -m benchmarks.campaigns slow

One client posts a piece and asks a question again and again, all the time, and how long it waits is told for each
phase: alone; then beside thousands of others, one kind of trouble after the other; then alone again.  The trouble is
made in a process of its own.  The bars: no request of the client that behaves fails, its median stays below three times
that of before plus 5 ms, and what the trouble took of file descriptors is given back.
"""

from __future__ import annotations

import contextlib
import json as json_module
import os
import random
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, Final

from benchmarks.driver import percentile
from benchmarks.pushing import Connection, Program, Scene
from benchmarks.serving import MIB, Server, raise_limit, service

__all__ = ["KINDS", "MALFORMED", "main", "trouble"]

FACTOR, SLACK = 3.0, 0.005
"""of the bar for the median: times as long, and seconds"""
PHASE: Final = 10.0
"""seconds of each"""
IDLE, PATIENT = 8.0, 300.0
"""--idle-timeout of the service: whoever takes longer for the head of a request is hung up on; and for `SITTING`"""
PAUSE: Final = 0.01
"""seconds between two requests of the client that behaves"""
KINDS: Final = {
    "slow heads": 2000,
    "slow bodies": 2000,
    "never read": 1000,
    "malformed": 200,
    "connected": 10_000,
}
"""and of how many at once"""
TURNS: Final = 100
"""in a second, in which each client sends once, if it does: they do not all send at the same time"""
SITTING: Final = {"connected"}
"""who is to stay, though it asks for nothing for a while"""
POST: Final = (
    "POST /v1/sessions/{session}/frames?offset=0 HTTP/1.1\r\nhost: x\r\n"
    "content-type: application/vnd.tracesvc\r\ncontent-length: 100000\r\n\r\n"
)
ASKS: Final = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
MALFORMED: Final = (
    *(
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\r\n" * 50,
        b"\x00" * 100,
    ),
    *(
        b"GET /healthz HTTP/1.1\r\nhost x\r\n\r\n",
        b"GET  /  HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET\r\n\r\n",
    ),
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 10_000 + b"\r\n",
    b"POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    b"POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    b"POST /v1/login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\nhello\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 60,
    b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\n\r\n",
)


# --- the trouble, in a process of its own --------------------------------------------------------


class _Crowd:
    """Many connections, each of which is given something to send now and then."""

    def __init__(self, port: int, n: int) -> None:
        self._address = "127.0.0.1", port
        self.open: list[socket.socket] = []
        self.closed = 0
        """that the service hung up on"""
        for _ in range(n):
            self.connect()

    def connect(self, *, room: int = 0) -> socket.socket:
        connection = socket.socket()
        if room:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        connection.connect(self._address)
        connection.setblocking(False)
        self.open.append(connection)
        return connection

    def send(self, what: Callable[[int], bytes], turn: int = 0, of: int = 1) -> None:
        """Each of them its part, if it is its turn; those that are hung up on are gone."""
        alive = []
        for i, connection in enumerate(self.open):
            if i % of != turn % of:
                alive.append(connection)
                continue
            try:
                with contextlib.suppress(BlockingIOError):
                    if connection.recv(1 << 16) == b"":
                        raise ConnectionError
                connection.send(what(i))
            except BlockingIOError:
                alive.append(connection)
            except OSError:
                connection.close()
                self.closed += 1
            else:
                alive.append(connection)
        self.open = alive


def _spoilt(request: bytes) -> bytes:
    """Half of the time as it is, else with something else at a random place."""
    at = random.randrange(len(request))
    if random.random() < 0.5:
        return request
    return request[:at] + random.choice((b"", b"\r\n", b"\x00", b":", b" ")) + request[at + 1 :]


def trouble(port: str, kind: str, count: str, session: str) -> None:
    """Make it until a line comes on standard input; prints a line when it has begun, and one with what became of it."""
    raise_limit()
    n, number = int(count), int(port)
    crowd = _Crowd(number, 0 if kind == "never read" else n)
    act: Callable[[], None]
    turn = 0
    if kind == "slow heads":
        head = b"GET /healthz HTTP/1.1\r\nhost: " + b"x" * 10_000

        def act() -> None:
            at = turn // TURNS
            crowd.send(lambda _: head[at : at + 1], turn, TURNS)
            while len(crowd.open) < n:
                crowd.connect()  # they come again

    elif kind == "slow bodies":
        names = [f"{i:08x}-0000-4000-8000-{random.getrandbits(48):012x}" for i in range(n)]
        crowd.send(lambda i: POST.format(session=names[i]).encode())

        def act() -> None:
            crowd.send(lambda _: b"\x96", turn, TURNS)

    elif kind == "never read":
        request = (
            f"GET /v1/sessions/{session}/frames?follow=true HTTP/1.1\r\nhost: x\r\n\r\n".encode()
        )
        for _ in range(n):
            crowd.connect(room=4096).send(request)

        def act() -> None:
            pass

    elif kind == "malformed":

        def act() -> None:
            crowd.send(lambda _: _spoilt(random.choice(MALFORMED)), turn, TURNS)
            while len(crowd.open) < n:
                crowd.connect()

    else:

        def act() -> None:  # a hundredth of them asks something every second
            crowd.send(lambda _: ASKS, turn, 100 * TURNS)

    act()
    print("begun", flush=True)
    waiting = select.poll()
    waiting.register(sys.stdin, select.POLLIN)
    while not waiting.poll(1000 // TURNS):
        turn += 1
        act()
    print(json_module.dumps({"open": len(crowd.open), "closed": crowd.closed}), flush=True)
    os._exit(0)


# --- the client that behaves ---------------------------------------------------------------------


class _Behaving:
    """Posts and asks, and notes how long it waits."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = Connection(port)
        self._program = Program([Scene(300, 1)], "behaving")
        self.session, self._offset = self._program.session, 0
        self._next = self._program.begin()
        self.failed = 0

    def renew(self) -> None:
        """Over another connection, as this one may have been idle for too long."""
        self._connection.close()
        self._connection = Connection(self._port)

    def go_on(self, seconds: float) -> list[float]:
        """For so long; what each request took, in order of that."""
        took = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            self._offset = self._connection.post(self.session, self._offset, self._next)
            took.append(time.monotonic() - began)
            self._next = self._program.play(0)
            time.sleep(PAUSE)
            began = time.monotonic()
            status, _ = self._connection.request("GET", f"/v1/sessions/{self.session}")
            took.append(time.monotonic() - began)
            self.failed += status != 200
            time.sleep(PAUSE)
        return sorted(took)


def phases(server: Server, kinds: dict[str, int], seconds: float) -> dict[str, dict[str, Any]]:
    """Each kind of trouble in turn; the figures."""
    behaving = _Behaving(server.port)
    figures: dict[str, dict[str, Any]] = {}

    def note(name: str, took: list[float], **more: Any) -> None:
        figures[name] = {
            "requests": len(took),
            "p50": percentile(took, 0.5),
            "p99": percentile(took, 0.99),
            "most": took[-1],
            "mib": server.resident() / MIB,
            "files": server.open_files(),
            "failed": behaving.failed,
            **more,
        }

    behaving.go_on(seconds / 4)  # what is made once is made
    note("alone", behaving.go_on(seconds))
    for kind, n in kinds.items():
        behaving.renew()
        command = [sys.executable, "-m", "benchmarks.slow", str(server.port), kind, str(n)]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        began = time.monotonic()
        with subprocess.Popen([*command, behaving.session], **pipes) as others:
            assert others.stdin is not None
            assert others.stdout is not None
            coming: list[float] = []
            ready = select.poll()
            ready.register(others.stdout, select.POLLIN)
            while not ready.poll(0):
                coming += behaving.go_on(0.2)
            others.stdout.readline()
            up = time.monotonic() - began
            took = behaving.go_on(seconds)
            held: dict[str, float] = {"mib": server.resident() / MIB, "files": server.open_files()}
            others.stdin.write("\n")
            others.stdin.flush()
            told = json_module.loads(others.stdout.readline())
        coming.sort()
        note(
            kind,
            took,
            **{**held, **told},
            n=n,
            up=up,
            coming_p50=percentile(coming, 0.5),
            coming_p99=percentile(coming, 0.99),
        )
        time.sleep(1.0)
    behaving.renew()
    deadline = time.monotonic() + 30
    while server.open_files() > figures["alone"]["files"] + 10 and time.monotonic() < deadline:
        behaving.go_on(0.5)
    note("alone again", behaving.go_on(seconds))
    return figures


def main(json: bool = False, seconds: float = PHASE, kinds: dict[str, int] = KINDS) -> int:
    """Print the figures; how many bars are missed."""
    raise_limit()
    figures: list[dict[str, dict[str, Any]]] = []
    for patience, some in ((IDLE, KINDS.keys() - SITTING), (PATIENT, SITTING)):
        flags = ("--idle-timeout", f"{patience:g}", "--followers", "20000")
        with (
            tempfile.TemporaryDirectory(prefix="tracesvc-slow-") as data,
            service(data, *flags) as server,
        ):
            chosen = {kind: n for kind, n in kinds.items() if kind in some}
            figures.append(phases(server, chosen, seconds))
    if json:
        print(json_module.dumps(figures, indent=2))
    else:
        heads = ("n", "p50 ms", "p99", "most", "coming: p50", "p99", "MiB", "files", "hung up on")
        print(f"{'':14}" + "".join(f"{head:>13}" for head in heads))
        for rows in figures:
            for name, row in rows.items():
                print(f"{name:14}" + "".join(f"{cell:>13}" for cell in _cells(row)))
    missed = [line for rows in figures for line in _missed(rows)]
    for what in missed:
        print(f"MISSED: {what}", file=sys.stderr)
    return len(missed)


def _cells(row: dict[str, Any]) -> list[str]:
    times = ("p50", "p99", "most", "coming_p50", "coming_p99")
    shown = [f"{1000 * row[name]:.1f}" if name in row else "" for name in times]
    counts = [f"{row['mib']:.1f}", str(row["files"]), str(row.get("closed", ""))]
    return [str(row.get("n", "")), *shown, *counts]


def _missed(rows: dict[str, dict[str, Any]]) -> list[str]:
    alone, again = rows["alone"], rows["alone again"]
    bar = FACTOR * alone["p50"] + SLACK
    missed = [
        f"{name}: p50 {1000 * row['p50']:.1f} ms, bar {1000 * bar:.1f}"
        for name, row in rows.items()
        if row["p50"] > bar
    ]
    if again["failed"]:
        missed.append(f"{again['failed']} requests failed")
    if again["files"] > alone["files"] + 10:
        missed.append("file descriptors are not given back")
    return missed


if __name__ == "__main__":
    trouble(*sys.argv[1:])
