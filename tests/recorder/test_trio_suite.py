"""A program that knows nothing of us and minds everything: trio's own test suite, with a run per test."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tracesvc.model.verify import verify

PATIENCE = 240
"""seconds for one run of the suite; it takes about 20"""

INSPECTS_INSTRUMENTS = {
    "trio._core._tests.test_instrumentation::test_instrument_that_raises_on_getattr": (
        "counts the instruments of its own run, and the tracer's is one of them"
    ),
}
"""tests that cannot pass while anything traces, and why"""

PASSED = "passed"


class Suite:
    """One way of running the suite."""

    def __init__(self, directory: Path, name: str, *traced_by: str) -> None:
        self.directory = directory / name
        self.directory.mkdir()
        self.ini = directory / "empty.ini"
        self.ini.write_text("[pytest]\n")
        self.python = [sys.executable, "-W", "ignore", *traced_by]

    def start(self, name: str, *tests: str) -> tuple[subprocess.Popen[bytes], Path, Path]:
        report, log = self.directory / f"{name}.xml", self.directory / f"{name}.log"
        command = [
            *self.python,
            *("-m", "pytest", "-q", "-p", "trio._tests.pytest_plugin", "-p", "no:cacheprovider"),
            *(
                "-c",
                str(self.ini),
                "-W",
                "ignore",
                # parts of it ask for tools of trio's developers; they are missing in both runs
                "--continue-on-collection-errors",
                "--ignore-glob=*/tools/*",
                f"--junitxml={report}",
            ),
            *(f"--basetemp={self.directory / name}", "--pyargs", *(tests or ["trio"])),
        ]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=self.directory, stdout=out, stderr=subprocess.STDOUT
            )
        return process, report, log

    def finish(self, process: subprocess.Popen[bytes], report: Path, log: Path) -> dict[str, str]:
        """Name of each test -> what came of it."""
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail(f"the suite hangs:\n{log.read_text()[-3000:]}")
        assert code in (0, 1), log.read_text()[-3000:]  # 1: some tests failed
        return outcomes(report)


def outcomes(report: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):
        result = next(
            (part.tag for part in case if part.tag in {"failure", "error", "skipped"}), PASSED
        )
        name = f"trio.{str(case.get('classname')).removeprefix('trio.')}::{case.get('name')}"
        if found.get(name, PASSED) == PASSED:  # a failure in the teardown is a second entry
            found[name] = result
    return found


def worse(plain: dict[str, str], traced: dict[str, str]) -> set[str]:
    return {
        name for name, result in plain.items() if result == PASSED and traced.get(name) != PASSED
    }


def module_of(name: str) -> str:
    parts = name.partition("::")[0].split(".")
    return ".".join(
        parts[: 1 + next(i for i, part in enumerate(parts) if part.startswith("test_"))]
    )


@pytest.mark.slow
@pytest.mark.timeout(3 * PATIENCE)
def test_trios_own_test_suite_passes_as_it_does_untraced(tmp_path):
    trace = tmp_path / "suite.trace"
    plain = Suite(tmp_path, "plain")
    traced = Suite(tmp_path, "traced", "-m", "tracesvc", "run", "-q", "-o", str(trace))
    running = plain.start("all"), traced.start("all")
    before, after = plain.finish(*running[0]), traced.finish(*running[1])
    passed = list(before.values()).count(PASSED)
    assert passed >= 780
    assert len(before) >= 810
    assert before.keys() == after.keys()

    different = worse(before, after) - INSPECTS_INSTRUMENTS.keys()
    assert len(different) < 10, sorted(different)
    for i in range(
        3
    ):  # some tests are about time, and two suites at once are a load: these modules again, alone
        if different:
            again = Suite(tmp_path, f"again{i}", *traced.python[3:-1], str(tmp_path / f"{i}.trace"))
            modules = sorted({module_of(name) for name in different})
            second = again.finish(*again.start("some", *modules))
            different = {name for name in different if second.get(name) != PASSED}
    assert different == set(), running[1][2].read_text()[-5000:]

    report = verify(trace)
    assert report.ok, [str(violation) for violation in report.violations[:10]]
    assert report.ended
    runs = sum(account.kind == "run" for account in report.accounts)
    print(
        f"{passed} of {len(before)} tests pass; {runs} runs, {report.events:,} events, {report.bytes:,} bytes"
    )
    assert runs >= 700
