"""Every supported CPython with every supported trio: does what stands on trio's insides pass its tests on each pair?

    python -m benchmarks.campaigns versions
    PYTHONS='python3.11 /opt/python/bin/python3.13' python -m benchmarks.versions --trio 0.27 0.35 -- -k reasons

There is one environment per CPython, made by ``tools/make-venv`` and kept for the next time; the trios take turns in
it.  They are all the minors from the bound in pyproject.toml to the one in constraints.txt.  Exit code 1 if a test of
any pair fails.  A pair counts as "none" where trio itself cannot be installed or imported, with us or without.
"""

from __future__ import annotations

import argparse
import json as json_module
import os
import re
import subprocess
import sys
import time
import tomllib
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

__all__ = ["main"]

ROOT: Final = Path(__file__).parents[1]
PYTHONS: Final = ("python3.11", "python3.12", "python3.13")
TESTS: Final = ("-m", "not slow", "tests/recorder", "tests/sinks")
"""what stands on trio's insides"""
PATIENCE: Final = 1200.0
"""seconds for the tests of one pair; they take about 60"""


@dataclass
class Pair:
    """What came of one CPython with one trio."""

    python: str
    trio: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    problem: str = ""
    """why there are no tests"""
    exists: bool = True
    """trio can be installed and imported"""

    @property
    def good(self) -> bool:
        """Nothing failed that can be tried at all."""
        return not self.exists or (not self.failed and not self.problem and self.passed > 0)

    @property
    def cell(self) -> str:
        """Its place in the table: passed/failed."""
        if not self.exists:
            return "none"
        return "broken" if self.problem else f"{self.passed}/{self.failed}"


def minors() -> list[str]:
    """Every minor of trio from the bound to the newest that is developed with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bound = re.search(r"^trio>=0\.(\d+)", "\n".join(project["dependencies"]), re.MULTILINE)
    newest = re.search(r"^trio==0\.(\d+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert bound is not None
    assert newest is not None
    return [f"0.{minor}" for minor in range(int(bound[1]), int(newest[1]) + 1)]


def pythons(wanted: list[str]) -> dict[str, str]:
    """Version -> interpreter, of those that work; a name on PATH may be a version manager's stub."""
    question = "import ensurepip, platform, venv; print(platform.python_version())"
    found: dict[str, str] = {}
    for python in wanted:
        try:
            answer = subprocess.run([python, "-c", question], capture_output=True, text=True)
        except OSError:
            continue
        if answer.returncode == 0:
            found.setdefault(answer.stdout.strip(), python)
    return found


def environment(python: str, venv: Path) -> Path:
    """Make or refresh an environment; returns its interpreter."""
    subprocess.run(
        ["tools/make-venv", str(venv)],
        cwd=ROOT,
        env={**os.environ, "PYTHON": python},
        stdout=sys.stderr,
        check=True,
    )
    return venv / "bin" / "python"


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def put_trio(python: Path, minor: str, pair: Pair) -> bool:
    """Install the newest patch of a minor in the place of whatever trio is there."""
    # Its dependencies are pinned and there; others may ask for a newer trio, and that is what is to be tried out.
    pip = [
        str(python),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--no-deps",
    ]
    version = "import trio; print(trio.__version__)"
    for command in ([*pip, f"trio=={minor}.*"], [str(python), "-W", "ignore", "-c", version]):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            pair.exists, pair.problem = False, last_line(done.stderr)
            return False
    pair.trio = done.stdout.strip()
    return True


def try_pair(python: Path, version: str, minor: str, tests: list[str], logs: Path) -> Pair:
    """Run the tests on one pair."""
    pair = Pair(version, minor)
    if not put_trio(python, minor, pair):
        return pair
    name = f"{version}-{pair.trio}"
    report, log = logs / f"{name}.xml", logs / f"{name}.log"
    report.unlink(missing_ok=True)
    command = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "--maxfail=1000",
        "--timeout=60",
        "-p",
        "no:cacheprovider",
    ]
    began = time.monotonic()
    with log.open("wb") as out:
        try:
            subprocess.run(
                [*command, f"--junitxml={report}", *tests],
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            pair.problem = f"not done after {PATIENCE:g} s"
    pair.seconds = round(time.monotonic() - began, 1)
    if not report.exists():
        pair.problem = pair.problem or last_line(log.read_text(errors="replace"))
        return pair
    outcomes: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):
        kinds = {part.tag for part in case}
        name = f"{case.get('classname')}::{case.get('name')}"
        if kinds & {"failure", "error"}:
            outcomes[name] = "failed"
        else:  # a failure in the teardown is a second entry, and counts
            outcomes.setdefault(name, "skipped" if "skipped" in kinds else "passed")
    counts = Counter(outcomes.values())
    pair.passed, pair.failed, pair.skipped = (counts[k] for k in ("passed", "failed", "skipped"))
    pair.failures = [name for name, outcome in outcomes.items() if outcome == "failed"]
    return pair


def table(pairs: list[Pair]) -> str:
    """CPython by trio: tests passed/failed."""
    trios = list(dict.fromkeys(pair.trio for pair in pairs))
    trios.sort(key=lambda trio: [int(part) for part in re.findall(r"\d+", trio)])
    versions = list(dict.fromkeys(pair.python for pair in pairs))
    cells = {(pair.python, pair.trio): pair.cell for pair in pairs}
    rows = [["trio", *(f"CPython {version}" for version in versions)]]
    rows += [[trio, *(cells.get((version, trio), "") for version in versions)] for trio in trios]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.versions", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--trio", nargs="+", metavar="0.N", help="only these minors")
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "versions")
    parser.add_argument("--json", action="store_true", help="all of it as JSON on standard output")
    parser.add_argument("tests", nargs="*", help=f"for pytest (default: {' '.join(TESTS)})")
    options = parser.parse_args(arguments)
    wanted = os.environ.get("PYTHONS", "").split() or list(PYTHONS)
    found = pythons(wanted)
    if not found:
        parser.error(f"no Python that works among: {' '.join(wanted)} (choose with PYTHONS=...)")
    tests = list(options.tests)
    if not tests or tests[0].startswith("-"):  # no tests are named: the usual ones
        tests = [*TESTS, *tests]
    directory: Path = options.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    pairs = []
    for version, interpreter in found.items():
        python = environment(interpreter, directory / version)
        for minor in options.trio or minors():
            pair = try_pair(python, version, minor, tests, directory)
            pairs.append(pair)
            print(
                f"CPython {version}, trio {pair.trio}: {pair.cell} {pair.problem} ({pair.seconds:.0f} s)",
                *pair.failures,
                sep="\n    ",
                file=sys.stderr,
                flush=True,
            )
    result = json_module.dumps([asdict(pair) for pair in pairs], indent=1)
    (directory / "versions.json").write_text(result)
    print(result if options.json else table(pairs))
    return 0 if all(pair.good for pair in pairs) else 1


if __name__ == "__main__":
    raise SystemExit(main())
