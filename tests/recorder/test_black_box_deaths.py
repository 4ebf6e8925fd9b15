"""Programs that die in every way, at any moment (`benchmarks.blackbox`, a few times), and the command for boxes."""

import json
import random
import signal
import subprocess
import sys

import pytest
import trio

from benchmarks.blackbox import die, judge
from tests.cli.commands import run, start
from tests.recorder.recording import Recording
from tracesvc.recorder.native import native as module

MINOR = int(trio.__version__.split(".")[1])
KINDS = [True, False] if module is not None else [False]


@pytest.fixture(scope="module")
def way():
    """Both ways are chosen here by each test itself."""


@pytest.mark.parametrize(
    "seed, native", [(seed, native) for seed in range(6) for native in KINDS if native or seed < 3]
)
def test_killed_at_any_moment_nothing_is_missing(tmp_path, native, seed):
    chance = random.Random(seed)
    seconds, burst = chance.uniform(0, 0.25), (1, 50, 2000)[seed % 3]
    died = die(tmp_path, native=native, seconds=seconds, burst=burst)
    assert died.code == -signal.SIGKILL
    assert died.told >= 0
    verdict = judge(died.boxes[0], died.told)
    assert verdict.faults == []
    assert verdict.first == 0


@pytest.mark.parametrize("native", KINDS)
@pytest.mark.parametrize("end, code", [("exit", 7), ("segfault", -signal.SIGSEGV)])
def test_dead_by_itself_nothing_is_missing(tmp_path, native, end, code):
    died = die(tmp_path, end, native=native, after=1000)
    assert died.code == code
    assert died.told == 1000
    assert judge(died.boxes[0], died.told).faults == []


# --- tracesvc recover ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_boxes(tmp_path_factory):
    where = tmp_path_factory.mktemp("boxes")
    for _ in range(2):
        die(where, "exit", after=200)
    return where


def test_the_command_makes_a_trace_and_tells_the_last_things(two_boxes, tmp_path):
    box = min(two_boxes.iterdir())
    path = tmp_path / "a.trace"
    done = run("recover", str(box), "-o", str(path))
    assert done.returncode == 0, done.stderr
    assert Recording(path.read_bytes()).of("log")
    assert "not read by the program any more; none lost by the crash" in done.stderr
    assert "ended span 'work'" in done.stderr
    assert run("verify", str(path)).returncode == 0
    told = json.loads(run("recover", str(box), "-o", str(path), "--json").stdout)
    assert told[0]["tasks"][0]["did"] == "running"
    assert box.is_dir()


def test_of_several_one_must_be_named_or_each_gets_its_own_file(two_boxes, tmp_path):
    done = run("recover", str(two_boxes), "-o", str(tmp_path / "a.trace"))
    assert done.returncode == 1
    assert "2 black boxes in" in done.stderr
    assert "name one of them" in done.stderr
    assert run("recover", str(two_boxes), "-o", str(tmp_path)).returncode == 0
    assert len(list(tmp_path.glob("*.trace"))) == 2
    assert run("recover", str(two_boxes)).stdout.count(" dead ") == 2


def test_the_box_of_a_program_that_lives_is_not_touched(tmp_path):
    code = f"""
import trio, tracesvc
async def main():
    async with tracesvc.open_tracer(black_box={str(tmp_path / "boxes")!r}):
        print("up", flush=True)
        await trio.to_thread.run_sync(input)
trio.run(main)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "up\n"
        (box,) = (tmp_path / "boxes").iterdir()
        out = str(tmp_path / "a.trace")
        assert " lives " in run("recover", str(tmp_path / "boxes")).stdout
        done = run("recover", str(box), "-o", out, "--remove")
        assert done.returncode == 1
        assert "still runs" in done.stderr
        done = run("recover", str(tmp_path / "boxes"), "-o", out)
        assert "of programs that still run" in done.stderr
        assert box.is_dir()
        program.communicate("\n")
    assert program.returncode == 0
    assert not box.exists()


def test_what_is_no_directory_and_what_is_no_box(tmp_path):
    assert "No such file" in run("recover", str(tmp_path / "no"), "-o", "a").stderr
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "box").write_bytes(b"x" * 100_000)
    done = run("recover", str(tmp_path / "b"), "-o", str(tmp_path / "a"))
    assert done.returncode == 1
    assert "this is no black box" in done.stderr
    assert not (tmp_path / "a").exists()


def test_removed_once_it_is_written(tmp_path):
    died = die(tmp_path / "boxes", "exit", after=50)
    done = run("recover", str(tmp_path / "boxes"), "-o", str(tmp_path / "a.trace"), "--remove")
    assert done.returncode == 0
    assert not died.boxes[0].parent.exists()
    Recording((tmp_path / "a.trace").read_bytes())


def address(service):
    """Where a service that has just been started says that it listens."""
    for line in service.stdout:
        for word in line.split():
            if word.startswith("http://"):
                return word.rstrip(".,;/")
    return pytest.fail("the service did not start")


@pytest.mark.skipif(MINOR < 32, reason="the service wants trio 0.32")
def test_sent_to_a_service_it_is_a_session_of_its_own(two_boxes, tmp_path):
    with start("serve", "--listen", "127.0.0.1:0", "--data", str(tmp_path)) as service:
        try:
            url = address(service)
            for _ in range(2):  # the second time it is there already
                done = run("recover", two_boxes, "--push", url)
                assert done.returncode == 0, done.stderr
            listed = json.loads(run("ls", url, "--json").stdout)
            assert len(listed) == 2
            assert run("summary", url).returncode == 0
        finally:
            service.terminate()
            service.communicate()
