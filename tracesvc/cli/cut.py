"""``tracesvc cut``: the part of a trace between two times."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tracesvc.model.reader import Session

__all__ = ["command"]


@click.command(name="cut", short_help="The part of a trace between two times.")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--from", "begin", metavar="TIME", help="Where it begins; default: at the start.")
@click.option("--to", "end", metavar="TIME", help="Where it ends; default: at the end.")
@click.option("-o", "--output", required=True, metavar="OUT", help="The new file; - for stdout.")
def command(file: str, begin: str | None, end: str | None, output: str) -> None:
    """Keep what is in FILE between two times, in whole generations: a second or so more at both ends.

    TIME is in seconds since the trace began (12.5), or a time of day (2026-11-22T23:28:14).
    """
    from tracesvc.cli.files import written
    from tracesvc.cli.progress import watched
    from tracesvc.cli.words import duration
    from tracesvc.model.reader import read
    from tracesvc.rewrite import cut

    with watched(file) as source, written(output) as out:
        trace = read(source)
        session = trace.session
        since, until = _time(begin, session, "--from"), _time(end, session, "--to")
        try:
            done = cut(trace, out, begin=since, end=until)
        except ValueError as exc:
            raise click.ClickException(str(exc)) from exc
    long = duration((done.end or 0) - (done.begin or 0)) if done.end is not None else "the rest"
    click.echo(
        f"{output}: {done.events:,} events, {done.generations:,} generations, {long}", err=True
    )


def _time(text: str | None, session: Session | None, option: str) -> int | None:
    """ns of the trace's clock."""
    if text is None:
        return None
    start = session.monotonic if session is not None and session.monotonic is not None else 0
    try:
        return start + round(float(text.removesuffix("s")) * 1e9)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(
            f"{option} must be seconds or a time of day like 2026-11-22T23:28:14, not {text!r}"
        ) from None
    if session is None or session.started is None:
        raise click.ClickException(f"{option}: the trace does not say at what time of day it began")
    return start + round(moment.timestamp() * 1e9) - session.started
