"""``tracesvc top``: what it shows of a real process, in a pipe and on a terminal."""

import contextlib
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
from fcntl import ioctl

import pytest

from tests.analysis.streams import Hand
from tests.cli.commands import COMMAND, ENVIRONMENT, run
from tests.control.programs import BUSY, running
from tracesvc.analysis.live import LiveTasks
from tracesvc.events import Reason


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    place = tmp_path / "place"
    monkeypatch.setenv("TRACESVC_DIR", str(place))
    monkeypatch.setitem(ENVIRONMENT, "TRACESVC_DIR", str(place))
    return place


# --- the figures, on a trace made by hand ----------------------------------------------------------------

MS = 1_000_000


def by_hand() -> bytes:
    """Task 1 runs 30 of 100 ms in two steps and is woken once; task 2 waits from 10 ms on."""
    return (
        Hand()
        .generation(0)
        .events(
            1,
            ("proc_start", 0, 1, 1, "main"),
            ("task_create", 0, 1, 0, 0, "runner", "runner (app.py:1)"),
            ("task_create", 0, 2, 1, 1, "waiter", "waiter (app.py:2)"),
            ("step_start", 0, 1),
            ("step_block", 10 * MS, 1, int(Reason.SLEEP), 0),
            ("step_start", 10 * MS, 2),
            ("step_block", 11 * MS, 2, int(Reason.CHANNEL_RECEIVE), 7),
            ("task_runnable", 80 * MS, 1, 0, 0),
            ("step_start", 80 * MS, 1),
            ("counter", 100 * MS, "jobs", 1.0, 1),
        )
        .data
    )


@pytest.mark.parametrize("pieces", [1, 3, 50])
def test_what_the_tasks_do_and_did(pieces):
    data = by_hand()
    live = LiveTasks(window=1_000 * MS)
    size = len(data) // pieces + 1
    for i in range(0, len(data), size):
        live.feed(data[i : i + size])
    view = live.look()
    runner, waiter = sorted(view.rows, key=lambda row: row.task)
    assert (runner.name, runner.state, runner.age) == ("runner", "running", 20 * MS)
    assert runner.running == pytest.approx(0.3)
    assert runner.wakes == pytest.approx(10)
    assert runner.longest == 20 * MS
    assert (waiter.state, waiter.reason, waiter.object) == ("waiting", "channel_receive", 7)
    assert waiter.age == 89 * MS
    assert view.busy == pytest.approx(0.31)
    assert view.steps[0] == (20 * MS, "runner", 1)


def test_where_nothing_comes_time_goes_on():
    live = LiveTasks(window=1_000 * MS)
    live.feed(by_hand())
    later = live.look(quiet=500 * MS)
    (runner,) = (row for row in later.rows if row.task == 1)
    assert runner.age == 520 * MS
    assert live.look().rows != later.rows


def test_only_the_window_counts():
    live = LiveTasks(window=15 * MS)
    live.feed(by_hand())
    (runner,) = (row for row in live.look().rows if row.task == 1)
    assert runner.running == pytest.approx(1.0)
    assert runner.wakes == 0


# --- a real process --------------------------------------------------------------------------------------


def test_in_a_pipe_it_prints_a_table_a_look():
    with running(BUSY) as program:
        done = run("top", program.pid, "--count", "2", "--delay", "0.5", "--filter", "worker")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("none lost") == 2
    assert {"worker 0", "worker 1", "worker 2"} <= set(re.findall(r"worker \d", done.stdout))


def test_as_json_a_line_a_look():
    with running(BUSY) as program:
        done = run("top", program.pid, "-n", "2", "-d", "0.6", "--json")
    looks = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(looks) == 2
    assert {"worker 0", "worker 1", "worker 2"} <= {row["name"] for row in looks[-1]["rows"]}


class Terminal:
    """A terminal of 80 columns with ``top`` in it."""

    def __init__(self, pid: int) -> None:
        self.master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        environment = {k: v for k, v in ENVIRONMENT.items() if k != "COLUMNS"}
        self.process = subprocess.Popen(
            [*COMMAND, "top", str(pid), "-d", "0.2"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environment, "TERM": "xterm"},
        )
        self.text = ""

    def until(self, pattern: str) -> str:
        """What was shown up to this, without escape sequences."""
        while not (found := re.search(pattern, self.text)):
            assert select.select([self.master], [], [], 30)[0], self.text[-2000:]
            data = os.read(self.master, 1 << 16).decode(errors="replace")
            self.text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data)
        shown, self.text = self.text[: found.end()], self.text[found.end() :]
        return shown

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        os.close(self.slave)
        os.close(self.master)


def test_on_a_terminal_keys_do_what_they_say():
    with running(BUSY) as program:
        terminal = Terminal(program.pid)
        try:
            shown = terminal.until("by running")
            lines = [line.rstrip("\r") for line in shown.split("\n")]
            assert all(len(line) <= 80 for line in lines)
            terminal.press("s")
            terminal.until("by wakes")
            terminal.press("r")
            terminal.until("by wakes, reversed")
            terminal.press("/worker 1\n")
            terminal.until("only 'worker 1'")
            terminal.press(" ")
            terminal.until("held")
            terminal.press("q")
            assert terminal.process.wait(30) == 0
            assert termios.tcgetattr(terminal.slave) == terminal.before
        finally:
            terminal.close()
        assert program.poll() is None
