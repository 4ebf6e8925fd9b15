"""`tracesvc run`: a program that knows nothing of us is traced, and nobody can tell by how it behaves."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.recorder.recording import Recording
from tracesvc.model.verify import verify

PATIENCE = 60
"""seconds that a program may take which should take one"""


def run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


class Program:
    """A script in a directory of its own, and the command that traces it."""

    def __init__(self, directory: Path, text: str, name: str = "program.py") -> None:
        self.directory = directory
        self.script = directory / name
        self.trace = directory / "program.trace"
        self.script.write_text(textwrap.dedent(text))

    def command(self, *args: str, module=False, options=("-q",)) -> list[str]:
        program = ["-m", self.script.stem] if module else [str(self.script)]
        traced = [sys.executable, "-m", "tracesvc", "run", *options, "-o", str(self.trace)]
        return [*traced, *program, *args]

    def run(self, *args: str, traced: bool = True, **how) -> subprocess.CompletedProcess[str]:
        plain = [sys.executable, str(self.script), *args]
        return run(self.command(*args, **how) if traced else plain, self.directory)

    def start(self, *args: str, **how) -> subprocess.Popen[str]:
        command, pipe = self.command(*args, **how), subprocess.PIPE
        return subprocess.Popen(command, cwd=self.directory, stdout=pipe, stderr=pipe, text=True)

    def recording(self) -> Recording:
        """Of a session that was ended in order."""
        return Recording(self.trace.read_bytes())

    def readable(self) -> Recording:
        """As far as it goes: the program did not come to its end."""
        report = verify(self.trace)
        assert report.ok, report.violations[:5]
        assert not report.ended
        return Recording(self.trace.read_bytes(), whole=False)


@pytest.fixture
def program(tmp_path):
    return lambda text, **how: Program(tmp_path, text, **how)


def wait_for_size(path: Path, size: int) -> None:
    """Until a trace has grown so far."""
    end = time.monotonic() + PATIENCE
    while not (path.exists() and path.stat().st_size >= size):
        assert time.monotonic() < end, f"{path} stays below {size} bytes"
        time.sleep(0.001)


# --- exit codes and signals ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "ending, code, words",
    [("sys.exit(3)", 3, ""), ("sys.exit('no good')", 1, "no good\n"), ("pass", 0, "")],
)
def test_the_exit_code_is_the_programs_own(program, ending, code, words):
    traced = program(f"""
        import sys
        import trio
        async def main():
            await trio.lowlevel.checkpoint()
            {ending}
        trio.run(main)
    """)
    done = traced.run()
    assert (done.returncode, done.stdout, done.stderr) == (code, "", words)
    assert traced.recording().of("task_exit", task="main")


def test_an_exception_is_1_and_only_the_programs_own_traceback(program):
    traced = program("""
        import trio
        async def main():
            await trio.lowlevel.checkpoint()
            try:
                {}["missing"]
            except KeyError:
                raise ValueError("of the program") from None
        trio.run(main)
    """)
    plain, done = traced.run(traced=False), traced.run()
    assert done.returncode == plain.returncode == 1
    assert "ValueError: of the program" in done.stderr
    assert "tracesvc" not in done.stderr
    assert "click" not in done.stderr

    def own(text: str) -> str:
        return "".join(line for line in text.splitlines(keepends=True) if "^^^" not in line)

    assert own(done.stderr) == own(plain.stderr)
    traced.recording()


WAITS = """
    import trio
    async def main():
        print("up", flush=True)
        while True:
            await trio.sleep(0.001)
    try:
        trio.run(main)
    finally:
        print("cleaned up", flush=True)
"""


def test_sigint_reaches_the_program_and_then_the_process_dies_of_it(program):
    traced = program(WAITS)
    process = traced.start()
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGINT
    assert out == "cleaned up\n"
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert "tracesvc" not in err
    assert traced.recording().of("task_exit", task="main")


def test_a_program_that_handles_ctrl_c_ends_as_it_likes(program):
    traced = program(
        WAITS.replace("finally:", "except KeyboardInterrupt:").replace(
            'print("cleaned up", flush=True)', "raise SystemExit(7)"
        )
    )
    process = traced.start()
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 7, err
    traced.recording()


def test_sigterm_ends_the_process_and_the_file_is_readable_so_far(program):
    traced = program(WAITS)
    process = traced.start()
    wait_for_size(traced.trace, 2000)  # more than a header: events
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGTERM
    assert traced.readable().of("step_start")


def test_os_exit_leaves_a_readable_file(program):
    traced = program("""
        import os, sys, trio
        async def main():
            while not os.path.exists(sys.argv[1]) or os.path.getsize(sys.argv[1]) < 2000:
                await trio.sleep(0.001)
            os._exit(5)
        trio.run(main)
    """)
    assert traced.run(str(traced.trace)).returncode == 5
    assert traced.readable().of("step_start")


@pytest.mark.slow
def test_kill_9_at_random_moments_leaves_every_frame_readable(program):
    traced = program("""
        import itertools
        import trio
        import tracesvc
        async def main():
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(works)
        async def works():
            for i in itertools.count():
                with tracesvc.span(f"job {i % 100}", number=i):
                    tracesvc.log("x" * (i % 3000))
                    await trio.lowlevel.checkpoint()
        trio.run(main)
    """)
    dice = random.Random(9)
    sizes = []
    for _ in range(10):
        traced.trace.unlink(missing_ok=True)
        process = traced.start(options=("-q", "--no-compress"))
        wait_for_size(traced.trace, dice.choice([1, dice.randrange(1, 1 << 20)]))
        process.kill()
        process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGKILL
        sizes.append(len(traced.readable().data))
    print(f"killed at {sizes} bytes; every frame is readable")


def test_the_black_box_of_a_killed_program_has_its_last_event(program, tmp_path):
    traced = program("""
        import os
        import trio
        import tracesvc
        async def main():
            for i in range(1000):
                tracesvc.log("at work", number=i)
            await trio.lowlevel.checkpoint()
            tracesvc.log("the last")
            os.kill(os.getpid(), 9)
        trio.run(main)
    """)
    boxes, out = tmp_path / "boxes", tmp_path / "crash.trace"
    done = traced.run(options=("-q", "--black-box", str(boxes)))
    assert done.returncode == -signal.SIGKILL
    assert (
        run(
            [sys.executable, "-m", "tracesvc", "recover", str(boxes), "-o", str(out)], tmp_path
        ).returncode
        == 0
    )
    logs = [
        log
        for log in Recording(out.read_bytes()).of("log")
        if not log.message.startswith("tracesvc")
    ]
    assert [log.message for log in logs[-2:]] == ["at work", "the last"]
    assert len(logs) == 1001


def test_no_room_for_the_black_box_is_one_line(program):
    done = program("print('ran')").run(options=("--black-box", "/proc/boxes"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("tracesvc: no black box in /proc/boxes")
    assert len(done.stderr.splitlines()) == 1


# --- what is run ---------------------------------------------------------------------------------


def test_a_script_sees_what_it_would_see_without_us(program):
    traced = program("""
        import sys, threading
        from neighbour import here
        print(sys.argv, __name__, __file__, sys.path[0], here, "click" in sys.argv[0])
        print(sys.modules["__main__"].__dict__ is globals(), __spec__, threading.current_thread().name)
        if __name__ == "__main__":
            import trio
            trio.run(trio.sleep, 0)
    """)
    (traced.directory / "neighbour.py").write_text("here = True\n")
    args = ["--option", "-m", "x", "-o", "y", "--", "z"]
    plain, done = traced.run(*args, traced=False), traced.run(*args)
    assert done.stdout == plain.stdout
    assert "True" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert len(traced.recording().of("task_exit")) >= 2


def test_a_module_and_a_package(program):
    traced = program("""
        import sys, trio
        print(sys.argv[1:], __name__, __spec__.name)
        trio.run(trio.sleep, 0)
    """)
    done = traced.run("a", "-b", module=True)
    assert (done.returncode, done.stdout) == (0, "['a', '-b'] __main__ program\n"), done.stderr
    assert traced.recording().of("task_exit", task="sleep")

    package = traced.directory / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "part.py").write_text("import trio\nrun = trio.run\n")
    traced.script = package / "__main__.py"
    traced.script.write_text(
        "import trio\nfrom .part import run\nprint(__package__)\nrun(trio.sleep, 0)\n"
    )
    command = [*traced.command()[:-1], "-m", "package"]
    done = run(command, traced.directory)
    assert (done.returncode, done.stdout) == (0, "package\n"), done.stderr
    assert traced.recording().of("task_exit", task="sleep")


@pytest.mark.parametrize("args", [["missing.py"], ["-m", "no_such_module"], ["broken.py"]])
def test_what_cannot_be_run_is_a_usage_error_and_leaves_no_file(tmp_path, args):
    (tmp_path / "broken.py").write_text("def (\n")
    command = [sys.executable, "-m", "tracesvc", "run", "-o", "x.trace", *args]
    done = run(command, tmp_path)
    assert done.returncode == 2
    assert f"cannot run {args[-1]}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.trace").exists()


def test_the_closing_line_counts_and_the_name_is_the_scripts(program):
    traced = program("import trio\ntrio.run(trio.sleep, 0)\n")
    done = traced.run(options=("--no-compress",))
    recording = traced.recording()
    assert done.stderr == f"tracesvc: {len(recording.events):,} events, 0 lost; {traced.trace}\n"
    assert recording.header.source["name"] == "program.py"
    assert recording.header.source["pid"] != os.getpid()


# --- which runs ----------------------------------------------------------------------------------


def test_every_run_in_whatever_thread_and_by_whatever_import_path(program):
    traced = program("""
        import queue, threading
        import trio
        from trio import run
        from trio.lowlevel import start_guest_run

        async def imported(): await trio.sleep(0)
        async def threaded(): await trio.to_thread.run_sync(len, "abc")
        async def guest(): await trio.sleep(0.001)

        run(imported)
        trio.run(imported)
        threads = [threading.Thread(target=run, args=(threaded,)) for _ in range(4)]
        for thread in threads: thread.start()
        todo = queue.SimpleQueue()
        start_guest_run(
            guest,
            run_sync_soon_threadsafe=todo.put,
            done_callback=lambda outcome: todo.put(None),
            host_uses_signal_set_wakeup_fd=False,
        )
        while (call := todo.get()) is not None: call()
        for thread in threads: thread.join()
    """)
    done = traced.run()
    assert (done.returncode, done.stderr) == (0, "")
    recording = traced.recording()
    runs = [event for event in recording.of("proc_start") if event.kind == 1]
    assert len(runs) == 7
    for name, count in {"imported": 2, "threaded": 4, "guest": 1}.items():
        assert len(recording.of("task_exit", task=name)) == count
    assert len(recording.of("thread_end")) == 4


def test_a_trace_that_begins_when_the_program_is_about_to_end(program):
    """From Python 3.12 on no thread can be started then."""
    traced = program("""
        import atexit, sys
        import trio
        import tracesvc
        async def goodbye():
            async with tracesvc.open_tracer(tracesvc.FileSink(sys.argv[1])):
                tracesvc.log("goodbye")
        atexit.register(trio.run, goodbye)
    """)
    done = traced.run(str(traced.trace), traced=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [log.message for log in traced.recording().of("log")] == ["goodbye"]


def test_the_programs_atexit_handlers_run_and_are_traced(program):
    traced = program("""
        import atexit, threading
        import trio
        import tracesvc
        async def goodbye(): tracesvc.log("goodbye")
        async def main(): tracesvc.log("hello")
        def late(): trio.run(main)
        atexit.register(lambda: print("first registered, last to run"))
        atexit.register(trio.run, goodbye)
        threading.Thread(target=late).start()
    """)
    done = traced.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "first registered, last to run\n", "")
    assert [log.message for log in traced.recording().of("log")] == ["hello", "goodbye"]


# --- fork: a child that unwinds the run that it was forked in takes the parent's wake-ups with it, traced or not

FORKS = """
    import os, sys, warnings
    import trio
    import tracesvc
    from tracesvc.recorder.tracer import current_tracer

    # From Python 3.12 on, of every process with threads: and the tracer has some.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

    async def of_parent():
        tracesvc.log("parent")
        await trio.sleep(0)

    async def of_child(path):
        if path:
            async with tracesvc.open_tracer(tracesvc.FileSink(path)):
                tracesvc.log("own trace")
                await trio.to_thread.run_sync(int)
        else:
            tracesvc.log("nowhere")
            await trio.to_thread.run_sync(int)

    async def forks_inside(): fork()
    def fork():
        pid = os.fork()
        if not pid:
            try:
                assert current_tracer() is None
                if not inside:
                    trio.run(of_child, path)
                tracesvc.log("nowhere")
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(99)
            (os._exit if leave == "os._exit" else sys.exit)(11)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 11

    leave, where, path = sys.argv[1:]
    inside = where == "inside"
    trio.run(of_parent)
    trio.run(forks_inside) if inside else fork()
    trio.run(of_parent)
"""


@pytest.mark.parametrize(
    "leave, where, own",
    [
        ("sys.exit", "outside", True),
        ("os._exit", "outside", False),
        ("sys.exit", "outside", False),
        ("os._exit", "inside", False),
    ],
)
def test_a_forked_child_is_off_and_writes_nothing_of_the_parents(program, leave, where, own):
    traced = program(FORKS)
    trace_of_child = traced.directory / "child.trace"
    done = traced.run(leave, where, str(trace_of_child) if own else "", options=())
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr  # the closing line, once
    recording = traced.recording()
    assert [log.message for log in recording.of("log")] == ["parent", "parent"]
    if own:
        child = Recording(trace_of_child.read_bytes())
        assert [log.message for log in child.of("log")] == ["own trace"]
        assert child.header
        assert recording.header
        assert child.header.source["pid"] != recording.header.source["pid"]
        assert child.header.session != recording.header.session
