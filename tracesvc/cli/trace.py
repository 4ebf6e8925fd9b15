"""``tracesvc trace``: have programs traced by their agents, and fetch what they push."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, Final

import click

from tracesvc.cli.endmark import EndMark
from tracesvc.cli.remote import Service
from tracesvc.cli.words import size

__all__ = ["command"]

EVERY: Final = "*"
PATIENCE: Final = 15.0
"""seconds for a session to appear: a program pushes from its first second on"""


@click.command(name="trace", short_help="Have programs traced from afar, by a service.")
@click.argument("source", required=False)
@click.option(
    "--service",
    "url",
    envvar="TRACESVC_SERVICE",
    default="http://127.0.0.1:7070",
    show_default=True,
    show_envvar=True,
    metavar="URL",
    help="The service that the programs' agents are connected to.",
)
@click.option(
    "-s",
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="For how long.",
)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Write the trace here."
)
@click.option(
    "--all", "labels", multiple=True, metavar="NAME=VALUE", help="All programs with this label."
)
@click.option("--snapshot", is_flag=True, help="What their flight recorders hold, instead.")
@click.option("--stacks", type=click.Choice(["slow", "all", "off"]), help="As for open_tracer().")
def command(
    source: str | None,
    url: str,
    seconds: float,
    output: Path,
    labels: tuple[str, ...],
    snapshot: bool,
    stacks: str | None,
) -> None:
    """Have the programs called SOURCE traced for some seconds, and write what they push into a file.

    The programs run tracesvc.agent().  Where several answer, a file is written for each, with host and PID in its name.
    """
    if source is None and not labels:
        raise click.UsageError("name a SOURCE, or --all NAME=VALUE")
    what: dict[str, Any] = {
        "do": "snapshot" if snapshot else "start",
        "labels": dict(_label(text) for text in labels),
    }
    if not snapshot:
        what |= {"seconds": seconds, "options": {} if stacks is None else {"stacks": stacks}}
    service = Service(url)
    results = service.command(source or EVERY, what)
    failed = 0
    for result in results:
        where = f"{result['source']} on {result.get('host', '?')}, pid {result.get('pid', '?')}"
        if not result["ok"]:
            click.echo(f"tracesvc: {where}: {result['error']}", err=True)
            failed += 1
            continue
        path = output if len(results) == 1 else _beside(output, result)
        session = str(result["snapshot"] if snapshot else result["session"])
        _fetch(service, session, path, None if not result.get("already") else seconds)
        click.echo(f"{where}: {size(path.stat().st_size)} in {path}", err=True)
    if failed:
        raise SystemExit(1)


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise click.UsageError(f"--all takes NAME=VALUE, not {text!r}")
    return name, value


def _beside(output: Path, result: dict[str, Any]) -> Path:
    told = "-".join(str(result.get(part, "")) for part in ("source", "host", "pid"))
    return output.with_name(f"{output.stem}-{re.sub('[^A-Za-z0-9._-]', '_', told)}{output.suffix}")


def _fetch(service: Service, session: str, path: Path, seconds: float | None) -> None:
    """Until the session has ended; or, of one that goes on by itself, for some seconds."""
    until = float("inf") if seconds is None else time.monotonic() + seconds
    mark = EndMark()
    service.wait_for(session, PATIENCE)
    with path.open("wb") as file:
        for piece in service.follow(session, lambda: mark.seen or time.monotonic() >= until):
            file.write(piece)
            mark.look(piece)
