"""``tracesvc demo``: a real program, traced, pushed, stored, followed live and summed up."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from tracesvc.demo.show import DemoResult

__all__ = ["command"]


@click.command(
    name="demo", short_help="Trace a real web application for some seconds and show what one sees."
)
@click.option(
    "--seconds", default=10.0, show_default=True, type=click.FloatRange(0.5, 3600), help="How long."
)
@click.option(
    "--data",
    type=click.Path(file_okay=False),
    help="Directory for the service; by default a new one.",
)
def command(seconds: float, data: str | None) -> None:
    """Start a service and a web shop, drive real requests at it while following its trace, and show the result.

    Exit code 0 only if the program, the store and the live follower counted exactly the same events.
    """
    import trio
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from tracesvc.cli.tables import make_console
    from tracesvc.demo.show import show

    console = make_console()
    directory = Path(data) if data else Path(tempfile.mkdtemp(prefix="tracesvc-demo-"))
    columns = (
        TextColumn("driving the shop"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[requests]:,} requests, {task.fields[events]:,} events followed"),
    )
    try:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("drive", total=seconds, requests=0, events=0)
            result = trio.run(
                show,
                directory,
                seconds,
                lambda gone, requests, events: bar.update(
                    task, completed=gone, requests=requests, events=events
                ),
            )
    except* RuntimeError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise click.ClickException(str(error)) from None
    _report(console, result)
    if not result.ok:
        raise SystemExit(1)


def _report(console: Console, result: DemoResult) -> None:
    from tracesvc.analysis import summarize
    from tracesvc.cli.summary import render
    from tracesvc.cli.tables import table
    from tracesvc.model.reader import read

    with read(result.file) as trace:
        render(summarize(trace), console)
    console.print()
    ledger = table(
        console, "Ledger", "proc", "name", "emitted", "= stored", "+ lost", right=range(2, 5)
    )
    for number, proc in result.ledger["procs"].items():
        lost = sum(proc["lost"].values()) if isinstance(proc["lost"], dict) else proc["lost"]
        figures = (f"{n:,}" for n in (proc["emitted"], proc["stored"], lost))
        ledger.row(str(number), str(proc.get("name", "")), *figures)
    console.print(ledger)
    console.print()
    seen = f"{result.program:,}"
    console.print(f"events seen by the program   {seen}", highlight=False)
    console.print(f"events stored                {result.stored:>{len(seen)},}", highlight=False)
    console.print(f"events followed live         {result.followed:>{len(seen)},}", highlight=False)
    if result.ok:
        console.print(
            f"all equal, none lost; {result.requests:,} requests answered",
            style="bold green",
            highlight=False,
        )
    else:
        for problem in _problems(result):
            console.print(problem, style="bold red", highlight=False)
    console.print("\nGo on with:", highlight=False)
    for line in (
        f"tracesvc summary {result.file}",
        f"tracesvc tail {result.file}",
        f"tracesvc verify {result.file}",
        f"tracesvc serve --data {result.file.parents[2]}",
    ):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _problems(result: DemoResult) -> Iterator[str]:
    if not result.program == result.stored == result.followed:
        yield f"not equal: {result.program:,} seen, {result.stored:,} stored, {result.followed:,} followed"
    if result.lost:
        yield f"{result.lost:,} events lost"
    if not result.requests:
        yield "no request was answered in that time: try --seconds 20"
    if result.failed:
        yield f"{result.failed:,} of {result.requests:,} requests failed"
    if result.service_exit:
        yield f"the service ended with exit code {result.service_exit}"
