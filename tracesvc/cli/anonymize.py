"""``tracesvc anonymize``: a trace that may be given away."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command(name="anonymize", short_help="A trace without names, paths and texts.")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("-o", "--output", required=True, metavar="OUT", help="The new file; - for stdout.")
@click.option("--key", metavar="TEXT", help="Traces with the same key have the same hashes.")
def command(file: str, output: str, key: str | None) -> None:
    """Write FILE anew with every name, path, text and attribute replaced by a hash; structure and times are kept.

    Without --key the hashes are made with a random key that nobody knows afterwards.
    """
    from tracesvc.cli.files import written
    from tracesvc.cli.progress import watched
    from tracesvc.rewrite import anonymize

    with watched(file) as source, written(output) as out:
        events = anonymize(source, out, key=None if key is None else key.encode())
    click.echo(f"{output}: {events:,} events", err=True)
