"""Stacks of waits, causes of wake-ups, stalls, cancellations, errors: as far as another format can hold them."""

import json
import re
import subprocess

import pytest

from tests.analysis.streams import Hand
from tests.export import go_judge
from tests.export.perfetto_judge import query
from tests.judges import require_program
from tracesvc.events import CancelSource, Reason, WakeCause
from tracesvc.export import export
from tracesvc.export.replay import Replay
from tracesvc.export.wait_stacks import WaitStacks

DEEP = (("trio.Lock.acquire", "trio/_sync.py", 555), ("save", "app/db.py", 17))
LONG = (("crunch", "app/work.py", 9),)


def stream():
    """Task 2 waits for a lock that task 3 gives back; 3 stalls, is cancelled, and an error ends it."""
    hand = Hand().generation(0)
    hand.events(
        1,
        ("proc_start", 0, 1, 1, "run"),
        ("task_create", 10, 2, 0, 0, "two", "two (app.py:1)"),
        ("task_create", 11, 3, 0, 0, "three", "three (app.py:2)"),
        ("step_start", 20, 2),
        ("step_block", 30, 2, int(Reason.LOCK), 7),
        ("step_start", 40, 3),
        ("step_stack", 50, 3, LONG, 10, 1),
        ("task_stack", 5_000, 2, DEEP),
        ("task_runnable", 5_000, 2, 3, int(WakeCause.TASK)),
        ("step_block", 5_010, 3, int(Reason.SLEEP), 0),
        ("step_start", 5_020, 2),
        ("cancel_request", 5_030, 9, 3, 2, int(CancelSource.CALLED), 0, 0, "no need"),
        ("task_runnable", 5_030, 3, 2, int(WakeCause.CANCEL)),
        ("task_cancelled", 5_030, 3, 9),
        ("step_block", 5_040, 2, int(Reason.READABLE), 4),
        ("step_start", 5_050, 3),
        ("task_error", 5_060, 3, 5, "ValueError", "wrong"),
        ("task_exit", 5_060, 3, 2),
        ("task_stack", 6_000, 2, LONG),
        ("task_runnable", 7_000, 2, 0, int(WakeCause.IO)),
        ("step_start", 7_010, 2),
        ("task_exit", 7_020, 2, 1),
        ("proc_stop", 7_030),
    )
    return hand.end(8_000).data


def test_perfetto_says_causes_and_stacks(tmp_path):
    path = tmp_path / "a.pftrace"
    export(stream(), "perfetto", path)
    slices, notes, stats = query(
        path,
        "select name, ts, extract_arg(arg_set_id, 'debug.cause') cause, "
        "extract_arg(arg_set_id, 'debug.stack') stack from slice where dur > 0 order by ts",
        "select name, extract_arg(arg_set_id, 'debug.source') source from slice "
        "where dur = 0 and name != 'wake' order by ts",
        "select name, value from stats where value > 0 and severity != 'info'",
    )
    causes = [row["cause"] for row in slices if row["name"] == "runnable" and row["cause"]]
    assert causes == ["task", "cancel", "io"]
    stacks = {row["name"]: row["stack"] for row in slices if row["stack"]}
    assert stacks == {
        "waiting: lock": "trio.Lock.acquire (trio/_sync.py:555)\nsave (app/db.py:17)",
        "waiting: readable": "crunch (app/work.py:9)",
    }
    assert notes == [
        {"name": "a step runs for 0 ms: crunch (app/work.py:9)", "source": None},
        {"name": "cancelled: called, no need", "source": "called"},
        {"name": "cancels", "source": None},
        {"name": "is cancelled", "source": "called"},
        {"name": "ValueError: wrong", "source": None},
    ]
    assert stats == []


def test_chrome_says_causes_and_stacks(tmp_path):
    path = tmp_path / "a.json"
    export(stream(), "chrome", path)
    events = json.loads(path.read_text())["traceEvents"]
    args = [e["args"] for e in events if e.get("cat") == "state" and "args" in e]
    assert [a["cause"] for a in args if "cause" in a] == ["task", "cancel", "io"]
    assert [a["stack"].split(" ")[0] for a in args if "stack" in a] == [
        "trio.Lock.acquire",
        "crunch",
    ]
    kinds = [e["cat"] for e in events if e["ph"] == "i"]
    assert kinds == ["stall", "cancel", "error", "cancelled"]


def test_gos_profiles_have_the_stacks(tmp_path):
    path = tmp_path / "a.trace"
    done = export(stream(), "go", path)
    assert go_judge.counts(path) == go_judge.said(done.written)
    assert go_judge.counts(path)["UserLog"] == 3
    assert go_judge.profile(path, "sync", tmp_path) == (1, 4_970)
    assert {"save", "trio.Lock.acquire", "two"} <= functions(tmp_path / "sync.pb.gz")
    assert go_judge.profile(path, "net", tmp_path) == (1, 1_960)
    assert {"crunch", "two"} <= functions(tmp_path / "net.pb.gz")
    with go_judge.served(path) as url:
        for page in go_judge.PAGES:
            assert go_judge.fetch(url + page)


def test_pprof_has_the_stacks(tmp_path):
    path = tmp_path / "a.pb.gz"
    export(stream(), "pprof", path)
    assert {"save", "crunch", "two", "waiting: lock"} <= functions(path)
    assert go_judge.raw(path)[3:5] == [3, 4_970 + 20 + 1_960]


def functions(path):
    """Names of functions in a profile, as Go's tool reads it."""
    go = require_program("go", package="golang-go")
    done = subprocess.run(
        [go, "tool", "pprof", "-raw", str(path)], capture_output=True, text=True, check=True
    )
    found = re.findall(r"^ *\d+: 0x\w+ (?:M=\d+ )?(.+?) [^ ]*:\d+", done.stdout, re.MULTILINE)
    return set(found)


@pytest.mark.parametrize("to, left", [("go", 1), ("perfetto", 0), ("chrome", 0)])
def test_what_has_no_place_is_counted(tmp_path, to, left):
    done = export(stream(), to, tmp_path / "a")
    assert done.left_out["task_cancelled"] == left


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 1000])
def test_a_stack_belongs_to_its_wait_wherever_chunks_end(chunk):
    found, stacks = [], WaitStacks()
    for one in Replay(stream(), chunk=chunk).chunks():
        begins, ends = stacks.of(one)
        moves, texts = one.moves, one.columns.stacks
        for i in range(len(moves)):
            if ends[i]:
                found.append((int(moves.task[i]), int(moves.time[i]), texts[ends[i]]))
            if begins[i]:
                assert moves.move[i] == 8
    assert found == [(2, 5_000, DEEP), (2, 7_000, LONG)]
