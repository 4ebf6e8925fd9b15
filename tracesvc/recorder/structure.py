"""Structured concurrency in the trace: functions of trio's that are looked at while a session records.

trio has no hook for nurseries, exceptions and cancellation.  So the few functions of its classes through which all of
them go are replaced at start, each by one that looks at its arguments and calls the original, and put back at stop:
`TAKEN` has them, group by group.  What is seen is recorded by `tracesvc.recorder.nests`, natively by ``csrc/nests.c``.

None of it is a promise of trio's.  A function that is not there, or takes other arguments than it did, leaves its group
out, and `Structure.missing` says so.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import trio

from tracesvc.recorder.native import native
from tracesvc.recorder.nests import SLEEP, SOURCES, forget, redaction, say, tell
from tracesvc.recorder.recording import Recording

__all__ = ["GROUPS", "Structure", "enter_run", "leave_run"]

logger: Final = logging.getLogger("tracesvc")
_run: Final[Any] = trio._core._run
GROUPS: Final = ("nurseries", "cancels", "scopes")

NURSERY_INIT, NURSERY_BODY, NURSERY_ERROR, SCOPE_CANCEL, SCOPE_CANCEL_PLAIN, DEADLINE_ADD = range(6)
SCOPE_ENTER, SCOPE_CLOSE = 6, 7
"""what a function is about; as ``csrc/seams.c`` has it"""


class Taken(NamedTuple):
    """A function that is looked at."""

    owner: str
    """a class of `trio._core._run`"""
    name: str
    parameters: tuple[str, ...]
    """what it takes"""
    kind: int


_CANCEL: Final = (
    Taken("CancelScope", "_cancel", ("self", "cancel_reason"), SCOPE_CANCEL)
    if hasattr(_run.CancelScope, "_cancel")  # since trio 0.31
    else Taken("CancelScope", "cancel", ("self",), SCOPE_CANCEL_PLAIN)
)
_ADD_EXC: Final = (
    ("self", "exc", "reason") if hasattr(_run.CancelScope, "_cancel") else ("self", "exc")
)
TAKEN: Final[dict[str, tuple[Taken, ...]]] = {
    "nurseries": (
        Taken(
            "Nursery",
            "__init__",
            ("self", "parent_task", "cancel_scope", "strict_exception_groups"),
            NURSERY_INIT,
        ),
        Taken("Nursery", "_nested_child_finished", ("self", "nested_child_exc"), NURSERY_BODY),
        Taken("Nursery", "_add_exc", _ADD_EXC, NURSERY_ERROR),
    ),
    "cancels": (
        _CANCEL,
        Taken("Deadlines", "add", ("self", "deadline", "cancel_scope"), DEADLINE_ADD),
    ),
    "scopes": (
        Taken("CancelScope", "__enter__", ("self",), SCOPE_ENTER),
        Taken("CancelScope", "_close", ("self", "exc"), SCOPE_CLOSE),
    ),
}
"""group -> the functions it needs"""

_runs: Final[dict[Any, Any]] = {}
"""trio's Runner -> what records it"""


def _native_shape() -> str:
    if native is not None:
        try:
            native.nests(_run.CancelScope, _run.CancelStatus, tell, say, SOURCES, SLEEP)
            native.seams(_runs, _run.GLOBAL_RUN_CONTEXT)
        except (AttributeError, TypeError) as exc:
            return str(exc)
    return ""


_unknown_natively: Final = _native_shape()


def enter_run(runner: Any, recording: Any, groups: frozenset[str]) -> None:
    """From here on ``recording`` is told what of ``groups`` happens in a run."""
    nests = recording.nests if isinstance(recording, Recording) else recording
    nests.nurseries, nests.cancels = "nurseries" in groups, "cancels" in groups
    if groups:
        _runs[runner] = recording


def leave_run(runner: Any, recording: Any) -> None:
    """No more."""
    if _runs.get(runner) is recording:
        del _runs[runner]


class Structure:
    """Replaces the functions for one session, and puts them back."""

    def __init__(
        self,
        wanted: frozenset[str],
        natively: bool,
        redact: Callable[[object], object] | None = None,
    ) -> None:
        """``wanted``: groups, by name; ``natively``: the session records so; ``redact`` is for texts."""
        self._redact: Final = redact
        self._natively: Final = natively
        self._originals: Final[list[tuple[type, str, Any, Any]]] = []
        self.missing: Final[list[str]] = []
        """what this trio has not"""
        self.groups: Final = frozenset(
            group for group in GROUPS if group in wanted and self._is_known(group)
        )
        """what is recorded"""

    def _is_known(self, group: str) -> bool:
        why = _unknown_natively if self._natively else ""
        why = why or next((said for taken in TAKEN[group] if (said := _differs(taken))), "")
        if why:
            self.missing.append(f"{group}: {why}")
        return not why

    def open(self) -> None:
        """Have trio call ours."""
        redaction.text = self._redact
        self._forget()
        for group in GROUPS:
            if group in self.groups:
                for taken in TAKEN[group]:
                    self._replace(taken)

    def close(self) -> None:
        """Put the originals back; where somebody else has replaced ours since then, theirs stays and ours is idle."""
        for owner, name, original, ours in reversed(self._originals):
            if owner.__dict__.get(name) is ours:
                setattr(owner, name, original)
        self._originals.clear()
        _runs.clear()
        self._forget()

    def _forget(self) -> None:
        if self._natively and native is not None:
            native.forget_requests()
        else:
            forget()

    def _replace(self, taken: Taken) -> None:
        owner = getattr(_run, taken.owner)
        original = owner.__dict__[taken.name]
        if self._natively and native is not None:
            ours: Any = native.Seam(original, taken.kind)
        else:
            ours = trio.lowlevel.enable_ki_protection(_MAKE[taken.kind](original))
        self._originals.append((owner, taken.name, original, ours))
        setattr(owner, taken.name, ours)


def _differs(taken: Taken) -> str:
    """What is in the way of looking at a function; "": nothing."""
    where = f"{taken.owner}.{taken.name}"
    function = getattr(_run, taken.owner, type(None)).__dict__.get(taken.name)
    if function is None:
        return f"trio has no {where}"
    try:
        parameters = tuple(inspect.signature(function).parameters)
    except (TypeError, ValueError) as exc:
        return f"{where}: {exc}"
    return "" if parameters == taken.parameters else f"{where} takes other arguments than it did"


# --- the functions, where they are not native -----------------------------------------------------


def _nests_of(runner: Any) -> Any:
    recording = _runs.get(runner)
    if not isinstance(recording, Recording) or not recording.recording or recording.nests.dark:
        return None
    return recording.nests


def _current() -> tuple[Any, Any]:
    """The runner of this thread, and its nests."""
    runner = getattr(_run.GLOBAL_RUN_CONTEXT, "runner", None)
    return runner, None if runner is None else _nests_of(runner)


def _of_nursery(nursery: Any) -> Any:
    nests = _nests_of(nursery._parent_task._runner)
    return nests if nests is not None and nests.nurseries else None


def _safely(function: Callable[..., Any], *args: Any) -> Any:
    """Nothing of ours raises into trio."""
    try:
        return function(*args)
    except Exception:
        logger.exception("this was not recorded")
        return None


def _nursery_init(original: Any) -> Any:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        original(self, *args, **kwargs)
        nests = _of_nursery(self)
        if nests is not None:
            _safely(nests.opened, self)

    return __init__


def _nursery_body(original: Any) -> Any:
    @functools.wraps(original)
    def _nested_child_finished(self: Any, *args: Any) -> Any:
        nests = _of_nursery(self)
        if nests is not None:
            nests.body = self
        return original(self, *args)

    return _nested_child_finished


def _nursery_error(original: Any) -> Any:
    @functools.wraps(original)
    def _add_exc(self: Any, exc: BaseException, *args: Any, **kwargs: Any) -> None:
        nests = _of_nursery(self)
        before = None if nests is None else _safely(nests.reach, self, exc)
        try:
            original(self, exc, *args, **kwargs)
        finally:
            if before is not None:
                nests.reached(before)

    return _add_exc


def _scope_cancel(original: Any) -> Any:
    @functools.wraps(original)
    def _cancel(self: Any, cancel_reason: Any) -> None:
        nests = _current()[1]
        if nests is not None and nests.cancels:
            _safely(nests.cancel, self, cancel_reason, True)
        original(self, cancel_reason)

    return _cancel


def _scope_cancel_plain(original: Any) -> Any:
    @functools.wraps(original)
    def cancel(self: Any) -> None:
        nests = _current()[1]
        if nests is not None and nests.cancels:
            _safely(nests.cancel, self)
        original(self)

    return cancel


def _deadline_add(original: Any) -> Any:
    @functools.wraps(original)
    def add(self: Any, deadline: float, cancel_scope: Any) -> None:
        runner, nests = _current()
        if nests is not None and nests.cancels:
            clock = _safely(runner.clock.current_time)
            _safely(nests.deadline, cancel_scope, deadline, clock)
        original(self, deadline, cancel_scope)

    return add


def _scope_enter(original: Any) -> Any:
    @functools.wraps(original)
    def __enter__(self: Any) -> Any:  # noqa: N807
        entered = original(self)
        nests = _current()[1]
        if nests is not None:
            _safely(nests.scope_open, self)
        return entered

    return __enter__


def _scope_close(original: Any) -> Any:
    @functools.wraps(original)
    def _close(self: Any, exc: BaseException | None) -> BaseException | None:
        left: BaseException | None = original(self, exc)
        nests = _current()[1]
        if nests is not None:
            _safely(nests.scope_close, self)
        return left

    return _close


_MAKE: Final = (
    _nursery_init,
    _nursery_body,
    _nursery_error,
    _scope_cancel,
    _scope_cancel_plain,
    _deadline_add,
    _scope_enter,
    _scope_close,
)
"""by kind"""
