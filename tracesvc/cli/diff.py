"""``tracesvc diff``: what became slower from one trace to another; for people, and for CI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from tracesvc.cli.output import as_json as print_json
from tracesvc.cli.output import name, say
from tracesvc.cli.times import LENGTH
from tracesvc.cli.words import duration

if TYPE_CHECKING:
    from tracesvc.analysis import Diff

__all__ = ["command"]

ROWS: Final = 30


@click.command(name="diff", short_help="What became slower from one trace to another.")
@click.argument("before", metavar="BEFORE")
@click.argument("after", metavar="AFTER")
@click.option("--json", "as_json", is_flag=True, help="As JSON; times in ns.")
@click.option(
    "--ratio", type=click.FloatRange(1.0), default=1.25, show_default=True, help="What counts."
)
@click.option(
    "--time", type=LENGTH, default="100us", show_default=True, help="The least difference."
)
@click.option(
    "--count", type=click.IntRange(1), default=5, show_default=True, help="Of a name, at least."
)
@click.option("--only", type=click.Choice(["span", "region", "task"]), multiple=True)
def command(
    before: str,
    after: str,
    as_json: bool,
    ratio: float,
    time: int,
    count: int,
    only: tuple[str, ...],
) -> None:
    """Compare two traces (FILE or URL/SESSION): quantiles of spans and regions, and where the time of tasks went.

    Exit code 1 if a figure became slower by both --ratio and --time.
    """
    from dataclasses import replace

    from tracesvc.analysis import Thresholds, diff
    from tracesvc.cli.sources import opened

    with opened(before) as old, opened(after) as new:
        found = diff(old, new, Thresholds(ratio, time, count))
    if only:
        changes = [change for change in found.changes if change.kind in only]
        verdicts = {change.verdict for change in changes}
        verdict = next((v for v in ("slower", "faster") if v in verdicts), "same")
        found = replace(found, changes=changes, verdict=verdict)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found.verdict == "slower":
        raise SystemExit(1)


def _print(found: Diff) -> None:
    from tracesvc.cli.tables import make_console, table

    console = make_console()
    for verdict, style in (("slower", "red"), ("faster", "green")):
        changes = found.of(verdict)
        if not changes:
            continue
        heads = (verdict, "of", "figure", "before", "after", "ratio", "count")
        rows = table(console, "", *heads, right=range(3, 7))
        for change in changes[:ROWS]:
            ratio = "" if change.ratio is None else f"{change.ratio:.2f}"
            rows.row(
                name(change.name),
                change.kind,
                change.figure.replace("_", " "),
                duration(change.before),
                duration(change.after),
                ratio,
                f"{change.counts[0]:,} / {change.counts[1]:,}",
                style=style if console.is_terminal else None,
            )
        console.print(rows)
        if len(changes) > ROWS:
            say(console, f"and {len(changes) - ROWS:,} more", "dim")
        console.print()
    for side, only in (("before", found.only_before), ("after", found.only_after)):
        for kind, names in only.items():
            more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
            say(console, f"only {side}: {kind} {', '.join(names[:5])}{more}")
    few = {(change.kind, change.name) for change in found.of("few")}
    if few:
        say(console, f"too few to tell: {len(few):,} names")
    for side, lost in zip(("before", "after"), found.gaps, strict=True):
        if lost:
            say(console, f"events are missing {side}: {lost:,}", "yellow")
    say(console, f"verdict: {found.verdict}", "bold")
