"""Questions asked of a trace. Needs NumPy: ``pip install 'tracesvc[analysis]'``.

Each question is a function of a `tracesvc.model.Trace`, and its answer has ``as_dict()`` for JSON.  None of them
fails on a trace that is damaged or has gaps: the answer says what is missing.
"""

try:
    import numpy as np  # noqa: F401
except ImportError as exc:
    raise ImportError(
        "the analysis of traces needs NumPy: pip install 'tracesvc[analysis]'"
    ) from exc

from tracesvc.analysis.ancestors import Ancestor, Ancestry, ancestors
from tracesvc.analysis.diff import Diff, Thresholds, diff
from tracesvc.analysis.fleet import Fleet, Member, fleet
from tracesvc.analysis.latency import Latencies, Of, latencies
from tracesvc.analysis.lint import Finding, Limits, Lints, lint
from tracesvc.analysis.query import Answer, QueryError, query
from tracesvc.analysis.stalls import Stalls, stalls
from tracesvc.analysis.summary import Summary, summarize
from tracesvc.analysis.tree import Tree, tasks_at
from tracesvc.analysis.why import NotFoundError, Why, why, why_window

__all__ = [
    "Ancestor",
    "Ancestry",
    "Answer",
    "Diff",
    "Finding",
    "Fleet",
    "Latencies",
    "Limits",
    "Lints",
    "Member",
    "NotFoundError",
    "Of",
    "QueryError",
    "Stalls",
    "Summary",
    "Thresholds",
    "Tree",
    "Why",
    "ancestors",
    "diff",
    "fleet",
    "latencies",
    "lint",
    "query",
    "stalls",
    "summarize",
    "tasks_at",
    "why",
    "why_window",
]
