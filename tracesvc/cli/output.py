"""What the commands that answer questions have in common: the source, ``--json``, lines that say what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["as_json", "gaps", "name", "say", "source"]

Command = TypeVar("Command", bound=Callable[..., Any])


def source(command: Command) -> Command:
    """The argument for the trace, and the option ``--json``."""
    command = click.option("--json", "as_json", is_flag=True, help="As JSON; times in ns.")(command)
    return click.argument("source", metavar="FILE|URL[/SESSION]")(command)


def as_json(answer: Any) -> None:
    """Print an answer of the library."""
    click.echo(json.dumps(answer.as_dict(), indent=2, default=repr))


def say(console: Console, text: str, style: str = "") -> None:
    """A line of text as it is."""
    console.print(
        text, style=style, highlight=False, markup=False, soft_wrap=not console.is_terminal
    )


def gaps(console: Console, count: int | bool, what: str) -> None:
    """Say that something is missing, if it is."""
    if count:
        where = f" in {count:,} place{'s' if count > 1 else ''}" if count is not True else ""
        say(console, f"events are missing{where}: {what}", "yellow")


def name(text: str, width: int = 40) -> str:
    """The end of a long dotted name: that is where names differ."""
    return text if len(text) <= width else "…" + text[1 - width :]
