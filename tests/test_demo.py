"""The main job, as `make demo` does it, only shorter."""

import os
import re
import subprocess
import sys


def test_the_demo_proves_that_all_three_saw_the_same(tmp_path):
    command = [sys.executable, "-m", "tracesvc", "demo", "--seconds", "2", "--data", str(tmp_path)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {
        where: int(number.replace(",", ""))
        for where, number in re.findall(
            r"events (seen by the program|stored|followed live) +([\d,]+)", done.stdout
        )
    }
    assert counts.keys() == {"seen by the program", "stored", "followed live"}
    assert len(set(counts.values())) == 1
    assert counts["stored"] > 1000
    (trace,) = tmp_path.glob("sessions/*/*.trace")
    verified = subprocess.run(
        [sys.executable, "-m", "tracesvc", "verify", str(trace)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
