"""The command line as people call it: a process of its own."""

import os
import subprocess
import sys

from tests.analysis.streams import Hand

COMMAND = [sys.executable, "-m", "tracesvc"]
ENVIRONMENT = {**os.environ, "COLUMNS": "100", "TZ": "UTC"}


def run(*words, **options):
    return subprocess.run(
        [*COMMAND, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=ENVIRONMENT,
        **options,
    )


def start(*words, **options):
    return subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        **options,
    )


def failed(done, code):
    """The one line on standard error."""
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("tracesvc: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def small():
    """A whole trace with a name that would be markup."""
    return (
        Hand()
        .generation(0)
        .events(
            1,
            ("proc_start", 0, 1, 1, "proc 1"),
            ("task_create", 1_000, 1, 0, 0, "app[red]", "main (app.py:1)"),
            ("step_start", 2_000, 1),
            ("span_begin", 3_000, 5, 0, 1, "GET /", {"q": 1}),
            ("log", 4_000, 1, 5, 30, 0, "look out", {"k": "v"}),
            ("counter", 5_000, "jobs", 1234.0, 1),
            ("span_end", 6_000, 5, 1),
            ("task_exit", 7_000, 1),
            ("proc_stop", 8_000),
        )
    )
