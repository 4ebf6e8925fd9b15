"""tracesvc: the execution tracer and flight recorder for Trio."""

from tracesvc.model.reader import Trace, read
from tracesvc.recorder.annotations import counter, log, region, span
from tracesvc.recorder.errors import ReaderBusyError, TracerBusyError, TracerError
from tracesvc.recorder.statistics import ProcStatistics, TracerStatistics
from tracesvc.recorder.tracer import Tracer, TracerState
from tracesvc.sinks.base import Sink, SinkError, SinkStatistics
from tracesvc.sinks.delivery import open_tracer
from tracesvc.sinks.file import FileSink

__all__ = [
    "FileSink",
    "ProcStatistics",
    "ReaderBusyError",
    "Sink",
    "SinkError",
    "SinkStatistics",
    "Trace",
    "Tracer",
    "TracerBusyError",
    "TracerError",
    "TracerState",
    "TracerStatistics",
    "counter",
    "log",
    "open_tracer",
    "read",
    "region",
    "span",
]
