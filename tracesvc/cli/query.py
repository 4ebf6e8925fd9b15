"""``tracesvc query``: SQL over a trace, or over many."""

from __future__ import annotations

import csv
import json
import sys
import tempfile
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tracesvc.cli.amounts import BYTES, MOMENT
from tracesvc.cli.output import as_json as print_json
from tracesvc.cli.output import gaps, say

if TYPE_CHECKING:
    from tracesvc.analysis import Answer
    from tracesvc.analysis.history import File
    from tracesvc.cli.history import Known, Place, Selection
    from tracesvc.store import Compacted

__all__ = ["command"]

TRIES: Final = 3
"""times that a query is begun anew, where sessions are deleted meanwhile"""
NAMED: Final = 5
"""sessions that are named one by one"""


@click.command(name="query", short_help="SQL over the tables of a trace, or of many.")
@click.argument("words", nargs=-1, required=True, metavar="[FILE|URL[/SESSION]] SQL")
@click.option(
    "--data",
    metavar="DIR|URL|s3://...",
    help="Many sessions: a data directory, a service, a bucket.",
)
@click.option(
    "--since", type=MOMENT, metavar="TIME", help="Sessions that were there then, or later."
)
@click.option("--until", type=MOMENT, metavar="TIME", help="Sessions that had begun by then.")
@click.option("--source", help="Sessions of this program; shop* are all whose names begin so.")
@click.option(
    "--compact", is_flag=True, help="Make tables of sessions that have none, for this once."
)
@click.option(
    "--memory", type=BYTES, default="1G", show_default=True, help="What the query may have."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON; times in ns.")
@click.option("--csv", "as_csv", is_flag=True, help="As CSV.")
@click.option("--most", type=click.IntRange(1), default=1000, show_default=True, help="Rows.")
def command(
    words: tuple[str, ...],
    data: str | None,
    since: int | None,
    until: int | None,
    source: str | None,
    compact: bool,
    memory: float,
    as_json: bool,
    as_csv: bool,
    most: int,
) -> None:
    """Ask a trace in SQL: tables events, tasks, steps, waits, runnable, spans, regions, logs, counters,
    stacks, losses and more; see the documentation.

    \b
    tracesvc query app.trace "select reason, count(*), sum(duration)/1e6 as ms
                              from waits group by reason order by ms desc"

    With --data all sessions that are over, at once; each table begins with session and source, and there is a table
    sessions.  TIME is 2h or 30d (ago), or 2026-11-25T10:00.

    \b
    tracesvc query --data http://host:7070 --since 7d --source 'shop*' "
        select source, name, approx_quantile(duration, 0.99) as p99
        from spans group by all order by p99 desc"
    """  # noqa: D301
    from tracesvc.analysis import QueryError
    from tracesvc.cli.history import Selection, place_of

    if len(words) != (2 if data is None else 1):
        raise click.UsageError("give a trace and SQL, or --data and SQL")
    if data is None and (compact or (since, until, source) != (None, None, None)):
        raise click.UsageError("--since, --until, --source and --compact go with --data")
    missing: list[str] = []
    bound = f"{max(1, int(memory) >> 20)}MB"
    try:
        if data is None:
            answer = _of_one(words[0], words[1], most, bound)
        else:
            which = Selection(source, since, until)
            with tempfile.TemporaryDirectory(prefix="tracesvc-") as own:
                place = place_of(data)
                answer, missing = _of_many(
                    place, which, words[0], most, bound, Path(own) if compact else None
                )
    except QueryError as exc:
        raise click.ClickException(str(exc)) from None
    _print(answer, missing, as_json=as_json, as_csv=as_csv, most=most)


def _of_one(source: str, sql: str, most: int, memory: str) -> Answer:
    from tracesvc.analysis import query
    from tracesvc.cli.sources import opened

    with opened(source) as trace:
        return query(trace, sql, limit=most, memory=memory)


def _of_many(
    place: Place, which: Selection, sql: str, most: int, memory: str, own: Path | None
) -> tuple[Answer, list[str]]:
    """The answer, and sessions that are not in it."""
    from tracesvc.analysis.history import BrokenOffError, query_many

    for left in reversed(range(TRIES)):
        chosen, without = _chosen(place, which, own)
        files = partial(_files, chosen)
        seen = sum(one.gaps for _, one in chosen)
        try:
            answer = query_many(files, sql, limit=most, memory=memory, gaps=seen)
        except BrokenOffError:
            if left and any(home.gone(one) for home, one in chosen):
                continue  # deleted, or compacted anew, while it was being read
            _demand_whole(chosen)
            raise
        return answer, [known.session for known in without]
    raise AssertionError


def _files(chosen: list[tuple[Place, Compacted]], table: str) -> list[File]:
    return [home.open(one, table) for home, one in chosen if table in one.tables]


def _chosen(
    place: Place, which: Selection, own: Path | None
) -> tuple[list[tuple[Place, Compacted]], list[Known]]:
    """What is asked, with the place where it lies; and sessions that have no tables."""
    from tracesvc.cli.history import Directory, compacted
    from tracesvc.format import FormatError

    known = place.sessions(which)
    chosen: list[tuple[Place, Compacted]] = [
        (place, one.tables) for one in known if one.tables is not None
    ]
    without = [one for one in known if one.tables is None]
    if own is None:
        return chosen, without
    (own / "sessions").mkdir(exist_ok=True)
    here, left = Directory(own), []
    for one in without:
        try:
            chosen.append((here, compacted(place, one, own)))
        except (FormatError, FileNotFoundError):
            left.append(one)
    return chosen, left


def _demand_whole(chosen: list[tuple[Place, Compacted]]) -> None:
    """Where files are damaged, that is what is wrong."""
    for home, one in chosen:
        for table, expected in one.tables.items():
            file = home.open(one, table)
            crc = 0
            try:
                with open(file, "rb") if isinstance(file, str) else file as opened:  # noqa: PTH123
                    while data := opened.read(1 << 20):
                        crc = zlib.crc32(data, crc)
            except OSError:
                crc = -1
            if crc != expected.crc32:
                raise click.ClickException(
                    f"table {table} of session {one.session} is damaged: `tracesvc store compact --check` makes it "
                    "again from the session"
                )


def _print(found: Answer, missing: list[str], *, as_json: bool, as_csv: bool, most: int) -> None:
    if as_json and missing:
        click.echo(json.dumps({**found.as_dict(), "missing": missing}, indent=2, default=repr))
        return
    if as_json:
        print_json(found)
        return
    if as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(found.columns)
        writer.writerows(found.rows)
        _tell_missing(missing)
        return
    from tracesvc.cli.tables import make_console, table

    console = make_console()
    if found.columns:
        first = found.rows[0] if found.rows else ()
        right = [i for i, value in enumerate(first) if isinstance(value, int | float)]
        rows = table(console, "", *found.columns, right=right)
        for row in found.rows:
            rows.row(*("" if value is None else str(value) for value in row))
        console.print(rows)
    if found.truncated:
        say(console, f"there are more than {most:,} rows", "yellow")
    gaps(console, found.gaps, "the tables do not have what happened there")
    _tell_missing(missing)


def _tell_missing(sessions: list[str]) -> None:
    if sessions:
        names = ", ".join(sessions[:NAMED]) + (", ..." if len(sessions) > NAMED else "")
        click.echo(
            f"tracesvc: {len(sessions):,} sessions have no tables (yet) and are not in the answer; --compact makes "
            f"some for this once: {names}",
            err=True,
        )
