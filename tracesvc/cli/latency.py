"""``tracesvc latency``: how durations are distributed, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from tracesvc.cli.output import as_json as print_json
from tracesvc.cli.output import gaps, name, say, source
from tracesvc.cli.words import duration

if TYPE_CHECKING:
    from rich.console import Console

    from tracesvc.analysis.latency import Histogram

__all__ = ["command"]

KINDS: Final = ("span", "region", "task", "step", "queue", "wait")
ROWS: Final = 15
BAR: Final = 50


@click.command(name="latency", short_help="Histograms of spans, regions, tasks, steps, waits.")
@source
@click.option("--of", multiple=True, type=click.Choice(KINDS), help="What of; may be repeated.")
@click.option("--name", "only", help="The histogram of one name, drawn.")
def command(source: str, as_json: bool, of: tuple[str, ...], only: str | None) -> None:
    """How long spans and regions took, how long tasks lived, ran, queued for the run loop, and waited for what."""
    from tracesvc.analysis import Latencies, Of, latencies
    from tracesvc.cli.sources import opened
    from tracesvc.cli.tables import make_console

    with opened(source) as trace:
        found = latencies(trace, *map(Of, of))
    if only is not None:
        chosen = {
            kind: {only: names[only]} for kind, names in found.histograms.items() if only in names
        }
        if not chosen:
            raise click.ClickException(f"the trace has nothing of the name {only!r}")
        found = Latencies(chosen, found.gaps)
    if as_json:
        print_json(found)
        return
    console = make_console()
    for kind, names in found.histograms.items():
        if names:
            _table(console, kind, names)
            if only is not None:
                _draw(console, names[only])
    gaps(console, found.gaps, "what began or ended there is not counted")


def _table(console: Console, kind: str, names: dict[str, Histogram]) -> None:
    from tracesvc.cli.tables import table

    heads = (kind, "count", "min", "p50", "p90", "p99", "max", "total")
    rows = table(console, "", *heads, right=range(1, len(heads)))
    for text, h in list(names.items())[:ROWS]:
        figures = (h.min, h.p50, h.p90, h.p99, h.max, h.total)
        rows.row(name(text), f"{h.count:,}", *map(duration, figures))
    console.print(rows)
    if len(names) > ROWS:
        say(console, f"and {len(names) - ROWS:,} more", "dim")
    console.print()


def _draw(console: Console, histogram: Histogram) -> None:
    buckets = histogram.coarse()
    most = max(bucket.count for bucket in buckets)
    for bucket in buckets:
        bar = ("█" if console.is_terminal else "#") * round(bucket.count / most * BAR)
        low, high = duration(bucket.low), duration(bucket.high)
        say(console, f"{low:>9} to {high:>9} {bucket.count:>10,}  {bar}".rstrip())
    console.print()
