"""``tracesvc ls``: the traces that are there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from tracesvc.cli.words import duration, moment, size, within

__all__ = ["command"]


@dataclass(frozen=True, slots=True)
class _Found:
    """A trace; times in ns, ``started`` since the epoch."""

    trace: str
    source: str
    started: int | None
    duration: int
    bytes: int
    events: int
    lost: int
    state: str
    """ended, open (being written, or its program was killed), damaged; or what a service says"""
    offset: int | None = None
    """to add to ``started``, to come to the time of day of the service that it was pushed to; None: nothing tells"""
    uncertainty: int | None = None
    """of that, either way"""


@click.command(name="ls", short_help="Traces in a directory, or sessions of a service.")
@click.argument("place", metavar="[DIR|URL]", default=".")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON; times in ns.")
def command(place: str, as_json: bool) -> None:
    """List the trace files in and below DIR, or the sessions of the service at URL; the youngest first."""
    from tracesvc.cli.remote import Service, is_url

    remote = is_url(place)
    found = (
        [_of_service(one) for one in Service(place).sessions()]
        if remote
        else _in_directory(Path(place))
    )
    if as_json:
        import json

        click.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    from tracesvc.cli.tables import make_console, table

    console = make_console()
    clocks = any(one.offset is not None for one in found)
    heads = ["started", "duration", "size", "events", "lost", "state", "source", "trace"]
    if clocks:
        heads.insert(6, "clock")
    rows = table(console, "", *heads, right=range(1, 5), stretch=(len(heads) - 1,))
    rows.title = None
    for one in found:
        figures = (duration(one.duration), size(one.bytes), f"{one.events:,}", f"{one.lost:,}")
        more = [_clock(one)] if clocks else []
        rows.row(moment(one.started), *figures, one.state, *more, one.source, one.trace)
    console.print(rows)


def _clock(one: _Found) -> str:
    """How far its times are from the service's."""
    if one.offset is None:
        return ""
    return f"{'-' if one.offset < 0 else '+'}{duration(abs(one.offset))} {within(one.uncertainty)}"


def _of_service(facts: dict[str, Any]) -> _Found:
    source = facts["source"] or {}
    started, updated = facts["started"], facts["updated"]
    clock = facts.get("clock") or {}
    return _Found(
        facts["session"],
        str(source.get("name", "?")),
        started,
        max(0, updated - started) if started and updated else 0,
        facts["bytes"],
        facts["events"],
        sum(facts["lost"].values()),
        facts["state"],
        clock.get("offset"),
        clock.get("uncertainty"),
    )


def _in_directory(directory: Path) -> list[_Found]:
    from tracesvc.cli.progress import advancing
    from tracesvc.format import FormatError

    if not directory.is_dir():
        raise click.ClickException(f"{directory}: no such directory")
    paths = sorted(directory.rglob("*.trace"))
    sizes = {path: path.stat().st_size for path in paths}
    found = []
    with advancing("reading traces", sum(sizes.values())) as bar:
        for path in paths:
            name = str(path.relative_to(directory))
            try:
                found.append(_look(path, name))
            except (FormatError, OSError) as exc:
                what = "not a trace" if isinstance(exc, FormatError) else str(exc.strerror)
                found.append(_Found(name, "?", None, 0, sizes[path], 0, 0, what))
            bar(sizes[path])
    return sorted(found, key=lambda one: -(one.started or 0))


def _look(path: Path, name: str) -> _Found:
    """Reads the frames, and of the events no more than how many there are."""
    from tracesvc.format import Batch, Damage, Generation, Loss
    from tracesvc.model.reader import read

    events = lost = last = 0
    with read(path) as trace:
        for item in trace.items():
            match item if isinstance(item, Damage) else item.record:
                case Batch() as batch:
                    events += batch.count
                    last = max(last, batch.t0)
                case Loss(rows):
                    lost += sum(row.last - row.first + 1 for row in rows)
                case Generation() as generation:
                    last = max(last, generation.monotonic)
        session = trace.session
        state = "damaged" if trace.damage else "ended" if trace.end else "open"
        last = trace.end.monotonic if trace.end else last
        monotonic = session.monotonic if session is not None else None
        return _Found(
            name,
            str(session.source.get("name", "?")) if session is not None else "?",
            session.started if session is not None else None,
            max(0, last - monotonic) if monotonic is not None else 0,
            path.stat().st_size,
            events,
            lost,
            state,
        )
