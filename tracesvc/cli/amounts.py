"""Amounts on the command line: ``10G``, ``30d``."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Final

import click

__all__ = ["BYTES", "MOMENT", "SECONDS"]


class _Amount(click.ParamType[float]):
    """A number with a unit behind it."""

    def __init__(self, name: str, units: dict[str, int], example: str) -> None:
        self.name = name
        self._units, self._example = units, example

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return value
        text = str(value).strip()
        unit = text.lstrip("0123456789.")
        try:
            return float(text.removesuffix(unit)) * self._units[unit.strip()]
        except (KeyError, ValueError):
            self.fail(f"{text!r} is not like {self._example}", param, ctx)


BYTES: Final = _Amount(
    "bytes",
    {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40},
    "500M or 20G",
)
SECONDS: Final = _Amount(
    "time", {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}, "12h or 30d"
)


class _Moment(click.ParamType[int]):
    """A point in time, or how long ago it was.  Gives ns since the epoch."""

    name = "moment"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip()
        try:
            return int(datetime.fromisoformat(text).timestamp() * 1_000_000) * 1000
        except ValueError:
            pass
        try:
            ago = SECONDS.convert(text, param, ctx)
        except click.BadParameter:
            self.fail(f"{text!r} is not like 12h or 30d (ago), or 2026-11-25T10:00", param, ctx)
        return time.time_ns() - int(ago * 1e9)


MOMENT: Final = _Moment()
