"""The timeline, by clicks and keys on a real trace; what is on the screen is what the model says."""

import re

import numpy as np
import pytest

import tracesvc
from tracesvc.events import CancelSource, GcStart, Reason
from tracesvc.model.phases import Phases
from tracesvc.model.pieces import Pieces
from tracesvc.model.replay import Replay
from tracesvc.model.states import State

WHOLE = "[...tracesvc.view.timeline.contents.get(%r).%s]"


class Model:
    """What the model says of a trace; times since its beginning as the page counts it."""

    def __init__(self, data):
        with tracesvc.read(data) as trace:
            replay = Replay(trace)
            parts = list(replay.parts())
        self.phases = Phases.join([part.phases for part in parts]).sorted()
        self.spans = Pieces.join([part.spans for part in parts])
        self.collections = Pieces.join([part.collections for part in parts])
        self.times = np.concatenate([p.columns.time for p in parts if p.columns is not None])
        self.began = min(replay.walk.began, int(self.times.min()))
        self.names = replay.names

    def task(self, name):
        index = self.names.index(name)
        return int(self.phases.task[self.phases.name == index][0])

    def of(self, task, *states):
        chosen = self.phases.task == task
        if states:
            chosen &= np.isin(self.phases.state, states)
        return self.phases.take(chosen)


def spent(phases, start, end):
    return int(np.maximum(np.minimum(phases.end, end) - np.maximum(phases.start, start), 0).sum())


@pytest.fixture(scope="module")
def shop():
    from tests.web import traces

    return Model(traces.shop()[1])


def test_rows_phases_and_names(tab, shop):
    tab.timeline()
    task = shop.task("hog")
    phases = shop.of(task)
    begins = tab.ask(WHOLE % (f"t{task}", "begin"))
    assert [int(b) + shop.began for b in begins] == phases.start.tolist()
    ends = tab.ask(WHOLE % (f"t{task}", "end"))
    assert [int(e) + shop.began for e in ends] == phases.end.tolist()
    assert tab.label(f"t{task}").locator(".text").inner_text() == "hog"
    sections = tab.page.locator(".label.section .text").all_inner_texts()
    assert sections[:3] == ["Run loop", "Spans", "Tasks"]
    names = tab.page.locator(".label .text").all_inner_texts()
    assert "payment <b>not bold</b>" in names
    tab.shot("timeline-light")


def test_a_phase_is_told_when_it_is_clicked(tab, shop):
    tab.timeline()
    task = shop.task("hog")
    steps = shop.of(task, State.RUNNING)
    i = len(steps) - 1  # the one that crunches, and ends the task
    start, end = int(steps.start[i]), int(steps.end[i])
    y = tab.row_y(f"t{task}")
    tab.page.mouse.click(tab.x_at((start + end) / 2 - shop.began), y)
    side = tab.page.locator(".side")
    side.locator("[data-state=running]").wait_for()
    assert side.locator("h2").inner_text() == "hog"
    assert int(side.locator("[data-ns]").get_attribute("data-ns")) == end - start
    tab.until("location.hash.includes('task=')")
    address = tab.ask("location.hash")
    assert f"task={task}" in address

    # Its region, and the phase after it, are a click away.
    assert "crunch" in side.inner_text()
    side.get_by_text("← before").click()
    before = int(shop.of(task).start[-2])
    at = "start => tracesvc.view.timeline.selection?.start === start"
    tab.until(at, before - shop.began)
    tab.page.keyboard.press("]")
    tab.until(at, start - shop.began)

    # The address leads others to the same place.
    tab.page.goto("about:blank")
    tab.page.goto(f"{tab.service.url}/{address}")
    side.locator("[data-state=running]").wait_for()
    assert int(side.locator("[data-ns]").get_attribute("data-ns")) == end - start
    tab.shot("details-light")


def test_who_woke_it(tab, shop):
    tab.timeline()
    task = shop.task("worker")
    waits = shop.of(task, State.WAITING)
    woken = [
        i for i in range(len(waits)) if waits.waker[i] and waits.reason[i] == Reason.CHANNEL_RECEIVE
    ]
    i = woken[len(woken) // 2]
    time = int(waits.end[i]) - 1 - shop.began
    tab.ask("([task, time]) => tracesvc.view.task(task, time)", [task, time])
    side = tab.page.locator(".side")
    side.get_by_text("Woken by").wait_for()
    waker = side.locator("dl [data-task]").first
    assert int(waker.get_attribute("data-task")) == int(waits.waker[i])
    assert "channel receive" in side.inner_text()
    waker.click()
    tab.until("task => tracesvc.view.timeline.selection?.task === task", int(waits.waker[i]))
    # From the waker the way leads back: it woke the worker in that step.
    side.get_by_role("button", name=re.compile(r"^worker")).first.wait_for()
    # Close up, arrows are drawn from wakers to whom they woke.
    pad = 2_000_000
    tab.ask("([a, b]) => tracesvc.view.timeline.show(a, b)", [time - pad, time + pad])
    tab.settled()
    assert tab.ask("tracesvc.view.timeline.arrows") > 0


def test_zoom_and_pan_by_keys_and_wheel(tab):
    tab.timeline()
    whole = tab.view()
    tab.page.keyboard.press("w")
    start, end = tab.view()
    assert whole[0] <= start < end <= whole[1]
    assert end - start < whole[1] - whole[0]
    tab.page.keyboard.press("ArrowRight")
    moved = tab.view()
    assert moved[0] > start
    assert moved[1] - moved[0] == pytest.approx(end - start)
    tab.page.keyboard.press("ArrowLeft")
    assert tab.view()[0] == pytest.approx(start, abs=(end - start) / 50)
    for key, grows in (("d", True), ("a", False)):
        before = tab.view()[0]
        tab.page.keyboard.press(key)
        assert (tab.view()[0] > before) == grows
    tab.page.keyboard.press("s")
    tab.page.keyboard.press("0")
    assert tab.view() == whole

    # The wheel zooms to where the pointer is: what is under it stays there.
    canvas = tab.page.locator(".rows canvas").bounding_box()
    x = canvas["x"] + canvas["width"] * 0.3
    tab.page.mouse.move(x, canvas["y"] + 60)
    at = tab.ask("x => tracesvc.view.timeline.timeAt(x)", canvas["width"] * 0.3)
    tab.page.keyboard.down("Control")
    tab.page.mouse.wheel(0, -120)
    tab.page.keyboard.up("Control")
    tab.until("whole => tracesvc.view.timeline.span < whole", (whole[1] - whole[0]) * 0.9)
    assert tab.ask("x => tracesvc.view.timeline.timeAt(x)", canvas["width"] * 0.3) == pytest.approx(
        at,
        abs=3 * (whole[1] - whole[0]) / canvas["width"],  # the pointer is on a whole pixel
    )
    tab.page.mouse.wheel(0, 200)
    tab.page.keyboard.down("Shift")
    before = tab.view()
    tab.page.mouse.move(x, canvas["y"] + 60)
    tab.page.mouse.down()
    tab.page.mouse.move(x - 80, canvas["y"] + 60, steps=3)
    tab.page.mouse.up()
    tab.page.keyboard.up("Shift")
    assert tab.view()[0] > before[0]


def test_a_stretch_that_is_selected_is_summed_up(tab, shop):
    tab.timeline()
    task = shop.task("worker")
    tab.label(f"t{task}").click()
    y = tab.row_y(f"t{task}")
    canvas = tab.page.locator(".rows canvas").bounding_box()
    tab.page.mouse.move(canvas["x"] + 200, y)
    tab.page.mouse.down()
    tab.page.mouse.move(canvas["x"] + 700, y, steps=4)
    tab.page.mouse.up()
    side = tab.page.locator(".side")
    side.locator("[data-of=task]").wait_for()
    start, end = (round(t) + shop.began for t in tab.ask("tracesvc.view.timeline.range"))
    for scope, phases in (("all", shop.phases), ("task", shop.of(task))):
        for name, state in (("running", State.RUNNING), ("runnable", State.RUNNABLE)):
            chosen = (phases.state == state) | (
                (phases.state == State.NEW) & (state == State.RUNNABLE)
            )
            cell = side.locator(f'[data-of={scope}] [data-sum="{name}"]')
            assert int(cell.get_attribute("data-ns")) == spent(phases.take(chosen), start, end)
    tab.page.keyboard.press("Escape")
    assert side.is_hidden()


def test_spans(tab, shop):
    tab.timeline()
    orders = [i for i in range(len(shop.spans)) if shop.spans.name[i] == "order"]
    rows = tab.ask(
        "tracesvc.view.timeline.outline.spans.filter(([n]) => tracesvc.view.timeline.outline.texts[n] === 'order')[0]"
    )
    drawn = tab.ask(
        """([name, lanes]) => { const t = tracesvc.view.timeline;
             return Array.from({length: lanes}, (_, i) => t.contents.get(`s${name * 32 + i}`)?.count ?? -1); }""",
        rows,
    )
    # Lanes that are out of sight, or folded, have not been asked for.
    assert sum(max(0, n) for n in drawn) <= len(orders)
    i = max(orders, key=lambda i: shop.spans.end[i] - shop.spans.begin[i])
    tab.ask("id => tracesvc.view.span(id)", int(shop.spans.id[i]))
    side = tab.page.locator(".side")
    side.get_by_text("why so long?").wait_for()
    took = int(shop.spans.end[i] - shop.spans.begin[i])
    assert int(side.locator("[data-ns]").get_attribute("data-ns")) == took
    assert str(shop.spans.attributes[i]["item"]) in side.inner_text()

    # Its critical path is drawn, and its pieces add up to it.
    side.get_by_text("why so long?").click()
    side.locator("[data-path]").first.wait_for()
    pieces = tab.ask("tracesvc.view.timeline.path.map(p => p.end - p.start)")
    assert sum(pieces) == took
    tab.settled()
    tab.shot("critical-path-light")


def test_groups_open_and_close_by_keys(tab, shop):
    tab.timeline()
    group = tab.page.locator(".label", has_text="client").first
    assert "× 12" in group.inner_text()
    assert group.get_attribute("aria-expanded") == "false"
    group.click()
    clients = shop.phases.task[shop.phases.name == shop.names.index("client")]
    task = int(np.unique(clients)[0])
    tab.label(f"t{task}").wait_for()
    assert tab.ask("document.activeElement.getAttribute('aria-expanded')") == "true"
    tab.page.keyboard.press("ArrowDown")
    assert tab.ask("document.activeElement.dataset.row") == f"t{task}"
    tab.page.keyboard.press("Enter")
    tab.page.locator(".side h2", has_text="client").wait_for()
    tab.page.keyboard.press("ArrowUp")
    tab.page.keyboard.press("Space")
    tab.until("id => !tracesvc.view.timeline.outline.byId.has(id)", f"t{task}")
    tab.page.keyboard.press("Home")
    assert tab.ask("document.activeElement.dataset.row") == "loops"


def test_an_outline_that_is_made_anew_takes_the_focus_from_nobody(tab, shop):
    tab.timeline()
    task = shop.task("hog")
    tab.label(f"t{task}").click()
    focused = "document.activeElement.dataset.row"
    assert tab.ask(focused) == f"t{task}"
    tab.ask("async () => tracesvc.view.refreshed(await tracesvc.open.refresh())")
    tab.settled()
    assert tab.ask(focused) == f"t{task}"
    tab.page.keyboard.press("ArrowUp")
    assert tab.ask(focused) != f"t{task}"


def test_keys_work_beside_the_panel(tab, shop):
    tab.timeline()
    tab.ask("task => tracesvc.view.task(task, 80e6)", shop.task("hog"))
    side = tab.page.locator(".side")
    side.get_by_text("zoom to it").focus()
    before = tab.view()
    tab.page.keyboard.press("w")
    assert tab.view() != before
    before = tab.view()
    for key in ("ArrowLeft", "Home", "PageDown"):  # these are the panel's
        tab.page.keyboard.press(key)
    assert tab.view() == before
    tab.page.keyboard.press("Enter")
    tab.until("before => tracesvc.view.timeline.start !== before", before[0])


def test_counters_collections_messages_and_stalls(tab, shop):
    data = tab.timeline()
    with tracesvc.read(data) as trace:
        columns = trace.columns()
    values = tab.ask(WHOLE % ("corders", "value")) if tab.row_y("corders") else []
    table = columns.of(next(e for e in tracesvc.events.EVENTS.values() if e.type == "counter"))
    names = table.names("name")
    assert values == [v for v, n in zip(table.value.tolist(), names, strict=True) if n == "orders"]
    assert tab.row_y("gc")
    begins = tab.ask(WHOLE % ("gc", "begin"))
    assert len(begins) == len(columns.of(GcStart))
    tab.row_y("logs")
    assert "crunched" in tab.ask("tracesvc.view.timeline.contents.get('logs').text")
    stalls = tab.ask("tracesvc.view.timeline.marks.stalls")
    steps = shop.phases.take(shop.phases.state == State.RUNNING)
    long = steps.take(steps.end - steps.start >= 10_000_000)
    assert len(stalls) == len(long)
    assert shop.task("hog") in {task for *_, task in stalls}


def test_cancellations_and_errors(tab, shop):
    data = tab.timeline()
    with tracesvc.read(data) as trace:
        events = list(trace)
    told = next(e for e in events if e.type == "task_cancelled")
    request = next(e for e in events if e.type == "cancel_request" and e.scope == told.scope)
    tab.ask("([task, time]) => tracesvc.view.task(task, time)", [told.task, told.time - shop.began])
    cancel = tab.page.locator(".side [data-cancel]")
    cancel.wait_for()
    source = CancelSource(request.source).name.lower()
    assert cancel.get_attribute("data-cancel") == source
    task = shop.task("fails")
    assert tab.row_y(f"t{task}")
    assert "raised" in tab.label(f"t{task}").inner_text()
    end = int(shop.of(task).end.max()) - shop.began
    tab.ask("([task, time]) => tracesvc.view.task(task, time)", [task, end - 1])
    error = tab.page.locator(".side dd .bad", has_text="no <stock>")
    error.wait_for()
    assert "ValueError" in error.inner_text()


def test_a_cancellation_leads_to_every_task_that_it_reached(tab):
    data = tab.timeline("a_cancellation")
    with tracesvc.read(data) as trace:
        told = [event for event in trace if event.type == "task_cancelled"]
    cancels = tab.ask("tracesvc.view.timeline.marks.cancels")
    assert [(came, task) for came, task, _, _ in cancels] == [(e.time, e.task) for e in told]
    assert {(asked, by) for *_, asked, by in cancels} == {(11_000, 1)}
    assert tab.ask("tracesvc.view.timeline.cancelled") == [True] * 4
    assert tab.ask("tracesvc.view.timeline.arrows") == 0  # not a second one for those that waited
    tab.shot("cancellation-light")
    # Where the one who asked has no row just now, the tasks are marked all the same.
    tab.ask("tracesvc.view.timeline.outline.byId.delete('t1')")
    tab.ask("tracesvc.view.timeline.painter.paint()")
    assert tab.ask("tracesvc.view.timeline.cancelled") == [False] * 4


def test_losses_are_hatched(tab):
    tab.timeline("lossy")
    model = Model(tab.service.keep("lossy")[1])
    losses = tab.ask("tracesvc.view.timeline.marks.losses")
    assert losses
    lost = tab.ask("tracesvc.open.outline.lost")
    assert lost == sum(count for *_, count, _ in losses)
    assert f"{lost:,} events lost" in tab.page.locator(".foot").inner_text()
    unsure = model.phases.take(model.phases.state > max(State))
    tasks = set(unsure.task.tolist())
    drawn = tab.ask(
        """() => Object.fromEntries([...tracesvc.view.timeline.contents]
             .filter(([row, c]) => row[0] === 't' && c.code)
             .map(([row, c]) => [row.slice(1), c.code.filter(code => code === 3).length]))"""
    )
    seen = {int(task) for task, count in drawn.items() if count}
    assert seen
    assert seen == tasks & {int(task) for task in drawn}
    tab.shot("losses-light")


def test_search(tab, shop):
    tab.timeline()
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("hog")
    tab.page.locator("#found .found").first.wait_for()
    tab.page.keyboard.press("Enter")
    tab.until("task => tracesvc.view.timeline.selection?.task === task", shop.task("hog"))
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("PAYMENT")
    tab.page.locator("#found .found", has_text="not bold").click()
    tab.page.locator(".side h2", has_text="payment <b>not bold</b>").wait_for()
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("crunched")
    tab.page.locator("#found .found", has_text="crunched").wait_for()


def test_the_sheet_of_keys_and_the_theme(tab):
    tab.timeline()
    tab.page.keyboard.press("?")
    dialog = tab.page.get_by_role("dialog")
    assert "zoom in, out" in dialog.inner_text()
    tab.page.keyboard.press("Escape")
    assert dialog.count() == 0 or not dialog.is_visible()
    before = tab.ask("getComputedStyle(document.body).backgroundColor")
    tab.page.keyboard.press("t")
    tab.until("before => getComputedStyle(document.body).backgroundColor !== before", before)
    tab.settled()
    tab.page.keyboard.press("t")
    tab.until("before => getComputedStyle(document.body).backgroundColor === before", before)


@pytest.mark.parametrize(
    "tab, name",
    [
        ({"color_scheme": "dark"}, "dark"),
        ({"viewport": {"width": 3840, "height": 2160}}, "3840"),
        ({"viewport": {"width": 1280, "height": 720}}, "1280"),
        (
            {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
            "phone",
        ),
    ],
    indirect=["tab"],
    ids=["dark", "3840", "1280", "phone"],
)
def test_at_every_size(tab, name, shop):
    tab.timeline("busy")
    tab.ask("tracesvc.view.timeline.zoom(0.3)")
    tab.settled()
    drawn = tab.ask(
        """() => { const c = tracesvc.view.timeline.canvas, g = c.getContext('2d');
             const d = new Uint32Array(g.getImageData(0, 0, c.width, c.height).data.buffer);
             return new Set(d).size; }"""
    )
    assert drawn > 5
    assert tab.ask("document.documentElement.scrollWidth <= innerWidth")
    tab.shot(f"timeline-{name}")
    tab.timeline("shop")
    tab.ask("t => tracesvc.view.task(t, 60e6)", shop.task("hog"))
    tab.page.locator(".side h2").wait_for()
    tab.settled()
    tab.shot(f"details-{name}")
