"""What the tracer costs: processor time of its hooks, its annotations, its reader and its threads, in ns.

Hooks tell themselves, by a sample of their calls.  The steps of the tracer's own tasks (the reader, the sinks) and its
own threads are measured by the processor's clock.  Annotations are counted by the reader, and each kind is tried out
when a tracer starts; so is what it costs trio to call a hook, or to run a task of ours.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import trio

from tracesvc.events import Counter, Log, RegionBegin, RegionEnd, SpanBegin, SpanEnd
from tracesvc.recorder import own_run
from tracesvc.recorder.annotations import counter, log, recording, region, span
from tracesvc.recorder.clock import now
from tracesvc.recorder.dark import EVERY
from tracesvc.recorder.own_threads import OWN_THREADS
from tracesvc.recorder.seams import OWN
from tracesvc.recorder.session import Session, local

if TYPE_CHECKING:
    from tracesvc.recorder.hooks import RunHooks
    from tracesvc.recorder.options import Way

__all__ = ["Meter"]

CONTENTION: Final = 1.7
"""what a thread that works for a sink costs, by what it uses itself: the program's thread loses the rest to handing the
interpreter's lock over and to cold caches (`benchmarks.governor`, 2026-11-25)"""
TRIES: Final = 3
REPEATS: Final = 30


class Meter:
    """Adds up what one session costs; made in the thread that starts it, while nothing is recorded yet."""

    def __init__(self, way: Way) -> None:
        self._dispatch: Final = _dispatch(way.direct and way.native)
        self._handover: Final = _handover()
        self._costs: Final = _annotation_costs(Session(1 << 12, 2, way.new_records))
        self._annotations = 0.0
        self._tasks = 0
        self._runs: Final[dict[int, tuple[int, int, int, int]]] = {}
        """run -> calls, ns sampled, ns and number of the steps of own tasks so far"""
        self._hooks = 0.0
        self._events = 0
        self._threads: Final[dict[int, int]] = {}
        """thread -> ns so far"""
        self._of_threads = 0
        self._look_at_threads()
        self._of_threads = 0

    # --- told ------------------------------------------------------------------------------------

    def count(self, types: bytes) -> None:
        """The types of a batch of events."""
        for number, cost in self._costs.items():
            self._annotations += types.count(number) * cost

    def skipped(self, annotations: int) -> None:
        """So many annotations were left out."""
        self._annotations += annotations * self._costs[Log.number] / 2

    def add(self, ns: int) -> None:
        """What somebody has measured."""
        self._tasks += ns

    # --- asked -----------------------------------------------------------------------------------

    def total(self, runs: Iterable[RunHooks]) -> int:
        """ns of processor time so far."""
        self._look_at_hooks(runs)
        self._look_at_threads()
        return int(self._hooks + self._annotations + self._tasks + self._of_threads)

    @property
    def parts(self) -> dict[str, int]:
        """The same, by what it is for."""
        return {
            "hooks": int(self._hooks),
            "annotations": int(self._annotations),
            "tasks": self._tasks,
            "threads": self._of_threads,
        }

    @property
    def ns_per_call(self) -> float:
        """What a hook costs on average."""
        return self._hooks / self._events if self._events else 0.0

    def _look_at_hooks(self, runs: Iterable[RunHooks]) -> None:
        for run in runs:
            hooks = run.recording
            if hooks is None:
                continue
            found = hooks.calls, hooks.sampled, hooks.own_ns, hooks.own_steps
            before = self._runs.get(id(run), (0, 0, 0, 0))
            self._runs[id(run)] = found
            calls, sampled, ns, steps = (a - b for a, b in zip(found, before, strict=True))
            self._events += calls
            self._hooks += sampled * EVERY + calls * self._dispatch
            self._tasks += ns + steps * self._handover

    def forget(self, run: RunHooks) -> None:
        """It is over."""
        self._look_at_hooks([run])
        self._runs.pop(id(run), None)

    def _look_at_threads(self) -> None:
        live = set()
        for thread in threading.enumerate():
            number = thread.native_id
            own = number in OWN_THREADS or thread.name.startswith(OWN)
            if number is not None and (own or number in self._threads):
                live.add(number)
        for number in self._threads.keys() - live:
            del self._threads[number]
        for number in live:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                ns = time.clock_gettime_ns(_clock_of(number))
                passed = ns - self._threads.get(number, 0)
                self._of_threads += int(passed * CONTENTION) if number in OWN_THREADS else passed
                self._threads[number] = ns


def _clock_of(thread: int) -> int:
    """Linux's number for the processor clock of a thread, from the number that it has for the thread.

    See clock_getcpuclockid(3) and ``CPUCLOCK_PERTHREAD``; unlike pthread_getcpuclockid(3) it may be asked of a thread
    that has ended.
    """
    return ~thread << 3 | 6


def _least(function: Callable[[], object]) -> float:
    """ns that a call takes, if nothing comes in between."""
    least = float("inf")
    for _ in range(TRIES):
        began = now()
        for _ in range(REPEATS):
            function()
        least = min(least, (now() - began) / REPEATS)
    return least


def _annotation_costs(scratch: Session) -> dict[int, float]:
    """ns of each kind of annotation, by type of event; recorded into a session that nobody reads."""

    def in_span() -> None:
        with span("calibration", a=1, b="x"):
            pass

    def in_region() -> None:
        with region("calibration", a=1, b="x"):
            pass

    before = local.proc
    recording.session = scratch
    try:
        costs = {
            Log.number: _least(lambda: log("calibration", a=1, b="x")),
            Counter.number: _least(lambda: counter("calibration", 1)),
        }
        costs[SpanBegin.number] = costs[SpanEnd.number] = _least(in_span) / 2
        costs[RegionBegin.number] = costs[RegionEnd.number] = _least(in_region) / 2
        return costs
    finally:
        recording.session = None
        scratch.open = scratch.accepting = False
        local.proc = before


@functools.cache
def _handover() -> int:
    """ns that it takes trio to call something in the reader's run, and to run the task that waits for it."""
    found: list[int] = []

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        send, receive = trio.open_memory_channel[int](1)
        for _ in range(TRIES):
            began = time.thread_time_ns()
            for i in range(REPEATS):
                token.run_sync_soon(send.send_nowait, i)
                await receive.receive()
            found.append((time.thread_time_ns() - began) // REPEATS)

    thread = threading.Thread(target=lambda: own_run.run(main), name=f"{OWN}calibration")
    thread.start()
    thread.join(10)
    return min(found, default=0)


class _Idle(trio.abc.Instrument):
    def before_task_step(self, task: Any) -> None:
        pass


def _dispatch(native_table: bool) -> float:
    """ns that trio's asking and calling takes for one hook, beyond its asking where there is no tracer."""
    name = "before_task_step"
    empty: dict[str, None] = {}
    asking = _least(lambda: name in empty)
    table: Any
    if native_table:
        table = _native_table()
        name = "before_run"  # one that records nothing
        return max(0.0, _least(lambda: (name in table, table.call(name))) - asking)
    try:
        table = trio._core._instrumentation.Instruments([_Idle()])
        return max(0.0, _least(lambda: name in table and table.call(name, None)) - asking)
    except Exception:  # a trio of another shape: then it is not known
        return 0.0


def _native_table() -> Any:
    from tracesvc.recorder.native import native

    assert native is not None
    nothing: Any = int
    return native.Hooks(native.Records(), 1 << 10, nothing, nothing, nothing, 1 << 60, -1)
