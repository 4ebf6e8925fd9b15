"""Long campaigns, run by hand: ``python -m benchmarks.campaigns soak|kill|fuzz|versions|wheels|...``.

Their figures go into docs/evidence.md.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks import (
    blackbox,
    capacity,
    day,
    flight,
    followers,
    fuzzhttp,
    memory,
    remote_exec,
    slow,
    soak,
    versions,
    wheels,
)
from benchmarks import fuzz as fuzz_inputs
from tracesvc.format import Batch, Item, StreamDecoder
from tracesvc.model.verify import verify

__all__ = ["main"]

PROGRAM: Final = """
import sys, trio, tracesvc
async def work(n):
    while True:
        with tracesvc.span("work", n=n):
            await trio.sleep(0.0001)
            tracesvc.log("at work", n=n)
async def main():
    async with tracesvc.open_tracer(tracesvc.FileSink(sys.argv[1], compression="auto")):
        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(work, n)
            print("up", flush=True)
trio.run(main)
"""


def kill(times: int = 200) -> int:
    """SIGKILL a traced program at random moments; whatever frames its file has must be right."""
    bad = frames = events = nothing = 0
    with tempfile.TemporaryDirectory(prefix="tracesvc-kill-") as directory:
        path = Path(directory) / "trace"
        for _ in range(times):
            path.unlink(missing_ok=True)  # else the trace of the time before might be judged
            command = [sys.executable, "-c", PROGRAM, str(path)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as program:
                assert program.stdout is not None
                program.stdout.readline()
                time.sleep(random.uniform(0.0, 1.5))
                os.kill(program.pid, signal.SIGKILL)
            if not path.exists() or not path.stat().st_size:
                nothing += 1  # the first frames are written after a quarter of a second at most
                continue
            decoder = StreamDecoder()
            decoder.feed(path.read_bytes())  # what is whole must be good; a last frame may be cut
            for item in decoder:
                bad += not isinstance(item, Item)
                frames += 1
                if isinstance(item, Item) and isinstance(item.record, Batch):
                    events += item.record.count
            bad += not verify(path).ok
    print(
        f"kill: {times} times, {nothing} before the first write; "
        f"{frames:,} frames, {events:,} events read, {bad} bad"
    )
    return 1 if bad else 0


def fuzz(times: int = 10_000_000) -> int:
    """Damaged and hostile bytes into the decoders, and a hundredth as many requests; 1 if something fails."""
    found = fuzz_inputs.decoders(times, corpus=Path("build/fuzz"))
    print(
        f"fuzz: {found['inputs']:,} inputs, {found['bytes']:,} bytes, {found['cpu_seconds']:.0f} s of CPU: "
        f"{found['kinds']} kinds of things seen, {found['new']} inputs with something new, "
        f"{found['failures']} failures; these inputs are in build/fuzz, for {fuzz_inputs.CORPUS}",
        flush=True,
    )
    asked = fuzzhttp.requests(times // 100)
    print(
        f"fuzz: {asked['requests']:,} requests, {asked['sessions']} sessions, {asked['seconds']:.0f} s: "
        f"{asked['statuses']}, {len(asked['failures'])} failures"
    )
    return 1 if found["failures"] or asked["failures"] else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.campaigns", description=__doc__)
    parser.add_argument(
        "name",
        choices=[
            *("soak", "kill", "fuzz", "versions", "wheels", "flight", "blackbox"),
            *("cycles", "memcheck", "remote-exec", "followers", "day", "slow", "capacity"),
        ],
    )
    parser.add_argument("--minutes", type=float, help="that the soak (30) or the day (8) takes")
    parser.add_argument(
        "--times", type=int, help="kills (200), or inputs of the fuzzing (10,000,000)"
    )
    parser.add_argument(
        "--json", action="store_true", help="figures as JSON: followers, day, slow, soak"
    )
    arguments = parser.parse_args()
    if arguments.name == "soak":
        return soak.main(arguments.json, minutes=arguments.minutes or 30.0)
    if arguments.name == "day":
        return int(day.main(arguments.json, minutes=arguments.minutes or 8.0) > 0)
    if arguments.name == "capacity":
        return int(capacity.main(arguments.minutes or 8.0) > 0)
    if arguments.name == "followers":
        return int(followers.main(arguments.json) > 0)
    if arguments.name == "slow":
        return int(slow.main(arguments.json) > 0)
    if arguments.name == "fuzz":
        return fuzz(arguments.times or 10_000_000)
    if arguments.name == "blackbox":
        return int(blackbox.main(times=arguments.times or 200) > 0)
    if arguments.name == "flight":
        return flight.main()
    if arguments.name == "cycles":
        return memory.cycles()
    if arguments.name == "memcheck":
        return memory.memcheck()
    if arguments.name == "remote-exec":
        return int(remote_exec.main(remote_exec.PLACE) > 0)
    if arguments.name == "wheels":
        return wheels.main()
    if arguments.name == "versions":
        return versions.main([])  # its own options: python -m benchmarks.versions --help
    return kill(arguments.times or 200)


if __name__ == "__main__":
    raise SystemExit(main())
