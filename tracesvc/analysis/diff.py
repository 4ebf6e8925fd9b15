"""`diff`: what became slower or faster from one trace to another, by span, region and task, with a verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from tracesvc.analysis.pieces import Annotated
from tracesvc.analysis.summary import Summary, summarize
from tracesvc.analysis.tasks import TaskTime
from tracesvc.model.reader import Trace

__all__ = ["Change", "Diff", "Thresholds", "compare", "diff"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on a difference counts."""

    ratio: float = 1.25
    """after / before, or its inverse"""
    time: int = 100_000
    """ns, between the two figures, at least"""
    count: int = 5
    """spans, or tasks, of that name on both sides, at least: fewer prove nothing"""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure on both sides."""

    kind: str
    """``span``, ``region`` or ``task``"""
    name: str
    figure: str
    """``p50``, ``p90``, ``p99``, ``mean``; of tasks, per task: ``running``, ``runnable``, ``blocked``, a reason"""
    before: int
    """ns"""
    after: int
    """ns"""
    counts: tuple[int, int]
    verdict: str
    """``slower``, ``faster``, ``same``, or ``few`` (too few on one side to tell)"""

    @property
    def ratio(self) -> float | None:
        """after / before; None where before is 0."""
        return self.after / self.before if self.before else None


@dataclass(frozen=True, slots=True)
class Diff:
    """The comparison of two traces."""

    verdict: str
    """``slower`` if a figure is, else ``faster`` if one is, else ``same``"""
    changes: list[Change]
    """all figures of names that are on both sides; those that changed the most first"""
    only_before: dict[str, list[str]]
    """kind -> names that only the first trace has"""
    only_after: dict[str, list[str]]
    thresholds: Thresholds
    gaps: tuple[int, int]
    """events that are missing on each side: what they would have said is not compared"""

    def of(self, verdict: str) -> list[Change]:
        """The changes with a verdict."""
        return [change for change in self.changes if change.verdict == verdict]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {
            "changes": [asdict(change) | {"ratio": change.ratio} for change in self.changes]
        }


def diff(before: Trace, after: Trace, thresholds: Thresholds | None = None) -> Diff:
    """Compare two traces, each read from where it stands to its present end.

    Args:
        before: From `tracesvc.read`: how it was.
        after: From `tracesvc.read`: how it is now.
        thresholds: From where on a difference counts.

    Raises:
        FormatError: One of them is not a trace.
        OSError: One of them cannot be read.
    """
    return compare(summarize(before), summarize(after), thresholds)


def compare(before: Summary, after: Summary, thresholds: Thresholds | None = None) -> Diff:
    """Compare two summaries."""
    limits = thresholds or Thresholds()
    changes: list[Change] = []
    only: tuple[dict[str, list[str]], dict[str, list[str]]] = ({}, {})
    for kind, field in _KINDS:
        olds, news = getattr(before, field), getattr(after, field)
        for name in [*olds, *(name for name in news if name not in olds)]:
            if name not in news:
                only[0].setdefault(kind, []).append(name)
            elif name not in olds:
                only[1].setdefault(kind, []).append(name)
            else:
                changes += _changes(kind, name, olds[name], news[name], limits)
    changes.sort(key=lambda change: -abs(change.after - change.before))
    verdicts = {change.verdict for change in changes}
    verdict = next((v for v in ("slower", "faster") if v in verdicts), "same")
    return Diff(verdict, changes, *only, limits, (before.lost, after.lost))


_KINDS: Final = (("span", "spans"), ("region", "regions"), ("task", "tasks"))


def _changes(kind: str, name: str, old: Any, new: Any, limits: Thresholds) -> Iterator[Change]:
    olds, news = _figures(old), _figures(new)
    counts = _count(old), _count(new)
    for figure in [*olds, *(f for f in news if f not in olds)]:
        before, after = olds.get(figure, 0), news.get(figure, 0)
        verdict = "few" if min(counts) < limits.count else _verdict(before, after, limits)
        yield Change(kind, name, figure, before, after, counts, verdict)


def _count(one: Annotated | TaskTime) -> int:
    return one.durations.count if isinstance(one, Annotated) else one.count


def _figures(one: Annotated | TaskTime) -> dict[str, int]:
    """The shape of a span: its quantiles; of a task: where its time went, per task."""
    if isinstance(one, Annotated):
        d = one.durations
        mean = d.total // d.count if d.count else 0
        return {"p50": d.p50, "p90": d.p90, "p99": d.p99, "mean": mean}
    figures = {"running": one.running, "runnable": one.runnable, **one.blocked}
    return {figure: ns // max(1, one.count) for figure, ns in figures.items()}


def _verdict(before: int, after: int, limits: Thresholds) -> str:
    if abs(after - before) < limits.time:
        return "same"
    if after > before * limits.ratio:
        return "slower"
    return "faster" if before > after * limits.ratio else "same"
