"""why, tasks, stalls, latency, lint, diff, query on the command line: what they print, JSON, exit codes."""

import json

import pytest

from tests.analysis.test_questions import busy
from tests.analysis.test_why import checkout
from tests.cli.commands import failed, run
from tests.traces import program

QUESTIONS = {
    "why": (),
    "tasks": (),
    "stalls": ("--over", "1ns"),
    "latency": (),
    "lint": (),
    "query": ("select count(*) from steps",),
}


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "app.trace"
    path.write_bytes(checkout().data)
    return path


@pytest.fixture
def hogged(tmp_path):
    path = tmp_path / "busy.trace"
    path.write_bytes(busy().end(1000).data)
    return path


@pytest.mark.parametrize("command", QUESTIONS)
def test_every_question_has_an_answer_for_people_and_one_in_json(command, trace):
    words = QUESTIONS[command]
    done = run(command, trace, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert not set(done.stdout) & set("\x1b━─│┃")
    assert json.loads(run(command, trace, *words, "--json").stdout)


def test_why_tells_the_account_and_the_path(trace):
    done = run("why", trace, "checkout", "--path")
    assert done.stdout.startswith(
        "span checkout (7) took 212 ns: 140 ns waiting for task db_writer"
    )
    for line in (
        "140 ns  66.0%  waiting for task db_writer (lock)",
        "100 ns  47.2%  waiting for thread hash",
        "41 ns  19.3%  runnable behind task render and 1 more",
        "begun in task app.checkout (1)",
        "n=1",
    ):
        assert line in done.stdout, done.stdout
    answer = json.loads(run("why", trace, "7", "--json").stdout)
    assert sum(part["duration"] for part in answer["path"]) == answer["duration"] == 212
    assert sum(group["total"] for group in answer["groups"]) == 212


def test_why_of_a_window(trace):
    done = run("why", trace, "--from", "100ns", "--to", "@300")
    assert done.stdout.startswith("the window took 200 ns: ")
    assert "followed back from task app.checkout (1)" in done.stdout


def test_tasks_is_a_tree(hogged):
    done = run("tasks", hogged, "--at", "@450")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("3 tasks at ")
    assert lines[2:] == [
        "app.main (1)  waits: nursery 50, for 410 ns, in serve",
        "  app.worker (2)  running, for 250 ns",
        "  app.worker (3)  waits: lock 7, for 300 ns, held by task 2",
    ]


def test_stalls_names_whom_they_delayed(hogged):
    done = run("stalls", hogged, "--over", "200ns")
    assert "1 step of 200 ns or more, 500 ns in all" in done.stdout
    assert "worker 200 ns" in done.stdout
    assert "(gc 100 ns)" in done.stdout


def test_lint_exits_with_1_if_there_is_something(hogged):
    assert "nothing found" in run("lint", hogged).stdout
    done = run("lint", hogged, "--step", "400ns", "--only", "never-yields")
    assert (done.returncode, done.stderr) == (1, "")
    assert "never-yields: task worker ran 500 ns without a checkpoint" in done.stdout
    assert "no lint nonsense" in failed(run("lint", hogged, "--only", "nonsense"), 2)


def test_latency_draws_one_name(hogged):
    done = run("latency", hogged, "--name", "app.worker", "--of", "step")
    assert "512 ns" not in done.stdout.splitlines()[0]
    assert "256 ns to    512 ns" in done.stdout
    assert "#" in done.stdout
    assert "nothing of the name 'x'" in failed(run("latency", hogged, "--name", "x"), 1)


def test_diff_is_a_gate_for_ci(tmp_path):
    from tests.analysis.streams import Hand

    paths = []
    for length in (10**6, 2 * 10**6):
        events = [("proc_start", 0, 1, 1, "r"), ("task_create", 0, 1, 0, 0, "t", "f")]
        for i in range(1, 11):
            begin = i * 10**9
            events += [("span_begin", begin, i, 0, 0, "GET /", None)]
            events += [("span_end", begin + length, i, 0)]
        paths.append(tmp_path / f"{length}.trace")
        paths[-1].write_bytes(Hand().generation(0).events(1, *events).end(10**11).data)
    slow = run("diff", *paths)
    assert (slow.returncode, slow.stderr) == (1, "")
    assert "verdict: slower" in slow.stdout
    assert "2.00" in slow.stdout
    assert run("diff", *paths, "--ratio", "3").returncode == 0
    assert run("diff", *paths, "--time", "5ms").returncode == 0
    assert run("diff", *paths, "--only", "task").returncode == 0
    fast = run("diff", *paths[::-1], "--json")
    assert (fast.returncode, json.loads(fast.stdout)["verdict"]) == (0, "faster")


def test_query_prints_a_table_csv_or_json(trace):
    sql = "select reason, sum(duration) as ns from waits group by 1 order by 2"
    assert run("query", trace, sql).stdout.split() == [
        "reason",
        "ns",
        "thread",
        "100",
        "lock",
        "140",
    ]
    assert run("query", trace, sql, "--csv").stdout.split() == [
        "reason,ns",
        "thread,100",
        "lock,140",
    ]
    answer = json.loads(run("query", trace, sql, "--json").stdout)
    assert answer["rows"] == [{"reason": "thread", "ns": 100}, {"reason": "lock", "ns": 140}]
    assert "there are more than 1 rows" in run("query", trace, sql, "--most", "1").stdout
    assert "Parser Error" in failed(run("query", trace, "selec"), 1)


def test_gaps_are_told_by_every_question(tmp_path):
    path = tmp_path / "lossy.trace"
    path.write_bytes(program(2, events=2500, generations=6, losses=0.3).data)
    for command, words in QUESTIONS.items():
        if command != "why":
            assert "events are missing" in run(command, path, *words).stdout, command


@pytest.mark.parametrize(
    "words",
    [
        ("why", "x.trace", "span", "--from", "1s", "--to", "2s"),
        ("why", "x.trace", "--from", "1s"),
        ("stalls", "x.trace", "--over", "long"),
        ("diff", "x.trace"),
        ("query", "x.trace"),
    ],
)
def test_command_lines_that_make_no_sense(words):
    assert "--help" in failed(run(*words), 2)


@pytest.mark.parametrize("at", ["noon", "25:00:00", "@x"])
def test_what_is_no_point_in_time(at, trace):
    assert failed(run("tasks", trace, "--at", at), 2)


def test_points_in_time(trace):
    # The stream begins at 22:13:20 UTC.
    for at in ("0.0000001s", "100ns", "@100", "+100ns", "22:13:20.0000001"):
        assert json.loads(run("tasks", trace, "--at", at, "--json").stdout)["time"] == 100, at


@pytest.mark.parametrize("command", QUESTIONS)
def test_what_is_no_trace_is_one_line(command, tmp_path):
    path = tmp_path / "note.txt"
    path.write_bytes(b"dear diary, " * 1000)
    assert "not a trace" in failed(run(command, path, *QUESTIONS[command]), 1)
    assert "No such file" in failed(run(command, tmp_path / "none", *QUESTIONS[command]), 1)


def test_a_span_that_is_not_there(trace):
    assert "no span 'nonsense'" in failed(run("why", trace, "nonsense"), 1)
