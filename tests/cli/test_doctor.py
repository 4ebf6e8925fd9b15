"""What runs here, and what to do where it does not."""

import json
import subprocess
import sys

import pytest

from tests.cli.commands import COMMAND, ENVIRONMENT, run
from tracesvc import Tracer, TracerError
from tracesvc.cli.doctor import examine
from tracesvc.recorder.native import native, why_not
from tracesvc.recorder.tracer import current_tracer


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
    assert "yes  native codec" in done.stdout
    assert "yes  direct way into trio" in done.stdout


def test_without_the_native_part_it_says_why_and_what_then():
    rows = parts(TRACESVC_NATIVE="0")
    row = rows["native recorder"]
    assert not row["runs"]
    assert "TRACESVC_NATIVE=0" in row["what"]
    assert row["advice"]
    assert rows["native codec"]["what"] == "TRACESVC_NATIVE=0"
    assert rows["direct way into trio"]["runs"], "the twin in Python takes it as well"


def test_a_free_threaded_python_without_its_lock_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    row = examine()[0]
    assert not row.runs
    assert "PYTHON_GIL=1" in row.what
    tracer = Tracer()
    with pytest.raises(TracerError, match="PYTHON_GIL=1"):
        tracer.start()
    assert current_tracer() is None

    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    assert examine()[0].runs


def test_a_free_threaded_python_with_its_lock_is_left_to_the_twin():
    """Whatever was built: the module is not even looked for."""
    program = (
        "import sys; sys.abiflags = 't'; sys.modules['tracesvc.recorder._native'] = None\n"
        "from tracesvc.recorder.native import native, why_not; print(native, why_not)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    assert done.stdout.startswith("None this Python is free-threaded")
