"""What can go wrong when a tracer is used."""

__all__ = ["BlackBoxError", "ReaderBusyError", "TracerBusyError", "TracerError"]


class TracerError(RuntimeError):
    """Base of the recorder's errors."""


class TracerBusyError(TracerError):
    """`Tracer.start` while a tracer of this process is on, or while a stop still drains."""


class ReaderBusyError(TracerError):
    """`Tracer.read` while another task is in it; the trace and the program go on."""


class BlackBoxError(TracerError):
    """There is no room for the black box, or it cannot be made; the message says where, and what to do about it."""
