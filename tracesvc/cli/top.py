"""``tracesvc top``: what the tasks of a program do, live."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from tracesvc.cli.attach import attached, tracer_options
from tracesvc.cli.words import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tracesvc.analysis.live import LiveRow, LiveTasks, View

__all__ = ["command"]

LATE: Final = 1.5
"""seconds that events take at most to come here, about: a buffer is handed over when it is full or a second old"""
ORDERS: Final[dict[str, Callable[[LiveRow], Any]]] = {
    "running": lambda row: (-row.running, -row.wakes, row.task),
    "wakes": lambda row: (-row.wakes, row.task),
    "longest": lambda row: (-row.longest, row.task),
    "age": lambda row: (-row.age, row.task),
    "name": lambda row: (row.name, row.task),
    "task": lambda row: row.task,
}
KEYS: Final = "q quit  s sort  r reverse  / filter  space pause"


@click.command(name="top", short_help="The tasks of a program or a session, live.")
@click.argument("source", metavar="PID|URL[/SESSION]")
@click.option(
    "--sort",
    type=click.Choice(list(ORDERS)),
    default="running",
    show_default=True,
    help="The first of what.",
)
@click.option("--filter", "pattern", default="", help="Only tasks with this in name or reason.")
@click.option(
    "-d",
    "--delay",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("-n", "--count", type=click.IntRange(min=1), help="Look so often, then end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per look.")
@tracer_options
def command(
    source: str,
    sort: str,
    pattern: str,
    delay: float,
    count: int | None,
    as_json: bool,
    knock: str,
    stall: float | None,
    stacks: str | None,
) -> None:
    """Show the tasks of process PID, or of a session of the service at URL: state, blocked on what, running, wakes.

    On a terminal: q ends it, s chooses what to sort by, r reverses, / filters, space holds it.
    """
    from tracesvc.analysis.live import LiveTasks

    with contextlib.ExitStack() as stack:
        pieces = _pieces(stack, source, stacks, stall, knock)
        screen = _Screen(sort, pattern)
        live = LiveTasks()
        feeder = _Feeder(pieces, live)
        feeder.start()
        if as_json or not sys.stdout.isatty():
            _print_looks(feeder, screen, delay, count, as_json=as_json)
        else:
            _show(feeder, screen, delay, count)
        failure = feeder.failure  # before we hang up: that is none
    if failure is not None:
        raise failure


def _pieces(
    stack: contextlib.ExitStack, source: str, stacks: str | None, stall: float | None, knock: str
) -> Iterator[bytes]:
    from tracesvc.cli.remote import Service, is_url, split

    if source.isdigit():
        trace = stack.enter_context(attached(int(source), None, stacks or "off", stall, knock))
        return iter(trace)
    if not is_url(source):
        raise click.UsageError(f"{source} is neither a PID nor the URL of a service")
    url, session = split(source)
    service = Service(url)
    return service.follow(service.choose(session), lambda: False)


class _Feeder:
    """Reads in a thread, so that keys are answered at once; what it read is decoded where it is looked at."""

    def __init__(self, pieces: Iterator[bytes], live: LiveTasks) -> None:
        self._pieces = pieces
        self._live = live
        self._queue: queue.Queue[bytes | None] = queue.Queue(maxsize=256)
        self._came = time.monotonic()
        self.over = False
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._read, name="tracesvc top", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _read(self) -> None:
        try:
            for piece in self._pieces:
                if piece:
                    self._queue.put(piece)
        except Exception as exc:
            self.failure = exc
        self._queue.put(None)

    def look(self) -> View:
        """The tasks now."""
        with contextlib.suppress(queue.Empty):
            while (piece := self._queue.get_nowait()) is not None:
                self._live.feed(piece)
                self._came = time.monotonic()
            self.over = True
        quiet = 0.0 if self.over else max(0.0, time.monotonic() - self._came - LATE)
        return self._live.look(int(quiet * 1e9))


def _print_looks(
    feeder: _Feeder, screen: _Screen, delay: float, count: int | None, *, as_json: bool
) -> None:
    from tracesvc.cli.tables import make_console

    console = make_console()
    looks = 0
    while count is None or looks < count:
        time.sleep(delay)
        view = feeder.look()
        if as_json:
            print(json.dumps(view.as_dict()), flush=True)
        else:
            for line in screen.lines(view, console.width, None):
                console.print(line)
        looks += 1
        if feeder.over:
            return


def _show(feeder: _Feeder, screen: _Screen, delay: float, count: int | None) -> None:
    from rich.console import Group
    from rich.live import Live

    from tracesvc.cli.tables import make_console

    console = make_console()
    looks = 0
    with _keyboard() as key, Live(console=console, screen=True, auto_refresh=False) as shown:
        view = feeder.look()
        due = time.monotonic() + min(delay, 0.3)
        while True:
            shown.update(
                Group(*screen.lines(view, console.width, console.height, over=feeder.over)),
                refresh=True,
            )
            pressed = key(max(0.0, due - time.monotonic()))
            if pressed and not screen.press(pressed):
                return
            if time.monotonic() >= due:
                due = time.monotonic() + delay
                if not screen.held:
                    view = feeder.look()
                looks += 1
                if looks == count:
                    return


@contextlib.contextmanager
def _keyboard() -> Iterator[Callable[[float], str]]:
    """A function that waits so many seconds for keys; without a terminal to read from, it only waits."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def wait(seconds: float) -> str:
        if select.select([number], [], [], seconds)[0]:
            return os.read(number, 64).decode(errors="replace") or "q"
        return ""

    try:
        tty.setcbreak(number)
        yield wait
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


class _Screen:
    """What is shown, and in what order."""

    def __init__(self, order: str, pattern: str) -> None:
        self.held = False
        self._order, self._reverse = order, False
        self._pattern, self._typing = pattern, False

    def press(self, keys: str) -> bool:
        """What a key does; False: it ends."""
        for key in keys:
            if self._typing:
                self._type(key)
            elif key in "q\x04":
                return False
            elif key == "s":
                names = list(ORDERS)
                self._order = names[(names.index(self._order) + 1) % len(names)]
            elif key == "r":
                self._reverse = not self._reverse
            elif key == "/":
                self._typing, self._pattern = True, ""
            elif key == " ":
                self.held = not self.held
        return True

    def _type(self, key: str) -> None:
        if key in "\r\n":
            self._typing = False
        elif key == "\x1b":
            self._typing, self._pattern = False, ""
        elif key in "\x7f\b":
            self._pattern = self._pattern[:-1]
        elif key.isprintable():
            self._pattern += key

    def lines(
        self, view: View, width: int, height: int | None, *, over: bool = False
    ) -> list[RenderableType]:
        """The screen."""
        from rich.text import Text

        rows = sorted(view.rows, key=ORDERS[self._order], reverse=self._reverse)
        wanted = self._pattern.lower()
        rows = [
            row
            for row in rows
            if wanted in row.name.lower() or wanted in row.reason or wanted in row.state
        ]
        head: list[RenderableType] = [
            Text(self._summary(view, over), style="bold", no_wrap=True, overflow="ellipsis"),
            Text(self._states(view), no_wrap=True, overflow="ellipsis"),
        ]
        if view.steps:
            steps = ", ".join(
                f"{duration(took)} {_short(name)}" for took, name, _ in view.steps[:3]
            )
            head.append(Text(f"longest steps: {steps}", no_wrap=True, overflow="ellipsis"))
        room = len(rows) if height is None else max(1, height - len(head) - 3)
        foot = Text(self._foot(len(rows), room), style="dim", no_wrap=True, overflow="ellipsis")
        return [*head, _table(rows[:room], width), foot]

    def _summary(self, view: View, over: bool) -> str:
        parts = [
            f"{view.source or '?'}: {len(view.rows):,} tasks",
            f"busy {view.busy:.0%}",
            f"{view.events:,.0f} events/s",
            f"{view.lost:,} lost" if view.lost else "none lost",
        ]
        if over:
            parts.append("the trace has ended")
        elif self.held:
            parts.append("held")
        return ", ".join(parts)

    def _states(self, view: View) -> str:
        counts: dict[str, int] = {}
        for row in view.rows:
            what = row.reason.replace("_", " ") or row.state
            counts[what] = counts.get(what, 0) + 1
        return ", ".join(
            f"{count:,} {what}" for what, count in sorted(counts.items(), key=lambda c: -c[1])
        )

    def _foot(self, rows: int, room: int) -> str:
        if self._typing:
            return f"/{self._pattern}"
        said = f"by {self._order}{', reversed' if self._reverse else ''}"
        if self._pattern:
            said += f", only {self._pattern!r}"
        if rows > room:
            said += f", {rows - room:,} more"
        return f"{said}   {KEYS}"


def _table(rows: list[LiveRow], width: int) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), expand=True)
    table.add_column("task", no_wrap=True, overflow="ellipsis", ratio=3, min_width=12)
    table.add_column("state, for", no_wrap=True, overflow="ellipsis", ratio=3, min_width=16)
    table.add_column("run%", justify="right", no_wrap=True, width=5)
    table.add_column("wakes/s", justify="right", no_wrap=True, width=7)
    table.add_column("longest", justify="right", no_wrap=True, width=8)
    wide = width >= 120
    if wide:
        table.add_column("where", no_wrap=True, overflow="ellipsis", ratio=3)
    for row in rows:
        state = row.reason.replace("_", " ") or row.state
        if row.object:
            state += f" {row.object}"
        cells = [
            f"{_short(row.name)} ({row.task})",
            f"{state}, {duration(row.age)}",
            f"{row.running:.1%}" if row.running < 0.995 else "100%",
            f"{row.wakes:,.1f}" if row.wakes < 1000 else f"{row.wakes:,.0f}",
            duration(row.longest) if row.longest else "",
        ]
        if wide:
            cells.append(row.place)
        table.add_row(*map(Text, cells), style=_STYLES.get(row.state))
    return table


_STYLES: Final = {"running": "bold green", "runnable": "yellow", "unknown": "red"}


def _short(name: str) -> str:
    """A function's name without its module, which is the part that one can do without in 80 columns."""
    head, dot, tail = name.rpartition(".")
    return tail if dot and head and " " not in name else name
