"""``tracesvc lint``: problems that a trace shows by itself."""

from __future__ import annotations

import click

from tracesvc.cli.output import as_json as print_json
from tracesvc.cli.output import say, source
from tracesvc.cli.times import LENGTH, Clock

__all__ = ["command"]


@click.command(name="lint", short_help="Problems that a trace shows by itself.")
@source
@click.option("--only", multiple=True, metavar="CODE", help="Only this lint; may be repeated.")
@click.option("--step", type=LENGTH, default="200ms", show_default=True, help="A step too long.")
@click.option(
    "--patience", type=LENGTH, default="5s", show_default=True, help="A wait that is for ever."
)
@click.option("--tasks", type=click.IntRange(2), default=20, show_default=True, help="A pile.")
@click.option("--own", is_flag=True, help="Of the tracer's own tasks as well.")
def command(
    source: str,
    as_json: bool,
    only: tuple[str, ...],
    step: int,
    patience: int,
    tasks: int,
    own: bool,
) -> None:
    """Deadlocks, lost wake-ups, steps that never yield, tasks that leak, nurseries that only grow, busy loops, convoys.

    Exit code 1 if there is one.
    """
    from tracesvc.analysis import Limits, lint
    from tracesvc.analysis.lint import LINTS
    from tracesvc.cli.sources import opened
    from tracesvc.cli.tables import make_console

    unknown = set(only) - LINTS.keys()
    if unknown:
        raise click.UsageError(
            f"no lint {', '.join(sorted(unknown))}; there are {', '.join(LINTS)}"
        )
    limits = Limits(step=step, patience=patience, tasks=tasks, cancelled=patience)
    with opened(source) as trace:
        clock = Clock(trace)
        found = lint(trace, limits, only, own=own)
    if as_json:
        print_json(found)
    else:
        console = make_console()
        for finding in found.findings:
            say(console, f"{clock.text(finding.start)}  {finding.code}: {finding.text}")
        for note in found.notes:
            say(console, f"note: {note}", "yellow")
        if not found.findings:
            say(console, "nothing found", "green")
    if found.findings:
        raise SystemExit(1)
