"""What a task that has just been suspended waits for.

trio keeps, for every suspended task, the function that would abort its wait.  Its code object tells which of trio's
primitives suspended the task, its closure on what: one dictionary lookup per block.  Two cases need the task's stack:
a parking lot that is seen for the first time (whose is it: a lock's, a limiter's?), and a task that was cancelled while
it blocked and whose abort function trio has already dropped.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CellType, CodeType, FrameType, FunctionType
from typing import Any, Final

import trio

from tracesvc.events import Reason
from tracesvc.recorder.identity import number_of
from tracesvc.recorder.native import native
from tracesvc.recorder.stacks import await_chain

__all__ = ["reason_of"]

Answer = tuple[int, int]
"""(reason, object)"""
_Rule = Callable[[trio.lowlevel.Task, Any], Answer]
"""gives the answer for a task, from the closure of the function that would abort its wait"""

_TRIO: Final = str(Path(trio.__file__).parent)
_UNKNOWN: Final[Answer] = (int(Reason.PARKED), 0)

_OWNERS: Final[tuple[tuple[type, Reason], ...]] = (
    (trio.Lock, Reason.LOCK),
    (trio.StrictFIFOLock, Reason.LOCK),
    (trio.Semaphore, Reason.SEMAPHORE),
    (trio.CapacityLimiter, Reason.LIMITER),
    (trio.Condition, Reason.CONDITION),
)


def reason_of(task: trio.lowlevel.Task) -> Answer:
    """Why ``task``, which is suspended, waits, and the number of the object it waits for (0: none)."""
    try:
        abort: Any = task._abort_func
        if type(abort) is not FunctionType:
            return _by_stack(task)
        # By id: to hash a code object takes longer than all the rest.
        known = _rules.get(id(abort.__code__))
        rule = _learn(abort) if known is None else known[1]
        return rule(task, abort.__closure__)
    except Exception:  # a shape of trio not seen yet: the truth is then that we cannot tell
        return _UNKNOWN


def _learn(abort: FunctionType) -> _Rule:
    """How to answer for one place in trio; resolved once, when it is first seen."""
    code, rule = abort.__code__, _constant(_UNKNOWN)
    if code.co_filename.startswith(_TRIO):
        for name, reason, variable in _ABORTS:
            if code.co_qualname == name:
                rule = _rule(code, int(reason), variable)
    if len(_rules) >= 4096:  # code made at run time must not pile up here
        _rules.clear()
    _rules[id(code)] = code, rule
    return rule


_CONSTANT, _OBJECT_IN_CELL, _STATE_IN_CELL, _FILE_DESCRIPTOR, _PARKING_LOT = range(5)
"""kinds of rules as ``csrc/reasons.c`` has them"""


def _teach(code: CodeType, kind: int, reason: int, cell: int = 0, second: int = 0) -> None:
    """Have the native part answer by itself from now on."""
    if native is not None:
        native.learn(code, kind, reason, cell, second)


def _rule(code: CodeType, reason: int, variable: str) -> _Rule:
    variables = code.co_freevars
    if variable == "lot":
        _teach(code, _PARKING_LOT, reason)
        return _parked
    if variable == "fd":
        fd, direction = variables.index("fd"), variables.index("attr_name")
        _teach(code, _FILE_DESCRIPTOR, reason, fd, direction)
        return _file_descriptor(fd, direction)
    if variable not in variables:
        _teach(code, _CONSTANT, reason)
        return _constant((reason, 0))
    cell = variables.index(variable)
    if reason in (Reason.CHANNEL_SEND, Reason.CHANNEL_RECEIVE):
        # both ends and all their clones share one state: that is the channel
        _teach(code, _STATE_IN_CELL, reason, cell)
        return lambda task, closure: (reason, number_of(closure[cell].cell_contents._state))
    _teach(code, _OBJECT_IN_CELL, reason, cell)
    return lambda task, closure: (reason, number_of(closure[cell].cell_contents))


def _constant(answer: Answer) -> _Rule:
    return lambda task, closure: answer


def _file_descriptor(fd: int, direction: int) -> _Rule:
    readable, writable, process = int(Reason.READABLE), int(Reason.WRITABLE), int(Reason.PROCESS)

    def wait_for_fd(task: trio.lowlevel.Task, closure: tuple[CellType, ...]) -> Answer:
        if closure[direction].cell_contents != "read_task":
            return writable, closure[fd].cell_contents
        if (_owners is None or task in _owners) and _waits_for_process(task):
            return process, 0
        return readable, closure[fd].cell_contents

    return wait_for_fd


_ABORTS: Final = (
    # qualified name of the abort function, reason, variable of its closure that is the object
    ("sleep_forever.<locals>.<lambda>", Reason.SLEEP, ""),
    ("MemorySendChannel.send.<locals>.abort_fn", Reason.CHANNEL_SEND, "self"),
    ("MemoryReceiveChannel.receive.<locals>.abort_fn", Reason.CHANNEL_RECEIVE, "self"),
    ("Event.wait.<locals>.abort_fn", Reason.EVENT, "self"),
    ("Nursery._nested_child_finished.<locals>.aborted", Reason.NURSERY, "self"),
    ("EpollIOManager._epoll_wait.<locals>.abort", Reason.READABLE, "fd"),
    ("to_thread_run_sync.<locals>.abort", Reason.THREAD, ""),
    ("ParkingLot.park.<locals>.abort_fn", Reason.PARKED, "lot"),
)
_rules: Final[dict[int, tuple[CodeType, _Rule]]] = {}
"""id of the abort function's code -> that code, so that it keeps its id, and how to answer"""
_process_wait: Final = trio.Process.wait.__code__


def _lock_owners() -> Mapping[trio.lowlevel.Task, object] | None:
    """trio's own table of the tasks that hold a `trio.Lock`; None where it has none."""
    owners = getattr(getattr(trio._core, "_parking_lot", None), "GLOBAL_PARKING_LOT_BREAKER", None)
    return owners if isinstance(owners, dict) else None


_owners: Final = _lock_owners()
if native is not None:
    native.owners(_owners)


def _waits_for_process(task: trio.lowlevel.Task) -> bool:
    """Whether it is in `trio.Process.wait`.

    To look at the stack takes long, and servers wait for a socket with every request: this is asked only of tasks that
    hold a lock, as that method does all the time.
    """
    return any(code is _process_wait for code, _ in await_chain(task.coro))


# --- parking lots --------------------------------------------------------------------------------

_lots: Final[dict[int, tuple[weakref.ref[object], Answer]]] = {}


def _parked(task: trio.lowlevel.Task, closure: object = None) -> Answer:
    lot = task.custom_sleep_data
    key = id(lot)
    known = _lots.get(key)
    if known is not None and known[0]() is lot:
        answer = known[1]
    else:
        answer = _owner_of_lot(task, lot)

        def forget(_: weakref.ref[object]) -> None:
            _lots.pop(key, None)
            if native is not None:
                native.forget(key)

        try:
            _lots[key] = weakref.ref(lot, forget), answer
        except TypeError:  # one without weak references is looked at every time
            return answer
    if native is not None:
        native.remember(lot, answer[1], answer[0])
    return answer


def _owner_of_lot(task: trio.lowlevel.Task, lot: object) -> Answer:
    """Whose parking lot it is: the object whose method awaits ``park``."""
    owner: FrameType | None = None
    for code, frame in await_chain(task.coro):
        if code.co_qualname == "ParkingLot.park":
            break
        owner = frame
    me = None if owner is None else _self_of(owner)
    for kind, reason in _OWNERS:
        if isinstance(me, kind):
            return int(reason), number_of(me)
    if type(me).__name__ == "SignalReceiver" and type(me).__module__.startswith("trio"):
        return int(Reason.SIGNAL), 0
    return int(Reason.PARKED), number_of(lot)


# --- by the stack --------------------------------------------------------------------------------

_PLACES: Final = {
    "sleep_forever": Reason.SLEEP,
    "MemorySendChannel.send": Reason.CHANNEL_SEND,
    "MemoryReceiveChannel.receive": Reason.CHANNEL_RECEIVE,
    "Event.wait": Reason.EVENT,
    "Nursery._nested_child_finished": Reason.NURSERY,
    "to_thread_run_sync": Reason.THREAD,
}


def _self_of(frame: FrameType) -> Any:
    """The object whose method it is, where it is one of trio's: nobody else's locals are touched."""
    code = frame.f_code
    ours = code.co_filename.startswith(_TRIO) and "self" in code.co_varnames
    return frame.f_locals.get("self") if ours else None


def _by_stack(task: trio.lowlevel.Task) -> Answer:
    for code, frame in reversed(list(await_chain(task.coro))):
        reason = _PLACES.get(code.co_qualname)
        if reason is None or not code.co_filename.startswith(_TRIO):
            continue
        me = None if frame is None else _self_of(frame)
        return int(reason), 0 if me is None else number_of(getattr(me, "_state", me))
    return _UNKNOWN
