"""Where frames go from the reader: each sink has its own bounded queue and its own task."""

from tracesvc.sinks.base import Sink, SinkError, SinkStatistics
from tracesvc.sinks.file import FileSink
from tracesvc.sinks.push import PushSink
from tracesvc.sinks.queue import FrameQueue

__all__ = ["FileSink", "FrameQueue", "PushSink", "Sink", "SinkError", "SinkStatistics"]
