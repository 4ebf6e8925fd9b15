"""``tracesvc stalls``: long steps, and the tasks that they delayed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from tracesvc.cli.output import as_json as print_json
from tracesvc.cli.output import gaps, name, say, source
from tracesvc.cli.times import LENGTH, Clock
from tracesvc.cli.words import duration

if TYPE_CHECKING:
    from tracesvc.analysis import Stalls

__all__ = ["command"]

NAMED: Final = 3
"""delayed tasks that are named per stall; --json has more"""


@click.command(name="stalls", short_help="Long steps, and the tasks that they delayed.")
@source
@click.option("--over", type=LENGTH, default="10ms", show_default=True, help="What is long.")
@click.option("--most", type=click.IntRange(1), default=20, show_default=True, help="Steps told.")
def command(source: str, as_json: bool, over: int, most: int) -> None:
    """Which steps kept the run loop for long, and which tasks were ready meanwhile and had to wait, how long."""
    from tracesvc.analysis import stalls
    from tracesvc.cli.sources import opened

    with opened(source) as trace:
        clock = Clock(trace)
        found = stalls(trace, over, most)
    if as_json:
        print_json(found)
    else:
        _print(found, clock)


def _print(found: Stalls, clock: Clock) -> None:
    from tracesvc.analysis.account import short
    from tracesvc.cli.tables import make_console, table

    console = make_console()
    steps = f"{found.count:,} step{'s' if found.count != 1 else ''}"
    say(
        console,
        f"{steps} of {duration(found.threshold)} or more, {duration(found.total)} in all",
        "bold",
    )
    if found.stalls:
        rows = table(
            console,
            "",
            "at",
            "took",
            "task",
            "delayed",
            "by",
            "whom",
            right=(1, 3, 4),
            stretch=(5,),
        )
        for stall in found.stalls:
            whom = [f"{name(short(d.name), 24)} {duration(d.delay)}" for d in stall.delayed[:NAMED]]
            if stall.count > NAMED:
                whom.append("...")
            gc = f" (gc {duration(stall.collections)})" if stall.collections else ""
            rows.row(
                clock.text(stall.start),
                duration(stall.duration) + ("+" if stall.open or stall.cut else ""),
                name(stall.name) + gc + (f", in {stall.place}" if stall.place else ""),
                f"{stall.count:,}",
                duration(stall.delay) if stall.count else "",
                ", ".join(whom),
            )
        console.print(rows)
    if found.count > len(found.stalls):
        say(console, f"and {found.count - len(found.stalls):,} more", "dim")
    gaps(console, found.gaps, "steps there are not known")
