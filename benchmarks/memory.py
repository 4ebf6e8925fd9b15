"""Memory: nothing grows over thousands of recordings, and nothing reads or writes where it must not.

    python -m benchmarks.campaigns cycles|memcheck

Cycles are judged by allocated blocks (exact, all of Python's and ours) and by resident memory.  memcheck runs the
recorder's native tests under valgrind, with Python's own allocator out of the way.
"""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Final

import trio

import tracesvc
from tracesvc import Tracer

__all__ = ["cycles", "memcheck"]

ROOT: Final = Path(__file__).parents[1]
SUPPRESSIONS: Final = Path(__file__).with_name("memcheck.supp")
TESTS: Final = tuple(
    f"tests/recorder/test_{name}.py"
    for name in (
        *("emit", "stacks", "reasons", "annotations", "task_events", "faults", "direct", "loss"),
        *("cancellation_events", "other_events", "black_box", "settle"),
    )
)
"""what goes through all of the C code"""


def resident() -> int:
    """Bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _work() -> None:
    lock = trio.Lock()

    async def locks(channel: trio.MemorySendChannel[int]) -> None:
        async with channel, lock:
            with tracesvc.span("work", size=1.5), tracesvc.region("part", of="work"):
                tracesvc.log("hello", text="x" * 50)
                tracesvc.counter("level", 2.5)
                await channel.send(1)

    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel[int](0)
        for _ in range(3):
            nursery.start_soon(locks, send.clone())
        send.close()
        async for _ in receive:
            await trio.lowlevel.checkpoint()
    with trio.move_on_after(0.0001):
        await trio.sleep_forever()


async def _finish(tracer: Tracer) -> int:
    size = 0

    async def read() -> None:
        nonlocal size
        while (piece := await tracer.read()) is not None:
            size += len(piece)

    async with trio.open_nursery() as nursery:
        tracer.attach_reader()
        nursery.start_soon(read, name="tracesvc reader")
        await tracer.stop()
    return size


def cycle(native: bool) -> None:
    """Start, trace a run that does some of everything, read, stop."""
    tracer: Any = Tracer(native=native, stacks="all", buffer_events=64)
    tracer.start()
    trio.run(_work)
    if not trio.run(_finish, tracer):
        raise RuntimeError("nothing was recorded")


def _settled() -> tuple[int, int]:
    """(allocated blocks, resident memory), once the threads of what is over are, too."""
    for thread in threading.enumerate():
        if thread.name.startswith("tracesvc "):
            thread.join()
    gc.collect()
    return sys.getallocatedblocks(), resident()


def growth(times: int, *, native: bool, before: int | None = None) -> tuple[float, float]:
    """(blocks, bytes of resident memory) that one of ``times`` cycles leaves behind, once ``before`` of them are over.

    What is made once and kept (caches of Python's, trio's and ours, threads) is there by then.
    """
    for _ in range(times // 4 if before is None else before):
        cycle(native)
    blocks, memory = _settled()
    for _ in range(times):
        cycle(native)
    blocks_after, memory_after = _settled()
    return (blocks_after - blocks) / times, (memory_after - memory) / times


def cycles(times: int = 10_000) -> int:
    """Start and stop that often, natively and not; 1 if anything grows."""
    bad = 0
    for native in (True, False):
        blocks, memory = growth(times, native=native)
        bad += blocks > 0.05 or memory > 100
        print(
            f"cycles: {times:,} times, {'native' if native else 'Python'}: "
            f"{blocks:+.4f} blocks and {memory:+.1f} bytes of resident memory per cycle",
            flush=True,
        )
    return 1 if bad else 0


ERROR: Final = re.compile(r"^==\d+== (Invalid|Mismatched|Source and dest)")


def memcheck(tests: tuple[str, ...] = TESTS) -> int:
    """Run tests of the native recorder under valgrind; 1 if it finds an invalid access or a test fails."""
    with tempfile.TemporaryDirectory(prefix="tracesvc-memcheck-") as directory:
        log = Path(directory) / "log"
        command = [
            *("valgrind", "--tool=memcheck", "--leak-check=no", "--num-callers=30"),
            # uninitialised values are not asked for: CPython 3.11 computes with some in int.from_bytes, unharmed
            *("--undef-value-errors=no", f"--log-file={log}", f"--suppressions={SUPPRESSIONS}"),
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=0"),
            *("-k", "native and not python", "-m", "not slow", *tests),
        ]
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONMALLOC": "malloc"}, check=False
        )
        lines = log.read_text().splitlines()
    errors = [line for line in lines if ERROR.match(line)]
    if errors:
        print("\n".join(lines[:400]))
    print(f"memcheck: {len(tests)} files of tests, {len(errors)} invalid accesses")
    return 1 if errors or done.returncode else 0
