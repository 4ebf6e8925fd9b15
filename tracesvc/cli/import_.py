"""``tracesvc import``: a trace of Go's tracer, as one of ours."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command(name="import", short_help="A trace of Go's tracer, as one of ours.")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("-o", "--output", required=True, metavar="OUT", help="The new file; - for stdout.")
def command(file: str, output: str) -> None:
    """Read the `go 1.11 trace` in FILE and write it as a trace that every command here can read."""
    from tracesvc.cli.files import written
    from tracesvc.rewrite import import_go

    with written(output) as out:
        done = import_go(file, out)
    left = sum(done.left_out.values())
    more = f"; {left:,} of them say nothing here" if left else ""
    click.echo(f"{output}: {sum(done.read.values()):,} events of Go{more}", err=True)
