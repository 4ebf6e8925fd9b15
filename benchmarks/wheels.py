"""Wheels as users get them: built, put into an empty environment, and used there, with a compiler and without.

    python -m benchmarks.campaigns wheels
    PYTHONS='python3.11 /opt/python/bin/python3.13' python -m benchmarks.wheels

For each CPython: a wheel is built from a copy of the source and installed where nothing else is.  `tracesvc doctor`
must find all parts of the recorder there, and they must record all that a program does.  The same once more with
``CC=false``: then the twin must record, and `tracesvc doctor` say why and what to do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.versions import PYTHONS, pythons

__all__ = ["main", "source", "use"]

ROOT: Final = Path(__file__).parents[1]
FILES: Final = ("pyproject.toml", "setup.py", "README.md", "LICENSE-MIT", "LICENSE-APACHE")
PROGRAM: Final = """
import json, sys, trio, tracesvc
async def work(n):
    with tracesvc.span("work", n=n):
        await trio.sleep(0.001)
        tracesvc.log("worked", n=n)
async def main():
    async with tracesvc.open_tracer(tracesvc.FileSink(sys.argv[1])) as tracer:
        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(work, n)
    told = tracer.statistics()
    with tracesvc.read(sys.argv[1]) as trace:
        logs = [event for event in trace if isinstance(event, tracesvc.events.Log)]
    print(json.dumps([told.native, told.way, len(logs), sum(told.lost.values()), tracesvc.__file__]))
trio.run(main)
"""


def source(directory: Path) -> Path:
    """A copy of what is built from, for setuptools to build in: nothing that was built before goes along."""
    built = shutil.ignore_patterns("*.so", "*.pyc", "__pycache__")
    shutil.copytree(ROOT / "tracesvc", directory / "tracesvc", ignore=built)
    for name in FILES:
        shutil.copy(ROOT / name, directory)
    return directory


def use(
    python: Path, directory: Path, environment: dict[str, str]
) -> tuple[dict[str, Any], list[Any]]:
    """(what `tracesvc doctor` finds, by part; what a traced program says) with this interpreter."""
    command = [str(python), "-m", "tracesvc", "doctor", "--json"]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stderr)
    found = {row["part"]: row for row in json.loads(done.stdout)}
    command = [str(python), "-W", "error", "-c", PROGRAM, str(directory / "trace")]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return found, json.loads(done.stdout)


def judge(found: dict[str, Any], said: list[Any], *, compiler: bool) -> str:
    """What is wrong with it; "": nothing."""
    natively, way, logs, lost, where = said
    native = found["native recorder"]
    if Path(where).is_relative_to(ROOT):
        return f"it is not the installed one that ran, but {where}"
    if native["runs"] != compiler:
        return f"native recorder: {native['what']}"
    if not compiler and "install a C compiler" not in native["what"]:
        return f"the advice is: {native['what']}"
    if not found["direct way into trio"]["runs"]:
        return found["direct way into trio"]["what"] or "not the direct way"
    if (natively, way) != (compiler, "direct"):
        return f"recorded {'natively' if natively else 'by the twin'}, the {way} way"
    return "" if (logs, lost) == (20, 0) else f"{logs} of 20 logs, {lost} events lost"


def _run(*command: object, **environment: str) -> None:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:])


def _pip(python: Path, *words: object, **environment: str) -> None:
    quiet = ("--disable-pip-version-check", "--quiet")
    _run(python, "-m", "pip", *quiet, *words, "-c", ROOT / "constraints.txt", **environment)


def try_python(interpreter: str, version: str, directory: Path) -> list[str]:
    """Build, install and use the wheels for one interpreter; returns what is wrong."""
    wrong = []
    builder = directory / f"builder-{version}"
    _run(interpreter, "-m", "venv", builder)
    python = builder / "bin" / "python"
    _pip(python, "install", "setuptools")
    for compiler in (True, False):
        began = time.monotonic()
        name = f"{version}-{'native' if compiler else 'plain'}"
        place = directory / name
        tree = source(place / "source")
        words = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place / "dist", tree)
        _pip(python, *words, **({} if compiler else {"CC": "false"}))
        (wheel,) = (place / "dist").glob("*.whl")
        _run(interpreter, "-m", "venv", place / "venv")
        user = place / "venv" / "bin" / "python"
        _pip(user, "install", f"{wheel}[cli,push]")
        environment = {"PATH": os.environ["PATH"], "HOME": str(place)}
        problem = judge(*use(user, place, environment), compiler=compiler)
        if problem:
            wrong.append(f"{name}: {problem}")
        took = time.monotonic() - began
        print(
            f"wheels: CPython {version}, {'with' if compiler else 'without'} a compiler: {wheel.name}, "
            f"{wheel.stat().st_size:,} bytes: {problem or 'good'} ({took:.0f} s)",
            flush=True,
        )
    return wrong


def main() -> int:
    """1 if any of it is wrong."""
    wrong = []
    wanted = os.environ.get("PYTHONS", "").split() or list(PYTHONS)
    found = pythons(wanted)
    minors = {".".join(version.split(".")[:2]) for version in found}
    for python in PYTHONS:
        if python.removeprefix("python") not in minors:
            print(f"wheels: no {python} here: choose one with PYTHONS=...")
    with tempfile.TemporaryDirectory(prefix="tracesvc-wheels-") as directory:
        for version, interpreter in found.items():
            wrong += try_python(interpreter, version, Path(directory))
    for problem in wrong:
        print(problem, file=sys.stderr)
    return 1 if wrong or not found else 0


if __name__ == "__main__":
    raise SystemExit(main())
