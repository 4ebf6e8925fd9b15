"""Every view is looked at by axe-core: contrast, roles, names, ARIA; in both themes, on a desk and on a phone."""

import sys
from functools import cache
from pathlib import Path

import pytest

from tests.judges import absent

AXE = Path(sys.prefix) / "judges" / "node_modules" / "axe-core" / "axe.min.js"
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@cache
def axe():
    if not AXE.exists():
        absent("axe-core, by tools/node-packages", package="nodejs npm")
    return AXE.read_text()


CONTRAST = {"type": "rule", "values": ["color-contrast"]}


def violations(tab, only=None):
    """[rule, how bad, where, why] of all that is wrong on the screen, by all rules that axe has, or ``only`` some."""
    return tab.ask(
        """async only => (await axe.run(document, {resultTypes: ["violations"], ...only && {runOnly: only}}))
             .violations.flatMap(v => v.nodes.map(n => [v.id, v.impact, n.target.join(" "), n.failureSummary]))""",
        only,
    )


def sessions(tab, service):
    for name in ("shop", "lossy", "busy"):
        service.keep(name)
    tab.page.goto(service.url)
    tab.page.locator("tbody tr[data-session]").first.wait_for()


def timeline(tab, service):
    del service
    tab.timeline()


def details(tab, service):
    del service
    tab.timeline()
    tab.ask(
        """() => { const o = tracesvc.open.outline, t = o.tasks;
             const i = t.name.findIndex(n => o.texts[n] === 'hog');
             tracesvc.view.task(t.task[i], (t.begin[i] + t.end[i]) / 2); }"""
    )
    tab.page.locator(".side [data-state]").wait_for()


def selection(tab, service):
    del service
    tab.timeline()
    tab.page.keyboard.press("m")
    tab.page.locator(".side [data-of=all]").wait_for()


def losses(tab, service):
    del service
    tab.timeline("lossy")


def searching(tab, service):
    del service
    tab.timeline()
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("o")
    tab.page.locator("#found .found").first.wait_for()


def menu(tab, service):
    del service
    tab.timeline()
    tab.page.get_by_role("button", name="Download").click()
    tab.page.get_by_role("link", name="Chrome").wait_for()


def tree(tab, service):
    del service
    tab.open("shop", "/tasks")
    tab.page.locator(".tree .node").first.wait_for()


def report(of, there):
    def show(tab, service):
        del service
        tab.open("shop", f"/reports?of={of}")
        tab.page.locator(there).first.wait_for()

    return show


def findings(tab, service):
    del service
    tab.open("one_finding", "/reports?of=lint")
    tab.page.locator(".finding").wait_for()


def events(tab, service):
    del service
    tab.open("shop", "/events")
    tab.page.locator(".log div").first.wait_for()


def diff(tab, service):
    before, after = service.keep("shop")[0], service.keep("busy")[0]
    tab.page.goto(f"{service.url}/#/diff/{before}/{after}")
    tab.page.locator("[data-verdict]").wait_for()


def sheet(tab, service):
    del service
    tab.timeline()
    tab.page.keyboard.press("?")
    tab.page.get_by_role("dialog").wait_for()


def login(tab, service):
    tab.in_trouble = True  # of the 401
    tab.page.route(
        "**/v1/sessions?*",
        lambda route: route.fulfill(status=401, json={"title": "who are you"}),
    )
    tab.page.goto(service.url)
    tab.page.get_by_role("dialog", name="Sign in").wait_for()


def nothing(tab, service):
    tab.in_trouble = True  # of the 404
    tab.page.goto(f"{service.url}/#/s/123e4567-e89b-42d3-a456-426614174000")
    tab.page.get_by_text("There is no such session").wait_for()


VIEWS = {
    "sessions": sessions,
    "timeline": timeline,
    "details": details,
    "selection": selection,
    "losses": losses,
    "searching": searching,
    "menu": menu,
    "tree": tree,
    "summary": report("summary", ".facts"),
    "latency": report("latency", "[aria-label=Instances] tbody tr"),
    "stalls": report("stalls", "[aria-label='Long steps']"),
    "findings": findings,
    "events": events,
    "diff": diff,
    "sheet": sheet,
    "login": login,
    "nothing": nothing,
}


@pytest.mark.parametrize(
    "tab", [{"viewport": DESK}, {"viewport": PHONE}], indirect=True, ids=["desk", "phone"]
)
def test_nothing_is_wrong_with_any_view(tab, service):
    source, found = axe(), {}
    for name, show in VIEWS.items():
        tab.page.emulate_media(color_scheme="light")
        show(tab, service)
        tab.ask(source)
        for scheme, rules in (("light", None), ("dark", CONTRAST)):  # a theme is but colours
            tab.page.emulate_media(color_scheme=scheme)
            for rule, impact, where, why in violations(tab, rules):
                key = rule, impact, " ".join(why.split())
                found.setdefault(key, []).append(f"{name}, {scheme}: {where}")
        tab.page.unroute_all()
        tab.page.goto("about:blank")
    told = [
        f"{rule} ({impact}), {len(places)} times, as in {places[0]}\n    {why}"
        for (rule, impact, why), places in found.items()
    ]
    assert not told, "\n".join(told)
