"""What can go wrong between a program and who controls it."""

from tracesvc.recorder.errors import TracerError

__all__ = ["ControlError"]


class ControlError(TracerError):
    """A program cannot be reached, or does not do what it is asked; the message says why, and what to do about it."""
