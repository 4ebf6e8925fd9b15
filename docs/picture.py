"""Takes the picture of the page for ``page.md``: ``python -m docs.picture``, in the root of the repository.

A short run of the demo is recorded, shown, and photographed in Debian's chromium with playwright.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["main"]

PICTURE: Final = Path(__file__).with_name("page.png")
SIZE: Final = {"width": 1280, "height": 760}
_SHOW: Final = """async () => {
  while (!globalThis.tracesvc?.view?.timeline) await new Promise(requestAnimationFrame);
  const { view } = tracesvc, t = view.timeline;
  await t.ready();
  const worker = t.rows.find(row => row.label === 'worker 2') ?? t.rows.find(row => row.task);
  t.show(t.outline.ended * 0.45, t.outline.ended * 0.75);
  const longest = [...t.marks.stalls].sort((a, b) => b[1] - b[0] - a[1] + a[0])[0];
  view.task(longest ? longest[3] : worker.task, longest ? longest[0] : t.start);
  await t.ready();
}"""


def main() -> None:
    """Write the picture."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "tracesvc"]
        subprocess.run([*command, "demo", "--seconds", "3", "--data", directory], check=True)
        (trace,) = Path(directory).glob("sessions/*/*.trace")
        view = subprocess.Popen(
            [*command, "view", "--no-browser", str(trace)], stdout=subprocess.PIPE, text=True
        )
        assert view.stdout is not None
        found = re.search(r"http://\S+", view.stdout.readline())
        assert found is not None
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport=SIZE, color_scheme="light")  # type: ignore[arg-type]
            page.goto(found[0])
            page.evaluate(_SHOW)
            page.wait_for_timeout(500)
            page.screenshot(path=PICTURE)
            browser.close()
        view.terminate()
        view.wait()


if __name__ == "__main__":
    main()
