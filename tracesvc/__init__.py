"""tracesvc: the execution tracer and flight recorder for Trio."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tracesvc.recorder.annotations import counter, log, region, span
from tracesvc.recorder.errors import BlackBoxError, ReaderBusyError, TracerBusyError, TracerError
from tracesvc.recorder.objects import watch
from tracesvc.recorder.redaction import Redaction
from tracesvc.recorder.statistics import ProcStatistics, TracerStatistics
from tracesvc.recorder.tracer import Tracer, TracerState
from tracesvc.sinks.base import Sink, SinkStatistics
from tracesvc.sinks.delivery import open_tracer
from tracesvc.sinks.errors import SinkError
from tracesvc.sinks.file import FileSink

if TYPE_CHECKING:
    from tracesvc.control.agent import agent
    from tracesvc.control.errors import ControlError
    from tracesvc.control.install import install
    from tracesvc.model.reader import Trace, read
    from tracesvc.recorder.propagation import trace_headers, traceparent
    from tracesvc.sinks import triggers
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

_LATER = {
    "trace_headers": "tracesvc.recorder.propagation",
    "traceparent": "tracesvc.recorder.propagation",
    "ControlError": "tracesvc.control.errors",
    "FlightRecorder": "tracesvc.sinks.flight",
    "FlightWindow": "tracesvc.sinks.flight",
    "Trace": "tracesvc.model.reader",
    "agent": "tracesvc.control.agent",
    "install": "tracesvc.control.install",
    "read": "tracesvc.model.reader",
    "triggers": "tracesvc.sinks.triggers",
}
"""what a program that is only traced does not need: imported when it is asked for"""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_LATER[name])
    found = globals()[name] = module if name == "triggers" else getattr(module, name)
    return found
