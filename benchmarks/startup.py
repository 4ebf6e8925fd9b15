"""How long the service takes to start after a SIGKILL, with 10,000 sessions on the disk.

It is killed while it takes one session more.  Measured from the start of the process to the line that says that it
listens, beside a start with an empty directory; the kernel's caches are warm.  The goal: 2 seconds at most.
"""

from __future__ import annotations

import json as json_module
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Final

import trio

from benchmarks.ingest import Session, converse
from tracesvc.format import Header, SessionWriter
from tracesvc.store import FileStore

SESSIONS: Final = 10_000
ROUNDS: Final = 5
BAR: Final = 2.0
"""seconds"""


def fill(root: Path) -> None:
    """Make the sessions; a store enters them into its catalogue."""
    for i in range(SESSIONS):
        name = str(uuid.uuid4())
        header = SessionWriter().header(Header(name, {"name": "made"}, 0, 10**18 + i, events=[]))
        directory = root / "sessions" / name
        directory.mkdir(parents=True)
        (directory / f"{0:020}.trace").write_bytes(header.data)

    async def enter() -> None:
        async with FileStore.open(root) as store:
            assert len(await store.list(limit=SESSIONS + 1)) == SESSIONS

    trio.run(enter)


def start(root: Path, *, load: bool) -> float:
    """Seconds until it listens; then it is killed, under load if asked for."""
    command = [sys.executable, "-m", "tracesvc", "serve", "--listen", "127.0.0.1:0", "--data"]
    began = time.monotonic()
    with subprocess.Popen([*command, str(root)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        seconds = time.monotonic() - began
        if load:
            session = Session(200)

            def push() -> None:
                try:
                    converse(port, session, 200)
                except (OSError, SystemExit):
                    pass  # that is what is to happen

            client = threading.Thread(target=push)
            client.start()
            time.sleep(0.3)
            process.kill()
            client.join()
        process.kill()
    return seconds


def main(json: bool = False) -> int:
    """Print the figures; returns 1 if the bar is missed, else 0."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        full, empty = Path(directory, "full"), Path(directory, "empty")
        fill(full)
        start(full, load=True)
        figures = {
            "empty": min(start(empty, load=False) for _ in range(ROUNDS)),
            "10,000 sessions": max(start(full, load=True) for _ in range(ROUNDS)),
        }
    if json:
        print(json_module.dumps(figures))
    else:
        for name, seconds in figures.items():
            print(f"{name:18}{seconds:6.2f} s")
    return int(figures["10,000 sessions"] > BAR)
