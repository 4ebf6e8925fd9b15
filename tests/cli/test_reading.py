"""summary, verify and ls: what they print, and how they fail."""

import json
import subprocess
import sys

import pytest

from tests.cli.commands import COMMAND, ENVIRONMENT, failed, run, small
from tests.traces import program


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "app.trace"
    path.write_bytes(small().end(10_000).data)
    return path


def damaged(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    return path


def test_help_loads_nothing_that_only_a_command_needs():
    code = (
        "import sys; sys.argv = ['tracesvc', '--help']\n"
        "from tracesvc.cli import main\n"
        "try: main()\n"
        "finally: print(*{'numpy', 'rich', 'httpx2'} & sys.modules.keys(), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.strip() == ""
    assert all(
        name in done.stdout for name in ("run", "summary", "tail", "verify", "ls", "serve", "demo")
    )


def test_summary_is_plain_text_in_a_pipe(trace):
    done = run("summary", trace)
    assert (done.returncode, done.stderr) == (0, "")
    assert "9 events, none lost" in done.stdout
    assert "app[red]" in done.stdout
    for word in ("Tasks", "Spans", "Run loops", "Longest steps", "Counters", "look out k=v"):
        assert word in done.stdout
    assert not set(done.stdout) & set("\x1b─━│┃")


@pytest.mark.parametrize("columns", [80, 140])
def test_no_line_is_wider_than_the_terminal(columns, tmp_path):
    path = tmp_path / "made.trace"
    path.write_bytes(program(2, events=3000, losses=0.05).data)
    environment = {**ENVIRONMENT, "COLUMNS": str(columns), "FORCE_COLOR": "1", "TERM": "xterm"}
    done = subprocess.run(
        [*COMMAND, "summary", path],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=environment,
    )
    from rich.text import Text

    assert max(Text.from_ansi(line).cell_len for line in done.stdout.splitlines()) <= columns


def test_summary_as_json_has_all(trace):
    done = run("summary", "--json", trace)
    summary = json.loads(done.stdout)
    assert (summary["events"], summary["lost"], summary["ended"]) == (9, 0, True)
    assert summary["tasks"]["app[red]"]["running"] == 5000
    assert summary["spans"]["GET /"]["durations"]["p99"] == 3000


def test_summary_with_the_tracers_own_tasks(tmp_path):
    path = tmp_path / "made.trace"
    path.write_bytes(program(4, events=3000).data)
    own = "tracesvc reader"
    assert own not in json.loads(run("summary", "--json", path).stdout)["tasks"]
    assert own in json.loads(run("summary", "--json", "--own", path).stdout)["tasks"]


def test_verify_says_that_all_holds(trace):
    done = run("verify", trace)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith("all holds")
    assert json.loads(run("verify", "--json", trace).stdout)["ok"] is True


def test_verify_names_what_is_wrong_with_a_damaged_trace(trace):
    done = run("verify", damaged(trace))
    assert done.returncode == 1
    assert done.stderr == ""
    assert "[damage]" in done.stdout
    report = run("verify", "--json", trace)
    assert report.returncode == 1
    assert json.loads(report.stdout)["counts"]["damage"] == 1


def test_summary_of_a_damaged_trace_says_so(trace):
    done = run("summary", damaged(trace))
    assert done.returncode == 0
    assert "damaged: " in done.stdout


@pytest.mark.parametrize("command", ["summary", "verify", "tail"])
def test_a_file_that_is_not_there(command, tmp_path):
    assert "No such file" in failed(run(command, tmp_path / "none.trace"), 1)


@pytest.mark.parametrize("words", [("summary",), ("verify",), ("tail", "--no-follow"), ("tail",)])
def test_a_file_that_is_no_trace(words, tmp_path):
    path = tmp_path / "note.txt"
    path.write_bytes(b"dear diary, " * 1000)
    assert "not a trace" in failed(run(*words, path), 1)


@pytest.mark.parametrize(
    "words",
    [("summary",), ("verify", "--jsn", "x"), ("nonsense",), ("tail", "x", "--session", "y")],
)
def test_a_command_line_that_makes_no_sense(words):
    assert "--help" in failed(run(*words), 2)


@pytest.mark.parametrize("command", ["summary", "tail", "ls"])
def test_a_service_that_is_not_there(command):
    assert "cannot reach http://127.0.0.1:9" in failed(run(command, "http://127.0.0.1:9/"), 1)


@pytest.mark.parametrize("words", [("tail",), ("summary",), ("verify",)])
def test_a_reader_that_has_seen_enough_is_no_failure(words, tmp_path):
    path = tmp_path / "made.trace"
    path.write_bytes(program(1, events=20_000).data)
    done = subprocess.run(
        ["sh", "-c", f'"$@" {path} | head -c 1 > /dev/null', "sh", *COMMAND, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=ENVIRONMENT,
    )
    assert done.stderr == ""


def test_ls_of_a_directory(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "ended.trace").write_bytes(small().end(5_000_000_000).data)
    (tmp_path / "open.trace").write_bytes(small().lose(1, 7, 9_000, 9_500).data)
    (tmp_path / "not.trace").write_bytes(b"nothing of the kind")
    done = run("ls", "--json", tmp_path)
    assert done.returncode == 0
    found = {one["trace"]: one for one in json.loads(done.stdout)}
    ended, still = found["below/ended.trace"], found["open.trace"]
    assert (ended["source"], ended["events"], ended["lost"], ended["state"]) == (
        "by hand",
        9,
        0,
        "ended",
    )
    assert (ended["duration"], ended["started"]) == (5_000_000_000, 1_700_000_000_000_000_000)
    assert (still["events"], still["lost"], still["state"]) == (9, 7, "open")
    assert found["not.trace"]["state"] == "not a trace"
    listing = run("ls", tmp_path).stdout
    assert all(
        word in listing
        for word in ("below/ended.trace", "5.00 s", "2023-11-14 22:13:20", "by hand")
    )


def test_ls_of_no_directory(tmp_path):
    assert "no such directory" in failed(run("ls", tmp_path / "none"), 1)
