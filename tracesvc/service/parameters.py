"""Reading the parameters of a request."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from tracesvc.service.problems import ProblemError

__all__ = ["boolean", "integer"]

_BOOLEANS: Final = {"true": True, "1": True, "": True, "false": False, "0": False}


def integer(
    request: Request, name: str, default: int, *, least: int = 0, most: int = 1 << 62
) -> int:
    """A whole number between ``least`` and ``most``.

    Raises:
      ProblemError: it is none.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most:
        return int(text)
    raise ProblemError(
        400, "bad-parameter", f"{name} is a number from {least} to {most}, not {text[:40]!r}"
    )


def boolean(request: Request, name: str) -> bool:
    """True or false; false where it is not given.

    Raises:
      ProblemError: it is neither.
    """
    text = request.query_params.get(name, "false").lower()
    if text not in _BOOLEANS:
        raise ProblemError(400, "bad-parameter", f"{name} is true or false, not {text[:40]!r}")
    return _BOOLEANS[text]
