"""What can go wrong when a tracer is used."""

__all__ = ["ReaderBusyError", "TracerBusyError", "TracerError"]


class TracerError(RuntimeError):
    """Base of the recorder's errors."""


class TracerBusyError(TracerError):
    """`Tracer.start` while a tracer of this process is on, or while a stop still drains."""


class ReaderBusyError(TracerError):
    """`Tracer.read` while another task is in it; the trace and the program go on."""
