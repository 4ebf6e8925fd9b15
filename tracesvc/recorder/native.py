"""The native part of the recorder, where there is one: it is told here what it must know of the vocabulary and of trio.

Without a compiler, on an interpreter that it does not know, or with ``TRACESVC_NATIVE=0`` in the environment the twins
in Python do the same work; `why_not` says why.  The twins, too, rely on the interpreter lock: where a free-threaded
build runs without one, `no_lock` says so, and nothing is recorded.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Final

import outcome
import trio

from tracesvc.events import (
    EVENTS,
    CancelRequest,
    CancelSource,
    Counter,
    GcEnd,
    GcStart,
    IoWaitEnd,
    IoWaitStart,
    Log,
    NurseryClose,
    NurseryOpen,
    Outcome,
    Reason,
    RegionBegin,
    RegionEnd,
    ScopeClose,
    ScopeOpen,
    SpanBegin,
    SpanEnd,
    StepBlock,
    StepStart,
    StepYield,
    Storage,
    TaskCancelled,
    TaskCreate,
    TaskError,
    TaskExit,
    TaskRunnable,
    TaskStack,
    WakeCause,
)
from tracesvc.format.batch import ENDS
from tracesvc.recorder.stacks import beyond, make_stack

__all__ = ["native", "no_lock", "why_not"]

_CODES: Final = {
    Storage.INT: b"q",
    Storage.FLOAT: b"d",
    Storage.STRING: b"s",
    Storage.STACK: b"k",
    Storage.DATA: b"-",
}
_NUMBERS: Final[dict[str, int]] = {
    "task_create": TaskCreate.number,
    "task_runnable": TaskRunnable.number,
    "task_exit": TaskExit.number,
    "task_stack": TaskStack.number,
    "step_start": StepStart.number,
    "step_yield": StepYield.number,
    "step_block": StepBlock.number,
    "span_begin": SpanBegin.number,
    "span_end": SpanEnd.number,
    "region_begin": RegionBegin.number,
    "region_end": RegionEnd.number,
    "log": Log.number,
    "counter": Counter.number,
    "gc_start": GcStart.number,
    "gc_end": GcEnd.number,
    "io_wait_start": IoWaitStart.number,
    "io_wait_end": IoWaitEnd.number,
    "nursery_open": NurseryOpen.number,
    "nursery_close": NurseryClose.number,
    "task_error": TaskError.number,
    "cancel_request": CancelRequest.number,
    "task_cancelled": TaskCancelled.number,
    "scope_open": ScopeOpen.number,
    "scope_close": ScopeClose.number,
    **{f"outcome_{outcome.name.lower()}": int(outcome) for outcome in Outcome},
    **{f"source_{source.name.lower()}": int(source) for source in CancelSource},
    **{f"cause_{cause.name.lower()}": int(cause) for cause in WakeCause if cause},
    **{f"reason_{reason.name.lower()}": int(reason) for reason in Reason},
}


@trio.lowlevel.enable_ki_protection
def _protected() -> None:
    """Python handles waiting signals as it enters here; trio delivers a Ctrl-C later. See ``csrc/signals.c``."""


if hasattr(_protected, "__wrapped__"):
    # Before trio 0.28 a line around it says so, and that is too late; but what is called like this always is protected.
    _protected = _protected.__wrapped__
    _protected.__code__ = _protected.__code__.replace(co_name="__del__")


def no_lock() -> str:
    """Why this interpreter cannot be traced; "": it can."""
    enabled = getattr(sys, "_is_gil_enabled", None)  # from CPython 3.13 on
    if enabled is None or enabled():
        return ""
    return "it runs without the interpreter lock, on which recording relies: start it with PYTHON_GIL=1"


def _load() -> tuple[ModuleType | None, str]:
    if "t" in getattr(sys, "abiflags", ""):
        return None, "this Python is free-threaded, and the native recorder relies on its lock"
    if os.environ.get("TRACESVC_NATIVE") == "0":
        return None, "TRACESVC_NATIVE=0 is set"
    try:
        from tracesvc.recorder import _native
    except ImportError as exc:
        return None, f"it was not built ({exc}): install a C compiler and install tracesvc again"
    codes = {
        number: b"".join(_CODES[field.storage] for field in event.fields)
        for number, event in EVENTS.items()
    }
    _native.configure(_NUMBERS, codes, bytes(number in ENDS for number in range(256)))
    protected = trio.lowlevel.enable_ki_protection  # a Ctrl-C in what C calls would be swallowed
    _native.stacks(protected(make_stack), protected(beyond))
    _native.signals(_protected)
    try:
        _native.shape(trio.lowlevel.Task, outcome.Error, trio.Cancelled)
    except TypeError as exc:
        return None, f"this trio is not known to it: {exc}"
    return _native, ""


_loaded: Final = _load()
native: Final[ModuleType | None] = _loaded[0]
"""the extension module; None: the twins in Python do the work"""
why_not: Final[str] = _loaded[1]
"""why there is none"""
