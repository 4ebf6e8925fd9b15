"""Servers in processes of their own, and what they cost: memory, processor time, file descriptors."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["NULL", "Server", "raise_limit", "request", "service", "serving", "slope"]

MIB: Final = 1 << 20

NULL: Final = """
import sys, trio
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from tracesvc.service import server

async def ingest(request):
    more = True
    while more:
        more = (await request.receive()).get("more_body", False)
    return Response(b'{"offset": 0}', media_type="application/json")

async def main():
    app = Starlette(routes=[Route("/v1/sessions/{session}/frames", ingest, methods=["POST"])])
    listener = server.listen("127.0.0.1", 0)
    print("listening on http://127.0.0.1:%d" % listener.getsockname()[1], flush=True)
    await server.run(app, listener, trio.Event(), grace=1)

trio.run(main)
"""
"""the same HTTP server with a handler that keeps nothing"""


class Server:
    """A process that serves, seen from outside."""

    def __init__(self, pid: int, port: int = 0) -> None:
        self.pid, self.port = pid, port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def resident(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    def peak(self) -> int:
        """Resident bytes at most, so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10

    def processor(self) -> float:
        """Seconds of processor time, its own and the kernel's for it."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def open_files(self) -> int:
        """File descriptors."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())


@contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    """A server in a Python process with these arguments, once it says where it listens."""
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            if not line:
                raise RuntimeError("the server does not start; what it says is above")
            yield Server(process.pid, int(line.rpartition(":")[2]))
        finally:
            process.terminate()


@contextmanager
def service(data: str | Path, *flags: str) -> Iterator[Server]:
    """tracesvc with its sessions in ``data``."""
    command = ("-m", "tracesvc", "serve", "--listen", "127.0.0.1:0", "--data", str(data))
    with serving(*command, *flags) as server:
        yield server


def raise_limit() -> int:
    """As many file descriptors as the hard limit allows, for this process and its children; the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def request(port: int, method: str, path: str) -> tuple[int, bytes]:
    """Ask over a connection of its own: (status, body)."""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        connection.sendall(head.encode())
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    return int(answer[9:12]), answer.partition(b"\r\n\r\n")[2]


def slope(samples: Sequence[tuple[float, int]]) -> float:
    """Least-squares slope of (seconds, bytes) in MiB per 10 minutes."""
    n = len(samples)
    mean_time = sum(time for time, _ in samples) / n
    mean_size = sum(size for _, size in samples) / n
    above = sum((time - mean_time) * (size - mean_size) for time, size in samples)
    below = sum((time - mean_time) ** 2 for time, _ in samples)
    return above / below * 600 / MIB
