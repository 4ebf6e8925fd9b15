"""``go tool trace`` of Go 1.19, the last one that reads nothing into a 1.11 file that is not there."""

import contextlib
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from tests.judges import absent, require_program

PAGES = [
    "/jsontrace",
    "/usertasks",
    "/userregions",
    "/goroutines",
    "/block?raw=1",
    "/io?raw=1",
    "/syscall?raw=1",
    "/sched?raw=1",
    "/mmuPlot?flags=system",
]


def tool() -> str:
    go = require_program("go", package="golang-go")
    found = subprocess.run([go, "tool", "-n", "trace"], capture_output=True, text=True, check=False)
    version = subprocess.run([go, "version"], capture_output=True, text=True, check=False).stdout
    if found.returncode or "go1.19" not in version or not Path(found.stdout.strip()).exists():
        absent("go tool trace of Go 1.19", package="golang-go")
    return found.stdout.strip()


def counts(path) -> Counter:
    """Events by type, as Go prints them."""
    done = subprocess.run(
        [tool(), "-d", str(path)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-500:]
    return Counter(re.findall(r"^\d+ (\w+) p=", done.stdout, re.MULTILINE))


def said(written) -> Counter:
    """What an export says that it wrote, in Go's words."""
    found = Counter()
    for name, n in written.items():
        found[name.removesuffix("Local")] += n
    return +found


def profile(path, kind, directory) -> tuple[int, int]:
    """Sum of counts and of ns of one of the tool's profiles."""
    done = subprocess.run(
        [tool(), f"-pprof={kind}", str(path)], capture_output=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    file = directory / f"{kind}.pb.gz"
    file.write_bytes(done.stdout)
    count, ns = raw(file)[:2] if done.stdout else (0, 0)
    return count, ns


def raw(file) -> list[int]:
    """Sums of the columns of a profile."""
    go = require_program("go", package="golang-go")
    done = subprocess.run(
        [go, "tool", "pprof", "-raw", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    body = done.stdout.split("Samples:\n", 1)[1].split("Locations", 1)[0].splitlines()[1:]
    rows = [
        [int(n) for n in found[1].split()]
        for line in body
        if (found := re.match(r"^ *(\d[\d ]*): ", line))
    ]
    return [sum(column) for column in zip(*rows, strict=True)] or [0] * 6


@contextlib.contextmanager
def served(path):
    """The tool's web server on a trace; gives its address, fails if it panics."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [tool(), f"-http=127.0.0.1:{port}", str(path)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(200):
            assert server.poll() is None, server.stderr.read()[-500:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        errors = server.communicate()[1]
    assert "panic" not in errors, errors[-2000:]


def fetch(url) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.status == 200
        return answer.read()
