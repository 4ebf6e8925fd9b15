"""``tracesvc plot``: a picture of a trace."""

from __future__ import annotations

from pathlib import Path

import click

from tracesvc.cli.times import HELP, Clock

__all__ = ["command"]


@click.command(name="plot", short_help="A picture of a trace, for a bug report.")
@click.argument("source", metavar="FILE|URL[/SESSION]")
@click.option("-o", "--output", metavar="OUT", help="x.svg or x.png; else beside you, as SVG.")
@click.option("--from", "start", metavar="TIME", help=f"Where it begins: {HELP}.")
@click.option("--to", "end", metavar="TIME", help="Where it ends.")
@click.option("--rows", type=click.IntRange(1, 2000), default=40, show_default=True)
@click.option("--width", type=click.IntRange(100, 10_000), default=1000, show_default=True)
@click.option("--own", is_flag=True, help="With the tracer's own tasks.")
def command(
    source: str,
    output: str | None,
    start: str | None,
    end: str | None,
    rows: int,
    width: int,
    own: bool,
) -> None:
    """Draw the tasks of a trace over time: a row each, coloured by what they were in.

    Where there are more tasks than rows, those of a name share one.  Where events are missing, it is hatched.
    """
    from tracesvc.cli.files import written
    from tracesvc.cli.sources import opened
    from tracesvc.plot import plot
    from tracesvc.plot.picture import SUFFIXES, has_font

    out = output or f"{Path(source.rstrip('/')).with_suffix('').name}.svg"
    if Path(out).suffix not in SUFFIXES and out != "-":
        raise click.UsageError(f"--output ends in {' or '.join(SUFFIXES)}")
    with opened(source) as trace:
        clock = Clock(trace)
        low = None if start is None else clock.parse(start)
        high = None if end is None else clock.parse(end)
        if low is not None and high is not None and high <= low:
            raise click.UsageError("--to is not after --from")
        try:
            drawn = plot(trace, None, low, high, columns=width, rows=rows, own=own)
        except ValueError as exc:
            raise click.UsageError(str(exc)) from None
    data = drawn.png() if Path(out).suffix == ".png" else drawn.svg.encode()
    if Path(out).suffix == ".png" and not has_font():
        click.echo("the picture has no text: there is no font here; an .svg needs none", err=True)
    with written(out) as write:
        write(data)
    if out != "-":
        found = drawn.timeline
        missing = f"; {found.lost:,} events are missing" if found.lost else ""
        click.echo(f"{out}: {found.tasks:,} tasks{missing}", err=True)
