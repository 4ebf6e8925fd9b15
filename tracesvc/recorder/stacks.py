"""Where a task is suspended: the chain of what it awaits, as frames.

A suspended task's await chain can be read at leisure: nothing runs in it.  So it is read when the task is woken, and
only if it has waited for long; a stack that was seen before is the same object again.
"""

from __future__ import annotations

import gc
import types
from collections.abc import AsyncGenerator, Awaitable, Iterator
from types import CodeType, FrameType
from typing import Any, Final

import trio

from tracesvc.events import Frames
from tracesvc.recorder.texts import cut_name

__all__ = ["MAX_FRAMES", "Stack", "await_chain", "beyond", "frames_of", "make_stack", "stack_of"]

MAX_FRAMES: Final = 64
"""frames of a stack that are kept, the innermost ones"""
MAX_CHAIN: Final = 4096
"""frames that are looked at: a chain may be a ring, where somebody made one by hand"""

Place = tuple[CodeType, int]
"""(code, offset of the instruction in bytes)"""


class Stack:
    """An interned stack: told apart by identity, named when it is written."""

    __slots__ = ("_frames", "_places")

    def __init__(self, places: tuple[Place, ...]) -> None:
        self._places = places
        self._frames: Frames | None = None

    @property
    @trio.lowlevel.enable_ki_protection  # a black box asks within a hook, where a Ctrl-C would be lost
    def frames(self) -> Frames:
        """(function, file, line) of each frame, innermost first."""
        if self._frames is None:
            self._frames = tuple(
                (cut_name(code.co_qualname), cut_name(code.co_filename), line_of(code, instruction))
                for code, instruction in self._places
            )
        return self._frames


_stacks: Final[dict[tuple[Place, ...], Stack]] = {}


def make_stack(places: tuple[Place, ...]) -> Stack:
    """The `Stack` of these places, the same one for the same places."""
    stack = _stacks.get(places)
    if stack is None:
        if len(_stacks) >= 16384:  # code made at run time must not pile up here
            _stacks.clear()
        stack = _stacks[places] = Stack(places)
    return stack


def line_of(code: CodeType, instruction: int) -> int:
    """Line of the source that an instruction comes from; that of the function where it is not known."""
    for start, end, line in code.co_lines():
        if start <= instruction < end:
            return code.co_firstlineno if line is None else line
    return code.co_firstlineno


def await_chain(coroutine: object) -> Iterator[tuple[CodeType, FrameType | None]]:
    """What a task is suspended in, outermost first: coroutines, generators, asynchronous generators."""
    awaited: Any = coroutine
    for _ in range(MAX_CHAIN):
        if awaited is None:
            return
        for code, frame, further in _SUSPENDED:
            if hasattr(awaited, code):
                yield getattr(awaited, code), getattr(awaited, frame)
                awaited = getattr(awaited, further)
                break
        else:
            awaited = beyond(awaited)


def beyond(awaitable: object) -> object | None:
    """What an awaitable drives that is no generator of any kind, as far as that can be told; None: nothing."""
    # No generators: CPython 3.13.0 crashes where memory runs out as it makes one.
    for code, _, further in _SUSPENDED:
        if hasattr(awaitable, code):  # one that Cython made
            return getattr(awaitable, further, None)
    if type(awaitable).__name__ in _DRIVERS:
        for thing in gc.get_referents(awaitable):
            if isinstance(thing, _DRIVEN):
                driven: object = thing
                return driven
    return None


_SUSPENDED: Final = (
    ("cr_code", "cr_frame", "cr_await"),
    ("ag_code", "ag_frame", "ag_await"),
    ("gi_code", "gi_frame", "gi_yieldfrom"),
)
_DRIVEN: Final = Awaitable, AsyncGenerator, types.GeneratorType
_DRIVERS: Final = {
    "anext_awaitable",
    "async_generator_asend",
    "async_generator_athrow",
    "coroutine_wrapper",
}
"""types that do not say what they drive: only the garbage collector can tell"""


def frames_of(frame: FrameType | None) -> Stack | None:
    """The stack of a thread that runs."""
    places: list[Place] = []
    while frame is not None and len(places) < MAX_FRAMES:
        places.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return make_stack(tuple(places)) if places else None


def stack_of(coroutine: object) -> Stack | None:
    """Where a task is suspended; None where nothing of it can be seen."""
    try:
        places = [
            (code, frame.f_lasti)
            for code, frame in await_chain(coroutine)
            if frame is not None and isinstance(code, CodeType)
        ]
    except Exception:  # an awaitable of the program's that does not like to be looked at
        return None
    return make_stack(tuple(places[: -MAX_FRAMES - 1 : -1])) if places else None
