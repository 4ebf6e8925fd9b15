"""``tracesvc verify``: the account of a trace, and whatever in it cannot be right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from tracesvc.cli.words import size

if TYPE_CHECKING:
    from rich.console import Console

    from tracesvc.model.report import Account, Report

__all__ = ["command"]

SHOWN: Final = 50
"""rows and violations that are printed; --json has all"""


@click.command(name="verify", short_help="Prove a trace right, or say where it is not.")
@click.argument("source", metavar="FILE|URL[/SESSION]")
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
def command(source: str, as_json: bool) -> None:
    """Check a trace: frames, checksums, sequence numbers, the life of every task, the ledger.

    It is in FILE (or a directory with the segments of a session), or a service has it.  Exit code 0 only if all of it
    holds.
    """
    from tracesvc.cli.sources import streamed
    from tracesvc.model.verify import verify

    with streamed(source) as file:
        report = verify(file)
    if as_json:
        import json

        click.echo(json.dumps(report.as_dict(), indent=2, default=repr))
    else:
        from tracesvc.cli.tables import make_console

        _print(report, make_console())
    if not report.ok:
        raise SystemExit(1)


def _print(report: Report, console: Console) -> None:
    from tracesvc.cli.tables import table

    console.print(
        f"{report.events:,} events in {report.frames:,} frames, {size(report.bytes)}; session {report.session}",
        highlight=False,
    )
    console.print()
    rows = table(
        console,
        "Account",
        "proc",
        "kind",
        "name",
        "emitted",
        "stored",
        "lost",
        "missing",
        right=range(3, 7),
    )
    for account in report.accounts[:SHOWN]:
        rows.row(str(account.proc), account.kind, account.name, *_figures(account))
    if len(report.accounts) > SHOWN:
        rows.row("", "", f"({len(report.accounts) - SHOWN:,} more)")
    rows.row("", "", "all", *_figures(report.account), style="bold")
    console.print(rows)
    for cause, count in report.account.lost.items():
        console.print(f"lost {count:,}: {cause}", highlight=False)
    for note in report.notes:
        console.print(f"note: {note}", highlight=False, markup=False)
    for violation in report.violations[:SHOWN]:
        console.print(str(violation), style="red", highlight=False, markup=False)
    count = sum(report.counts.values())
    if count > SHOWN:
        console.print(f"... and {count - SHOWN:,} more violations", style="red", highlight=False)
    if report.ok:
        console.print("all holds", style="green")
    else:
        kinds = ", ".join(f"{code} {n:,}" for code, n in report.counts.items())
        console.print(
            f"{count:,} violation{'s' if count != 1 else ''}: {kinds}",
            style="bold red",
            highlight=False,
        )


def _figures(account: Account) -> tuple[str, ...]:
    lost = sum(account.lost.values())
    return tuple(f"{n:,}" for n in (account.emitted, account.stored, lost, account.missing))
