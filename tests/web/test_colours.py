"""Colours that people tell apart, whatever they see: distances between the states of the palette, as figures."""

import itertools
import re
from pathlib import Path

import pytest

import tracesvc
from tests.web.colours import VISIONS, distance, lab, linear

STYLE = (Path(tracesvc.__file__).parent / "web" / "style.css").read_text()
STATES = [
    *("running", "ready", "unsure", "r-sleep", "r-channel", "r-lock"),
    *("r-event", "r-nursery", "r-io", "r-thread", "r-other"),
]
APART = 10.0
"""CIEDE2000 between any two states, at least, whoever looks; states differ in height, too"""
SEEN = 3.0
"""contrast of a state with what it is drawn on, at least (WCAG 2.2, 1.4.11)"""
FAINT = {"r-sleep": 1.7, "r-nursery": 1.3}
"""waits that mean nothing is wrong, and are not to draw the eye"""


def themes():
    """The colours of the light theme, and of the dark one in its two places."""
    blocks = re.findall(r"{([^{}]*--running:[^{}]*)}", STYLE)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks]


def contrast(one, other):
    low, high = sorted(float(linear(c) @ (0.2126, 0.7152, 0.0722)) for c in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    "one, other, wanted",
    [  # of Sharma, Wu and Dalal, table 1
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1, 2), (50, 0, 0), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((50, 2.5, 0), (61, -5, 29), 22.8977),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
    ids=range(7),
)
def test_the_formula_is_that_of_the_literature(one, other, wanted):
    assert distance(one, other) == pytest.approx(wanted, abs=5e-5)


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_states_are_told_apart(theme, vision):
    colours = {name: lab(themes()[theme][name], vision) for name in STATES}
    near = {
        pair: round(distance(colours[pair[0]], colours[pair[1]]), 1)
        for pair in itertools.combinations(STATES, 2)
    }
    assert {pair: d for pair, d in near.items() if d < APART} == {}


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_states_are_seen(theme):
    colours = themes()[theme]
    seen = {name: round(contrast(colours[name], colours["surface"]), 2) for name in STATES}
    assert {name: c for name, c in seen.items() if c < FAINT.get(name, SEEN)} == {}
    for name in ("running", "ready"):
        assert contrast(colours[name], colours[f"on-{name}"]) >= 4.5


def test_the_dark_theme_is_one():
    _, chosen_by_the_system, chosen_by_hand = themes()
    assert chosen_by_the_system == chosen_by_hand
