"""`plot`: a trace as a picture in a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracesvc.model.reader import Trace
from tracesvc.model.words import clock, duration, moment
from tracesvc.plot.svg import FONTS, draw
from tracesvc.plot.timeline import COLUMNS, ROWS, Timeline, timeline

__all__ = ["SUFFIXES", "Plot", "has_font", "plot", "render"]

SUFFIXES: Final = (".svg", ".png")
ZOOM: Final = 2
"""px of a PNG for each of the SVG's: what screens show today"""


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture."""

    timeline: Timeline
    """what is in it"""
    svg: str

    def png(self, zoom: float = ZOOM) -> bytes:
        """Rendered by resvg.

        Raises:
          ImportError: resvg-py is not installed.
        """
        return render(self.svg, zoom)


def plot(
    trace: Trace,
    out: str | os.PathLike[str] | None = None,
    start: int | None = None,
    end: int | None = None,
    *,
    columns: int = COLUMNS,
    rows: int = ROWS,
    own: bool = False,
) -> Plot:
    """Draw a timeline of the tasks: a row each, coloured by what they were in; where events are missing, it is hatched.

    Args:
        trace: From `tracesvc.read`, of something that can seek; it is read from the front, twice.
        out: Where to write it: a name that ends in ``.svg`` or ``.png``.
        start: ns by the clock of the trace; None: its beginning.
        end: ns; None: its end.
        columns: How wide the timeline is, in px of the SVG.
        rows: How many rows there are, about; where there are more tasks, those of a name share one.
        own: Whether the tracer's own tasks are in it.

    Raises:
        ValueError: ``end`` is not after ``start``, or the name ends in something else.
        ImportError: It is to be a PNG, and resvg-py is not installed.
        FormatError: It is not a trace.
        OSError: Something cannot be read or written.
    """
    path = None if out is None else Path(out)
    if path is not None and path.suffix not in SUFFIXES:
        raise ValueError(f"out must end in {' or '.join(SUFFIXES)}, not {path.suffix!r}")
    found = timeline(trace, start, end, columns=columns, rows=rows, own=own)
    drawn = Plot(found, draw(found, _head(trace, found), _foot(trace, found)))
    if path is not None:
        data = drawn.png() if path.suffix == ".png" else drawn.svg.encode()
        path.write_bytes(data)
    return drawn


def _head(trace: Trace, found: Timeline) -> str:
    session = trace.session
    name = "" if session is None else str(session.source.get("name") or "")
    tasks = f"{found.tasks:,} task{'' if found.tasks == 1 else 's'}"
    return ", ".join(part for part in (name, tasks, duration(found.end - found.start)) if part)


def _foot(trace: Trace, found: Timeline) -> list[str]:
    session = trace.session
    wall = None if session is None else session.wall(found.start)
    said = [f"0 is {moment(wall)[:10]} {clock(wall)}"] if wall is not None else []
    if session is not None:
        said.append(f"session {session.id}")
    said.append(
        "a column shows how much of its time went to what; a step is visible however short it was"
    )
    missing = [
        text
        for count, text in (
            (found.lost, f"{found.lost:,} events of the trace are missing"),
            (found.damaged, f"{found.damaged:,} bytes of the trace are damaged"),
        )
        if count
    ]
    lines = ["; ".join(said)]
    return [*lines, ", ".join(missing)] if missing else lines


def render(svg: str, zoom: float = ZOOM) -> bytes:
    """An SVG as PNG.

    Raises:
      ImportError: resvg-py is not installed.
    """
    try:
        import resvg_py
    except ImportError as exc:
        raise ImportError("a PNG is rendered by resvg: pip install 'tracesvc[plot]'") from exc
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=zoom))


def has_font() -> bool:
    """Whether this machine has a font, without which a PNG has no text.

    Raises:
      ImportError: resvg-py is not installed.
    """
    empty = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">{}</svg>'
    text = f'<text y="15" font-family="{FONTS}">x</text>'
    return render(empty.format(text)) != render(empty.format(""))
