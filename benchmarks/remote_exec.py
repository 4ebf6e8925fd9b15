"""``tracesvc attach`` to a program that prepared nothing, by ``sys.remote_exec`` of a real CPython 3.14.

Nothing older has that function, and the tests run on what is older.  So there is a root directory of its own with
Debian's python3.14 in it (``tools/newer-python``; root and debootstrap are needed), trio and msgpack beside it, and
tracesvc as it lies here, in Python alone.  In there a program runs that knows nothing of tracesvc, and is attached to
again and again; every trace must hold, and have the program's tasks, and nothing may be left behind.
"""

from __future__ import annotations

import argparse
import json as json_module
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import tracesvc
from tracesvc.events import TaskCreate
from tracesvc.model.verify import verify

__all__ = ["main"]

ROOT: Final = Path(__file__).parents[1]
PLACE: Final = ROOT / "build" / "python-3.14"
TIMES: Final = 10
TASKS: Final = 5
PYTHON: Final = "/usr/bin/python3.14"
PACKAGES: Final = ("trio", "msgpack", "click", "rich")
PROGRAM: Final = f"""
import os, sys, trio

async def work():
    while True:
        await trio.sleep(0.01)

async def main():
    async with trio.open_nursery() as nursery:
        for n in range({TASKS}):
            nursery.start_soon(work, name=f"worker {{n}}")
        print(os.getpid(), sys.version.split()[0], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()

trio.run(main)
assert "tracesvc" in sys.modules, "it was not attached to"
"""


def prepare(root: Path) -> None:
    """Make the root directory, with all that the program and the command need."""
    subprocess.run([ROOT / "tools" / "newer-python", root], check=True, stdout=sys.stderr)
    site = root / "site"
    shutil.rmtree(site, ignore_errors=True)
    wheels = ("--python-version", "3.14", "--only-binary=:all:", "--no-warn-script-location")
    install = [sys.executable, "-m", "pip", "install", "-q", *wheels]
    command = [*install, "--target", str(site), *PACKAGES]
    subprocess.run(command, check=True)
    shutil.copytree(
        ROOT / "tracesvc",
        site / "tracesvc",
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
    )


def left(pid: int) -> tuple[int, int]:
    """File descriptors and threads of a process."""
    place = Path("/proc", str(pid))
    return len(list((place / "fd").iterdir())), len(list((place / "task").iterdir()))


def main(root: Path, *, times: int = TIMES, json: bool = False) -> int:
    """How many attachments went wrong."""
    prepare(root)
    inside = ["chroot", str(root), "env", "PYTHONPATH=/site", "TRACESVC_DIR=/place", PYTHON]
    mounted = root / "proc"
    subprocess.run(["mount", "--bind", "/proc", mounted], check=True)
    faults: list[str] = []
    events, places = 0, list[tuple[int, int]]()
    try:
        with subprocess.Popen(
            [*inside, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            pid, version = program.stdout.readline().split()
            for i in range(times):
                out = root / f"{i}.trace"
                command = [*inside, "-m", "tracesvc", "attach", pid]
                command += ["--seconds", "0.5", "-o", f"/{out.name}"]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    faults.append(f"{i}: {done.stderr.strip()}")
                    continue
                report, data = verify(out), out.read_bytes()
                found = list(tracesvc.read(data))
                names = {event.name for event in found if isinstance(event, TaskCreate)}
                if not report.ok or sum(n.startswith("worker ") for n in names) != TASKS:
                    faults.append(f"{i}: {report.violations[:1]}, tasks {sorted(names)}")
                events += len(found)
                time.sleep(0.2)  # what attach has begun in the program ends
                places.append(left(int(pid)))
            program.stdin.close()
        if program.returncode:
            faults.append(f"the program ended with {program.returncode}")
    finally:
        subprocess.run(["umount", mounted], check=True)
    if len(set(places[1:])) > 1:
        faults.append(f"file descriptors and threads after each: {places}")
    if json:
        result = {"python": version, "times": times, "events": events, "faults": faults}
        print(json_module.dumps({"remote_exec": result}))
    else:
        print(
            f"remote_exec: CPython {version}, {times} times, {events:,} events; {len(faults)} faults"
        )
        print(*faults, sep="\n")
    return len(faults)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, default=PLACE)
    parser.add_argument("--times", type=int, default=TIMES)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    raise SystemExit(main(options.root, times=options.times, json=options.json) > 0)
