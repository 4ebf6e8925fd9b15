"""Numbers for things: what an event says instead of an object.

A number is never reused within a process, as an address would be; the object is not kept alive.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from types import CodeType
from typing import Final

from tracesvc.recorder.native import native
from tracesvc.recorder.texts import cut_name

__all__ = ["entry_of", "number_of"]

_numbers: Final[dict[int, tuple[int, weakref.ref[object]]]] = {}
_next: Final = itertools.count(1).__next__


def number_of(thing: object) -> int:
    """The number of a living object; 0 where it cannot be told apart over time (no weak references)."""
    key = id(thing)
    known = _numbers.get(key)
    if known is not None:
        if native is not None:  # it did not know, or it would not have asked
            native.remember(thing, known[0], 0)
        return known[0]
    try:
        reference = weakref.ref(thing, _forgetter(key))
    except TypeError:
        return 0
    number = _next()
    _numbers[key] = number, reference
    if native is not None:
        native.remember(thing, number, 0)
    return number


def _forgetter(key: int) -> Callable[[weakref.ref[object]], None]:
    def forget(_: weakref.ref[object]) -> None:
        _numbers.pop(key, None)
        if native is not None:
            native.forget(key)

    return forget


_entries: Final[dict[CodeType, str]] = {}


def entry_of(coroutine: object) -> str:
    """``qualified.name (file.py:12)`` of a task's entry function."""
    code = getattr(coroutine, "cr_code", None) or getattr(coroutine, "gi_code", None)
    if not isinstance(code, CodeType):
        return cut_name(type(coroutine).__qualname__)
    entry = _entries.get(code)
    if entry is None:
        if len(_entries) >= 4096:  # code made at run time must not pile up here
            _entries.clear()
        entry = _entries[code] = cut_name(
            f"{code.co_qualname} ({code.co_filename}:{code.co_firstlineno})"
        )
    return entry
