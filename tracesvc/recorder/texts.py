"""Texts of the program's, as an event may hold them: of bounded size, and never a reason to raise."""

from __future__ import annotations

from typing import Final

__all__ = ["cut_name", "cut_text"]

MAX_NAME: Final = 1024
"""bytes of UTF-8 in a name"""


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
