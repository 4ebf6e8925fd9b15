"""tracesvc: the execution tracer and flight recorder for Trio."""

from tracesvc.control.agent import agent
from tracesvc.control.errors import ControlError
from tracesvc.control.install import install
from tracesvc.model.reader import Trace, read
from tracesvc.recorder.annotations import counter, log, region, span
from tracesvc.recorder.errors import ReaderBusyError, TracerBusyError, TracerError
from tracesvc.recorder.redaction import Redaction
from tracesvc.recorder.statistics import ProcStatistics, TracerStatistics
from tracesvc.recorder.tracer import Tracer, TracerState
from tracesvc.sinks.base import Sink, SinkStatistics
from tracesvc.sinks.delivery import open_tracer
from tracesvc.sinks.errors import SinkError
from tracesvc.sinks.file import FileSink
from tracesvc.sinks.flight import FlightRecorder, FlightWindow

__all__ = [
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
]
