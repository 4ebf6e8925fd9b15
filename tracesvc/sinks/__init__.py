"""Where frames go from the reader: each sink has its own bounded queue and its own task."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tracesvc.sinks.base import Sink, SinkStatistics
from tracesvc.sinks.errors import SinkError
from tracesvc.sinks.file import FileSink
from tracesvc.sinks.queue import FrameQueue

if TYPE_CHECKING:
    from tracesvc.sinks.flight import FlightRecorder, FlightWindow
    from tracesvc.sinks.push import PushSink

__all__ = [
    "FileSink",
    "FlightRecorder",
    "FlightWindow",
    "FrameQueue",
    "PushSink",
    "Sink",
    "SinkError",
    "SinkStatistics",
]

_LATER = {"FlightRecorder": "flight", "FlightWindow": "flight", "PushSink": "push"}
"""imported when it is asked for: many a program writes to a file"""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return found
