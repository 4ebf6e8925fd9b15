"""A service in a process of its own, sessions in it, and a browser to look at them with: one of each per worker."""

import os
import re
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

from tests.judges import absent, require_program
from tests.web import traces

ARTEFACTS = Path(__file__).parent.parent.parent / "build" / "screenshots"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]


class Service:
    """A service as users start it."""

    def __init__(self, data):
        self.data, self.port = data, 0
        self.sessions = {}
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tracesvc", "serve", "--listen"),
                *(f"127.0.0.1:{self.port}", "--data", str(self.data), "--grace", "0.2"),
                *("--overview-events", "3000"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        self.url = re.search(r"http://\S+", line)[0]
        self.port = int(self.url.rsplit(":", 1)[1])

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.process.stdout.close()

    def push(self, session, offset, data):
        request = urllib.request.Request(
            f"{self.url}/v1/sessions/{session}/frames?offset={offset}",
            data,
            {"content-type": "application/vnd.tracesvc"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200

    def keep(self, name):
        """The session of one of the traces of `tests.web.traces`."""
        if name not in self.sessions:
            session, data = getattr(traces, name)()
            self.push(session, 0, data)
            self.sessions[name] = session, data
        return self.sessions[name]


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    made = Service(tmp_path_factory.mktemp("web"))
    yield made
    made.stop()


@pytest.fixture(scope="session")
def browser():
    program = require_program("chromium", package="chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("playwright, of the extra dev", package="chromium")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield made
        made.close()


class Tab:
    """A page, and what one does with it."""

    def __init__(self, page, service):
        self.page, self.service = page, service
        self.troubles, self.strangers = [], []
        self.allowed = set()
        self.in_trouble = False
        """whether the console has reason to complain"""
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.troubles.append(f"{error}\n{error.stack}"))
        page.context.on("request", self._asked)

    def _said(self, message):
        if message.type in ("error", "warning"):
            self.troubles.append(message.text)

    def _asked(self, request):
        own = request.url.startswith((self.service.url, "data:", "blob:"))
        if not own and not any(request.url.startswith(other) for other in self.allowed):
            self.strangers.append(request.url)

    def open(self, name="shop", rest=""):
        """Show a session, and wait for all that is in view."""
        session, data = self.service.keep(name)
        self.page.goto(f"{self.service.url}/#/s/{session}{rest}")
        return data

    def timeline(self, name="shop", params=""):
        data = self.open(name, f"/timeline{params}")
        self.settled()
        return data

    def settled(self):
        self.until("globalThis.tracesvc?.view?.timeline && tracesvc.open.outline.indexed === 1")
        self.page.evaluate("tracesvc.view.timeline.ready()")

    def ask(self, script, *arguments):
        return self.page.evaluate(script, *arguments)

    def until(self, script, *arguments):
        """Until it is true; the page forbids what Playwright would do for that."""
        return wait_for(lambda: self.page.evaluate(script, *arguments))

    def view(self):
        """[start, end) in ns since the beginning."""
        return self.ask("[tracesvc.view.timeline.start, tracesvc.view.timeline.end]")

    def label(self, row):
        return self.page.locator(f'.label[data-row="{row}"]')

    def row_y(self, row):
        """Where the middle of a row is on the screen."""
        self.ask(
            """row => { const t = tracesvc.view.timeline, i = t.outline.byId.get(row);
                        t.scrollTo(t.rows[i], true); t.painter.paint(); }""",
            row,
        )
        self.settled()
        return self.ask(
            """row => { const t = tracesvc.view.timeline, r = t.rows[t.outline.byId.get(row)];
                        const box = t.canvas.getBoundingClientRect();
                        return box.top + r.y - t.rowsElement.scrollTop + r.height / 2; }""",
            row,
        )

    def x_at(self, time):
        return self.ask(
            """time => { const t = tracesvc.view.timeline, box = t.canvas.getBoundingClientRect();
                         return box.left + (time - t.start) / t.span * t.width; }""",
            time,
        )

    def shot(self, name):
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png")


@pytest.fixture
def tab(request, browser, service):
    options = getattr(request, "param", {})
    context = browser.new_context(
        **{"viewport": {"width": 1440, "height": 900}, "color_scheme": "light", **options}
    )
    context.set_default_timeout(float(os.environ.get("TRACESVC_BROWSER_TIMEOUT", "30")) * 1000)
    made = Tab(context.new_page(), service)
    yield made
    context.close()
    assert made.troubles == [] or made.in_trouble
    assert made.strangers == []


def wait_for(what, seconds=20.0):
    """Until ``what()`` is true."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.05)
    return found


def new_session():
    return str(uuid.uuid4())
