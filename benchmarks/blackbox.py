"""Programs that die while they record as fast as they can: what their black boxes have then.

Each program writes numbered events and tells the last number that it has completed on a pipe.  Whatever way it ends,
the recovered trace must be right, must hold every number from the box's first one to at least the one that was told,
and each of them once.
"""

from __future__ import annotations

import argparse
import json as json_module
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import tracesvc
from tracesvc.events import Log
from tracesvc.model.verify import verify
from tracesvc.rewrite.recover import Recovered, recover

__all__ = ["ENDS", "Died", "die", "judge", "main"]

ENDS: Final = {
    "kill": "",
    "exit": "os._exit(7)",
    "segfault": "ctypes.string_at(0)",
    "abort": "os.abort()",
}
"""how a program ends itself; "" waits to be killed"""
PROGRAM: Final = """
import ctypes, itertools, os, sys, threading, trio, tracesvc

directory, native, end_after, burst = sys.argv[1], sys.argv[2] == "native", int(sys.argv[3]), int(sys.argv[4])
numbers = itertools.count()

async def work(n):
    for i in numbers:
        with tracesvc.span("work", n=n):
            tracesvc.log("number", i=i)
        os.write(1, b"%d\\n" % i)
        if end_after and i >= end_after:
            {end}
        if i % burst == 0:
            await trio.lowlevel.checkpoint()
        if i % 500 == 0:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 0.002)

def in_thread():
    for i in itertools.count():
        tracesvc.counter("thread", i)
        if i % 100 == 0:
            threading.Event().wait(0.001)

async def main():
    async with tracesvc.open_tracer(black_box=directory, native=native):
        threading.Thread(target=in_thread, daemon=True).start()
        async with trio.open_nursery() as nursery:
            for n in range(3):
                nursery.start_soon(work, n)
trio.run(main)
"""


@dataclass
class Died:
    """What became of a program."""

    code: int
    told: int
    """the last number that it told; -1: none"""
    boxes: list[Path]


@dataclass
class Verdict:
    """Of one box."""

    recovered: Recovered
    first: int
    last: int
    faults: list[str] = field(default_factory=list)


def die(
    directory: Path,
    end: str = "kill",
    *,
    native: bool = True,
    seconds: float = 0.5,
    after: int = 20_000,
    burst: int = 50,
) -> Died:
    """Run the program until it is killed, after so many seconds, or ends itself, after so many events."""
    arguments = [str(directory), "native" if native else "twin"]
    arguments += ["0" if end == "kill" else str(after), str(burst)]
    program = PROGRAM.replace("{end}", ENDS[end] or "pass")
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdout=output, stderr=subprocess.DEVNULL
        ) as process,
    ):
        if end == "kill":
            while not output.seek(0, os.SEEK_END) and process.poll() is None:
                time.sleep(0.005)
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
        code = process.wait()
        output.seek(0)
        lines = output.read().split(b"\n")[:-1]
    return Died(code, max(map(int, lines), default=-1), sorted(directory.glob("*/box")))


def judge(box: Path, told: int) -> Verdict:
    """Recover a box and look at every number."""
    out = bytearray()
    recovered = recover(box.read_bytes(), out.extend)
    report = verify(bytes(out))
    with tracesvc.read(bytes(out)) as trace:
        numbers = [
            event.attributes["i"]
            for event in trace
            if isinstance(event, Log) and event.message == "number" and event.attributes
        ]
    first, last = (min(numbers), max(numbers)) if numbers else (0, -1)
    verdict = Verdict(recovered, first, last)
    if not report.ok or not report.ended:
        verdict.faults += [str(violation) for violation in report.violations[:3]]
    if last < told:
        verdict.faults.append(f"it ends with {last}, {told} was told")
    if sorted(numbers) != list(range(first, last + 1)):
        missing = last + 1 - first - len(set(numbers))
        verdict.faults.append(f"{missing} missing, {len(numbers) - len(set(numbers))} twice")
    return verdict


def main(json: bool = False, times: int = 200, seed: int = 1) -> int:
    """Kill that many programs; how many boxes were wrong."""
    chance = random.Random(seed)
    faults: list[str] = []
    events = unread = lost = 0
    for i in range(times):
        native = i % 4 != 3
        with tempfile.TemporaryDirectory(prefix="tracesvc-box-", dir="/dev/shm") as directory:
            died = die(
                Path(directory),
                native=native,
                seconds=chance.uniform(0.0, 2.0),
                burst=chance.choice((1, 50, 2000)),
            )
            if len(died.boxes) != 1:
                faults.append(f"{len(died.boxes)} boxes")
                continue
            verdict = judge(died.boxes[0], died.told)
        faults += [f"kill {i} ({'native' if native else 'twin'}): {f}" for f in verdict.faults]
        events += verdict.recovered.events
        unread += verdict.recovered.unread
        lost += verdict.recovered.lost
        if i % 10 == 9:
            print(f"{i + 1} kills, {len(faults)} faults", file=sys.stderr, flush=True)
    result = {
        "kills": times,
        "events": events,
        "of them unread": unread,
        "overwritten": lost,
        "faults": faults,
    }
    if json:
        print(json_module.dumps({"blackbox": result}))
    else:
        print(
            f"blackbox: {times} kills, {events:,} events recovered, {unread:,} of them from the journal, "
            f"{lost:,} overwritten; {len(faults)} faults"
        )
        print(*faults[:20], sep="\n")
    return len(faults)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--times", type=int, default=200)
    arguments = parser.parse_args()
    raise SystemExit(main(arguments.json, arguments.times) > 0)
