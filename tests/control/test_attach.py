"""``tracesvc attach``, `tracesvc.install`: real processes, attached to from outside."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tracesvc
from tests.cli.commands import COMMAND, ENVIRONMENT, failed, run, start
from tests.control.programs import BUSY, running
from tracesvc.control.attach import attach, door_script
from tracesvc.model.verify import verify


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    """Nobody else meets here."""
    place = tmp_path / "place"
    monkeypatch.setenv("TRACESVC_DIR", str(place))
    monkeypatch.setitem(ENVIRONMENT, "TRACESVC_DIR", str(place))
    return place


def names(data: bytes) -> set[str]:
    return {e.name for e in tracesvc.read(data) if e.type == "task_create"}


def test_a_program_that_runs_is_traced(tmp_path):
    file = tmp_path / "attached.trace"
    with running(BUSY) as program:
        done = run("attach", program.pid, "--seconds", "0.5", "-o", file)
        assert done.returncode == 0, done.stderr
        data = file.read_bytes()
    assert verify(data).ok
    assert {"worker 0", "worker 1", "worker 2"} <= names(data)
    assert not any(name.startswith("tracesvc") for name in names(data))
    spans = [e for e in tracesvc.read(data) if e.type == "span_begin"]
    assert {e.attributes["number"] for e in spans} == {"0", "1", "2"} or {
        e.attributes["number"] for e in spans
    } == {0, 1, 2}


def test_ctrl_c_ends_the_trace_in_order(tmp_path):
    file = tmp_path / "attached.trace"
    with running(BUSY) as program:
        command = start("attach", program.pid, "-o", file)
        while not (file.exists() and file.stat().st_size):
            assert command.poll() is None, command.stderr.read()
        command.send_signal(signal.SIGINT)
        _, error = command.communicate(timeout=30)
        assert command.returncode == 0, error
    assert verify(file.read_bytes()).ok


def test_a_hundred_times_leaves_neither_file_nor_thread_nor_task(own_place):
    with running(BUSY) as program:

        def handles() -> int:
            return sum(1 for _ in Path(f"/proc/{program.pid}/fd").iterdir())

        seen = []
        for _ in range(100):
            with attach(program.pid) as trace:
                assert trace.program["pid"] == program.pid
            seen.append(handles())
        # The door may stand open still: its run has a few of its own.
        assert max(seen[50:]) <= max(seen[:50])
        program.stdin.close()
        left = program.stdout.read()
    assert "tracesvc pacer" not in left
    assert "tracesvc sink" not in left
    assert len([*own_place.iterdir()]) <= 1  # the socket of the door


def test_two_at_once_join_the_same_session():
    with running(BUSY) as program, attach(program.pid, seconds=0.5) as first:
        with attach(program.pid, seconds=0.3) as second:
            data = b"".join(second)
        other = b"".join(first)
    sessions = {tracesvc.read(part).session.id for part in (data, other)}
    assert len(sessions) == 1
    assert verify(data).ok
    assert verify(other).ok


TRACING = BUSY.replace("trio.run(main)", "").replace("async def main():", "async def traced():") + (
    "async def main():\n"
    "    async with tracesvc.open_tracer(tracesvc.FileSink(sys.argv[-1] if 0 else FILE)):\n"
    "        await traced()\n"
    "trio.run(main)\n"
)


def test_a_program_that_traces_already_is_joined(tmp_path):
    own = tmp_path / "own.trace"
    with running(f"FILE = {str(own)!r}\n" + TRACING) as program:
        with attach(program.pid, seconds=0.3) as trace:
            data = b"".join(trace)
        program.stdin.close()
        program.stdout.read()
        program.wait()
    assert verify(data).ok
    assert verify(own.read_bytes()).ok
    assert tracesvc.read(data).session.id == tracesvc.read(own).session.id


BY_HAND = BUSY.replace("async def main():", "async def main():\n    tracesvc.Tracer().start()")


def test_a_tracer_that_was_started_by_hand_is_left_alone(tmp_path):
    with running(BY_HAND) as program:
        line = failed(run("attach", program.pid, "-s", "1", "-o", tmp_path / "x"), 1)
    assert "started in this process by hand" in line


GUEST = """
import queue, trio, tracesvc
tracesvc.install()
jobs = queue.SimpleQueue()
async def main():
    print("ready", flush=True)
    while True:
        await trio.sleep(0.01)
trio.lowlevel.start_guest_run(
    main, run_sync_soon_threadsafe=jobs.put, done_callback=print)
while True:
    jobs.get()()
"""

THREAD = """
import threading, trio, tracesvc
tracesvc.install()
async def main():
    print("ready", flush=True)
    while True:
        await trio.sleep(0.01)
threading.Thread(target=trio.run, args=(main,), daemon=True).start()
threading.Event().wait()
"""


@pytest.mark.parametrize("code", [GUEST, THREAD], ids=["guest", "thread"])
def test_runs_of_other_kinds(code):
    with running(code) as program, attach(program.pid, seconds=0.5) as trace:
        data = b"".join(trace)
    assert verify(data).ok
    assert "__main__.main" in names(data)


FORKS = """
import os, trio, tracesvc
tracesvc.install()
async def main():
    print("ready", flush=True)
    while True:
        await trio.sleep(0.01)
child = os.fork()
if child:
    os.waitpid(child, 0)
else:
    open(CHILD, "w").write(str(os.getpid()))
    trio.run(main)
"""


def test_a_forked_child_is_prepared_too(tmp_path):
    file = tmp_path / "child"
    with running(f"CHILD = {str(file)!r}\n" + FORKS):
        child = int(file.read_text())
        try:
            with attach(child, seconds=0.3) as trace:
                assert verify(b"".join(trace)).ok
        finally:
            os.kill(child, signal.SIGKILL)


CHAINED = """
import signal, sys, trio
signal.signal(signal.SIGURG, lambda *_: print("heard", flush=True))
""" + BUSY.replace("import sys, threading, trio, tracesvc", "import threading, tracesvc")


def test_a_handler_that_the_program_has_is_called_as_before():
    with running(CHAINED) as program:
        with attach(program.pid, seconds=0.1) as trace:
            b"".join(trace)
        program.stdin.close()
        assert "heard" in program.stdout.read()


def test_install_wants_the_main_thread():
    code = (
        "import threading, tracesvc\n"
        "def call():\n"
        "    try: tracesvc.install()\n"
        "    except ValueError as exc: print(exc)\n"
        "threading.Thread(target=call).start()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "main thread" in done.stdout


# --- what goes wrong gets one line -------------------------------------------------------------------


def test_a_pid_of_nobody(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    line = failed(run("attach", gone.pid, "-s", "1", "-o", tmp_path / "x"), 1)
    assert f"there is no process {gone.pid}" in line


UNPREPARED = "import time; print('ready', flush=True); time.sleep(60)"


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there every program is prepared")
def test_a_program_that_has_prepared_nothing(tmp_path):
    with running(UNPREPARED) as program:
        line = failed(run("attach", program.pid, "-s", "1", "-o", tmp_path / "x"), 1)
        assert "call tracesvc.install() in it, or start it with TRACESVC=attach" in line
        assert program.poll() is None


def test_a_full_disk(tmp_path):
    with running(BUSY) as program:
        line = failed(run("attach", program.pid, "-s", "5", "-o", "/dev/full"), 1)
        assert line == "tracesvc: /dev/full: No space left on device\n"
        with attach(program.pid, seconds=0.1) as trace:  # and the program is as it was
            assert verify(b"".join(trace)).ok


def test_a_program_that_dies_meanwhile(tmp_path):
    file = tmp_path / "attached.trace"
    with running(BUSY) as program:
        command = start("attach", program.pid, "-o", file)
        while not (file.exists() and file.stat().st_size):
            assert command.poll() is None, command.stderr.read()
        program.kill()
        _, error = command.communicate(timeout=30)
    assert command.returncode == 1
    assert error.count("\n") == 1
    assert "was gone before the trace ended" in error
    assert names(file.read_bytes())  # what came until then can be read


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user(tmp_path):
    with subprocess.Popen(["sleep", "60"], user="nobody") as program:
        line = failed(run("attach", program.pid, "-s", "1", "-o", tmp_path / "x"), 1)
        program.kill()
    assert f"process {program.pid} belongs to nobody: only the same user may attach" in line


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_place_that_others_can_enter_is_not_used(tmp_path, own_place, mode):
    own_place.mkdir()
    own_place.chmod(mode)
    with running(BUSY) as program:
        line = failed(run("attach", program.pid, "-s", "1", "-o", tmp_path / "x"), 1)
    assert "is no directory that only its owner can enter" in line


def test_wrong_words(tmp_path):
    file = tmp_path / "x"
    assert "SIGNONE" in failed(run("attach", "1", "--signal", "SIGNONE", "-o", file), 2)
    failed(run("attach", "nobody", "-o", file), 2)
    failed(run("top", "nobody"), 2)
    with running(BUSY) as program:
        with pytest.raises(tracesvc.ControlError, match="stall_s must be seconds"):
            attach(program.pid, options={"stall_s": -1})
        with pytest.raises(tracesvc.ControlError, match="there is no option 'way'"):
            attach(program.pid, options={"way": "public"})
        with pytest.raises(tracesvc.ControlError, match="seconds must be a number"):
            attach(program.pid, seconds=-1)


# --- without a change to the program -------------------------------------------------------------------

PLAIN = """
import sys, trio
async def main():
    print("ready", flush=True)
    while True:
        await trio.sleep(0.01)
EXEC
trio.run(main)
"""


def test_the_script_for_programs_that_prepared_nothing(own_place):
    """What CPython 3.14's sys.remote_exec is given to run, run here by the program itself."""
    with running(PLAIN.replace("EXEC", door_script())) as program:
        while not (own_place / f"{program.pid}.sock").exists():
            assert program.poll() is None
        with attach(program.pid, seconds=0.3) as trace:
            data = b"".join(trace)
    assert verify(data).ok
    assert "__main__.main" in names(data)


def test_the_environment_prepares_a_program_and_its_children(tmp_path):
    """As installed from a wheel: a .pth file beside the package calls it."""
    root = Path(tracesvc.__file__).parent.parent
    site = tmp_path / "site"
    site.mkdir()
    control = root / "tracesvc" / "control"
    (site / "tracesvc-startup.pth").write_text((control / "tracesvc-startup.pth").read_text())
    (site / "tracesvc_startup.py").write_text((control / "startup.py").read_text())
    add = f"import site; site.addsitedir({str(site)!r})\n"
    child = (
        "import os, sys, subprocess\n"
        f"sys.exit(subprocess.call([sys.executable, '-c', {add + PLAIN.replace('EXEC', '')!r}]))\n"
    )
    with running(add + child, env={"TRACESVC": "attach"}) as program:
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        try:
            with attach(int(children[0]), seconds=0.3) as trace:
                data = b"".join(trace)
        finally:
            for number in children:
                os.kill(int(number), signal.SIGKILL)
    assert verify(data).ok


def test_the_environment_imports_nothing_before_somebody_knocks():
    control = Path(tracesvc.__file__).parent / "control" / "startup.py"
    code = (
        "import importlib.util, signal, sys\n"
        f"spec = importlib.util.spec_from_file_location('tracesvc_startup', {str(control)!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "module.start()\n"
        "print(callable(signal.getsignal(signal.SIGURG)), 'trio' in sys.modules, 'tracesvc' in sys.modules)\n"
    )

    def said(value: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "TRACESVC": value},
        )

    assert said("attach").stdout == "True False False\n"
    wrong = said("nonsense")
    assert wrong.stdout == "False False False\n"
    assert wrong.stderr == "tracesvc: TRACESVC can be 'attach', not 'nonsense'\n"


def test_the_command_is_told_by_help():
    done = subprocess.run(
        [*COMMAND, "attach", "--help"], capture_output=True, text=True, check=True
    )
    assert "TRACESVC=attach" in done.stdout
