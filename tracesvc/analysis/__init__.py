"""Questions asked of a trace. Needs NumPy: ``pip install 'tracesvc[analysis]'``."""

try:
    import numpy as np  # noqa: F401
except ImportError as exc:
    raise ImportError(
        "the analysis of traces needs NumPy: pip install 'tracesvc[analysis]'"
    ) from exc

from tracesvc.analysis.summary import Summary, summarize

__all__ = ["Summary", "summarize"]
