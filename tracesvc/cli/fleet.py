"""``tracesvc fleet``: several sessions on one axis of time."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import click

from tracesvc.cli.output import as_json as print_json
from tracesvc.cli.output import say
from tracesvc.cli.words import clock, duration, moment, within

if TYPE_CHECKING:
    from rich.console import Console

    from tracesvc.analysis import Fleet

__all__ = ["command"]

MOST: Final = 20
"""sessions of a service that are taken, where none is named; contradictions that are told"""


@click.command(name="fleet", short_help="Several sessions on one axis of time.")
@click.argument("sources", nargs=-1, required=True, metavar="FILE|URL[/SESSION]...")
@click.option("--json", "as_json", is_flag=True, help="As JSON; times in ns.")
def command(sources: tuple[str, ...], as_json: bool) -> None:
    """Put sessions of several programs on one axis, and say how certain that is.

    The axis is the clock of the service that the programs pushed to.  Of a service without SESSION its live sessions
    are taken, or else its newest.  OFFSET is what to add to the time of day of a program's machine; where nothing
    bounds what may be wrong with that, it says "?".
    """
    from tracesvc.analysis import fleet
    from tracesvc.cli.sources import opened

    with ExitStack() as stack:
        traces = [stack.enter_context(opened(one)) for one in _named(sources)]
        try:
            found = fleet(traces)
        except ValueError as exc:
            raise click.ClickException(str(exc).removeprefix("traces has ")) from None
    if as_json:
        print_json(found)
    else:
        from tracesvc.cli.tables import make_console

        _print(found, make_console())


def _named(sources: tuple[str, ...]) -> list[str]:
    from tracesvc.cli.remote import Service, is_url, split

    named: list[str] = []
    for source in sources:
        if not is_url(source) or split(source)[1] is not None:
            named.append(source)
            continue
        service = Service(source)
        found = service.sessions(state="live") or service.sessions()
        if not found:
            raise click.ClickException(f"{source} has no session")
        named += [f"{service.url}/{one['session']}" for one in found[:MOST]]
    return named


def _print(found: Fleet, console: Console) -> None:
    from tracesvc.cli.tables import table

    first = min(member.begin.time for member in found.members)
    last = max(member.end.time for member in found.members)
    about = f"{moment(first)} to {clock(last)} by clock {found.clock}"
    say(console, about, "bold")
    heads = ("from", "to", "offset", "±", "by", "in", "out", "source", "session")
    rows = table(console, "", *heads, right=range(4), stretch=(8,))
    rows.title = None
    for one in found.members:
        host = f"{one.name} ({one.host} {one.pid})" if one.host else one.name
        rows.row(
            f"+{duration(max(0, one.begin.time - first))}",
            f"+{duration(max(0, one.end.time - first))}",
            f"{'-' if one.offset < 0 else '+'}{duration(abs(one.offset))}",
            within(one.uncertainty),
            one.by,
            f"{one.children:,}",
            f"{one.parents:,}",
            host,
            one.session,
        )
    console.print(rows)
    for one in found.members:
        if one.stepped and abs(one.stepped) > 10**6:
            way = "forward" if one.stepped > 0 else "back"
            text = f"{one.name}: its machine's time of day was set {way} by {duration(abs(one.stepped))} meanwhile"
            say(console, text, "yellow")
    for one in found.members:
        if one.steps:
            times = "once" if one.steps == 1 else f"{one.steps:,} times"
            text = f"{one.name}: a clock was stepped {times}, as exchanges show; in between both is possible"
            say(console, text, "yellow")
    for told in found.axis.contradictions[:MOST]:
        parent, child = told.link
        text = (
            f"{child.name} ({child.span}) of {child.session} seems to begin {duration(told.by)} before its parent "
            f"{parent.name} ({parent.span}) of {parent.session}"
        )
        text += "" if told.proven else ": times of day of different machines"
        say(console, text, "yellow")
