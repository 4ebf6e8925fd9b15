"""The list, the tree of tasks in time, the reports, downloads: by clicks and keys, held against the analysis."""

import io
import json
import re
import subprocess
import sys
import textwrap
import urllib.request

import pytest

import tracesvc
from tests.web import traces
from tests.web.conftest import Service
from tracesvc.analysis import Of, latencies, lint, stalls, summarize, tasks_at
from tracesvc.analysis import diff as differences
from tracesvc.model.verify import verify
from tracesvc.rewrite import cut

PERFETTO = "https://ui.perfetto.dev"


def trace(data):
    return tracesvc.read(data)


def test_the_list_of_sessions(tab, service):
    names = [service.keep(name)[0] for name in ("shop", "lossy", "a_day")]
    tab.page.goto(service.url)
    rows = tab.page.locator("tbody tr[data-session]")
    rows.first.wait_for()
    for name, kept in zip(names, ("shop", "lossy", "a_day"), strict=True):
        row = tab.page.locator(f'[data-session="{name}"]')
        with trace(service.keep(kept)[1]) as one:
            summary = summarize(one)
        assert f"{summary.events:,}" in row.inner_text()
        if summary.lost:
            assert f"{summary.lost:,}" in row.locator(".bad").inner_text()
        assert "ended" in row.inner_text()
    head = tab.page.get_by_role("columnheader", name="Events")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    counts = [
        int(text.replace(",", ""))
        for text in tab.page.locator("tbody tr td:nth-child(4)").all_inner_texts()
    ]
    assert counts == sorted(counts, reverse=True)
    tab.page.get_by_label("Filter the sessions").fill(names[2][:13])
    tab.until("document.querySelectorAll('tbody tr').length === 1")
    tab.shot("sessions-light")
    tab.page.locator(f'[data-session="{names[2]}"] a').focus()
    tab.page.keyboard.press("Enter")
    tab.settled()
    assert tab.ask("tracesvc.open.name") == names[2]


def test_the_tree_of_tasks_in_time(tab):
    data = tab.open("shop", "/tasks")
    tab.page.locator(".tree .node").first.wait_for()
    began = int(tab.ask("String(tracesvc.open.outline.began)"))
    for time in traces.random_times(data, 3):
        tab.ask("time => tracesvc.view.seek(time)", time - began)
        tab.until("time => tracesvc.view.shown === time", time - began)
        with trace(data) as one:
            tree = tasks_at(one, time)
        shown = tab.ask("tracesvc.view.rows.map(r => [tracesvc.view.data.task[r.i], r.depth])")
        assert {task for task, _ in shown} == set(tree.tasks)
        depths = dict(map(tuple, shown))
        for task in tree.tasks.values():
            if task.parent in tree.tasks:
                assert depths[task.task] == depths[task.parent] + 1
        first = tree.tasks[int(tab.page.locator(".tree .node").first.get_attribute("data-task"))]
        text = tab.page.locator(".tree .node").first.inner_text()
        assert first.name in text
        assert (first.reason or first.state).replace("_", " ") in text
    tab.shot("tasks-light")
    slider = tab.page.get_by_role("slider", name="Time in the session")
    before = tab.ask("tracesvc.view.time")
    slider.focus()
    tab.page.keyboard.press("ArrowLeft")
    assert tab.ask("tracesvc.view.time") < before
    tab.ask(
        """() => { const o = tracesvc.open.outline, t = o.tasks;
             const i = t.name.findIndex(name => o.texts[name] === 'worker');
             return tracesvc.view.seek((t.begin[i] + t.end[i]) / 2); }"""
    )
    tab.page.get_by_label("Filter the tasks").fill("worker")
    tab.until("document.querySelectorAll('.tree .node').length >= 1")
    assert all("worker" in t for t in tab.page.locator(".tree .node").all_inner_texts())
    tab.page.locator(".tree .node").first.click()
    tab.settled()
    assert "task=" in tab.ask("location.hash")


def test_the_summary(tab):
    data = tab.open("shop", "/reports")
    with trace(data) as one:
        summary = summarize(one)
    facts = tab.page.locator(".facts strong")
    facts.first.wait_for()
    shown = dict(
        zip(tab.page.locator(".facts span").all_inner_texts(), facts.all_inner_texts(), strict=True)
    )
    assert shown["Events"] == f"{summary.events:,}"
    assert shown["Lost"] == "0"
    table = tab.page.get_by_role("table", name="Spans")
    for name, span in summary.spans.items():
        row = table.get_by_role("row").filter(has_text=name).first
        assert f"{span.count:,}" in row.inner_text()
    tasks = tab.page.get_by_role("table", name="Tasks")
    tasks.get_by_role("columnheader", name="Count").get_by_role("button").click()
    assert "client" in tasks.locator("tbody tr").first.inner_text()
    tab.shot("reports-light")
    table.get_by_role("button", name="order", exact=True).click()
    tab.until("location.hash.includes('of=latency')")


def test_histograms_lead_to_the_slowest(tab):
    data = tab.open("shop", "/reports?of=latency&kind=span&name=order")
    with trace(data) as one:
        histogram = latencies(one, Of.SPAN).as_dict()["histograms"]["span"]["order"]
    chart = tab.page.get_by_role("slider", name=re.compile("Bars"))
    chart.wait_for()
    instances = tab.page.get_by_role("table", name="Instances")
    instances.locator("tbody tr").first.wait_for()
    assert instances.locator("tbody tr").count() == min(50, histogram["count"])
    chart.focus()
    tab.page.keyboard.press("ArrowRight")
    low, text = tab.ask(
        "[document.activeElement.getAttribute('aria-valuenow'), document.activeElement.getAttribute('aria-valuetext')]"
    )
    assert (low, text.split()[0]) == ("0", str(histogram["buckets"][0]["count"])) or int(low) == 0
    tab.page.keyboard.press("Enter")
    tab.page.get_by_text(re.compile("the slowest first")).wait_for()
    tab.shot("histogram-light")
    slowest = instances.locator("tbody tr button").first
    slowest.click()
    tab.settled()
    tab.page.locator(".side h2", has_text="order").wait_for()


def test_long_steps_and_findings(tab):
    data = tab.open("shop", "/reports?of=stalls")
    with trace(data) as one:
        found = stalls(one)
    table = tab.page.get_by_role("table", name="Long steps")
    table.wait_for()
    assert table.locator("tbody tr").count() == min(found.count, 200)
    assert found.stalls[0].name in table.locator("tbody tr").first.inner_text()
    tab.page.locator("[data-report=lint]").click()
    tab.page.locator(".finding, .empty").first.wait_for()
    tab.page.locator("[data-report=stalls]").click()
    table.locator("tbody tr button").first.click()
    tab.settled()
    state = tab.page.locator(".side [data-state]")
    state.wait_for()
    assert state.get_attribute("data-state") == "running"


def test_a_finding_leads_to_its_place(tab):
    data = tab.open("one_finding", "/reports?of=lint")
    with trace(data) as one:
        (finding,) = lint(one).findings
    shown = tab.page.locator(".finding")
    shown.wait_for()
    assert shown.count() == 1
    assert finding.text in shown.inner_text()
    shown.get_by_role("button", name="show").click()
    tab.settled()
    state = tab.page.locator(".side [data-state]")
    state.wait_for()
    assert state.get_attribute("data-state") == "running"
    start, end = tab.view()
    assert start <= 1000
    assert end >= 300_001_000


def test_two_sessions_side_by_side(tab, service):
    before, after = service.keep("shop")[0], service.keep("busy")[0]
    tab.page.goto(f"{service.url}/#/diff/{before}/{after}")
    tab.page.locator("[data-verdict]").wait_for()
    assert service.keep("shop")[0] in tab.page.locator(".facts a").first.get_attribute("href")
    assert "order" in tab.page.get_by_role("table", name="Only before").inner_text()
    tab.page.get_by_text("The other way round").click()
    tab.page.get_by_role("table", name="Only after").wait_for()


def test_downloads(tab):
    data = tab.timeline()
    tab.page.get_by_role("button", name="Download").click()
    with tab.page.expect_download() as waiting:
        tab.page.get_by_role("link", name="Trace as it is stored").click()
    assert waiting.value.path().read_bytes() == data
    with tab.page.expect_download() as waiting:
        tab.page.get_by_role("link", name="Chrome").click()
    assert json.loads(waiting.value.path().read_text())["traceEvents"]


def test_a_part_is_downloaded(tab):
    data = tab.timeline("busy")
    tab.ask("tracesvc.view.timeline.zoom(0.2)")
    tab.settled()
    tab.page.keyboard.press("m")
    link = tab.page.locator(".side").get_by_role("link", name="download this part")
    with tab.page.expect_download() as waiting:
        link.click()
    parts = [waiting.value]
    tab.page.get_by_role("button", name="Download").click()
    with tab.page.expect_download() as waiting:
        tab.page.get_by_role("link", name="what is in view").click()
    parts.append(waiting.value)
    began = int(tab.ask("String(tracesvc.open.outline.began)"))
    start, end = tab.view()
    made = []
    cut(data, made.append, begin=began + round(start), end=began + round(end))
    for part in parts:
        assert part.suggested_filename.endswith(".part.trace")
        content = part.path().read_bytes()
        assert content == b"".join(made)
        assert verify(content).ok
    assert len(content) < len(data)


def test_an_address_that_is_none_leads_to_the_list(tab, service):
    service.keep("shop")
    tab.page.goto(f"{service.url}/#/%E0%A4%A/%")
    tab.page.locator("tbody tr[data-session]").first.wait_for()


def test_signing_in_says_what_is_wrong(tab, service):
    tab.in_trouble = True  # of the refusals
    refusal = {"status": 401, "json": {"title": "who are you"}}
    tab.page.route("**/v1/sessions?*", lambda route: route.fulfill(**refusal))
    tab.page.route("**/v1/login", lambda route: route.fulfill(**refusal))
    tab.page.goto(service.url)
    dialog = tab.page.get_by_role("dialog", name="Sign in")
    dialog.get_by_label("Token").fill("wrong")
    dialog.get_by_role("button").click()
    dialog.get_by_text("does not know this token").wait_for()
    tab.page.unroute("**/v1/login")
    tab.page.route("**/v1/login", lambda route: route.abort())
    dialog.get_by_role("button").click()
    dialog.get_by_text("does not answer").wait_for()


STUB = """<!doctype html><title>stub</title><script>
addEventListener("message", (e) => {
  if (e.data === "PING") e.source.postMessage("PONG", e.origin);
  else if (e.data.perfetto) { window.taken = e.data.perfetto; document.title = "taken"; }
});</script>"""


def test_it_is_handed_to_perfetto_only_when_asked(tab):
    tab.allowed.add(PERFETTO)
    tab.page.context.route(
        f"{PERFETTO}/**", lambda route: route.fulfill(body=STUB, content_type="text/html")
    )
    data = tab.timeline()
    tab.page.get_by_role("button", name="Download").click()
    with tab.page.context.expect_page() as opened:
        tab.page.get_by_role("button", name=re.compile("Open in Perfetto")).click()
    other = opened.value
    other.wait_for_load_state()
    for _ in range(200):
        if other.title() == "taken":
            break
        tab.page.wait_for_timeout(50)
    taken = other.evaluate("[window.taken.title, window.taken.buffer.byteLength]")
    made = io.BytesIO()
    from tracesvc.export import export

    with trace(data) as one:
        export(one, "perfetto", made.write)
    assert taken[1] == len(made.getvalue())
    other.close()


def test_an_unknown_session(tab, service):
    tab.in_trouble = True  # a 404 is told to the console
    tab.page.goto(f"{service.url}/#/s/123e4567-e89b-42d3-a456-426614174000")
    tab.page.get_by_text("There is no such session").wait_for()


@pytest.mark.parametrize(
    "tab",
    [{"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}],
    indirect=True,
    ids=["dark", "phone"],
)
def test_other_looks(tab, service, request):
    name = request.node.callspec.id
    session, _ = service.keep("shop")
    for view, there in (
        ("", "tbody tr"),
        (f"#/s/{session}/reports", ".facts"),
        (f"#/s/{session}/reports?of=latency", ".histogram"),
        (f"#/s/{session}/tasks", ".tree .node"),
        (f"#/s/{session}/events", ".tail .log div"),
    ):
        tab.page.goto(f"{service.url}/{view}")
        tab.page.locator(there).first.wait_for()
        assert tab.ask("document.documentElement.scrollWidth <= innerWidth")
        tables = tab.ask(
            """() => { const edges = row => [...row.children].map(
                   cell => cell.offsetWidth && Math.round(cell.getBoundingClientRect().left));
                 return [...document.querySelectorAll("table:has(thead)")].map(
                   table => [...table.querySelectorAll("tr")].slice(0, 2).map(edges)); }"""
        )
        for heads, *cells in tables:  # what is left out for want of room is left out of both
            assert cells in ([], [heads])
        label = re.sub(r"\W+", "-", view.rpartition("/")[2]) or "sessions"
        tab.shot(f"{label}-{name}")


PROGRAM = """
import functools, sys, trio, tracesvc
async def main():
    flight = tracesvc.FlightRecorder()
    async with tracesvc.open_tracer(flight), trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(tracesvc.agent, sys.argv[1], flight=flight))
        while True:
            await trio.sleep(0.01)
trio.run(main)
"""


def test_a_program_is_started_and_stopped_from_the_page(tab, service):
    tab.page.goto(service.url)
    tab.page.locator("tbody").first.wait_for(state="attached")
    assert tab.page.locator("[data-do]").count() == 0  # nobody waits for commands
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, service.url])
    try:
        start = tab.page.locator("[data-do=start]").first
        start.wait_for()
        start.click()
        link = tab.page.get_by_role("link", name="recording")
        link.wait_for()
        session = link.get_attribute("href").rpartition("/")[2]
        stop = tab.page.locator("[data-do=stop]")
        tab.until("!document.querySelector('[data-do=stop]').disabled")
        stop.click()
        tab.page.locator(f'[data-session="{session}"]', has_text="ended").wait_for()
    finally:
        program.kill()
        program.wait()


def test_a_snapshot_is_asked_for_from_the_page(tab, service):
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, service.url])
    try:
        tab.page.goto(service.url)
        snapshot = tab.page.locator("[data-do=snapshot]").first
        snapshot.wait_for()
        known = sessions(service)
        said = tab.page.locator("[data-source]")
        while "done" not in said.inner_text():  # it holds nothing in its first moments
            snapshot.click()
            tab.until("!document.querySelector('[data-do=snapshot]').disabled")
        (new,) = sessions(service) - known
        with urllib.request.urlopen(f"{service.url}/v1/sessions/{new}/frames") as answer:
            assert verify(answer.read()).ok
    finally:
        program.kill()
        program.wait()


def sessions(service):
    with urllib.request.urlopen(f"{service.url}/v1/sessions") as answer:
        return {one["session"] for one in json.load(answer)["sessions"]}


def test_a_session_held_against_itself(tab, service):
    session, data = service.keep("shop")
    tab.page.goto(f"{service.url}/#/diff/{session}/{session}")
    changes = tab.page.get_by_role("table", name="Changes")
    changes.locator("tbody tr").first.wait_for()  # nothing changed, so all of it is shown
    with trace(data) as one, trace(data) as same:
        found = differences(one, same).as_dict()
    assert changes.locator("tbody tr").count() == len(found["changes"])
    assert "0 slower, 0 faster" in tab.page.locator("[data-verdict]").inner_text()


def tab_to(tab, script):
    """Press Tab until the element that has the focus is like that."""
    for _ in range(80):
        tab.page.keyboard.press("Tab")
        if tab.ask(f"(e => {script})(document.activeElement)"):
            return
    raise AssertionError(f"no way to where {script}")


def test_all_of_it_without_a_mouse(tab, service):
    session, _ = service.keep("shop")
    press = tab.page.keyboard.press
    tab.page.goto(service.url)
    tab.page.locator(f'[data-session="{session}"]').wait_for()
    tab_to(tab, "e.className === 'skip'")
    tab_to(tab, f"e.closest('tr')?.dataset.session === '{session}'")
    press("Enter")
    tab.settled()

    # On the timeline: a row, what its task does, and what is beside it.
    tab_to(tab, "e.getAttribute('role') === 'treeitem'")
    row = "document.activeElement.dataset.row"
    seen = set()
    while tab.ask("document.activeElement.querySelector('.text')?.textContent") != "hog":
        seen.add(tab.ask(row))
        press("ArrowDown")
        assert tab.ask(row) not in seen
    press("Enter")
    tab.page.locator(".side [data-state]").wait_for()
    before = tab.view()
    tab_to(tab, "e.closest('.side') && e.textContent === 'zoom to it'")
    press("Enter")
    tab.until("before => tracesvc.view.timeline.end !== before", before[1])
    assert tab.ask("getComputedStyle(document.activeElement).outlineStyle") != "none"
    press("Escape")
    assert tab.page.locator(".side").is_hidden()
    press("0")
    assert tab.view() == before

    # A menu, by arrows, and out again.
    tab_to(tab, "e.textContent === 'Download'")
    press("Enter")
    assert tab.ask("document.activeElement.textContent").startswith("Trace")
    press("ArrowDown")
    assert tab.ask("document.activeElement.textContent").startswith("Perfetto")
    press("Escape")
    assert tab.ask("document.activeElement.textContent") == "Download"

    # The reports: a table that is sorted, and a way to a place.
    press("3")
    tab.page.get_by_role("table", name="Tasks").wait_for()
    tab_to(tab, "e.closest('th') && e.textContent === 'Count'")
    press("Enter")
    assert tab.ask("document.activeElement.closest('th').getAttribute('aria-sort')") == "descending"
    tab_to(tab, "e.closest('td') && e.textContent === 'hog'")
    press("Enter")
    tab.settled()
    assert "task=" in tab.ask("location.hash")

    # The tree in time.
    press("2")
    tab.page.locator(".tree .node").first.wait_for()
    tab_to(tab, "e.getAttribute('role') === 'tree'")
    press("ArrowDown")
    press("ArrowDown")
    chosen = tab.page.locator(".tree .node[aria-selected=true]")
    assert chosen.get_attribute("id") == tab.ask(
        "document.activeElement.getAttribute('aria-activedescendant')"
    )
    task = int(chosen.get_attribute("data-task"))
    press("Enter")
    tab.until("task => tracesvc.view.timeline?.selection?.task === task", task)


def test_a_service_without_sessions_says_how_to_get_one(tab, tmp_path):
    own = Service(tmp_path)
    tab.service = own
    try:
        tab.page.goto(own.url)
        told = tab.page.locator(".empty pre").inner_text()
        program = (
            f"import trio\nasync def main():\n{textwrap.indent(told, '    ')}\ntrio.run(main)\n"
        )
        program = program.replace("...", "await trio.sleep(0.01)")
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
        tab.page.locator("tbody tr[data-session]", has_text="ended").wait_for()
    finally:
        own.stop()
