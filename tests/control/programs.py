"""Programs to attach to: processes of their own, which say when they are ready."""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

READY = "ready"

BUSY = """
import sys, threading, trio, tracesvc
tracesvc.install()

async def worker(number):
    while True:
        with tracesvc.span("work", number=number):
            await trio.sleep(0.005)
        for _ in range(20):
            await trio.lowlevel.checkpoint()

async def main():
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(worker, number, name=f"worker {number}")
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()
    print(sorted(thread.name for thread in threading.enumerate()), flush=True)

trio.run(main)
"""
"""runs until its standard input ends"""


@contextlib.contextmanager
def running(code: str, **options) -> Iterator[subprocess.Popen]:
    """The program, once it is ready; what it says on standard error goes to ``errors``."""
    environment = {**os.environ, **options.pop("env", {})}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )
    # A program that writes more than a pipe holds must not stand still for that.
    process.errors = []
    drain = threading.Thread(target=lambda: process.errors.extend(process.stderr), daemon=True)
    drain.start()
    try:
        line = process.stdout.readline().strip()
        assert line == READY, (line, process.errors)
        yield process
    finally:
        process.kill()
        process.wait()
        drain.join(5)
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                pipe.close()
