"""`tracesvc view`: files in the browser."""

import json
import re
import signal
import urllib.request

from tests.cli.commands import failed, run, start
from tests.traces import program


def test_a_file_is_served_until_it_is_interrupted(tmp_path):
    stream = program(3, events=400)
    half = len(stream.data) // 2
    path = tmp_path / "a.trace"
    path.write_bytes(stream.data[:half])
    view = start("view", "--no-browser", path)
    try:
        line = view.stdout.readline()
        url = re.search(r"(http://\S+)/#/s/(\S+)", line)
        assert url is not None, line
        assert url[2] == stream.session

        def get(what):
            with urllib.request.urlopen(f"{url[1]}/v1/sessions/{what}", timeout=20) as answer:
                return answer.read()

        before = json.loads(get(stream.session))
        assert before["bytes"] <= half
        path.write_bytes(stream.data)
        after = json.loads(get(stream.session))
        assert (after["events"], after["state"]) == (len(stream.events), "ended")
        assert after["ledger"]["closed"]
        assert get(f"{stream.session}/frames") == stream.data
    finally:
        view.send_signal(signal.SIGINT)
        assert view.wait(20) == 0
        view.stdout.close()
        view.stderr.close()


def test_what_is_no_trace_is_said_in_one_line(tmp_path):
    failed(run("view", "--no-browser", tmp_path / "none"), 1)
    (tmp_path / "text").write_text("no trace at all " * 100)
    failed(run("view", "--no-browser", tmp_path / "text"), 1)
