"""Nurseries, cancellation, how tasks end: what trio's functions for these tell of one run.

Theory of operation
===================

* **A nursery** opens when trio makes one.  Its end costs nothing to see: the parent is woken from its wait for the
  children, or, where there were none left, yields once after the body; either way it is over when the parent goes on.
* **An exception** comes by on its way into a nursery, from a child that is ending by it or from the body.
* **A scope is cancelled once**, and every way there leads through one function.  It is asked who runs then, and whose
  the scope is: from any task below it, up through the tasks that opened the nurseries in between.
* **Whom it reached** is known when a task is about to be resumed with ``Cancelled``: of the cancelled scopes that it
  sees, up to the first shield, it is the one that was cancelled first.

Not told: a scope that is cancelled because the ``Cancelled`` of one around it passes through its nursery; the timer of
a `trio.sleep`; and the scope by which a checkpoint in cancelled code raises.

The twin in C is ``csrc/nests.c``.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import outcome
import trio

from tracesvc.events import (
    CancelRequest,
    CancelSource,
    NurseryClose,
    NurseryOpen,
    Outcome,
    Reason,
    ScopeClose,
    ScopeOpen,
    TaskCancelled,
    TaskError,
)
from tracesvc.recorder.clock import now
from tracesvc.recorder.identity import number_of
from tracesvc.recorder.reasons import reason_of
from tracesvc.recorder.stacks import await_chain
from tracesvc.recorder.texts import cut_name
from tracesvc.recorder.tree import task_id

if TYPE_CHECKING:
    from tracesvc.recorder.proc import Proc

__all__ = [
    "SLEEP",
    "SOURCES",
    "Nests",
    "forget",
    "redaction",
    "requests",
    "say",
    "tell",
]

SOURCES: Final[dict[str, int]] = {
    "explicit": int(CancelSource.CALLED),
    "deadline": int(CancelSource.DEADLINE),
    "KeyboardInterrupt": int(CancelSource.INTERRUPT),
    "shutdown": int(CancelSource.SHUTDOWN),
    "nursery": int(CancelSource.ABANDONED),
}
"""trio's word -> what we call it; an exception in a nursery is seen on its way there"""
SLEEP: Final = trio.sleep_until.__code__
DEADLINES: Final = 1 << 14
_INNERMOST: Final = 4
"""frames from that of `trio.sleep_until` to the innermost one, at most"""

requests: Final[dict[int, tuple[int, int, weakref.ref[Any]]]] = {}
"""id of a cancel scope that was cancelled -> (its turn, its number, a reference that takes it out)"""
_NO_DEADLINE: Final = (0, 0.0, 0.0)
_deadlines: Final[list[tuple[int, float, float]]] = [_NO_DEADLINE] * DEADLINES
"""by id, where the last one with that place stands: (id of the scope, deadline, when it was set)"""


def forget() -> None:
    """What scopes were asked and set: a new session knows nothing of it, and one that is over keeps nothing."""
    requests.clear()
    _deadlines[:] = [_NO_DEADLINE] * DEADLINES


class _Redaction:
    text: Callable[[object], object] | None = None
    """what must not leave the program is taken out of texts; None: nothing"""


redaction: Final = _Redaction()


def say(text: object) -> str:
    """A text of the program's, as it may be recorded."""
    return cut_name(text if redaction.text is None else redaction.text(text))


def tell(error: BaseException) -> tuple[str, str, str] | None:
    """(type, what it says, both in one) of an exception; None: it is nothing but cancellation."""
    if type(error) is trio.Cancelled:
        return None
    if isinstance(error, BaseExceptionGroup):
        inner = _leaves(error)
        others = [one for one in inner if type(one) is not trio.Cancelled]
        if inner and not others:
            return None
        name = f"{_type(error)}[{', '.join(dict.fromkeys(map(_type, others)))}]"
        said = _text(others[0]) if others else ""
    else:
        name, said = _type(error), _text(error)
    name, said = cut_name(name), say(said)
    return name, said, cut_name(f"{name}: {said}" if said else name)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The exceptions in it, at most 64."""
    pending: list[BaseException] = [group]
    found: list[BaseException] = []
    while pending and len(found) < 64:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            found.append(error)
    return found


def _type(error: BaseException) -> str:
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # it is the program's code
        return "?"


class Nests:
    """Those of one run, recorded into ``proc``."""

    __slots__ = (
        "_chosen",
        "_error",
        "_errors",
        "_main",
        "_outcome",
        "_proc",
        "_reached",
        "_why",
        "body",
        "cancels",
        "children",
        "closing",
        "dark",
        "nurseries",
        "task",
    )

    def __init__(self, proc: Proc, chosen: set[int] | None = None) -> None:
        """``chosen`` are the tasks that live and are recorded; None: all."""
        self._proc: Final = proc
        self._chosen: Final = chosen
        self.nurseries = self.cancels = False
        """what is recorded"""
        self.dark = False
        """nothing is recorded now, for the sake of the budget"""
        self.task: trio.lowlevel.Task | None = None
        """the one whose step runs"""
        self.body: Any = None
        """the nursery whose body has ended in this step"""
        self.children: Final[dict[int, int]] = {}
        """open nursery -> tasks that were created in it"""
        self._errors: Final[dict[int, int]] = {}
        """open nursery -> exceptions that have reached it"""
        self.closing: Final[set[int]] = set()
        """tasks that were woken because their nursery is over"""
        self._reached: Any = None
        self._error: BaseException | None = None
        """an exception, and the nursery that it reaches now"""
        self._why = ""
        self._outcome = 0
        """of the task that ends now, as far as is known"""
        self._main = 0

    def let_go(self) -> None:
        """Record no more."""
        self.nurseries = self.cancels = False
        self.forget_all()

    def forget_all(self) -> None:
        """What is open is not known any more."""
        self.task = self.body = None
        self._outcome = 0
        self.children.clear()
        self._errors.clear()
        self.closing.clear()

    # --- nurseries -------------------------------------------------------------------------------

    def opened(self, nursery: Any, children: int = 0) -> None:
        """A nursery has been made (or was there before, with so many ``children``)."""
        number, owner = number_of(nursery), task_id(nursery._parent_task)
        if self._has(owner):
            self.children[number] = children
            self._proc.extend((NurseryOpen.number, now(), owner, number, 0))

    def _has(self, task: int) -> bool:
        return self._chosen is None or task in self._chosen

    def _closed(self, task: trio.lowlevel.Task, nursery: Any) -> None:
        number = number_of(nursery)
        children = self.children.pop(number, None)
        if children is not None:
            rest = (children, self._errors.pop(number, 0))
            self._proc.extend((NurseryClose.number, now(), task_id(task), number, rest))

    def resumed(self, task: trio.lowlevel.Task) -> None:
        """A step has begun, and some task's nursery is over."""
        number = task_id(task)
        if number in self.closing:
            self.closing.discard(number)
            if task._child_nurseries and task._child_nurseries[-1]._closed:
                self._closed(task, task._child_nurseries[-1])

    def step_ends(self, task: trio.lowlevel.Task, yielded: bool) -> None:
        """Before its end is recorded."""
        nursery, self.body = self.body, None
        if not yielded:
            return
        if nursery is not None and nursery._closed:
            self._closed(task, nursery)
        resumed_with: Any = task._next_send
        if (
            requests
            and type(resumed_with) is outcome.Error
            and type(resumed_with.error) is trio.Cancelled
        ):
            self.cancelled(task)

    # --- how tasks end ---------------------------------------------------------------------------

    def reach(self, nursery: Any, error: BaseException) -> tuple[Any, BaseException | None, str]:
        """An exception is about to reach a nursery; give `reached` what this returns when it has."""
        before = self._reached, self._error, self._why
        self._reached, self._error, self._why = nursery, error, ""
        said = tell(error)
        task = self.task
        child = task is not None and task._parent_nursery is nursery
        if child:
            self._outcome = Outcome.CANCELLED if said is None else Outcome.RAISED
        if said is not None:
            name, message, self._why = said
            # Else this step began before the recording: whose it is cannot be told.
            known = task is not None or not self._proc.records.running
            if known and not nursery._closed:
                number = task_id(task if child and task is not None else nursery._parent_task)
                to = number_of(nursery)
                if to in self.children:
                    self._errors[to] = self._errors.get(to, 0) + 1
                if self._has(number):
                    self._proc.extend((TaskError.number, now(), number, to, (name, message)))
        return before

    def reached(self, before: tuple[Any, BaseException | None, str]) -> None:
        """It is there."""
        self._reached, self._error, self._why = before

    def other_step(self, task: trio.lowlevel.Task | None) -> None:
        """The step of a task begins that is not recorded; None: it is over."""
        self.task, self.body = task, None

    def other_ends(self) -> None:
        """A task ends that is not recorded."""
        self._outcome = 0

    def outcome_of(self, task: trio.lowlevel.Task) -> int:
        """Of a task that ends now."""
        found, self._outcome = self._outcome or Outcome.RETURNED, 0
        number, runner = task_id(task), task._runner
        if not self._main and runner.main_task is not None:
            self._main = task_id(runner.main_task)
        if number == self._main:
            found = self._outcome_of_main(task, runner)
        for nursery in task._child_nurseries:  # it has left them open
            self.children.pop(number_of(nursery), None)
            self._errors.pop(number_of(nursery), None)
        return int(found)

    def _outcome_of_main(self, task: trio.lowlevel.Task, runner: Any) -> int:
        ended = runner.main_task_outcome
        if type(ended) is not outcome.Error:
            return Outcome.RETURNED
        said = tell(ended.error)
        if said is None:
            return Outcome.CANCELLED
        # That of the run: no nursery gets it.
        self._proc.extend((TaskError.number, now(), task_id(task), 0, said[:2]))
        return Outcome.RAISED

    # --- cancellation ----------------------------------------------------------------------------

    def deadline(self, scope: Any, deadline: float, clock: float) -> None:
        """``deadline`` is set for a scope that is entered, at ``clock``; both by the clock of the run."""
        key = id(scope)
        _deadlines[(key >> 4) % DEADLINES] = key, deadline, clock

    def cancel(self, scope: Any, reason: Any = None, told: bool = False) -> None:
        """A scope is about to be cancelled; ``told``: by a trio that gives a ``reason``."""
        status = scope._cancel_status
        if scope._cancel_called:
            return
        source = self._source(scope, status, reason, told)
        if source < 0:
            return
        if self._reached is not None:
            owner, nursery = self._reached._parent_task, self._reached
        else:
            owner, nursery = (None, None) if status is None else _owner(status)
        why = self._why if self._reached is not None else getattr(reason, "reason", None)
        number, requester = number_of(scope), self._proc.records.running
        if not number:
            return
        task = 0 if owner is None else task_id(owner)
        if status is None and source == CancelSource.DEADLINE:  # it is about to be entered
            task = requester
        rest = (
            requester,
            source,
            0 if nursery is None else number_of(nursery),
            _timeout(scope),
            (why if self._reached is not None else say(why)) if why else "",
        )
        self._proc.extend((CancelRequest.number, now(), number, task, rest))
        key = id(scope)
        reference = weakref.ref(scope, lambda _: requests.pop(key, None) and None)
        requests[key] = number_of_turn(), number, reference

    def _source(self, scope: Any, status: Any, reason: Any, told: bool) -> int:
        """What has it cancelled; -1: it is not to be told."""
        already = status is not None and status.effectively_cancelled
        if self._reached is not None:
            if already or self._reached._closed:
                return -1
            interrupt = type(self._error) is KeyboardInterrupt and not self._outcome
            return CancelSource.INTERRUPT if interrupt else CancelSource.ERROR
        if reason is not None:
            source = SOURCES.get(reason.source, 0)
        elif told:
            source = 0
        elif self.task is None or scope._deadline <= trio.current_time():
            source = CancelSource.DEADLINE
        elif self.task._parent_nursery is None:  # trio's init task
            source = CancelSource.SHUTDOWN
        else:
            source = CancelSource.CALLED
        if source != CancelSource.DEADLINE:
            return source
        if scope._deadline == -math.inf:  # a checkpoint that finds itself cancelled raises by one
            running = None if self.task is None else self.task._cancel_status
            if running is not None and running.effectively_cancelled:
                return -1
            if getattr(scope, "_cancel_reason", None) is not None:
                return -1
        return -1 if status is not None and _is_sleep(status) else source

    def cancelled(self, task: trio.lowlevel.Task) -> None:
        """A task is to be resumed with ``Cancelled``."""
        if not self.cancels:
            return
        first: tuple[int, int] | None = None
        status: Any = task._cancel_status
        while status is not None:
            found = requests.get(id(status._scope))
            if found is not None and (first is None or found[0] < first[0]):
                first = found[0], found[1]
            if status._scope._shield:
                break
            status = status._parent
        if first is not None:
            self._proc.extend((TaskCancelled.number, now(), task_id(task), first[1], 0))

    # --- scopes ----------------------------------------------------------------------------------

    def scope_open(self, scope: Any) -> None:
        """A scope has been entered."""
        if not self._has(self._proc.records.running):
            return
        number = number_of(scope)
        rest = (_timeout(scope), int(scope._shield))
        self._proc.extend((ScopeOpen.number, now(), self._proc.records.running, number, rest))

    def scope_close(self, scope: Any) -> None:
        """A scope has been left, unless it is still entered."""
        if scope._cancel_status is None and self._has(self._proc.records.running):
            number, caught = number_of(scope), int(scope.cancelled_caught)
            running = self._proc.records.running
            self._proc.extend((ScopeClose.number, now(), running, number, caught))


_turns: Final[list[int]] = [0]


def number_of_turn() -> int:
    """Ascending."""
    _turns[0] += 1
    return _turns[0]


def _timeout(scope: Any) -> int:
    key = id(scope)
    known, deadline, since = _deadlines[(key >> 4) % DEADLINES]
    if known != key or deadline != scope._deadline:
        return -1
    ns = (deadline - since) * 1e9
    return 0 if ns < 0 else int(ns) if ns < 9.2e18 else -1


def _some_task(status: Any) -> Any:
    """Any task below a status; None: there is none."""
    while status is not None:
        for task in status._tasks:
            return task
        status = next(iter(status._children), None)
    return None


def _owner(status: Any) -> tuple[Any, Any]:
    """(task, nursery) that the scope with this status is of; None each, where there is none."""
    task = _some_task(status)
    at = None if task is None else task._cancel_status
    while at is not None:
        own = task._parent_nursery
        birth = None if own is None else own._cancel_status
        if at is status:
            if birth is status:
                return own._parent_task, own
            inner = [one for one in task._child_nurseries if one._cancel_status is status]
            return task, inner[0] if inner else None
        if at is birth:
            task = own._parent_task
        else:
            at = at._parent
    return None, None


def _is_sleep(status: Any) -> bool:
    """Whether all that this cancels is a `trio.sleep`: the timer of that is no cancellation to anybody."""
    if len(status._tasks) != 1 or status._children:
        return False
    (task,) = status._tasks
    if task._abort_func is None or reason_of(task)[0] != Reason.SLEEP:
        return False
    codes = [code for code, _ in await_chain(task.coro)]
    return SLEEP in codes[-_INNERMOST:]
