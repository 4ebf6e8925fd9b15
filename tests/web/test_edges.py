"""Traces that are odd in some way: all draw, none breaks the page, nothing in them is ever interpreted."""

import numpy as np
import pytest

import tracesvc
from tests.web import traces

EDGES = ["one_event", "no_tasks", "an_instant", "a_day", "two_hours_missing", "odd_names"]


@pytest.mark.parametrize("name", EDGES)
def test_every_view_of_it(tab, name):
    data = tab.timeline(name)
    with tracesvc.read(data) as trace:
        columns = trace.columns()
    assert tab.ask("tracesvc.open.outline.events") == len(columns)
    start, end = tab.view()
    times = columns.time
    assert end - start >= max(1, int(times.max()) - int(times.min()))
    for key in "wwsda0fm[]":
        tab.page.keyboard.press(key)
    for key in ("ArrowDown", "Enter", "Space", "End", "Home", "Escape"):
        tab.page.keyboard.press(key)
    tab.settled()
    tab.shot(f"edge-{name}")
    for view, there in (("tasks", ".tree"), ("reports", ".facts"), ("events", ".tail .log div")):
        tab.page.locator(f"[data-tab={view}]").click()
        tab.page.locator(there).first.wait_for()


def test_names_are_text(tab):
    tab.timeline("odd_names")
    tab.ask("tracesvc.view.timeline.outline.rows.length")
    labels = {row: tab.row_y(f"t{row}") and tab.label(f"t{row}") for row in traces.NAMES}
    for row, name in traces.NAMES.items():
        text = labels[row].locator(".text").text_content()
        assert text == (name[:300] or "(no name)")
    assert tab.page.locator("img[src=x], script:not([src])").count() == 0
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("<script>")
    tab.page.locator("#found .found").first.wait_for()
    found = tab.page.locator("#found .found span:first-child").all_text_contents()
    assert traces.NAMES[5] in found
    tab.ask(
        "tracesvc.view.task(5, tracesvc.open.outline.tasks.begin[tracesvc.open.outline.place.get(5)])"
    )
    tab.page.locator(".side h2").wait_for()
    assert tab.page.locator(".side h2").text_content() == traces.NAMES[5]
    assert tab.page.locator(".side b img, .side script").count() == 0
    tab.ask("tracesvc.view.span(50)")
    tab.page.locator(".side dt", has_text="script").wait_for()


def test_a_hundred_thousand_tasks(tab):
    tab.timeline("many_tasks")
    outline = tab.ask(
        "({n: tracesvc.open.outline.tasks.count, rows: tracesvc.open.outline.rows.length})"
    )
    assert outline["n"] == traces.MANY + 1
    assert outline["rows"] < 20
    group = tab.page.locator(".label", has_text="kind 1")
    assert "33,33" in group.inner_text()
    group.click()
    assert tab.ask("tracesvc.open.outline.rows.length") > traces.MANY // 3
    tab.page.keyboard.press("PageDown")
    tab.settled()
    row = tab.ask("tracesvc.view.timeline.rows[tracesvc.view.timeline.focus].task")
    content = tab.ask("row => [...tracesvc.view.timeline.contents.get(`t${row}`).code]", row)
    sleep = 16 + traces.SLEEP
    assert content == [1, 2, sleep, 1, 2]
    assert tab.page.locator(".label").count() < 120
    tab.page.locator("[data-tab=tasks]").click()
    tab.page.locator(".tree .node").first.wait_for()


def test_a_gap_is_seen(tab):
    tab.timeline("two_hours_missing")
    losses = tab.ask("tracesvc.view.timeline.marks.losses")
    assert [(end - start) / traces.SECOND for _, start, end, *_ in losses] == [7200]
    codes = np.array(tab.ask("[...tracesvc.view.timeline.contents.get('t1').code]"))
    assert (codes == 3).sum() == 1
