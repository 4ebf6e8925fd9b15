"""tracesvc: the execution tracer and flight recorder for Trio."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from tracesvc.recorder.annotations import counter, log, region, span

if TYPE_CHECKING:
    from tracesvc.control.agent import agent
    from tracesvc.control.errors import ControlError
    from tracesvc.control.install import install
    from tracesvc.model.reader import Trace, read
    from tracesvc.recorder.errors import (
        BlackBoxError,
        ReaderBusyError,
        TracerBusyError,
        TracerError,
    )
    from tracesvc.recorder.objects import watch
    from tracesvc.recorder.propagation import trace_headers, traceparent
    from tracesvc.recorder.redaction import Redaction
    from tracesvc.recorder.statistics import ProcStatistics, TracerStatistics
    from tracesvc.recorder.tracer import Tracer, TracerState
    from tracesvc.sinks import triggers
    from tracesvc.sinks.base import Sink, SinkStatistics
    from tracesvc.sinks.delivery import open_tracer
    from tracesvc.sinks.errors import SinkError
    from tracesvc.sinks.file import FileSink
    from tracesvc.sinks.flight import FlightRecorder, FlightWindow

__all__ = [
    "BlackBoxError",
    "ControlError",
    "FileSink",
    "FlightRecorder",
    "FlightWindow",
    "ProcStatistics",
    "ReaderBusyError",
    "Redaction",
    "Sink",
    "SinkError",
    "SinkStatistics",
    "Trace",
    "Tracer",
    "TracerBusyError",
    "TracerError",
    "TracerState",
    "TracerStatistics",
    "agent",
    "counter",
    "install",
    "log",
    "open_tracer",
    "read",
    "region",
    "span",
    "trace_headers",
    "traceparent",
    "triggers",
    "watch",
]

_LATER: Final = {
    "tracesvc.control.agent": ("agent",),
    "tracesvc.control.errors": ("ControlError",),
    "tracesvc.control.install": ("install",),
    "tracesvc.model.reader": ("Trace", "read"),
    "tracesvc.recorder.errors": (
        "BlackBoxError",
        "ReaderBusyError",
        "TracerBusyError",
        "TracerError",
    ),
    "tracesvc.recorder.objects": ("watch",),
    "tracesvc.recorder.propagation": ("trace_headers", "traceparent"),
    "tracesvc.recorder.redaction": ("Redaction",),
    "tracesvc.recorder.statistics": ("ProcStatistics", "TracerStatistics"),
    "tracesvc.recorder.tracer": ("Tracer", "TracerState"),
    "tracesvc.sinks": ("triggers",),
    "tracesvc.sinks.base": ("Sink", "SinkStatistics"),
    "tracesvc.sinks.delivery": ("open_tracer",),
    "tracesvc.sinks.errors": ("SinkError",),
    "tracesvc.sinks.file": ("FileSink",),
    "tracesvc.sinks.flight": ("FlightRecorder", "FlightWindow"),
}
"""module -> names in it that a library does not need which only annotates: imported when they are asked for"""
_MODULES: Final = {name: module for module, names in _LATER.items() for name in names}


def __getattr__(name: str) -> Any:
    place = _MODULES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{place}.{name}" if name == "triggers" else place)
    found = globals()[name] = module if name == "triggers" else getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
