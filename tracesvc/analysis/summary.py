"""What a trace says, in numbers: `summarize`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Final

from tracesvc.analysis.loops import Loop, together
from tracesvc.analysis.overhead import Change
from tracesvc.analysis.pieces import Annotated, Gc, ThreadCalls
from tracesvc.analysis.structure import Structure
from tracesvc.analysis.survey import Survey
from tracesvc.analysis.tasks import Step, TaskTime
from tracesvc.analysis.values import CounterValues, Logs
from tracesvc.events import EVENTS
from tracesvc.model.choice import Choice
from tracesvc.model.losses import Broken, Lost
from tracesvc.model.reader import Trace

__all__ = ["OWN", "Summary", "summarize"]

OWN: Final = "tracesvc "
"""what the names of the tracer's own tasks begin with"""


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything about a trace that fits on a page or two.

    Durations are in ns.  Points in time are in ns too: ``started`` since the epoch, all others by the clock of the
    trace, which showed ``begin`` at its beginning.
    """

    session: str | None
    source: dict[str, Any]
    """what is known of the program"""
    origin: str
    """of which session this is a snapshot or was recovered, and why; empty for a session of its own"""
    started: int | None
    """time of day at the beginning; None where the header is missing"""
    begin: int
    duration: int
    ended: bool
    """whether the end mark is there; without it the trace is being written, or its program was killed"""
    bytes: int
    generations: int
    events: int
    types: dict[str, int]
    """events by type"""
    tasks: dict[str, TaskTime]
    """by name of task, the most running time first"""
    spans: dict[str, Annotated]
    """by name, the most time first"""
    regions: dict[str, Annotated]
    loop: Loop
    """all runs together"""
    loops: dict[int, Loop]
    """each run, by proc"""
    stalls: list[Step]
    """the longest steps of all, the tracer's own included: nothing else ran in their run meanwhile"""
    gc: Gc
    threads: dict[str, ThreadCalls]
    """calls in worker threads by function, the most time first"""
    counters: dict[str, CounterValues]
    logs: Logs
    structure: Structure
    """nurseries, cancel scopes, cancellations, exceptions"""
    choice: Choice
    """what was chosen to be recorded"""
    overhead: list[Change]
    """when the tracer left out more, or less, to keep to its budget; the first 100"""
    losses: dict[str, Lost]
    """by cause"""
    missing: int
    """events that are neither stored nor said to be lost"""
    damage: list[Broken]
    """the first 100"""
    damaged_bytes: int

    @property
    def outcomes(self) -> dict[str, int]:
        """Tasks of the table that have ended, by `tracesvc.events.Outcome`."""
        total: Counter[str] = Counter()
        for task in self.tasks.values():
            total.update(task.outcomes)
        return dict(total.most_common())

    @property
    def lost(self) -> int:
        """Events that are not in the trace, as far as it tells."""
        return self.missing + sum(lost.events for lost in self.losses.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain dicts and lists; keys that are numbers become texts."""
        return {**_plain(asdict(self)), "outcomes": self.outcomes, "lost": self.lost}


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
    return repr(value)


def summarize(trace: Trace, *, own: bool = False) -> Summary:
    """Read a trace from where it stands to its present end, and sum it up.

    ::

        with tracesvc.read("app.trace") as trace:
            print(summarize(trace).loop.busy)

    The memory it takes goes with the live tasks, the open spans and the distinct names, not with the length of the
    trace.  Where events were lost, nothing is made up: what the tasks of that run were in counts as unknown until their
    own events or a snapshot tell.

    Args:
        trace: From `tracesvc.read`; it is left open.
        own: Whether the tracer's own tasks are in the table of tasks.

    Raises:
        FormatError: It is not a trace at all.
        OSError: It cannot be read.
    """
    survey = Survey(trace)
    survey.run()
    loops = survey.loops.result(survey.walk.runs(), survey.tasks.longest)
    session, stalls = trace.session, survey.tasks.stalls
    begin = 0 if survey.walk.began is None else survey.walk.began
    return Summary(
        session=None if session is None else session.id,
        source={} if session is None else session.source,
        origin="" if session is None else session.origin,
        started=None if session is None else session.started,
        begin=begin,
        duration=max(0, survey.walk.ended - begin),
        ended=trace.end is not None,
        bytes=trace.offset + trace.pending,
        generations=survey.walk.generations,
        events=survey.types.total(),
        types={_type(number): count for number, count in sorted(survey.types.items())},
        tasks=survey.tasks.result(survey.ends, own=lambda name: not own and name.startswith(OWN)),
        spans=survey.spans.result(),
        regions=survey.regions.result(),
        loop=together(list(loops.values()), stalls[0] if stalls else None),
        loops=loops,
        stalls=stalls,
        gc=survey.collections.result(),
        threads=survey.calls.result(),
        counters=survey.counters.result(),
        logs=survey.messages.result(),
        structure=survey.structure.result(),
        choice=Choice() if session is None else session.choice,
        overhead=survey.overhead.result(),
        losses=survey.walk.books.lost,
        missing=survey.walk.books.missing,
        damage=survey.walk.books.damage,
        damaged_bytes=survey.walk.books.damaged_bytes,
    )


def _type(number: int) -> str:
    return EVENTS[number].type if number in EVENTS else f"type {number}"
