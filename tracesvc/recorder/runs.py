"""The trio runs of this process that are under way, in whatever thread: to record them from outside."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

import trio

from tracesvc.recorder.seams import OWN
from tracesvc.recorder.tree import GONE

__all__ = ["call_in_runs"]

_RUN: Final = trio.run.__code__
"""its local variable ``runner`` is the run"""
_GUEST: Final = getattr(trio._core._run, "GuestState", None)


def call_in_runs(function: Callable[[], object]) -> int:
    """Have ``function`` called soon inside every run of this process but the tracer's own; returns how many there are.

    trio keeps no list of its runs.  Those that own a thread are found by the thread's frames; a guest run is not on any
    stack between two of its ticks, so where no thread has a run the garbage collector's list is asked.
    """
    called = 0
    for runner in _runners():
        try:
            runner.entry_queue.run_sync_soon(function, idempotent=True)
        except (
            *GONE,
            AttributeError,
        ):  # it has just ended, or is not what it was in trios known here
            continue
        called += 1
    return called


def _runners() -> list[Any]:
    own = {thread.ident for thread in threading.enumerate() if thread.name.startswith(OWN)}
    found = [
        runner
        for thread, frame in sys._current_frames().items()
        if thread not in own
        for runner in _in_stack(frame)
    ]
    if not found and _GUEST is not None:
        found = [thing.runner for thing in gc.get_objects() if type(thing) is _GUEST]
    return found


def _in_stack(frame: FrameType | None) -> Iterator[Any]:
    while frame is not None:
        if frame.f_code is _RUN:
            runner = frame.f_locals.get("runner")
            if runner is not None:
                yield runner
        frame = frame.f_back
