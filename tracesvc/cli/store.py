"""``tracesvc store``: look at a service's data directory, and put it right, while no service uses it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracesvc.cli.amounts import BYTES, SECONDS

if TYPE_CHECKING:
    from tracesvc.store.inspection import Found

__all__ = ["command"]


@click.group(name="store", short_help="Check, repair and tidy a data directory.")
def command() -> None:
    """Look at the data directory of a service, and put it right.  The service must not be running."""


@contextmanager
def _claimed(data: Path) -> Iterator[None]:
    """Nobody else uses it meanwhile; whatever goes wrong is one line."""
    import os

    from tracesvc.store import StoreError
    from tracesvc.store.root import claim

    try:
        _demand_data(data)
        lock = claim(data)
        try:
            yield
        finally:
            os.close(lock)
    except StoreError as exc:
        raise click.ClickException(str(exc)) from None
    except OSError as exc:
        raise click.ClickException(f"{data} cannot be used: {exc}") from None


def _look(data: Path) -> list[Found]:
    from tracesvc.cli.progress import advancing
    from tracesvc.store.inspection import inspect
    from tracesvc.store.recovery import size_of

    total = sum(size_of(path) for path in (data / "sessions").iterdir() if path.is_dir())
    found = []
    with advancing(f"reading {data.name}", total) as bar:
        for each in inspect(data):
            found.append(each)
            bar(each.bytes)
    return found


def _tell(found: list[Found], *, as_json: bool) -> int:
    """Print what was found; how much of it is not as it should be."""
    bad = sum(len(each.findings) for each in found)
    sessions = [each for each in found if each.frames]
    if as_json:
        rows: list[dict[str, Any]] = [
            {
                "name": each.name,
                "bytes": each.bytes,
                "frames": each.frames,
                "findings": [
                    {"what": finding.what, "mendable": finding.mendable}
                    for finding in each.findings
                ],
            }
            for each in found
        ]
        click.echo(json.dumps({"found": rows, "ok": not bad}, indent=2))
        return bad
    for each in found:
        for finding in each.findings:
            hint = " (`tracesvc store repair` mends that)" if finding.mendable else ""
            click.echo(f"{each.name}: {finding.what}{hint}")
    size, frames = sum(e.bytes for e in sessions), sum(e.frames for e in sessions)
    verdict = f"{bad} findings" if bad else "all as it should be"
    click.echo(f"{len(sessions):,} sessions, {frames:,} frames, {size:,} bytes: {verdict}")
    return bad


DATA = click.argument("data", metavar="DIR", type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@command.command()
@DATA
@JSON
def check(data: Path, as_json: bool) -> None:
    """Read everything in DIR, change nothing, and tell what is not as it should be: exit code 1 if something is not.

    Checksums of all frames, ends that are torn, segments that are missing, the catalogue against the sessions.
    """
    with _claimed(data):
        bad = _tell(_look(data), as_json=as_json)
    if bad:
        raise SystemExit(1)


@command.command()
@DATA
@JSON
def repair(data: Path, as_json: bool) -> None:
    """Put right what can be in DIR, and tell what is left: exit code 1 if something is.

    Torn ends are cut, the catalogue is made anew where it differs, deleting is finished.  Damage in the middle of a
    session stays where it is: readers pass over it, and offsets must not move.
    """
    import logging

    from tracesvc.store.inspection import repair as mend

    logging.basicConfig(format="tracesvc: %(message)s", level=logging.WARNING)
    with _claimed(data):
        mend(data)
        bad = _tell(_look(data), as_json=as_json)
    if bad:
        raise SystemExit(1)


@command.command()
@DATA
@click.option(
    "--check", is_flag=True, help="Read the tables that are there, and make damaged ones again."
)
@click.option(
    "--memory",
    type=BYTES,
    default="1G",
    show_default=True,
    help="What a session may take, at most.",
)
def compact(data: Path, check: bool, memory: float) -> None:
    """Make tables of all sessions in DIR that are over, for SQL over many: `tracesvc query --data DIR`.

    What a service does by itself (unless --no-compact).  Exit code 1 if some could not be made.
    """
    import trio

    from tracesvc.store import Compact, FileStore

    made, failed = 0, 0

    def told(session: str, why: str | None) -> None:
        nonlocal made, failed
        if why is None:
            made += 1
        else:
            failed += 1
            click.echo(f"{session}: {why}", err=True)

    async def work() -> None:
        async with FileStore.open(data) as store:
            compaction = store.compaction_of(Compact(memory=int(memory)))
            for session in await compaction.look_over(check=check):
                click.echo(f"{session}: its tables are missing or damaged", err=True)
            await compaction.all(told)

    _demand_data(data)
    _demand_arrow()
    with _one_line():
        trio.run(work)
    click.echo(f"{made:,} sessions compacted" + (f", {failed:,} not" if failed else ""))
    if failed:
        raise SystemExit(1)


@command.command()
@DATA
@click.option("--keep", "age", type=SECONDS, metavar="TIME", help="Sessions younger than that.")
@click.option(
    "--keep-bytes", "size", type=BYTES, metavar="BYTES", help="So much of each source, the newest."
)
def gc(data: Path, age: float | None, size: float | None) -> None:
    """Delete from DIR what is not to be kept, and print the names of the sessions that went.

    Only sessions that are over go: that have ended, or have had no frame for a minute.
    """
    import trio

    from tracesvc.store import FileStore, Keep

    if age is None and size is None:
        raise click.UsageError("say what to keep: --keep 30d, --keep-bytes 20G, or both")

    async def tidy() -> None:
        keep = Keep(age=age, source_bytes=None if size is None else int(size))
        async with FileStore.open(data, keep=keep) as store:
            for name in await store.tidy():
                click.echo(name)

    _demand_data(data)
    with _one_line():
        trio.run(tidy)


def _demand_data(data: Path) -> None:
    if not (data / "sessions").is_dir():
        raise click.ClickException(f"{data} is no data directory of a service")


def _demand_arrow() -> None:
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise ImportError("tables need PyArrow: pip install 'tracesvc[analysis]'")


@contextmanager
def _one_line() -> Iterator[None]:
    """Whatever is wrong with the store is one line."""
    from tracesvc.store import StoreError

    try:
        yield
    except* StoreError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise click.ClickException(str(error)) from None
