"""``tracesvc export``: a trace in the format of another tool."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tracesvc.export.registry import FORMATS

if TYPE_CHECKING:
    from tracesvc.export import Exported

__all__ = ["command"]


_FORMATS: Final = "\b\nFormats:\n" + "\n".join(
    f"  {one.name:<11} {one.what}" for one in FORMATS.values()
)


@click.command(name="export", short_help="A trace in the format of another tool.", epilog=_FORMATS)
@click.argument("source", metavar="FILE|URL[/SESSION]")
@click.option("--to", "to", required=True, type=click.Choice(list(FORMATS)), help="The format.")
@click.option("-o", "--output", metavar="OUT", help="File or directory; - for standard output.")
@click.option("--push", metavar="URL", help="otlp only: send to an OTLP/HTTP receiver instead.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(source: str, to: str, output: str | None, push: str | None, as_json: bool) -> None:
    """Write the trace in FILE, or a session of the service at URL, in another format.

    What is missing in the trace is shown in the way that the format has, and told at the end.
    """
    from tracesvc.cli.sources import streamed
    from tracesvc.export import export

    chosen = FORMATS[to]
    if push is not None and (to != "otlp" or output is not None):
        raise click.UsageError("--push goes with --to otlp, and without --output")
    if chosen.directory and output == "-":
        raise click.UsageError(f"{to} is a directory of files: give it a path with --output")
    with streamed(source) as file:
        if push is not None:
            from tracesvc.export.otlp_push import Push

            with Push(push) as send:
                done = export(file, to, send)
            where = push
        else:
            where = output or _beside(source, chosen.suffix or f".{to}")
            done = export(file, to, sys.stdout.buffer if where == "-" else where)
    _tell(done, where, as_json)


def _beside(source: str, suffix: str) -> str:
    return Path(source.rstrip("/")).with_suffix("").name + suffix


def _tell(done: Exported, where: str, as_json: bool) -> None:
    """On standard error where the output is on standard output."""
    if as_json:
        import json

        click.echo(json.dumps(done.as_dict(), indent=2), err=where == "-")
        return
    written = ", ".join(f"{name} {n:,}" for name, n in done.written.most_common(8))
    more = ", ..." if len(done.written) > 8 else ""
    click.echo(f"{where}: {done.events:,} events; {written}{more}", err=True)
    if done.left_out:
        left = ", ".join(f"{name} {n:,}" for name, n in done.left_out.most_common())
        click.echo(f"no place in this format: {left}", err=True)
    if done.lost:
        click.echo(f"lost: {done.lost:,} events are missing in the trace", err=True)
