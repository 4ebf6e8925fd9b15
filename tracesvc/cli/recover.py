"""``tracesvc recover``: the trace in the black box of a program that died."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from tracesvc.rewrite import LastOf, Recovered

__all__ = ["command"]

TASKS: Final = 12
"""tasks that are told of; --json has all"""
FRAMES: Final = 8
"""of a stack, likewise"""
OWN: Final = "tracesvc "


@click.command(name="recover", short_help="The trace in the black box of a program that died.")
@click.argument("directory", required=False, type=click.Path(path_type=Path), metavar="[DIR]")
@click.option(
    "-o", "--output", metavar="FILE", help="The trace; a directory: one of each box; - for stdout."
)
@click.option("--push", metavar="URL", help="Send the trace of each box to a service.")
@click.option("--token", envvar="TRACESVC_TOKEN", help="Token for the service.", show_envvar=True)
@click.option("--remove", is_flag=True, help="Remove a box once its trace is written and sent.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON; times in ns.")
def command(
    directory: Path | None,
    output: str | None,
    push: str | None,
    token: str | None,
    remove: bool,
    as_json: bool,
) -> None:
    """Make a trace of what a dead program left in its black box, and say what its tasks did last.

    DIR is a box or a directory of boxes, by default where programs make theirs.  Without -o and --push the boxes there
    are listed.  The box of a program that still runs is not touched.
    """
    from tracesvc.recorder.boxes import default_directory, find
    from tracesvc.recorder.errors import BlackBoxError

    where = directory or default_directory()
    try:
        boxes = find(where)
        if output is None and push is None:
            _list(where, boxes, as_json)
            return
        boxes = _chosen(where, boxes, many=output is None or Path(output).is_dir())
        told = [_recover(path, output, push, token, remove, as_json) for path in boxes]
    except BlackBoxError as exc:
        raise click.ClickException(str(exc)) from exc
    if as_json:
        import json

        click.echo(json.dumps(told, indent=2, default=repr))


def _chosen(where: Path, boxes: list[Path], *, many: bool) -> list[Path]:
    """Those to recover: all of dead programs, or the only one."""
    from tracesvc.recorder.boxes import lives

    dead = boxes if boxes == [where] else [path for path in boxes if not lives(path)]
    if not dead:
        living = f": the {len(boxes):,} there are of programs that still run" if boxes else ""
        raise click.ClickException(f"no black box of a dead program in {where}{living}")
    if len(dead) > 1 and not many:
        names = ", ".join(path.name for path in dead[:5])
        raise click.ClickException(
            f"{len(dead):,} black boxes in {where}: name one of them ({names}), or a directory after -o"
        )
    return dead


def _recover(
    path: Path, output: str | None, push: str | None, token: str | None, remove: bool, quiet: bool
) -> dict[str, Any]:
    from tracesvc.format import FormatError
    from tracesvc.model.reader import read
    from tracesvc.recorder.boxes import opened
    from tracesvc.rewrite import last_of_tasks, recover

    with opened(path) as memory:
        data = bytearray()
        with memoryview(memory) as view:
            try:
                done = recover(view, data.extend)
            except FormatError as exc:
                raise click.ClickException(f"{path}: {exc}") from exc
        if output is not None:
            _write(path, output, data)
        if push is not None:
            _push(push, token, data)
        if remove:
            shutil.rmtree(path, ignore_errors=True)
    with read(bytes(data)) as trace:
        last = [task for task in last_of_tasks(trace) if not task.name.startswith(OWN)]
    if not quiet:
        _tell(path, done, last)
    return {
        "box": str(path),
        **{name: getattr(done, name) for name in done.__slots__},
        "tasks": [{name: getattr(task, name) for name in task.__slots__} for task in last],
    }


def _write(path: Path, output: str, data: bytearray) -> None:
    from tracesvc.cli.files import written

    name = str(Path(output) / f"{path.name}.trace") if Path(output).is_dir() else output
    with written(name) as out:
        out(bytes(data))
    if name != "-":
        click.echo(f"{name}: written", err=True)


def _push(url: str, token: str | None, data: bytearray) -> None:
    import trio

    from tracesvc.format import Frame, FrameDecoder
    from tracesvc.sinks.errors import SinkError
    from tracesvc.sinks.push import PushSink
    from tracesvc.sinks.replay import Replay

    decoder = FrameDecoder()
    decoder.feed(data)
    frames = [frame for frame in decoder if isinstance(frame, Frame)]
    try:
        sink = PushSink(url, token)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    try:
        trio.run(sink.run, Replay(frames))
    except SinkError as exc:
        raise click.ClickException(f"the trace was not sent: {exc}") from exc
    click.echo(f"{url}: sent", err=True)


def _tell(path: Path, done: Recovered, last: list[LastOf]) -> None:
    from tracesvc.cli.words import duration

    unread = f", {done.unread:,} of them not read by the program any more" if done.unread else ""
    lost = f"{done.lost:,} lost" if done.lost else "none lost"
    click.echo(f"{done.source.get('name', '?')}, pid {done.pid}", err=True)
    click.echo(f"{done.events:,} events{unread}; {lost} by the crash", err=True)
    for task in last[:TASKS]:
        ago = duration(max(0, done.end - task.time))
        click.echo(f"{task.name} ({task.task})  {task.did}, {ago} before the end", err=True)
        if task.said:
            said = duration(max(0, done.end - task.said_at))
            click.echo(f"    {task.said}, {said} before the end", err=True)
        where = "last seen at" if task.did.startswith("running") else "at"
        for function, file, line in task.stack[:FRAMES]:
            click.echo(f"    {where} {function} ({file}:{line})", err=True)
            where = "at"
    if len(last) > TASKS:
        click.echo(f"and {len(last) - TASKS:,} more tasks", err=True)


def _list(where: Path, boxes: list[Path], as_json: bool) -> None:
    from tracesvc.cli.words import moment
    from tracesvc.recorder.boxes import FILE, lives

    rows = []
    for path in boxes:
        status = (path / FILE).stat()
        rows.append((path, "lives" if lives(path) else "dead", status.st_mtime_ns))
    if as_json:
        import json

        listed = [{"box": str(path), "program": state, "time": at} for path, state, at in rows]
        click.echo(json.dumps(listed, indent=2))
        return
    if not rows:
        click.echo(f"no black boxes in {where}")
    for path, state, at in rows:
        click.echo(f"{path}  {state}  {moment(at)}")
