"""``tracesvc tail``: events, one line each, as they come."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click

__all__ = ["command"]

PAUSE: Final = 0.2
"""seconds between two looks at a file"""
PIECE: Final = 1 << 18
"""bytes read at once"""


@click.command(name="tail", short_help="Events as they come, from a file or a service.")
@click.argument("source", metavar="FILE|URL[/SESSION]")
@click.option("--session", help="Session of the service; by default the newest live one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line; times in ns.")
@click.option(
    "--follow/--no-follow",
    default=True,
    show_default=True,
    help="Wait for more until the trace has ended.",
)
def command(source: str, session: str | None, as_json: bool, follow: bool) -> None:
    """Print the events of the trace in FILE, or of a session of the service at URL, and go on as they come.

    A line has the time of day, the writer (proc), the type of the event, its task and its fields.  Ctrl-C ends it.
    """
    from tracesvc.cli.lines import JsonLines, Lines
    from tracesvc.cli.remote import is_url

    lines: Lines = JsonLines() if as_json else Lines()
    pieces: Iterator[bytes]
    if is_url(source):
        pieces = _service(source, session, follow, lambda: lines.ended)
    elif session is not None:
        raise click.UsageError("--session goes with a URL")
    else:
        pieces = _file(Path(source), follow, lambda: lines.ended)
    output = sys.stdout
    try:
        for piece in pieces:
            output.writelines(line + "\n" for line in lines.feed(piece))
            output.flush()
        output.writelines(line + "\n" for line in lines.close())
    except KeyboardInterrupt:
        output.flush()  # being told to stop is how this ends
    if lines.damaged:
        raise SystemExit(1)


def _file(path: Path, follow: bool, done: Callable[[], bool]) -> Iterator[bytes]:
    with path.open("rb") as file:
        while not done():
            piece = file.read(PIECE)
            if not piece:
                if not follow:
                    return
                yield piece
                time.sleep(PAUSE)
                continue
            yield piece


def _service(
    source: str, session: str | None, follow: bool, done: Callable[[], bool]
) -> Iterator[bytes]:
    from tracesvc.cli.remote import Service, split

    url, named = split(source)
    service = Service(url)
    chosen = service.choose(session or named)
    if follow:
        yield from service.follow(chosen, done)
        return
    with service.opened(chosen) as body:
        while piece := body.read():
            yield piece
