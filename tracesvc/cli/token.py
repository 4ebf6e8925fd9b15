"""``tracesvc token``: make, list and revoke the tokens of a service."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracesvc.cli.words import moment

if TYPE_CHECKING:
    from tracesvc.service.tokens import TokenFile

__all__ = ["command"]

_place = click.option(
    "--data",
    default="tracesvc-data",
    show_default=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data directory of the service; the tokens are in tokens.json there.",
)
_file = click.option(
    "--tokens",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Another file, as the service was told with --tokens.",
)


@click.group(name="token", short_help="Make, list and revoke the tokens of a service.")
def command() -> None:
    """Who may do what at a service. A running one sees a change within a second."""


@command.command(name="create")
@_place
@_file
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(["ingest", "read", "control", "admin"]),
    help="What it allows; may be repeated.",
)
@click.option(
    "--prefix", default="", help="Only sources whose names begin with this; by default all."
)
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="How long it holds.")
@click.option("--note", default="", help="Whose it is, for the list.")
@click.option("--print-only", is_flag=True, help="Keep nothing: for TRACESVC_TOKENS.")
def create(
    data: Path,
    tokens: Path | None,
    scopes: tuple[str, ...],
    prefix: str,
    days: float | None,
    note: str,
    print_only: bool,
) -> None:
    """Make a token, and print it: only its digest is kept, so it is shown this once."""
    from tracesvc.service.tokens import Scope, make_token

    expires = None if days is None else int(time.time() + days * 86400)
    text, token = make_token(map(Scope, scopes), prefix=prefix, expires=expires, note=note)
    if not print_only:
        file = _tokens(data, tokens)
        file.path.parent.mkdir(parents=True, exist_ok=True)
        _said(lambda: file.write([*file.read(), token]))
    click.echo(text)


@command.command(name="list")
@_place
@_file
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON; digests included.")
def list_(data: Path, tokens: Path | None, as_json: bool) -> None:
    """List the tokens."""
    found = _said(_tokens(data, tokens).read)
    if as_json:
        import json

        click.echo(json.dumps([token.as_dict() for token in found], indent=2))
        return
    from tracesvc.cli.tables import make_console, table

    console = make_console()
    rows = table(console, "", "token", "scopes", "sources", "created", "expires", "note")
    rows.title = None
    for token in found:
        expires = "never" if token.expires is None else moment(token.expires * 10**9)
        if token.expired(time.time()):
            expires = "has expired"
        rows.row(
            token.id,
            ", ".join(sorted(token.scopes)),
            f"{token.prefix}*",
            moment(token.created * 10**9),
            expires,
            token.note,
        )
    console.print(rows)


@command.command(name="revoke")
@_place
@_file
@click.argument("token")
def revoke(data: Path, tokens: Path | None, token: str) -> None:
    """Revoke TOKEN, which is named by its 8 letters (or given whole)."""
    file = _tokens(data, tokens)
    found = _said(file.read)
    name = token.split("_")[1] if token.startswith("tsv_") else token
    kept = [other for other in found if other.id != name]
    if len(kept) == len(found):
        raise click.ClickException(f"there is no token {name} in {file.path}")
    _said(lambda: file.write(kept))


def _tokens(data: Path, tokens: Path | None) -> TokenFile:
    from tracesvc.service.tokens import TokenFile

    return TokenFile(tokens or data / "tokens.json")


def _said(do: Any) -> Any:
    from tracesvc.service.tokens import TokenError

    try:
        return do()
    except TokenError as exc:
        raise click.ClickException(str(exc)) from None
