"""Reading the parameters of a request."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection
from typing import Any, Final

from starlette.requests import Request

from tracesvc.model.times import parse_duration
from tracesvc.service.problems import HEARD_OUT, ProblemError

__all__ = ["boolean", "choices", "integer", "json_object", "number", "span_of_time"]

_DECIMAL: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
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


def number(request: Request, name: str, default: float, *, least: float) -> float:
    """A decimal number of at least ``least``.

    Raises:
      ProblemError: it is none.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if _DECIMAL.fullmatch(text) and float(text) >= least:
        return float(text)
    raise ProblemError(
        400, "bad-parameter", f"{name} is a number from {least:g} on, not {text[:40]!r}"
    )


def span_of_time(request: Request, name: str, default: int) -> int:
    """ns of a duration like ``10ms`` or ``1.5s``.

    Raises:
      ProblemError: it is none.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        return parse_duration(text[:40])
    except ValueError as exc:
        raise ProblemError(400, "bad-parameter", f"{name}: {exc}") from None


def choices(request: Request, name: str, among: Collection[str]) -> list[str]:
    """What is chosen, in a parameter that may be repeated; empty where it is not given.

    Raises:
      ProblemError: there is no such choice.
    """
    chosen = request.query_params.getlist(name)
    for text in chosen:
        if text not in among:
            raise ProblemError(
                400, "bad-parameter", f"{name} is one of {', '.join(among)}, not {text[:40]!r}"
            )
    return chosen


async def json_object(request: Request, most: int) -> dict[str, Any]:
    """The body: a JSON object of up to ``most`` bytes.

    Raises:
      ProblemError: it is none.
    """
    data = b""
    async with contextlib.aclosing(request.stream()) as parts:
        async for part in parts:
            data += part
            if len(data) > most:
                raise ProblemError(413, "body-too-large", f"this body may have {most} bytes")
    request.scope[HEARD_OUT] = True
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise ProblemError(422, "bad-json", "the body is not JSON") from None
    if not isinstance(found, dict):
        raise ProblemError(422, "bad-json", "the body is to be a JSON object")
    return found
