"""``tracesvc rm``: sessions of a service, deleted."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command(name="rm", short_help="Delete sessions that a service keeps.")
@click.argument("sessions", metavar="URL/SESSION...", nargs=-1, required=True)
def command(sessions: tuple[str, ...]) -> None:
    """Have a service delete sessions that are over, and all that it has of them.

    One that is live is refused: it can be deleted a minute after its last frame.  Takes a token with the scope admin.
    """
    from tracesvc.cli.remote import Service, is_url, split

    chosen = []
    for text in sessions:
        if not is_url(text):
            raise click.UsageError(f"{text} is no URL: files are deleted with rm")
        url, session = split(text)
        if session is None:
            raise click.UsageError(f"name the session: {text.rstrip('/')}/SESSION")
        chosen.append((url, session))
    failed = 0
    for url, session in chosen:
        try:
            Service(url).delete(session)
        except click.ClickException as exc:
            click.echo(f"tracesvc: {exc.format_message()}", err=True)
            failed += 1
    if failed:
        raise SystemExit(1)
