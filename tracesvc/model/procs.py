"""The events of one writer, checked: who may say it, when, and whether it fits what was said before."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

from tracesvc.events import EVENTS, ProcKind, Reason
from tracesvc.model.annotations import Annotations, Open
from tracesvc.model.ledger import Ledger
from tracesvc.model.tasks import Nurseries, Run

__all__ = ["Place", "Proc"]

MAX_TEXT: Final = 16 << 10
"""bytes of a log message"""
_OF_RUNS: Final = (
    *("task_create", "task_waiting", "task_runnable"),
    *("step_start", "step_yield", "step_block", "task_exit"),
    *("io_wait_start", "io_wait_end"),
    *("task_stack", "step_stack"),
    *("nursery_open", "nursery_close", "task_error"),
    *("cancel_request", "task_cancelled", "scope_open", "scope_close"),
)
_ONLY_ON: Final = {
    **dict.fromkeys(_OF_RUNS, ProcKind.RUN),
    **dict.fromkeys(("thread_start", "thread_end"), ProcKind.THREAD),
}
ONLY_ON: Final = {n: _ONLY_ON[event.type] for n, event in EVENTS.items() if event.type in _ONLY_ON}
"""event type -> the kind of proc that it belongs to"""
_KINDS: Final = {int(reason) for reason in Reason if reason.identity}
_UNKNOWN: Final = -1
"""generation of a collection that may or may not be under way"""


class Add(Protocol):
    """Enter a violation; without an offset, at the frame that is being read."""

    def __call__(
        self,
        code: str,
        text: str,
        proc: int | None = None,
        seq: int | None = None,
        offset: int | None = None,
        frame: int | None = None,
    ) -> None: ...


class Place:
    """Where the check stands: call it to complain there."""

    def __init__(self, add: Add) -> None:
        self.add = add
        self.proc: int | None = None
        self.seq: int | None = None
        self.offset = 0
        self.frame: int | None = None

    def __call__(self, code: str, text: str) -> None:
        self.add(code, text, self.proc, self.seq)

    def kept(self) -> Callable[[str, str], None]:
        """The same for later, when the check stands elsewhere."""
        return partial(self.add, proc=self.proc, seq=self.seq, offset=self.offset, frame=self.frame)


class Proc:
    """What is known of one writer; `take` has a method for each type of event, called with its time and fields."""

    def __init__(
        self, number: int, place: Place, annotations: Annotations, nurseries: Nurseries
    ) -> None:
        self.number: Final = number
        self.ledger: Final = Ledger(number, place)
        self.run: Final = Run(nurseries, place)
        self.kind: int | None = None
        self.described: tuple[int, int, str] | None = None
        """kind, thread and name"""
        self.stopped = False
        self.digest: int | None = 0
        """control total of its frames; None: some are missing"""
        self._place: Final = place
        self._annotations: Final = annotations
        self._collecting: int | None = None
        """generation of the collection that is under way"""
        self._threads: list[int] | None = []
        """tasks whose calls run in the thread; None: not known"""
        run = self.run
        self.take: Final[dict[int, Callable[..., None]]] = {
            number: getattr(self, f"_{event.type}", None) or getattr(run, event.type)
            for number, event in EVENTS.items()
        }

    def lose_track(self) -> None:
        """Events are missing."""
        self.run.lose_track()
        self._collecting, self._threads = _UNKNOWN, None

    def is_of_kind(self, kind: int) -> None:
        """Something says so."""
        if self.kind not in (None, kind):
            self._place("proc", f"proc {self.number} is of kind {self.kind} and of kind {kind}")
        self.kind = kind

    def describe(self, kind: int, thread: int, name: str) -> None:
        """Its account, or its start, says this of it."""
        if self.described not in (None, (kind, thread, name)):
            self._place("proc", f"the account of proc {self.number} and its start disagree")
        self.described = kind, thread, name

    # --- events; those of tasks and of the loop are in `Run` -------------------------------------

    def _proc_start(self, time: int, kind: int, thread: int, name: str) -> None:
        del time
        if self.run.begun and self.run.known:
            self._place("proc", "proc_start for the second time")
        self.is_of_kind(kind)
        self.describe(kind, thread, name)
        self.run.begun = True

    def _overhead(self, time: int, level: int, share: float, left_out: str) -> None:
        del time, left_out
        if level < 0 or not 0 <= share < math.inf:
            self._place("overhead", f"level {level} at a share of {share}")

    def _object_name(self, time: int, kind: int, number: int, name: str) -> None:
        del time
        if number <= 0 or kind not in _KINDS:
            self._place("object", f"object {number} of kind {kind} is called {name!r}")

    def _proc_stop(self, time: int) -> None:
        del time
        self.stopped = True

    def _task_create(self, time: int, task: int, *rest: Any) -> None:
        self._annotations.created(self._place, task)
        self.run.task_create(time, task, *rest)

    def _thread_start(self, time: int, task: int, function: str) -> None:
        del time, function
        if task <= 0:
            self._place("id", f"task {task}")
        self._annotations.refer(self._place, "task", task)
        if self._threads is not None:
            self._threads.append(task)

    def _thread_end(self, time: int, task: int) -> None:
        del time
        if self._threads is not None:
            began = self._threads.pop() if self._threads else None
            if began != task:
                what = "no call" if began is None else f"one for task {began}"
                self._place("thread", f"a call for task {task} ends, and {what} has begun")

    def _gc_start(self, time: int, generation: int) -> None:
        del time
        if not 0 <= generation <= 2:
            self._place("gc", f"a collection of generation {generation}")
        if self.kind == ProcKind.PROCESS:  # several threads may write here
            return
        if self._collecting not in (None, _UNKNOWN):
            self._place("gc", "a collection begins within another")
        self._collecting = generation

    def _gc_end(self, time: int, generation: int, collected: int) -> None:
        del time
        if collected < 0:
            self._place("gc", f"{collected} objects collected")
        if self.kind == ProcKind.PROCESS:
            return
        if self._collecting not in (generation, _UNKNOWN):
            self._place("gc", f"a collection of generation {generation} ends that has not begun")
        self._collecting = None

    def _annotated(self, task: int) -> None:
        if self.kind == ProcKind.RUN:
            self.run.annotated(task)
        self._annotations.refer(self._place, "task", task)

    def _span_begin(
        self, time: int, span: int, parent: int, task: int, name: str, attributes: Any
    ) -> None:
        self._annotated(task)
        opened = Open(span, parent, task, time, name, attributes, self.number)
        self._annotations.span_begin(self._place, opened)

    def _span_end(self, time: int, span: int, task: int) -> None:
        self._annotated(task)
        self._annotations.span_end(self._place, time, span)

    def _region_begin(self, time: int, region: int, task: int, name: str, attributes: Any) -> None:
        self._annotated(task)
        opened = Open(region, 0, task, time, name, attributes, self.number)
        self._annotations.region_begin(self._place, opened)

    def _region_end(self, time: int, region: int, task: int) -> None:
        # Not by the task that runs: one that ends elsewhere is put right in the name of its own.
        self._annotations.refer(self._place, "task", task)
        self._annotations.region_end(self._place, self.number, time, region, task)

    def _log(
        self, time: int, task: int, span: int, level: int, cut: int, message: Any, attributes: Any
    ) -> None:
        del time, attributes
        self._annotated(task)
        self._annotations.refer(self._place, "span", span)
        if level < 0 or cut < 0:
            self._place("log", f"level {level}, {cut} characters cut")
        if not isinstance(message, str) or len(message.encode("utf-8", "replace")) > MAX_TEXT:
            self._place("log", f"the message is no text of at most {MAX_TEXT} bytes")

    def _counter(self, time: int, name: str, value: float, task: int) -> None:
        del time
        self._annotated(task)
        if not math.isfinite(value):
            self._place("counter", f"counter {name!r} is {value}")
