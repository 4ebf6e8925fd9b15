"""Numbers for things: what an event says instead of an object.

A number is never reused within a process, as an address would be; the object is not kept alive.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from types import CodeType
from typing import Final

import trio

from tracesvc.recorder.native import native
from tracesvc.recorder.texts import cut_name

__all__ = ["entry_of", "number_of"]

_numbers: Final[dict[int, tuple[int, weakref.ref[object]]]] = {}
_next: Final = itertools.count(1).__next__


def _number_of(thing: object) -> int:
    key = id(thing)
    known = _numbers.get(key)
    if known is not None:
        return known[0]
    try:
        reference = weakref.ref(thing, _forgetter(key))
    except TypeError:
        return 0
    number = _next()
    _numbers[key] = number, reference
    return number


def _forgetter(key: int) -> Callable[[weakref.ref[object]], None]:
    def forget(_: weakref.ref[object]) -> None:
        _numbers.pop(key, None)

    return forget


number_of: Final[Callable[[object], int]] = _number_of if native is None else native.number_of
"""the number of a living object; 0 where it cannot be told apart over time (no weak references)"""


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


if native is not None:
    # Protected: a Ctrl-C in what C calls would be swallowed.
    native.texts(*map(trio.lowlevel.enable_ki_protection, (entry_of, cut_name)))
