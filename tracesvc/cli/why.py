"""``tracesvc why``: what a span, or a stretch of time, was spent on."""

from __future__ import annotations

import contextlib
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import click

from tracesvc.cli.output import gaps, say, source
from tracesvc.cli.times import HELP, Clock
from tracesvc.cli.words import duration, within

if TYPE_CHECKING:
    from rich.console import Console

    from tracesvc.analysis import Ancestry, Why
    from tracesvc.analysis.account import Group

__all__ = ["command"]

SMALL: Final = 0.01
"""share of the whole below which a line is left out"""
DEEPEST: Final = 6
MOST: Final = 20
"""cancellations that are told"""
BAR: Final = 20


@click.command(name="why", short_help="Why a span took so long, across tasks and wake-ups.")
@source
@click.argument("span", required=False)
@click.option("--from", "start", metavar="TIME", help=f"A window instead of a span: {HELP}.")
@click.option("--to", "end", metavar="TIME", help="Its end.")
@click.option("--task", type=int, help="Whose time in the window; else that of the last to run.")
@click.option(
    "--with",
    "others",
    multiple=True,
    metavar="FILE|URL[/SESSION]",
    help="A trace of another program that its parent may be in; may be repeated.",
)
@click.option("--path", is_flag=True, help="Every stretch in order of time, not only the account.")
def command(
    source: str,
    as_json: bool,
    span: str | None,
    start: str | None,
    end: str | None,
    task: int | None,
    others: tuple[str, ...],
    path: bool,
) -> None:
    """Follow the critical path of SPAN back from its end: who ran, who waited for whom, what was ready and did not run.

    SPAN is a name (the slowest of that name is taken) or a number; without it, the slowest span of all.  The parts add
    up to the duration, to the nanosecond.

    Below that stand the spans that it is a part of, from the inside out: those around it, and, where traces of other
    programs are given, those there that sent it a ``traceparent``.
    """
    from tracesvc.analysis import NotFoundError, ancestors, why, why_window
    from tracesvc.cli.sources import opened

    if (start is None) != (end is None) or (task is not None and start is None):
        raise click.UsageError("a window has --from and --to")
    if start is not None and span is not None:
        raise click.UsageError("SPAN or a window, not both")
    if others and start is not None:
        raise click.UsageError("--with goes with a span")
    around: Ancestry | None = None
    with ExitStack() as stack:
        trace = stack.enter_context(opened(source))
        clock = Clock(trace)
        try:
            if start is not None and end is not None:
                window = clock.parse(start), clock.parse(end)
                if window[1] < window[0]:
                    raise click.UsageError("--to is before --from")
                found = why_window(trace, *window, task)
            else:
                found = why(trace, int(span) if span and span.isdigit() else span)
                more = [stack.enter_context(opened(other)) for other in others]
                with contextlib.suppress(LookupError):  # its begin may be lost
                    around = ancestors(trace, found.span, more)
        except NotFoundError as exc:
            raise click.ClickException(str(exc)) from None
    if as_json:
        click.echo(json.dumps(found.as_dict() | _ancestry(around), indent=2, default=repr))
    else:
        _print(found, clock, around, path=path)


def _ancestry(around: Ancestry | None) -> dict[str, Any]:
    return {} if around is None else around.as_dict()


def _print(found: Why, clock: Clock, around: Ancestry | None, *, path: bool) -> None:
    from tracesvc.cli.tables import make_console

    console = make_console()
    say(console, found.text, "bold")
    about = f"{clock.text(found.start)} to {clock.text(found.end)}"
    if found.task:
        about += f", {'begun in' if found.span else 'followed back from'} task {found.task_name} ({found.task})"
    say(console, about)
    if found.span and found.count > 1:
        rank = "the slowest" if not found.rank else f"number {found.rank + 1:,}"
        say(console, f"{rank} of {found.count:,} spans {found.name}")
    if found.attributes:
        say(console, " ".join(f"{key}={value}" for key, value in found.attributes.items()))
    if around is not None:
        _around(console, around)
    say(console, "")
    _groups(console, found.groups, max(1, found.duration), 0)
    for time, task, one in found.cancelled[:MOST]:
        say(console, f"{clock.text(time)}  task {task} was cancelled: {one.text}")
    if path:
        say(console, "")
        _path(console, found, clock)
    gaps(console, found.gaps, f"{duration(found.unknown)} of it are not explained")


def _around(console: Console, around: Ancestry) -> None:
    """The spans that it is a part of."""
    for one in around.ancestors:
        took = "not ended" if one.duration is None else f"took {duration(one.duration)}"
        before = f"{duration(abs(one.before))} {'before' if one.before >= 0 else 'behind'} it"
        if one.uncertainty != 0:
            before += f" ({within(one.uncertainty)})"
        where = f" in {one.source}, session {one.session}" if one.elsewhere else ""
        say(console, f"part of {one.name} ({one.span}){where}: begun {before}, {took}")
    if around.missing is not None:
        text = f"part of a span of another program, {around.missing}"
        say(console, f"{text}: its trace is to be given by --with")


def _groups(console: Console, groups: list[Group], whole: int, depth: int) -> None:
    left = count = 0
    small = [group for group in groups if group.total < whole * SMALL]
    for group in groups:
        if group.total < whole * SMALL and len(small) > 1:
            left, count = left + group.total, count + 1
            continue
        share = group.total / whole
        bar = "█" * round(share * BAR) if console.is_terminal and not depth else ""
        line = f"{'    ' * depth}{duration(group.total):>10} {share:>6.1%}  {group.text()}"
        if group.count > 1 and "step" not in line:
            line += f", {group.count:,} times, at most {duration(group.longest)}"
        if group.places:
            line += f", at {max(group.places, key=lambda place: group.places[place])}"
        say(console, f"{line}  {bar}".rstrip())
        if depth < DEEPEST:
            _groups(console, group.groups, whole, depth + 1)
    if left:
        say(
            console,
            f"{'    ' * depth}{duration(left):>10} {left / whole:>6.1%}  {count:,} smaller things",
            "dim",
        )


def _path(console: Console, found: Why, clock: Clock) -> None:
    from tracesvc.analysis.path import leaves

    for stretch in leaves(found.path):
        what = f"{stretch.kind}{f' ({stretch.reason})' if stretch.reason else ''}"
        say(
            console,
            f"{clock.text(stretch.start)}  {duration(stretch.duration):>9}  {what}  {stretch.name}",
        )
