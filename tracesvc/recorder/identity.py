"""Numbers for things: what an event says instead of an object.

A number is never reused within a process, as an address would be; the object is not kept alive.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from types import CodeType
from typing import Final

__all__ = ["cut_name", "cut_text", "entry_of", "number_of"]

MAX_NAME: Final = 1024
"""bytes of UTF-8 in a name"""

_numbers: Final[dict[int, tuple[int, weakref.ref[object]]]] = {}
_next: Final = itertools.count(1).__next__


def number_of(thing: object) -> int:
    """The number of a living object; 0 where it cannot be told apart over time (no weak references)."""
    known = _numbers.get(id(thing))
    if known is not None:
        return known[0]
    key = id(thing)
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


def cut_name(name: object, limit: int = MAX_NAME) -> str:
    """``name`` as text of at most ``limit`` bytes of UTF-8; one that was cut ends in "\N{HORIZONTAL ELLIPSIS}"."""
    if type(name) is str and len(name) <= limit and name.isascii():
        return name
    return cut_text(name, limit)[0]


def cut_text(thing: object, limit: int) -> tuple[str, int]:
    """`cut_name`, and how many characters of the text were cut off."""
    text = str.__str__(
        thing if isinstance(thing, str) else _safe_repr(thing)
    )  # of a subclass: what it holds
    encoded = text[: limit + 1].encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode(), 0
    kept = encoded[: limit - 3].decode("utf-8", "ignore")
    return kept + "\N{HORIZONTAL ELLIPSIS}", len(text) - len(kept)


def _safe_repr(thing: object) -> str:
    try:
        return repr(thing)
    except Exception:  # a repr is the program's code, and an annotation never raises
        return f"<{type(thing).__qualname__}: its repr raised>"
