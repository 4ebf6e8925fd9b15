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

from benchmarks import blackbox, flight, memory, soak, versions, wheels
from tracesvc.format import Batch, FormatError, FrameDecoder, Item, StreamDecoder
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


def fuzz(seconds: float = 120.0) -> int:
    """Random and mutated bytes into the decoders; nothing but what they declare may come out."""
    rounds = good = damaged = 0
    with tempfile.TemporaryDirectory(prefix="tracesvc-fuzz-") as directory:
        path = Path(directory) / "trace"
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.PIPE
        ) as program:
            assert program.stdout is not None
            program.stdout.readline()
            time.sleep(2)
            program.kill()
        seed = path.read_bytes()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        start = random.randrange(len(seed))
        data = bytearray(seed[start : start + random.randrange(1, 40_000)])
        for _ in range(random.randrange(20)):
            data[random.randrange(len(data))] = random.randrange(256)
        if random.random() < 0.1:
            data = bytearray(random.randbytes(len(data)))
        raw = FrameDecoder()
        raw.feed(data)
        raw.close()
        list(raw)
        decoder = StreamDecoder()
        decoder.feed(data)
        decoder.close()
        for item in decoder:
            if isinstance(item, Item):
                good += 1
                if isinstance(item.record, Batch):
                    try:
                        list(decoder.events(item.record))
                    except FormatError:
                        damaged += 1
            else:
                damaged += 1
        rounds += 1
    print(
        f"fuzz: {rounds:,} rounds in {seconds:g} s, {good:,} good frames, {damaged:,} damages, no other exception"
    )
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.campaigns", description=__doc__)
    parser.add_argument(
        "name",
        choices=[
            *("soak", "kill", "fuzz", "versions", "wheels", "flight", "blackbox"),
            *("cycles", "memcheck"),
        ],
    )
    parser.add_argument("--minutes", type=float, default=15.0, help="of the soak")
    parser.add_argument("--times", type=int, default=200, help="of the kill campaign")
    parser.add_argument("--seconds", type=float, default=120.0, help="of the fuzzing")
    arguments = parser.parse_args()
    if arguments.name == "soak":
        return soak.main(minutes=arguments.minutes)
    if arguments.name == "blackbox":
        return int(blackbox.main(times=arguments.times) > 0)
    if arguments.name == "flight":
        return flight.main()
    if arguments.name == "cycles":
        return memory.cycles()
    if arguments.name == "memcheck":
        return memory.memcheck()
    if arguments.name == "wheels":
        return wheels.main()
    if arguments.name == "versions":
        return versions.main([])  # its own options: python -m benchmarks.versions --help
    return kill(arguments.times) if arguments.name == "kill" else fuzz(arguments.seconds)


if __name__ == "__main__":
    raise SystemExit(main())
