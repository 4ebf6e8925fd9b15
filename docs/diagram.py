"""The table of states as a picture; ``docs/generate.py`` writes it."""

from __future__ import annotations

import math
from typing import Final
from xml.sax.saxutils import escape

from tracesvc.model.states import TABLE, State

__all__ = ["draw"]

PLACES: Final = {
    State.ABSENT: (24, 150),
    State.NEW: (210, 150),
    State.RUNNING: (460, 150),
    State.RUNNABLE: (460, 40),
    State.WAITING: (460, 280),
    State.DEAD: (690, 150),
}
"""middles, in px; only where they stand is said here, what connects them comes from the table"""
BENDS: Final = {(State.WAITING, State.RUNNABLE): 190}
"""moves whose straight way is blocked: px to the side"""
LABELS: Final = {(State.RUNNING, State.DEAD): 0.68}
"""where on its way the event of a move stands, if not in the middle"""
SIZE: Final = (740, 320)
BOX: Final = (104, 34)
APART: Final = 74
"""px between two moves in opposite directions"""
STYLE: Final = (
    "text{font:12px 'DejaVu Sans',Verdana,Arial,sans-serif;text-anchor:middle;fill:#1a1a1a}"
    ".event{font-size:11px;fill:#0072b2}"
    "path{fill:none;stroke:#555}rect{fill:#f4f4f4;stroke:#555}"
)


def draw() -> str:
    """An SVG: a box per state, an arrow per move."""
    width, height = SIZE
    moves = [(a, b, event) for a, row in TABLE.items() for event, b in row.items()]
    pairs = {(a, b) for a, b, _ in moves}
    arrows = [_arrow(a, b, event, both=(b, a) in pairs) for a, b, event in moves]
    size = f'width="{width}" height="{height}"'
    head = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" style="fill:#555"/></marker></defs>'
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {height}">',
            f"<style>{STYLE}</style>",
            head,
            '<rect width="100%" height="100%" style="fill:#ffffff;stroke:none"/>',
            *(line for line, _ in arrows),
            *(_box(state) for state in TABLE),
            *(text for _, text in arrows),
            "</svg>",
            "",
        ]
    )


def _box(state: State) -> str:
    x, y = PLACES[state]
    if state is State.ABSENT:
        return f'<circle cx="{x}" cy="{y}" r="8" fill="#555"/>'
    if state is State.DEAD:
        return (
            f'<circle cx="{x}" cy="{y}" r="11" fill="#fff" stroke="#555"/>'
            f'<circle cx="{x}" cy="{y}" r="7" fill="#555"/>'
        )
    width, height = BOX
    box = f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width}" height="{height}" rx="6"/>'
    return f'{box}<text x="{x}" y="{y + 4}">{state.name}</text>'


def _arrow(a: State, b: State, event: str, *, both: bool) -> tuple[str, str]:
    (x1, y1), (x2, y2) = PLACES[a], PLACES[b]
    length = math.hypot(x2 - x1, y2 - y1)
    side = (-(y2 - y1) / length, (x2 - x1) / length)
    bend = BENDS.get((a, b), 0)
    shift = APART / 2 if both else 0
    x1, x2 = x1 - side[0] * shift, x2 - side[0] * shift
    y1, y2 = y1 - side[1] * shift, y2 - side[1] * shift
    if bend:
        middle = (x1 + x2) / 2 + bend, (y1 + y2) / 2
        start, end = _edge(a, (x1, y1), middle), _edge(b, (x2, y2), middle)
        path = f"M{start[0]:.4g} {start[1]:.4g}Q{middle[0]:.4g} {middle[1]:.4g} {end[0]:.4g} {end[1]:.4g}"
        at = (x1 + x2) / 4 + middle[0] / 2, (y1 + y2) / 4 + middle[1] / 2 + 42
    else:
        start, end = _edge(a, (x1, y1), (x2, y2)), _edge(b, (x2, y2), (x1, y1))
        path = f"M{start[0]:.4g} {start[1]:.4g}L{end[0]:.4g} {end[1]:.4g}"
        share = LABELS.get((a, b), 0.5)
        at = start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share
    room = 6.6 * len(event) + 6
    behind = (
        f'<rect x="{at[0] - room / 2:.4g}" y="{at[1] - 8:.4g}" width="{room:.4g}" height="16" '
        'style="fill:#fff;stroke:none"/>'
    )
    text = f'<text class="event" x="{at[0]:.4g}" y="{at[1] + 4:.4g}">{escape(event)}</text>'
    return f'<path d="{path}" marker-end="url(#tip)"/>', behind + text


def _edge(
    state: State, start: tuple[float, float], towards: tuple[float, float]
) -> tuple[float, float]:
    """Where a line from ``start``, within the figure of a state, leaves that figure."""
    x, y = PLACES[state]
    dx, dy = towards[0] - start[0], towards[1] - start[1]
    if state in (State.ABSENT, State.DEAD):
        length = math.hypot(dx, dy)
        return start[0] + dx / length * 12, start[1] + dy / length * 12
    width, height = BOX[0] / 2, BOX[1] / 2
    steps = [
        (limit - where) / d
        for d, where, low, high in (
            (dx, start[0], x - width, x + width),
            (dy, start[1], y - height, y + height),
        )
        if d
        for limit in (high if d > 0 else low,)
    ]
    share = min(steps)
    return start[0] + dx * share, start[1] + dy * share
