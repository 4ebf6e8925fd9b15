"""``tracesvc merge``: several traces as one."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command(name="merge", short_help="Several traces as one.")
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False, exists=True))
@click.option("-o", "--output", required=True, metavar="OUT", help="The new file; - for stdout.")
def command(files: tuple[str, ...], output: str) -> None:
    """Put the traces in FILES, of processes that worked together, on one clock and into one file."""
    from tracesvc.cli.files import written
    from tracesvc.rewrite import merge

    with written(output) as out:
        done = merge(files, out)
    lost = f", {done.lost:,} lost" if done.lost else ""
    click.echo(f"{output}: {done.events:,} events of {done.traces} traces{lost}", err=True)
