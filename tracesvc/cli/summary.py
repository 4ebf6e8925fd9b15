"""``tracesvc summary``: what a trace says, on a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from tracesvc.analysis import Summary

__all__ = ["command", "render"]


@click.command(name="summary", short_help="What a trace says: tasks, spans, the loop, losses.")
@click.argument("source", metavar="FILE|URL[/SESSION]")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON; times in ns.")
@click.option("--own", is_flag=True, help="With the tracer's own tasks.")
def command(source: str, as_json: bool, own: bool) -> None:
    """Sum up the trace in FILE, or a session of the service at URL; without SESSION its newest.

    Per name of task: how many there were, how long they ran, were ready to run and waited, for what, and their longest
    step.  Spans and regions with their quantiles, how busy the run loops were and what stalled them, garbage
    collections, thread calls, counters, logs; and what is missing.
    """
    from tracesvc.analysis import summarize
    from tracesvc.cli.sources import opened

    with opened(source) as trace:
        summary = summarize(trace, own=own)
    if as_json:
        import json

        click.echo(json.dumps(summary.as_dict(), indent=2))
    else:
        from tracesvc.cli.tables import make_console

        render(summary, make_console())


def render(summary: Summary, console: Console) -> None:
    """Print a summary."""
    from tracesvc.cli.page import Page

    Page(summary, console).print()
