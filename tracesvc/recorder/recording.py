"""What each of trio's hooks records: the twin in Python of ``csrc/hooks.c``.

trio calls, within one step of task T: ``before_task_step(T)``, then any ``task_spawned``/``task_scheduled``,
``task_exited(T)`` if it ended, ``after_task_step(T)`` last.  A step that ends in a checkpoint schedules T itself before
that; so how a step ended is known at ``after_task_step`` only, and a wake-up of the task that runs is no wake-up but a
yield.  While a hook for another task runs, the task whose step it is is the waker.

The hooks are closures over what they need: an attribute look-up less is worth it a million times a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import outcome
import trio

from tracesvc.events import (
    Counter,
    IoWaitEnd,
    IoWaitStart,
    Reason,
    StepBlock,
    StepStart,
    StepYield,
    TaskCreate,
    TaskExit,
    TaskRunnable,
    TaskStack,
    WakeCause,
)
from tracesvc.recorder.clock import now
from tracesvc.recorder.dark import DarkHooks, Measured
from tracesvc.recorder.native import native
from tracesvc.recorder.nests import Nests, requests
from tracesvc.recorder.objects import touched as watched
from tracesvc.recorder.reasons import reason_of
from tracesvc.recorder.stacks import stack_of
from tracesvc.recorder.tree import origin_of, task_id

if TYPE_CHECKING:
    from tracesvc.recorder.choice import Choice, Tasks
    from tracesvc.recorder.proc import Proc

__all__ = ["ENTRY_TASK", "HOOKS", "LOOP_LAG", "RUN_QUEUE", "Recording", "new_recording"]

SAMPLE_EVERY: Final = 250_000_000
"""ns between samples of the run loop's counters"""
RUN_QUEUE: Final = "trio.run_queue"
"""counter: tasks that are runnable at the beginning of a pass of the run loop"""
LOOP_LAG: Final = "trio.loop_lag"
"""counter: ns that the longest pass since the last sample took; as long may a ready task have waited"""
ENTRY_TASK: Final = "<TrioToken.run_sync_soon task>"
"""name of trio's task that calls what other threads and signals ask for"""
HOOKS: Final = (
    "before_task_step",
    "after_task_step",
    "task_scheduled",
    "task_spawned",
    "task_exited",
    "before_io_wait",
    "after_io_wait",
)


def new_recording(
    proc: Proc, slow: int, choice: Choice | None = None, *, measured: bool = False
) -> Any:
    """What records one run into ``proc``: native where the proc's buffer is, else a `Recording`.

    ``slow`` is how many ns a wait lasts whose stack is recorded; negative: no stacks.  ``choice`` is what is recorded;
    None: everything.  ``measured``: its hooks tell what they cost, and can be darkened.
    """
    sample = _sampler(proc) if choice is None or "counters" in choice else _nothing
    if native is None or not isinstance(proc.records, native.Records):
        return Recording(proc, sample, slow, choice, measured)
    which: dict[str, Any] = {}
    if choice is not None:
        which["io"] = "io" in choice
        if choice.tasks is not None:
            which.update(choose=choice.tasks.choose, chosen=choice.tasks.chosen)
    given = proc.records, proc.capacity, proc.seal, _reason_of, sample, SAMPLE_EVERY, slow
    hooks = native.Hooks(*given, **which)
    if measured:
        hooks.measure()
    return hooks


_reason_of: Final = trio.lowlevel.enable_ki_protection(reason_of)
"""protected: a Ctrl-C in what C calls would be swallowed"""


def _sampler(proc: Proc) -> Callable[[int], None]:
    @trio.lowlevel.enable_ki_protection
    def sample(worst_pass: int) -> None:
        time, number = now(), Counter.number
        proc.extend((number, time, LOOP_LAG, worst_pass, 0))
        proc.extend((number, time, RUN_QUEUE, _run_queue_length(), 0))

    return sample


class Recording:
    """The hooks of one run, as attributes."""

    __slots__ = (
        *HOOKS,
        *("entry_task", "nests", "proc", "recording", "slow", "step_began", "tell_stacks", "waits"),
        *("_blocked", "_dark", "_light", "_measured", "_reset"),
    )

    def __init__(
        self,
        proc: Proc,
        sample: Callable[[int], object],
        slow: int,
        choice: Choice | None,
        measured: bool = False,
    ) -> None:
        self.recording = True
        """False: the hooks do nothing any more"""
        self.proc: Final = proc
        self.entry_task = 0
        """the task that is the waker where another thread or a signal is"""
        self.slow = slow
        self.nests: Final = Nests(proc, None if choice is None else choice.chosen)
        self.step_began = 0
        """ns, of the step that runs; 0: none"""
        blocked: dict[int, list[Any]] = {}
        fresh: set[int] = set()
        self.waits, self.tell_stacks = _stack_functions(self, proc, blocked)
        io = choice is None or "io" in choice
        self._reset: Callable[[], object]
        hooks, self._reset = _hooks(self, proc, sample, blocked, fresh, io)
        self._blocked, self._light = blocked, hooks
        self._measured: Measured | None = None
        self._dark: DarkHooks | None = None
        if choice is not None and choice.tasks is not None:
            hooks |= _hooks_of_some(self, proc, hooks, choice.tasks)
        if measured:
            self._dark = DarkHooks(proc.records, choice, fresh, hooks["after_io_wait"])
            self._measured = Measured(hooks)
            hooks = self._measured.hooks()
        for name, hook in hooks.items():
            # A Ctrl-C that came up in a hook would be swallowed: trio takes it for a fault of the instrument's.
            setattr(self, name, trio.lowlevel.enable_ki_protection(hook))

    def in_step(self, task: trio.lowlevel.Task) -> None:
        """The recording begins within a step of this task."""
        self.nests.task = task

    def nursery_open(self, nursery: trio.Nursery) -> None:
        """A task of the run had it open when the recording began."""
        if self.nests.nurseries:
            self.nests.opened(nursery, len(nursery.child_tasks))

    def let_go(self) -> None:
        """Record no more, and be no part of a cycle: a program may watch what garbage there is."""
        self.recording = False
        self.nests.let_go()
        for name in (*HOOKS, "waits", "tell_stacks"):
            setattr(self, name, _nothing)
        if self._measured is not None:
            self._measured.within = dict.fromkeys(HOOKS, _nothing)
        self._light, self._dark = {}, None
        self._reset = _nothing

    # --- with a budget; see `tracesvc.recorder.dark` -----------------------------------------------

    @property
    def calls(self) -> int:
        """Of hooks."""
        return 0 if self._measured is None else self._measured.calls

    @property
    def samples(self) -> int:
        """Of them, those that were timed."""
        return 0 if self._measured is None else self._measured.samples

    @property
    def sampled(self) -> int:
        """ns that those took."""
        return 0 if self._measured is None else self._measured.sampled

    @property
    def own_ns(self) -> int:
        """ns of processor time of the steps of the tracer's own tasks."""
        return 0 if self._measured is None else self._measured.own_ns

    @property
    def own_steps(self) -> int:
        """How many those are."""
        return 0 if self._measured is None else self._measured.own_steps

    @property
    def unrecorded(self) -> int:
        """Events that were not recorded in the dark."""
        return 0 if self._dark is None else self._dark.unrecorded

    def darken(self) -> None:
        """Record nothing until `lighten`; who waits is not known any more. Any thread."""
        if self._measured is not None and self._dark is not None and self.recording:
            self._measured.within = {name: getattr(self._dark, name) for name in HOOKS}
            self._blocked.clear()
            self.step_began = 0
            self.nests.dark = True
            self.nests.forget_all()

    def lighten(self) -> None:
        """Record again; in the run."""
        if self._measured is not None and self.recording:
            self._blocked.clear()
            self.nests.dark = False
            self._reset()
            self._measured.within = self._light


def _nothing(*_: object) -> int:
    """In the place of a hook that is over."""
    return 0


def _stack_functions(
    recording: Recording, proc: Proc, blocked: dict[int, list[Any]]
) -> tuple[Callable[..., None], Callable[..., int]]:
    def waits(task: trio.lowlevel.Task, since: int, reason: int) -> None:
        """A task is blocked since before the recording began."""
        blocked[task_id(task)] = [since, reason, task, False]

    def tell_stacks(before: int, limit: int) -> int:
        """Record where tasks are suspended that wait since ``before`` and were not told of yet; any thread."""
        if not recording.recording or recording.slow < 0:
            return 0
        found = [wait for wait in list(blocked.values()) if not wait[3] and wait[0] <= before][
            :limit
        ]
        for wait in found:
            wait[3] = True
            stack, number = stack_of(wait[2].coro), task_id(wait[2])
            if stack is not None and blocked.get(number) is wait:
                proc.tell((TaskStack.number, now(), number, stack, 0))
        return len(found)

    return waits, tell_stacks


def _hooks(
    recording: Recording,
    proc: Proc,
    sample: Callable[[int], object],
    blocked: dict[int, list[Any]],
    fresh: set[int],
    io: bool,
) -> tuple[dict[str, Callable[..., None]], Callable[[], None]]:
    extend, records, capacity = proc.extend, proc.records, proc.capacity
    step_start, step_yield, step_block = StepStart.number, StepYield.number, StepBlock.number
    task_runnable, task_exit, task_create = TaskRunnable.number, TaskExit.number, TaskCreate.number
    task_stack = TaskStack.number
    io_wait_start, io_wait_end = IoWaitStart.number, IoWaitEnd.number
    # `fresh` are tasks that were just spawned: trio reports each as scheduled next, which says nothing new.  Usually
    # one at most; but a ``__del__`` that the garbage collector calls in between may spawn another.
    nests = recording.nests
    waited_for: dict[int, int] = {}
    """task -> the object that is watched and that it waits for"""
    yielded = exited = waiting = False
    pass_start = next_sample = now()
    worst_pass = 0

    def wait_is_over() -> None:
        nonlocal waiting, pass_start
        waiting = False
        pass_start = now()
        if io:
            extend((io_wait_end, pass_start, 0, 0, 0))

    def before_task_step(task: trio.lowlevel.Task) -> None:
        if waiting:
            wait_is_over()
        number = records.running = task._counter + 1
        time = recording.step_began = now()
        extend((step_start, time, number, 0, 0))
        nests.task = task
        if nests.closing:
            nests.resumed(task)

    def after_task_step(task: trio.lowlevel.Task) -> None:
        nonlocal yielded, exited
        number = records.running
        if nests.body is not None or (yielded and requests):
            nests.step_ends(task, yielded)
        nests.task = None
        recording.step_began = 0
        if yielded:
            yielded = False
            extend((step_yield, now(), number, 0, 0))
        elif exited:
            exited = False
        else:
            time = now()
            reason, thing = reason_of(task)
            extend((step_block, time, number, reason, thing))
            blocked[number] = [time, reason, task, False]
            if watched and thing in watched and reason not in _IO:
                waited_for[number] = thing
                records.running = 0
                watched[thing]()
        records.running = 0
        if len(records) >= capacity:
            proc.seal()

    def task_scheduled(task: trio.lowlevel.Task) -> None:
        nonlocal yielded
        number = task._counter + 1
        if number == records.running:
            yielded = True
        elif number in fresh:
            fresh.discard(number)
        else:
            if waiting:
                wait_is_over()
            wait = blocked.pop(number, None)
            time = now()
            reason = Reason.NONE
            if wait is not None:
                since, reason, _, told = wait
                if not told and 0 <= recording.slow <= time - since:
                    stack = stack_of(task.coro)
                    if stack is not None:
                        extend((task_stack, time, number, stack, 0))
            waker = records.running
            cause = _cause(task, waker, recording, reason)
            extend((task_runnable, time, number, waker, cause))
            if waited_for:
                look = watched.get(waited_for.pop(number, 0))
                if look is not None:
                    look()
            if requests and (cause in (WakeCause.CANCEL, WakeCause.TIMER)):
                nests.cancelled(task)
            if reason == Reason.NURSERY and nests.nurseries:
                nests.closing.add(number)

    def task_spawned(task: trio.lowlevel.Task) -> None:
        number, time = task._counter + 1, now()
        fresh.add(number)
        if not recording.entry_task and task.name == ENTRY_TASK:
            recording.entry_task = number
        parent, rest = origin_of(task)
        extend((task_create, time, number, parent, rest))
        if rest[0] in nests.children:
            nests.children[rest[0]] += 1
        if len(records) >= capacity:
            proc.seal()

    def task_exited(task: trio.lowlevel.Task) -> None:
        nonlocal exited, yielded
        number = task._counter + 1
        if number == records.running:
            exited, yielded = True, False
        outcome = nests.outcome_of(task) if nests.nurseries else 0
        extend((task_exit, now(), number, outcome, 0))

    def before_io_wait(timeout: float) -> None:
        nonlocal waiting, pass_start, worst_pass, next_sample
        if waiting:
            wait_is_over()
        time = now()
        if time - pass_start > worst_pass:
            worst_pass = time - pass_start
        pass_start = time
        if time >= next_sample:
            worst, worst_pass = worst_pass, 0
            next_sample = time + SAMPLE_EVERY
            sample(worst)
        if timeout > 0:
            waiting = True
            if io:
                extend((io_wait_start, time, int(timeout * 1e9), 0, 0))

    def after_io_wait(timeout: float) -> None:
        if waiting:
            wait_is_over()

    hooks = (
        before_task_step,
        after_task_step,
        task_scheduled,
        task_spawned,
        task_exited,
        before_io_wait,
        after_io_wait,
    )

    def reset() -> None:
        nonlocal yielded, exited, waiting, pass_start, worst_pass
        yielded = exited = waiting = False
        pass_start, worst_pass = now(), 0

    return {hook.__name__: hook for hook in hooks}, reset


def _hooks_of_some(
    recording: Recording, proc: Proc, hooks: dict[str, Callable[..., None]], tasks: Tasks
) -> dict[str, Callable[..., None]]:
    """Of the other tasks nothing is recorded but that one runs, for whoever is woken or annotated in the meantime."""
    records, chosen = proc.records, tasks.chosen
    start, end, scheduled, spawned, exited, _, wait_is_over = (hooks[name] for name in HOOKS)
    over = 0

    def before_task_step(task: trio.lowlevel.Task) -> None:
        if task_id(task) in chosen:
            start(task)
        else:
            wait_is_over(0)
            records.running = task_id(task)
            recording.nests.other_step(task)

    def after_task_step(task: trio.lowlevel.Task) -> None:
        nonlocal over
        if records.running in chosen:
            end(task)
        else:
            records.running = 0
            recording.nests.other_step(None)
        if over:
            chosen.discard(over)
            over = 0

    def task_scheduled(task: trio.lowlevel.Task) -> None:
        if task_id(task) in chosen:
            scheduled(task)
        elif task_id(task) != records.running:
            wait_is_over(0)

    def task_spawned(task: trio.lowlevel.Task) -> None:
        if not recording.entry_task and task.name == ENTRY_TASK:
            recording.entry_task = task_id(task)
        if tasks.choose(task):
            spawned(task)

    def task_exited(task: trio.lowlevel.Task) -> None:
        nonlocal over
        if task_id(task) in chosen:
            over = task_id(task)
            exited(task)
        else:
            recording.nests.other_ends()

    some = (before_task_step, after_task_step, task_scheduled, task_spawned, task_exited)
    return {hook.__name__: hook for hook in some}


_IO: Final = {int(Reason.READABLE), int(Reason.WRITABLE), int(Reason.PROCESS)}


def _cause(task: trio.lowlevel.Task, waker: int, recording: Recording, reason: int) -> int:
    """How a task was woken, from what it is to be resumed with."""
    resumed_with: Any = task._next_send
    if type(resumed_with) is outcome.Error:
        error = type(resumed_with.error)
        if error is trio.Cancelled:
            return WakeCause.CANCEL if waker else WakeCause.TIMER
        if error is KeyboardInterrupt:
            return WakeCause.SIGNAL
    if not waker:
        return WakeCause.IO if reason in _IO else WakeCause.UNKNOWN
    if waker != recording.entry_task:
        return WakeCause.TASK
    return WakeCause.SIGNAL if reason == Reason.SIGNAL else WakeCause.THREAD


def _run_queue_length() -> int:
    """Tasks that are runnable; called between steps."""
    root = trio.lowlevel.current_root_task()
    queue = getattr(getattr(root, "_runner", None), "runq", None)
    if queue is not None:
        return len(queue)
    # the public way; it looks at every file descriptor that is waited for
    return trio.lowlevel.current_statistics().tasks_runnable
