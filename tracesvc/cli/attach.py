"""``tracesvc attach``: trace a program that runs already."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from tracesvc.cli.endmark import EndMark
from tracesvc.cli.words import size

if TYPE_CHECKING:
    from tracesvc.control.attach import Attached

__all__ = ["attached", "command", "tracer_options"]


def tracer_options(function: Any) -> Any:
    """Options of the tracer that it is started with, where none runs yet."""
    for option in (
        click.option(
            "--signal",
            "knock",
            default="SIGURG",
            show_default=True,
            help="What the program's install() was told to listen for.",
        ),
        click.option("--stall", type=float, metavar="S", help="Seconds that make a step a stall."),
        click.option(
            "--stacks",
            type=click.Choice(["slow", "all", "off"]),
            help="Of which waits to record where the task is suspended.",
        ),
    ):
        function = option(function)
    return function


def attached(
    pid: int, seconds: float | None, stacks: str | None, stall: float | None, knock: str
) -> Attached:
    """A trace of process ``pid`` that has begun."""
    from tracesvc.control.attach import attach
    from tracesvc.control.errors import ControlError

    try:
        number = signal.Signals[knock.upper()]
    except KeyError:
        raise click.UsageError(f"there is no signal {knock}") from None
    options = {"stacks": stacks, "stall_s": stall}
    try:
        return attach(
            pid,
            seconds=seconds,
            options={name: value for name, value in options.items() if value is not None},
            signal=number,
        )
    except ControlError as exc:
        raise click.ClickException(str(exc)) from None


@click.command(name="attach", short_help="Trace a program that runs already.")
@click.argument("pid", type=click.IntRange(min=1))
@click.option("-s", "--seconds", type=click.FloatRange(min=0, min_open=True), help="For how long.")
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False), help="Write the trace here."
)
@tracer_options
def command(
    pid: int,
    seconds: float | None,
    output: str,
    knock: str,
    stall: float | None,
    stacks: str | None,
) -> None:
    """Trace process PID into a file, for some seconds or until Ctrl-C.

    The program must have called tracesvc.install(), or have TRACESVC=attach in its environment; from CPython 3.14 on it
    need not.  Where it traces itself already, its session is joined.  Only the same user may attach.
    """
    from tracesvc.cli.progress import advancing

    with (
        attached(pid, seconds, stacks, stall, knock) as trace,
        open(output, "wb", buffering=0) as file,  # noqa: PTH123  /dev/stdout is a path too
        advancing(f"tracing {pid}", seconds or float("inf")) as bar,
    ):
        ended = EndMark()
        last = time.monotonic()
        for piece in _until_interrupted(trace):
            try:
                file.write(piece)
            except OSError as exc:
                raise click.ClickException(f"{output}: {exc.strerror}") from None
            ended.look(piece)
            now = time.monotonic()
            bar(now - last)
            last = now
    if not ended.seen:
        raise click.ClickException(
            f"process {pid} was gone before the trace ended; {output} has what came until then"
        )
    click.echo(f"{trace.program['name']}: {size(ended.bytes)} in {output}", err=True)


def _until_interrupted(trace: Attached) -> Iterator[bytes]:
    """The trace; the first Ctrl-C has it end in order, the second one at once."""
    pieces = iter(trace)
    before = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: object) -> None:
        trace.stop()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield from pieces
    finally:
        signal.signal(signal.SIGINT, before)
