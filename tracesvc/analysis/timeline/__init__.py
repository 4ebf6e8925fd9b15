"""A trace as a picture: rows, and what is on them between two times at a given width."""

from __future__ import annotations

from tracesvc.analysis.timeline.index import Index

__all__ = ["Index"]
