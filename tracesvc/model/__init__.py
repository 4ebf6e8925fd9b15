"""A trace as a model: read, replayed, verified."""

from tracesvc.model.reader import Session, Trace, read

__all__ = ["Session", "Trace", "read"]
