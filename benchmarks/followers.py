"""Many followers of one live session, some of them stalled: how far the others lag behind, and what memory it takes.

    python -m benchmarks.campaigns followers

A session is posted in small pieces; every follower has a connection of its own and reads what comes at once, except for
the stalled ones, which never read.  A piece's lag is the time from its acknowledgement, when it is durable, until a
follower has its last byte; told is also the time from when its post began to be sent, in which is what the disk takes.
At the end the bytes of every follower are compared with those that were posted.  The bar: no follower that reads lags
by a second, at 20 MB/s to all of them together.
"""

from __future__ import annotations

import json as json_module
import select
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from typing import Any, Final

from benchmarks.pushing import Poster, Program, Scene
from benchmarks.serving import MIB, Server, raise_limit, service

__all__ = ["alone", "follow", "main", "measure"]

TOTAL: Final = 20_000_000
"""bytes a second, to all followers that read"""
POSTS: Final = 4
"""a second"""
BAR: Final = 1.0
"""seconds"""
ROOM: Final = 64.0
"""MiB that the service may grow by while it streams"""
BYTES_PER_EVENT: Final = 6.55
"""of what is posted"""
SMALL: Final = 4096
"""bytes that the kernel keeps for one who does not read"""


class _Follower:
    """One that reads: takes the chunks of the body apart, and notes when it had how much."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.size = 0
        self.crc = 0
        self.had: list[tuple[int, float]] = []
        """(bytes, when)"""
        self.ended = False
        self._buffer = b""
        self._head = True
        self._left = 0

    def take(self, now: float) -> None:
        """Read what there is."""
        data = self.connection.recv(1 << 18)
        if not data:
            self.ended = True
            return
        data = self._buffer + data
        at, before = 0, self.size
        if self._head:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            if not data.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"the service answered {data[:200]!r}")
            self._head, at = False, end + 4
        while True:
            if not self._left:
                end = data.find(b"\r\n", at)
                if end < 0:
                    break
                self._left = int(data[at:end], 16)
                at = end + 2
                if not self._left:
                    self.ended = True
                    break
                self._left += 2  # the line's end behind the chunk
            part = data[at : at + self._left]
            self._left -= len(part)
            at += len(part)
            body = part if self._left > 1 else part[: len(part) - 2 + self._left]
            self.size += len(body)
            self.crc = zlib.crc32(body, self.crc)
            if self._left:
                break
        self._buffer = data[at:]
        if self.size > before:
            self.had.append((self.size, now))


def follow(port: str, session: str, readers: str, stalled: str) -> None:
    """In a process of its own: follow to the end; prints a line when all are connected, and one with what they had."""
    raise_limit()
    request = f"GET /v1/sessions/{session}/frames?follow=true HTTP/1.1\r\nhost: x\r\n\r\n".encode()
    address = "127.0.0.1", int(port)
    idle: list[socket.socket] = []
    poll, followers = select.epoll(), {}
    for i in range(int(readers) + int(stalled)):
        connection = socket.socket()
        if i >= int(readers):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        connection.connect(address)
        connection.sendall(request)
        if i >= int(readers):
            idle.append(connection)
        else:
            followers[connection.fileno()] = _Follower(connection)
            poll.register(connection, select.EPOLLIN)
    told = False
    open_ones = len(followers)
    while open_ones:
        for number, _ in poll.poll():
            follower = followers[number]
            follower.take(time.monotonic())
            if follower.ended:
                poll.unregister(number)
                open_ones -= 1
        if not told and all(follower.size for follower in followers.values()):
            told = True
            print("connected", flush=True)
    seen = [[f.size, f.crc, f.had] for f in followers.values()]
    print(json_module.dumps(seen), flush=True)
    sys.stdin.readline()  # the stalled ones stay until the service has been looked at
    for connection in idle:
        connection.close()


def measure(
    server: Server,
    readers: int,
    stalled: int,
    seconds: float,
    *,
    total: int = TOTAL,
    posts: int = POSTS,
) -> dict[str, Any]:
    """Let a session flow for so long, to so many; the figures."""
    program = Program([Scene(int(total / readers / posts / BYTES_PER_EVENT), 1)], "followed")
    poster = Poster(server.port, program)
    poster.post(program.begin())
    at_first = server.resident()
    command = [sys.executable, "-m", "benchmarks.followers", str(server.port), program.session]
    command += [str(readers), str(stalled)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as crowd:
        assert crowd.stdin is not None
        assert crowd.stdout is not None
        if crowd.stdout.readline() != "connected\n":
            raise RuntimeError("the followers could not connect")
        connected, processor = server.resident(), server.processor()
        most, sent = connected, [(poster.offset, 0.0, 0.0)]
        due = began = time.monotonic()
        while time.monotonic() - began < seconds:
            body = program.play(0)
            now = time.monotonic()
            poster.post(body)
            sent.append((poster.offset, now, time.monotonic()))
            most = max(most, server.resident())
            due += 1 / posts
            time.sleep(max(0.0, due - time.monotonic()))
        flowed_bytes = poster.offset - sent[0][0]
        spent, flowed = server.processor() - processor, time.monotonic() - began
        poster.post(program.end())
        seen = json_module.loads(crowd.stdout.readline())
        most = max(most, server.resident())
        crowd.stdin.write("\n")
    lags: list[float] = []
    ways: list[float] = []
    for _, _, had in seen:
        at = 0
        for offset, began_at, durable in sent[1:]:
            while had[at][0] < offset:
                at += 1
            lags.append(max(0.0, had[at][1] - durable))
            ways.append(had[at][1] - began_at)
    lags.sort()
    ways.sort()
    acked = sorted(durable - began_at for _, began_at, durable in sent[1:])
    return {
        "readers": readers,
        "stalled": stalled,
        "seconds": flowed,
        "pieces": len(sent) - 1,
        "bytes_per_piece": flowed_bytes / (len(sent) - 1),
        "mb_per_s": flowed_bytes * readers / flowed / 1e6,
        "lag_p50": lags[len(lags) // 2],
        "lag_p99": lags[len(lags) * 99 // 100],
        "lag_max": lags[-1],
        "way_p50": ways[len(ways) // 2],
        "way_max": ways[-1],
        "post_p50": acked[len(acked) // 2],
        "post_max": acked[-1],
        "mib_before": at_first / MIB,
        "mib_connected": connected / MIB,
        "mib_most": most / MIB,
        "cpu_share": spent / flowed,
        "whole": sum((size, crc) == (poster.offset, poster.crc) for size, crc, _ in seen),
    }


def alone(followers: int, stalled: int, seconds: float) -> dict[str, Any]:
    """`measure` with a service of its own."""
    raise_limit()
    with tempfile.TemporaryDirectory(prefix="tracesvc-followers-") as data, service(data) as server:
        return measure(server, followers - stalled, stalled, seconds)


def main(
    json: bool = False, followers: int = 1000, stalled: int = 50, seconds: float = 60.0
) -> int:
    """Print the figures; how many bars are missed."""
    figures = alone(followers, stalled, seconds)
    missed = {
        "every follower has every byte": figures["whole"] == figures["readers"],
        f"lag below {BAR:g} s": figures["lag_max"] < BAR,
        "the rate": figures["mb_per_s"] >= 0.98 * TOTAL / 1e6,
        f"memory: {ROOM:g} MiB while streaming": figures["mib_most"] - figures["mib_connected"]
        < ROOM,
    }
    if json:
        print(json_module.dumps(figures))
    else:
        print(
            f"followers: {figures['readers']} read, {figures['stalled']} are stalled; "
            f"{figures['mb_per_s']:.1f} MB/s to all in {figures['pieces']} pieces, {figures['seconds']:.0f} s\n"
            f"lag: p50 {figures['lag_p50']:.3f} s, p99 {figures['lag_p99']:.3f} s, most {figures['lag_max']:.3f} s "
            f"(bar: {BAR:g}); "
            f"from the post on: p50 {figures['way_p50']:.3f} s, most {figures['way_max']:.3f}; "
            f"a post is acknowledged in {figures['post_p50']:.3f} s, at most {figures['post_max']:.3f}\n"
            f"memory: {figures['mib_before']:.1f} MiB without followers, {figures['mib_connected']:.1f} with them, "
            f"{figures['mib_most']:.1f} at most while it flows; {figures['cpu_share']:.2f} of a processor\n"
            f"whole: {figures['whole']} of {figures['readers']}"
        )
    bad = [what for what, holds in missed.items() if not holds]
    for what in bad:
        print(f"MISSED: {what}", file=sys.stderr)
    return len(bad)


if __name__ == "__main__":
    follow(*sys.argv[1:])
