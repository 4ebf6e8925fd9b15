"""``tracesvc query``: SQL over a trace."""

from __future__ import annotations

import click

from tracesvc.cli.output import as_json as print_json
from tracesvc.cli.output import gaps, say, source

__all__ = ["command"]


@click.command(name="query", short_help="SQL over the tables of a trace.")
@source
@click.argument("sql")
@click.option("--csv", "as_csv", is_flag=True, help="As CSV.")
@click.option("--most", type=click.IntRange(1), default=1000, show_default=True, help="Rows.")
def command(source: str, as_json: bool, sql: str, as_csv: bool, most: int) -> None:
    """Ask the trace in SQL: tables events, tasks, steps, waits, runnable, spans, regions, logs, counters,
    stacks, losses.

    \b
    tracesvc query app.trace "select reason, count(*), sum(duration)/1e6 as ms
                              from waits group by reason order by ms desc"
    """  # noqa: D301
    from tracesvc.analysis import QueryError, query
    from tracesvc.cli.sources import opened

    with opened(source) as trace:
        try:
            found = query(trace, sql, limit=most)
        except QueryError as exc:
            raise click.ClickException(str(exc)) from None
    if as_json:
        print_json(found)
        return
    if as_csv:
        import csv
        import sys

        writer = csv.writer(sys.stdout)
        writer.writerow(found.columns)
        writer.writerows(found.rows)
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
