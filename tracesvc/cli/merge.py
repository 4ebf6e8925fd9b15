"""``tracesvc merge``: several traces as one."""

from __future__ import annotations

from contextlib import ExitStack

import click

__all__ = ["command"]


@click.command(name="merge", short_help="Several traces as one.")
@click.argument("sources", nargs=-1, required=True, metavar="FILE|URL[/SESSION]...")
@click.option("-o", "--output", required=True, metavar="OUT", help="The new file; - for stdout.")
def command(sources: tuple[str, ...], output: str) -> None:
    """Put traces of processes that worked together on one clock and into one file.

    It says of each how it came to that clock, and how uncertain its times are there (see ``tracesvc fleet``).
    """
    from tracesvc.cli.files import written
    from tracesvc.cli.sources import kept
    from tracesvc.cli.words import within
    from tracesvc.rewrite import merge

    with ExitStack() as stack:
        files = [stack.enter_context(kept(source)) for source in sources]
        with written(output) as out:
            done = merge(files, out)
    lost = f", {done.lost:,} lost" if done.lost else ""
    click.echo(f"{output}: {done.events:,} events of {done.traces} traces{lost}", err=True)
    for source, placed in zip(sources, done.axis.placed, strict=True):
        uncertain = within(placed.at(placed.base.end).uncertainty)
        click.echo(f"  {source}: {uncertain}, by {placed.method}", err=True)
    for told in done.axis.contradictions[:1]:
        count = len(done.axis.contradictions)
        child, parent = told.link.child.name, told.link.parent.name
        text = f"{count:,} spans seem to begin before their parents, {child} before {parent}"
        click.echo(f"{output}: {text}; see tracesvc fleet", err=True)
