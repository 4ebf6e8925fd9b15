"""`draw`: a timeline as SVG."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, TypeAlias
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import LossCause
from tracesvc.model.words import duration
from tracesvc.plot.kinds import Kind
from tracesvc.plot.timeline import Row, Run, Timeline

__all__ = ["FONTS", "draw"]

Integers: TypeAlias = NDArray[np.int64]

# px
LEFT: Final = 250
"""for the names of the rows"""
RIGHT: Final = 20
LINE: Final = 18
ROW: Final = 18
"""of a row whose tasks come one after the other"""
LOW: Final = 13
"""the same where there are many"""
CROWD: Final = 60
LOOP: Final = 10
SPACE: Final = 3
LEAST: Final = 1.5
"""how high a step, or time in the run queue, is at least, however short it was"""

FONTS: Final = (
    "'DejaVu Sans',Verdana,'Liberation Sans','Noto Sans','Helvetica Neue',Helvetica,Arial,"
    "'Segoe UI',Roboto,Ubuntu,Cantarell,sans-serif"
)
"""by name: what renders a PNG takes none in place of one that is not there"""
NARROW: Final = frozenset("fijlrtI.,:;!'|()[]{} -")
FAINT: Final = "#666666"
_STYLE: Final = (
    f"text{{font:11px {FONTS};fill:#1a1a1a}}"
    ".head{font-size:14px;font-weight:bold}"
    f".faint{{fill:{FAINT}}}"
    ".end{text-anchor:end}"
    ".middle{text-anchor:middle}"
    "path,rect{shape-rendering:crispEdges}"
    ".wake{shape-rendering:auto}"
)
_HATCHED: Final = (
    '<defs><pattern id="lost" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" fill="#ffffff"/>'
    '<rect width="2" height="6" fill="#7a7a7a"/></pattern></defs>'
)
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def draw(timeline: Timeline, head: str, foot: Sequence[str] = ()) -> str:
    """The picture.

    Args:
        timeline: What to draw; a column becomes one px.
        head: The line above it.
        foot: Lines below it.
    """
    columns = len(timeline.edges) - 1
    width = LEFT + columns + RIGHT
    y = 24
    body = [_text(12, y, head, "head")]
    y += 14
    for line in _legend(timeline, width - RIGHT):
        body.append("".join(f'<g transform="translate({x} {y + 10})">{box}</g>' for x, box in line))
        y += LINE
    y += 16
    top = y
    rows = sum(len(run.rows) for run in timeline.runs)
    height = ROW if rows <= 20 else LOW
    drawn: list[str] = []
    for run in timeline.runs:
        said, y = _run(run, timeline, y, height)
        drawn += said
    body += _axis(timeline, top, y, columns)
    body += drawn
    if not timeline.runs:
        body.append(_text(LEFT, y + LINE, "no task lived then", "faint"))
        y += LINE
    y += 8
    for text in foot:
        y += LINE
        body.append(_text(12, y, text, "faint"))
    y += 14
    size = f'width="{width}" height="{y}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {y}">',
            f"<style>{_STYLE}</style>",
            _HATCHED,
            f'<rect {size} fill="#ffffff"/>',
            *body,
            "</svg>",
            "",
        ]
    )


# --- rows ------------------------------------------------------------------------------------------


def _run(run: Run, timeline: Timeline, y: int, height: int) -> tuple[list[str], int]:
    """A run's rows below ``y``, and where they end."""
    out: list[str] = []
    said = f"run {run.proc} {run.name}".strip()
    y += 6
    out.append(_text(12, y + LOOP, said, "faint"))
    out += _loop(run, timeline, y)
    y += LOOP + 5
    top, middles = y, []
    before = ""
    for row in run.rows:
        high = CROWD if row.crowd else height
        middles.append(y + high / 2)
        again = row.tasks.name == before and bool(before)
        before = row.tasks.name
        if not again:
            out.append(_text(LEFT - 8, y + high / 2 + 4, _label(row, run), "end"))
        if row.crowd:
            most = f"at most {row.tasks.most:,} at once"
            out.append(_text(LEFT - 8, y + high / 2 + 18, most, "end faint"))
        out += _row(row, timeline, y, high)
        y += high + SPACE
    out += _losses(run, timeline, top, y - SPACE)
    for wake in run.wakes:
        x = LEFT + _x(timeline, wake.time)
        a, b = middles[wake.waker], middles[wake.woken]
        tip = 4 if b > a else -4
        out.append(
            f'<path class="wake" d="M{x:g} {a:g}V{b:g}m-2.5 {-tip}l2.5 {tip}l2.5 {-tip}" '
            'fill="none" stroke="#ffffff" stroke-width="2.5"/>'
            f'<path class="wake" d="M{x:g} {a:g}V{b:g}m-2.5 {-tip}l2.5 {tip}l2.5 {-tip}" '
            'fill="none" stroke="#0072b2"/>'
        )
    return out, y


def _loop(run: Run, timeline: Timeline, y: int) -> list[str]:
    """How much of the time the run loop did not wait for I/O."""
    whole = np.diff(timeline.edges)
    alive = sum((row.time.sum(axis=1) for row in run.rows), np.zeros(len(whole), np.int64)) > 0
    busy = np.where(alive, 1 - np.minimum(run.idle / np.maximum(whole, 1), 1), 0)
    heights = np.round(busy * LOOP * 2) / 2
    path = "".join(
        f"M{LEFT + a} {y + LOOP - high:g}h{b - a}v{high:g}h{a - b}z"
        for a, b, high in _stretches(heights)
        if high
    )
    title = f"<title>run loop: busy {busy[alive].mean() if alive.any() else 0:.1%}</title>"
    lines = [
        f'<rect x="{LEFT}" y="{y}" width="{len(whole)}" height="{LOOP}" fill="#f2f2f2"/>',
        f'<path d="{path}" fill="{FAINT}">{title}</path>' if path else "",
    ]
    return [line for line in lines if line]


def _row(row: Row, timeline: Timeline, y: int, high: int) -> list[str]:
    """Its kinds one upon the other, each as high as its share."""
    whole = np.maximum(np.diff(timeline.edges), 1)
    scale = high / row.tasks.most
    heights = row.time / whole[:, None] * scale
    for kind in (Kind.RUNNABLE, Kind.RUNNING):
        heights[:, kind] = np.where(
            row.time[:, kind] > 0, np.maximum(heights[:, kind], LEAST), heights[:, kind]
        )
    over = heights.sum(axis=1)
    full = np.maximum(row.time.sum(axis=1) / whole * scale, np.minimum(over, LEAST))
    _take(heights, over - np.maximum(full, LEAST))
    tops = np.round(np.cumsum(heights, axis=1) * 2) / 2
    bottoms = np.hstack((np.zeros((len(tops), 1)), tops[:, :-1]))
    out = []
    for kind in Kind:
        path = "".join(
            f"M{LEFT + a} {y + high - top:g}h{b - a}v{top - bottom:g}h{a - b}z"
            for a, b, top, bottom in _bands(tops[:, kind], bottoms[:, kind])
        )
        if path:
            fill = "url(#lost)" if kind is Kind.UNKNOWN else kind.colour
            out.append(f'<path d="{path}" fill="{fill}"/>')
    return [f"<g><title>{_escape(_title(row))}</title>", *out, "</g>"] if out else []


def _take(heights: NDArray[np.float64], excess: NDArray[np.float64]) -> None:
    """Make room for what is shown higher than it is, at the cost of the highest kind of the column."""
    rows = np.flatnonzero(excess > 0)
    highest = np.argmax(heights[rows], axis=1)
    heights[rows, highest] = np.maximum(heights[rows, highest] - excess[rows], 0)


def _losses(run: Run, timeline: Timeline, top: int, bottom: int) -> Iterator[str]:
    for loss in run.losses:
        a = LEFT + _x(timeline, max(loss.start, timeline.start))
        b = LEFT + _x(timeline, min(loss.end, timeline.end))
        cause = next((c.name.lower() for c in LossCause if c == loss.cause), str(loss.cause))
        said = f"{loss.last - loss.first + 1:,} events lost: {cause.replace('_', ' ')}"
        wide = max(b - a, 2)
        yield (
            f'<rect x="{a:g}" y="{top}" width="{wide:g}" height="{bottom - top}" '
            f'fill="url(#lost)"><title>{said}</title></rect>'
        )
        if wide > _width(said) + 20:
            middle, room = (a + b) / 2, _width(said) + 8
            yield (
                f'<rect x="{middle - room / 2:g}" y="{top + 2}" width="{room:g}" height="15" '
                'fill="#ffffff"/>'
            )
            yield _text(middle, top + 13, said, "middle")


def _label(row: Row, run: Run) -> str:
    tasks = row.tasks
    if not tasks.name:
        return f"{len(tasks.tasks):,} tasks of {tasks.names:,} names"
    same = sum(len(other.tasks.tasks) for other in run.rows if other.tasks.name == tasks.name)
    more = f" ({tasks.tasks[0]})" if same == 1 else f" ×{same:,}"
    return _short(tasks.name, LEFT - 20 - _width(more)) + more


def _title(row: Row) -> str:
    """What a pointer on the row is told."""
    tasks = row.tasks
    count = len(tasks.tasks)
    who = tasks.name or f"{tasks.names:,} names"
    number = f"task {tasks.tasks[0]}" if count == 1 else f"{count:,} tasks"
    if row.crowd:
        number += f", at most {tasks.most:,} at once"
    spent = row.time.sum(axis=0)
    parts = [f"{kind.text}: {duration(int(spent[kind]))}" for kind in Kind if spent[kind]]
    return "\n".join([f"{who} ({number})", *parts])


# --- around them ------------------------------------------------------------------------------------


def _legend(timeline: Timeline, right: int) -> list[list[tuple[int, str]]]:
    """Lines of (x, what): a box and its meaning each; only what is there."""
    spent = sum(
        (row.time.sum(axis=0) for run in timeline.runs for row in run.rows),
        np.zeros(len(Kind), np.int64),
    )
    lost = any(run.losses for run in timeline.runs)
    lines: list[list[tuple[int, str]]] = [[]]
    x = 12
    for kind in Kind:
        if not spent[kind] and not (kind is Kind.UNKNOWN and lost):
            continue
        wide = 32 + round(_width(kind.text))
        if x + wide > right:
            lines.append([])
            x = 12
        fill = "url(#lost)" if kind is Kind.UNKNOWN else kind.colour
        box = (
            f'<rect y="-9" width="11" height="11" fill="{fill}" stroke="#999999" '
            f'stroke-width="0.5"/><text x="16">{kind.text}</text>'
        )
        lines[-1].append((x, box))
        x += wide
    return lines


def _axis(timeline: Timeline, top: int, bottom: int, columns: int) -> list[str]:
    """Lines at round times after the beginning."""
    length = timeline.end - timeline.start
    step = _round_step(length * 90 // max(columns, 1))
    out = []
    for after in range(0, length + 1, step):
        x = LEFT + after * columns / length
        out.append(
            f'<rect x="{x:g}" y="{top - 2}" width="1" height="{bottom - top + 2}" fill="#e8e8e8"/>'
        )
        if x < LEFT + columns - 20 or after + step > length:
            said = "0" if not after else _plain(after)
            out.append(_text(x, top - 6, said, "middle faint"))
    return out


def _round_step(least: int) -> int:
    """The next 1, 2 or 5 times a power of ten; of minutes and hours from a minute on."""
    minute = 60 * 10**9
    for step in (minute, 2 * minute, 5 * minute, 10 * minute, 30 * minute, 60 * minute):
        if least > minute / 2 and step >= least:
            return step
    power = 1
    while power * 10 <= least:
        power *= 10
    return next(power * n for n in (1, 2, 5, 10) if power * n >= least)


def _plain(ns: int) -> str:
    """A round time: ``250 ms``."""
    if ns >= 60 * 10**9:
        return duration(ns)
    for unit, factor in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if ns >= factor:
            return f"{ns / factor:g} {unit}"
    return f"{ns} ns"


# --- small things -----------------------------------------------------------------------------------


def _x(timeline: Timeline, time: int) -> float:
    columns = len(timeline.edges) - 1
    return round((time - timeline.start) * columns / (timeline.end - timeline.start), 1)


def _stretches(values: NDArray[Any]) -> Iterator[tuple[int, int, float]]:
    """(first, behind the last, value) of columns in a row that have the same value."""
    for a, b, value, _ in _bands(values, np.zeros_like(values)):
        yield a, b, value


def _bands(
    tops: NDArray[np.float64], bottoms: NDArray[np.float64]
) -> Iterator[tuple[int, int, float, float]]:
    """(first, behind the last, top, bottom) of columns in a row that are alike, and not empty."""
    if not len(tops):
        return
    new = np.flatnonzero((np.diff(tops) != 0) | (np.diff(bottoms) != 0)) + 1
    bounds = [0, *new.tolist(), len(tops)]
    for a, b in pairwise(bounds):
        if tops[a] > bottoms[a]:
            yield a, b, float(tops[a]), float(bottoms[a])


def _width(text: str) -> float:
    """px, about: nobody here knows the font."""
    return sum(4.2 if c in NARROW else 7.1 if c < "\u2000" else 12 for c in text)


def _short(name: str, room: float) -> str:
    """The end of a name that is too long: that is where names differ."""
    name = name.replace(".<locals>", "")
    if _width(name) <= room:
        return name
    room -= _width("…")
    kept = len(name)
    while kept and _width(name[-kept:]) > room:
        kept -= 1
    return "…" + name[len(name) - kept :]


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}"{style}>{_escape(text)}</text>'


def _escape(text: str) -> str:
    return escape(_NO_XML.sub("\ufffd", text))
