"""Traces to export: of a real program, and generated ones."""

import subprocess
import sys

import pytest

from tests.traces import program
from tracesvc.model.reader import read


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The trace of the demo's shop."""
    directory = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "tracesvc", "demo", "--seconds", "2", "--data", str(directory)]
    subprocess.run(command, check=True, capture_output=True, timeout=90)
    (trace,) = directory.glob("sessions/*/*.trace")
    return trace


@pytest.fixture(scope="session")
def whole():
    """A generated trace with nothing missing."""
    return program(5, events=3000)


@pytest.fixture(scope="session")
def lossy():
    """A generated trace with losses."""
    return program(7, events=3000, losses=0.1)


def end_of(data):
    """ns of the end mark."""
    trace = read(data)
    for _ in trace.items():
        pass
    return trace.end.monotonic


def events_of(source):
    """All events of a trace, in stored order; but those of a task in the order of time, as they are."""
    return list(read(source))


def damaged(data, seed, spots=5):
    """The same stream with a few bytes spoiled."""
    spoiled = bytearray(data)
    for i in range(spots):
        spoiled[(seed * 7919 + i * 104_729) % len(spoiled)] ^= 0x55
    return bytes(spoiled)
