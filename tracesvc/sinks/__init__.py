"""Where frames go from the reader: each sink has its own bounded queue and its own task."""

from tracesvc.sinks.base import Sink, SinkStatistics
from tracesvc.sinks.errors import SinkError
from tracesvc.sinks.file import FileSink
from tracesvc.sinks.flight import FlightRecorder, FlightWindow
from tracesvc.sinks.push import PushSink
from tracesvc.sinks.queue import FrameQueue

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
