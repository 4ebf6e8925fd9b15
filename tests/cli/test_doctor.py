"""What runs here, and what to do where it does not."""

import json
import subprocess

import pytest

from tests.cli.commands import COMMAND, ENVIRONMENT, run
from tracesvc.recorder.native import native, why_not


def parts(*words, **environment):
    done = subprocess.run(
        [*COMMAND, "doctor", "--json", *words],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        env={**ENVIRONMENT, **environment},
    )
    rows = {row["part"]: row for row in json.loads(done.stdout)}
    assert done.returncode == (0 if all(row["runs"] for row in rows.values()) else 1)
    return rows


@pytest.mark.skipif(native is None, reason=f"no native recorder: {why_not}")
def test_all_runs_here():
    done = run("doctor")
    assert done.returncode == 0, done.stdout
    assert "yes  native recorder" in done.stdout
    assert "yes  direct way into trio" in done.stdout


def test_without_the_native_part_it_says_why_and_what_then():
    rows = parts(TRACESVC_NATIVE="0")
    row = rows["native recorder"]
    assert not row["runs"]
    assert "TRACESVC_NATIVE=0" in row["what"]
    assert row["advice"]
    assert rows["direct way into trio"]["runs"], "the twin in Python takes it as well"
