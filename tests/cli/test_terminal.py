"""What the commands do on a real terminal: Ctrl-C is a key there, and a bar shows how far a long look has come."""

import os
import pty
import subprocess
import sys
from contextlib import contextmanager

from tests.analysis.streams import SESSION
from tests.cli.commands import ENVIRONMENT, small, start
from tests.traces import program

# In a session of its own, whose terminal standard input is: then the terminal's keys become signals.
MAIN = """
import os
os.open(os.ttyname(0), os.O_RDWR)
import tracesvc.cli.progress as progress
progress.PATIENCE = {patience}
from tracesvc.cli import main
main()
"""
CTRL_C = b"\x03"


class Terminal:
    def __init__(self, arguments, patience):
        self._end, inside = pty.openpty()
        try:
            code = MAIN.format(patience=patience)
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, *map(str, arguments)],
                stdin=inside,
                stdout=inside,
                stderr=inside,
                start_new_session=True,
                env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"},
            )
        finally:
            os.close(inside)
        self.shown = b""

    def read_until(self, text):
        """Everything shown so far, up to the text; or to the end where there is None."""
        while text is None or text not in self.shown:
            try:
                part = os.read(self._end, 4096)
            except OSError:  # nobody has the other end open any more
                part = b""
            if not part:
                assert text is None, self.shown
                break
            self.shown += part
        return self.shown

    def press(self, key):
        os.write(self._end, key)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._end)


@contextmanager
def terminal(*arguments, patience=1.0):
    made = Terminal(arguments, patience)
    try:
        yield made
    finally:
        made.close()


def test_ctrl_c_ends_tail_of_a_file(tmp_path):
    path = tmp_path / "app.trace"
    path.write_bytes(small().data)
    with terminal("tail", path) as screen:
        screen.read_until(b"proc_stop")
        screen.press(CTRL_C)
        shown = screen.read_until(None)
        assert screen.process.wait(30) == 0
    assert b"Traceback" not in shown
    assert b"Aborted" not in shown


def test_ctrl_c_ends_tail_of_a_service(tmp_path):
    import httpx2

    service = start("serve", "--listen", "127.0.0.1:0", "--data", tmp_path)
    try:
        url = service.stdout.readline().split()[-1]
        target = f"{url}/v1/sessions/{SESSION}/frames"
        headers = {"content-type": "application/vnd.tracesvc"}
        assert httpx2.post(target, content=small().data, headers=headers).status_code == 200
        with terminal("tail", url) as screen:
            screen.read_until(b"proc_stop")
            screen.press(CTRL_C)
            shown = screen.read_until(None)
            assert screen.process.wait(30) == 0
        assert b"Traceback" not in shown
    finally:
        service.kill()
        service.communicate()


def test_a_bar_shows_how_far_a_long_look_has_come_and_goes_away(tmp_path):
    path = tmp_path / "app.trace"
    path.write_bytes(program(5, events=20_000).data)
    with terminal("summary", path, patience=0.0) as screen:
        shown = screen.read_until(None)
        assert screen.process.wait(60) == 0
    assert b"reading app.trace" in shown
    assert b"100%" in shown
    assert b"\x1b[?25h" in shown, "the cursor is there again"


def test_no_bar_where_it_is_quick(tmp_path):
    path = tmp_path / "app.trace"
    path.write_bytes(small().end(10_000).data)
    with terminal("summary", path, patience=60.0) as screen:
        shown = screen.read_until(None)
        assert screen.process.wait(60) == 0
    assert b"reading app.trace" not in shown
