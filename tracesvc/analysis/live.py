"""What the tasks of a trace do right now, and did in the last seconds: `LiveTasks`, fed as the trace comes."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from tracesvc.analysis.stacks import StacksAround, place
from tracesvc.events import Reason, TaskRunnable
from tracesvc.model.phases import UNKNOWN, PhaseMaker, Phases
from tracesvc.model.reader import read
from tracesvc.model.replay import Part
from tracesvc.model.states import State
from tracesvc.model.walk import Chunk, Gap, Healed, Over, Walk

__all__ = ["LiveRow", "LiveTasks", "View"]

OWN: Final = "tracesvc "
LONGEST_STEPS: Final = 5


@dataclass(frozen=True, slots=True)
class LiveRow:
    """One task, alive at the time of the `View`."""

    task: int
    name: str
    run: int
    """its proc"""
    state: str
    """running, runnable, waiting; unknown after a loss"""
    reason: str
    """what it waits for, see `tracesvc.events.Reason`; else empty"""
    object: int
    """number of what it waits for, where there is one"""
    age: int
    """ns since it is in that state"""
    running: float
    """part of the window in which it ran, 0 to 1"""
    wakes: float
    """per second"""
    longest: int
    """ns that its longest step in the window took"""
    place: str
    """where it is suspended, as far as the trace says so: of waits that last"""


@dataclass(frozen=True, slots=True)
class View:
    """The tasks at one moment."""

    time: int
    """ns"""
    window: int
    """ns that shares and rates are of; less at the beginning"""
    source: str
    rows: list[LiveRow]
    events: float
    """per second"""
    lost: int
    """events since the trace began"""
    busy: float
    """part of the window in which some task ran, summed over the runs"""
    steps: list[tuple[int, str, int]]
    """the longest steps of the window: (ns, task's name, task)"""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class _Pipe:
    """A file that grows at one end and is read at the other."""

    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()

    def add(self, data: bytes) -> None:
        self._parts.append(data)

    def read(self, n: int, /) -> bytes:
        return self._parts.popleft() if self._parts else b""


class LiveTasks:
    """Follows a trace.

    Memory goes with the live tasks and with the events of one window.

    Args:
      window: ns that shares and rates are of.
      own: whether the tracer's own tasks are among them.
    """

    def __init__(self, window: int = 2_000_000_000, *, own: bool = False) -> None:
        self._window = window
        self._own = own
        self._pipe = _Pipe()
        self._trace = read(self._pipe)
        self._walk = Walk(self._trace)
        self._phases = PhaseMaker()
        self._stacks = StacksAround(None)
        self._recent: deque[Phases] = deque()
        self._counts: deque[tuple[int, int]] = deque()
        """(ns of the latest, number) of events that came together"""

    def feed(self, data: bytes) -> None:
        """More of the trace, cut anywhere.

        Raises:
          FormatError: it is not a trace.
        """
        self._pipe.add(data)
        for piece in self._walk:
            match piece:
                case Chunk(columns):
                    self._keep(self._phases.add(columns))
                    self._stacks.add(Part(columns=columns))
                    self._counts.append((int(columns.time.max()), len(columns)))
                case Gap(proc, time):
                    self._keep(self._phases.gap(proc, time))
                case Healed():
                    self._keep(self._phases.adopt(piece))
                case Over(proc, time):
                    self._keep(self._phases.end(proc, time))

    @property
    def ended(self) -> bool:
        """Whether the trace has its end mark."""
        return self._trace.end is not None

    def _keep(self, phases: Phases) -> None:
        if len(phases):
            self._recent.append(phases)
        since = self._walk.ended - self._window
        while self._recent and int(self._recent[0].end.max()) < since:
            self._recent.popleft()
        while self._counts and self._counts[0][0] < since:
            self._counts.popleft()

    def look(self, quiet: int = 0) -> View:
        """The tasks at the latest event, or ``quiet`` ns later: nothing comes from a program that stands still."""
        time, began = self._walk.ended + quiet, self._walk.began or 0
        start = max(began, time - self._window)
        span = max(1, time - start)
        live = self._phases.open(time)
        mine = self._mine(live)
        live = live.take(mine)
        known = Phases.join([*self._recent, live])
        known = known.take(self._mine(known) & (known.end > start))
        inside = np.minimum(known.end, time) - np.maximum(known.start, start)
        runs = known.state == State.RUNNING
        figures = _per_task(live.task, known, inside, runs, start)
        steps = known.take(runs)
        took = steps.end - steps.start
        longest = np.argsort(-took, kind="stable")[:LONGEST_STEPS].tolist()
        names = self._phases.names
        session = self._trace.session
        return View(
            time=time,
            window=span,
            source="" if session is None else str(session.source.get("name", "")),
            rows=[self._row(live, i, figures, span) for i in range(len(live))],
            events=sum(count for _, count in self._counts) * 1e9 / span,
            lost=sum(cause.events for cause in self._walk.books.lost.values()),
            busy=float(inside[runs].sum()) / span,
            steps=[(int(took[i]), names[int(steps.name[i])], int(steps.task[i])) for i in longest],
        )

    def _mine(self, phases: Phases) -> Any:
        if self._own:
            return np.ones(len(phases), np.bool_)
        names = self._phases.names
        used, places = np.unique(phases.name, return_inverse=True)
        return np.array([not names[n].startswith(OWN) for n in used.tolist()], np.bool_)[places]

    def _row(self, live: Phases, i: int, figures: Any, span: int) -> LiveRow:
        state, task = int(live.state[i]), int(live.task[i])
        reason = int(live.reason[i])
        running, wakes, longest = (column[i] for column in figures)
        begin = int(live.since[i])
        frames = self._stacks.of(task, begin, int(live.end[i]))
        waits = state == State.WAITING
        return LiveRow(
            task=task,
            name=self._phases.names[int(live.name[i])],
            run=int(live.proc[i]),
            state="unknown" if state == UNKNOWN else State(state).name.lower(),
            reason=Reason(reason).name.lower() if waits else "",
            object=int(live.object[i]),
            age=max(0, int(live.end[i]) - begin),
            running=float(running) / span,
            wakes=float(wakes) * 1e9 / span,
            longest=int(longest),
            place=place(frames) if waits else "",
        )


def _per_task(tasks: Any, known: Phases, inside: Any, runs: Any, start: int) -> Any:
    """Of each of ``tasks``: (ns that it ran, times it was woken, ns of its longest step)."""
    order = np.argsort(tasks)
    at = np.searchsorted(tasks[order], known.task)
    at = np.minimum(at, len(order) - 1) if len(order) else at
    theirs = tasks[order][at] == known.task if len(order) else np.zeros(len(known), np.bool_)
    place_of = order[at[theirs]] if len(order) else at[:0]
    running = np.zeros(len(tasks))
    wakes = np.zeros(len(tasks))
    longest = np.zeros(len(tasks), np.int64)
    ran = runs[theirs]
    np.add.at(running, place_of[ran], inside[theirs][ran])
    np.maximum.at(longest, place_of[ran], (known.end - known.start)[theirs][ran])
    woken = ((known.opened == TaskRunnable.number) & (known.start >= start))[theirs]
    np.add.at(wakes, place_of[woken], 1)
    return running, wakes, longest
