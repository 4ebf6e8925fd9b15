"""Points in time and durations on a command line."""

from __future__ import annotations

from typing import Final

import click

from tracesvc.model import times
from tracesvc.model.times import HELP

__all__ = ["HELP", "LENGTH", "Clock", "Length"]


class Length(click.ParamType):  # type: ignore[type-arg]
    """``10ms``, ``1.5s``; without a unit seconds.  Gives ns."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        try:
            return times.parse_duration(str(value))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)


LENGTH: Final = Length()


class Clock(times.Clock):
    """Turns times of a trace into those of the day and back; what is no time is an error of usage."""

    def parse(self, text: str) -> int:
        try:
            return super().parse(text)
        except ValueError as exc:
            raise click.UsageError(str(exc)) from None
