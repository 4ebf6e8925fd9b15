"""Go's traces in: its own samples where Go is installed, and ours that came out."""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.cli.commands import failed, run
from tests.export import go_judge
from tests.judges import absent, require_program
from tests.traces import program
from tracesvc.analysis import summarize
from tracesvc.export import export
from tracesvc.format import FormatError
from tracesvc.model.reader import read
from tracesvc.model.verify import verify
from tracesvc.rewrite import import_go

SAMPLES = {"http": 55, "stress": 104_474, "stress_start_stop": 632, "user_task_region": 37}


def imported(source):
    pieces = []
    done = import_go(source, pieces.append)
    return b"".join(pieces), done


def sample(name):
    go = require_program("go", package="golang-go")
    root = subprocess.run(
        [go, "env", "GOROOT"], capture_output=True, text=True, check=True
    ).stdout.strip()
    for path in (Path(root), Path("/usr/share/go-1.19")):
        found = path / f"src/internal/trace/testdata/{name}_1_11_good"
        if found.exists():
            return found
    return absent("Go's sample traces", package="golang-go")


@pytest.mark.parametrize("name, count", SAMPLES.items())
def test_gos_own_samples_have_exactly_the_events_that_go_prints(tmp_path, name, count):
    path = sample(name)
    data, done = imported(path)
    assert sum(done.read.values()) == count
    assert done.read == go_judge.counts(path)
    events = list(read(data))
    assert Counter(e.type for e in events) == done.written
    summary = summarize(read(data))
    assert summary.events == len(events)
    assert verify(data).counts.keys() <= {"running", "waker", "annotation"}


@pytest.mark.parametrize("seed", range(5))
def test_what_went_out_comes_back(tmp_path, seed):
    stream = program(seed, runs=1)
    path = tmp_path / "a.trace"
    export(stream.data, "go", path)
    data, done = imported(path)
    types = Counter(e.type for e in stream.events)
    for kind in (
        "task_create",
        "step_start",
        "step_yield",
        "task_exit",
        "span_begin",
        "span_end",
        "log",
        "gc_start",
    ):
        assert done.written[kind] == types[kind] + (
            kind == "step_yield" and done.written[kind] - types[kind]
        )
    names = {e.name for e in read(data) if e.type == "task_create"}
    assert names == {e.name for e in stream.events if e.type == "task_create"}


def test_what_is_no_go_trace_is_refused(tmp_path):
    for data in (
        b"",
        b"go 1.19 trace\0\0\0",
        b"go 1.11 trace\0\0\0",
        b"go 1.11 trace\0\0\0\x41\x00",
    ):
        with pytest.raises(FormatError):
            import_go(data, [].append)
    path = tmp_path / "a.trace"
    path.write_bytes(b"nothing")
    assert "go 1.11 trace" in failed(run("import", path, "-o", tmp_path / "b"), 1)


def test_a_damaged_go_trace_is_refused_without_a_traceback(tmp_path):
    path = tmp_path / "a.trace"
    export(program(1).data, "go", path)
    good = path.read_bytes()
    for i in range(16, len(good), 97):
        spoiled = bytearray(good)
        spoiled[i] ^= 0x41
        try:
            import_go(bytes(spoiled), [].append)
        except FormatError:
            pass


def test_the_command_imports(tmp_path):
    path = tmp_path / "a.trace"
    export(program(1).data, "go", path)
    done = run("import", path, "-o", tmp_path / "b.trace")
    assert done.returncode == 0, done.stderr
    assert run("summary", tmp_path / "b.trace").returncode == 0
