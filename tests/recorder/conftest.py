"""What holds for every test of the recorder."""

import os

import pytest
import trio

import tracesvc
from tracesvc.recorder import annotations
from tracesvc.recorder.native import native
from tracesvc.recorder.tracer import current_tracer

WAYS = [("direct", "1"), ("public", "0")]
"""into trio, and whether recording is native"""
if "all" in os.environ.get("TRACESVC_TEST_WAYS", ""):
    WAYS += [("direct", "0"), ("public", "1")]
if native is None:  # without a compiler
    WAYS = [(way, natively) for way, natively in WAYS if natively == "0"] + [("direct", "0")]


@pytest.fixture(
    autouse=True,
    params=WAYS,
    ids=[f"{way}-{'native' if natively == '1' else 'python'}" for way, natively in WAYS],
)
def way(request, monkeypatch):
    """Every test of the recorder is about the native one on the direct way, and about the twin on the public one."""
    monkeypatch.setenv("TRACESVC_WAY", request.param[0])
    monkeypatch.setenv("TRACESVC_NATIVE", request.param[1])
    if request.param[1] == "0":
        for name, twin in annotations.TWINS.items():
            monkeypatch.setattr(tracesvc, name, twin)
    return request.param


@pytest.fixture(autouse=True)
def no_tracer_is_left_behind():
    """One that a failing test left ON would make all that follow fail."""
    yield
    tracer = current_tracer()
    if tracer is not None:

        async def stop() -> None:
            with trio.move_on_after(1):
                await tracer.stop()

        trio.run(stop)
    assert tracer is None, "the test left a tracer behind"
