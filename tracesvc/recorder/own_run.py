"""The tracer's own trio runs, in threads of their own: what the program does to trio does not touch them, nor they it.

trio keeps two things per process that a program, or the test framework it runs under, may want for itself: the random
numbers by which it orders tasks, which a test seeds to get the same order again, and the methods of its classes, which
a test may replace for a while.  Our runs use copies of both.  Where a trio looks different, they share, as any other
run does, and nothing else is amiss.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable
from types import FunctionType
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

import trio

__all__ = ["run"]

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")
_random: Final = random.Random()  # noqa: S311 - an order of tasks


def run(
    function: Callable[[Unpack[Arguments]], Awaitable[T]],
    *args: *Arguments,
    instruments: tuple[trio.abc.Instrument, ...] = (),
) -> T:
    """As `trio.run`."""

    async def main() -> T:
        _own_methods()
        return await function(*args)

    module: Any = trio._core._run
    trio_run: Callable[..., T] = trio.run
    clock = None
    try:
        scope = {**vars(module), "_r": _random}
        scope["unrolled_run"] = _in_scope(module.unrolled_run, scope)
        trio_run = _in_scope(module.run, scope)
        clock = module.SystemClock(offset=_random.uniform(10_000, 200_000))  # else trio draws it
    except (AttributeError, TypeError):
        pass
    return trio_run(main, clock=clock, instruments=instruments)


def _in_scope(function: FunctionType, scope: dict[str, Any]) -> Any:
    """A copy of a function that finds its globals in ``scope``."""
    copy = FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _own_methods() -> None:
    """Give the current run's I/O manager its own copy of its methods."""
    manager = getattr(getattr(trio.lowlevel.current_task(), "_runner", None), "io_manager", None)
    if manager is not None:
        kind = type(manager)
        methods = {
            name: value for name, value in vars(kind).items() if isinstance(value, FunctionType)
        }
        with contextlib.suppress(TypeError):
            manager.__class__ = type(kind.__name__, (kind,), {**methods, "__slots__": ()})
