"""Traces to export: of a real program, and generated ones."""

import contextlib
import subprocess
import sys

import pytest
import trio

from tests.traces import program
from tracesvc.model.reader import read
from tracesvc.testing import record


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


@pytest.fixture(scope="session")
def nested():
    """A generated trace that tells of nurseries and cancellations too."""
    return program(11, events=3000, nests=True)


@pytest.fixture(scope="session")
def scopes(tmp_path_factory):
    """The trace of a program that cancels in every way there is, its scopes among what is recorded."""

    async def child(seconds):
        with trio.move_on_after(seconds, shield=seconds > 3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, seconds / 2)
                nursery.start_soon(trio.sleep_forever)

    async def fails():
        await trio.sleep(2.5)
        raise ValueError("no")

    async def main():
        for _ in range(3):
            with contextlib.suppress(ExceptionGroup):
                async with trio.open_nursery() as nursery:
                    for i in range(1, 5):
                        nursery.start_soon(child, i)
                    nursery.start_soon(fails)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, 2)
            await trio.sleep(1)
            nursery.cancel_scope.cancel("enough")

    path = tmp_path_factory.mktemp("scopes") / "a.trace"
    record(main, path=path, groups=["+scopes"])
    return path


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
