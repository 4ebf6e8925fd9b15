"""What the Dockerfile says, carried out without a container engine.

The steps and commands are read from the Dockerfile itself, so the two cannot drift apart. What an engine
would add (the base image, the root file system, being PID 1) stays untested here.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.judges import absent

ROOT = Path(__file__).parent.parent
UID = 65532
# Only root can become somebody else; anybody else is unprivileged already.
AS_NOBODY: dict[str, Any] = (
    {"user": UID, "group": UID, "extra_groups": []} if os.geteuid() == 0 else {}
)


def stages() -> list[list[tuple[str, str]]]:
    """The stages of the Dockerfile, each a list of (instruction, arguments)."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).split("\n")
    found: list[list[tuple[str, str]]] = []
    for line in filter(None, lines):
        instruction, arguments = line.split(" ", 1)
        if instruction == "FROM":
            found.append([])
        found[-1].append((instruction, arguments))
    return found


BUILDER, FINAL = stages()
SETTINGS = dict(FINAL)
COMMAND: list[str] = json.loads(SETTINGS["ENTRYPOINT"]) + json.loads(SETTINGS["CMD"])
HEALTH: list[str] = json.loads(SETTINGS["HEALTHCHECK"].split(" CMD ")[1])


def test_the_recipe_runs_the_service_as_a_good_citizen():
    assert SETTINGS["USER"] == f"{UID}:{UID}"
    assert SETTINGS["VOLUME"] == "/data"
    assert SETTINGS["EXPOSE"] == "7070"
    assert SETTINGS["STOPSIGNAL"] == "SIGTERM"
    assert COMMAND == ["tracesvc", "serve", "--listen", "0.0.0.0:7070", "--data", "/data"]
    assert "/healthz" in HEALTH[-1]


def python_for_nobody() -> str:
    """A supported Python that the unprivileged user may run: root's own may lie in root's home."""
    code = "import sys, venv; sys.exit(sys.version_info < (3, 11))"
    for path in (os.path.realpath(sys.executable), "/usr/local/bin/python3", "/usr/bin/python3"):
        try:
            subprocess.run([path, "-c", code], check=True, cwd="/", **AS_NOBODY)
        except (OSError, subprocess.CalledProcessError):
            continue
        return path
    return absent("a Python >= 3.11 that an unprivileged user may run", package="python3")


def build_context(target: Path) -> None:
    """Copy what .dockerignore lets in."""
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            for path in ROOT.glob(line[1:]):
                if path.is_dir():
                    ignored = shutil.ignore_patterns("__pycache__", "*.so")
                    shutil.copytree(path, target / path.name, ignore=ignored)
                else:
                    shutil.copy(path, target)


@pytest.fixture
def image() -> Iterator[Path]:
    """A directory with what the image would hold: the environment in `final`, the volume in `data`."""
    with tempfile.TemporaryDirectory(prefix="tracesvc-image-") as name:
        root = Path(name)
        root.chmod(0o755)  # the unprivileged user must get in; tmp_path would not let it
        (root / "src").mkdir()
        build_context(root / "src")
        python = python_for_nobody()
        for stage, steps in ("builder", BUILDER), ("final", FINAL):
            environment = root / stage
            subprocess.run([python, "-m", "venv", "--without-pip", environment], check=True)
            # Our pip, working on that environment: the system's Python may come without one.
            pip = environment / "bin" / "pip"
            pip.write_text(
                f'#!/bin/sh\nexec "{sys.executable}" -m pip --python "{environment}/bin/python" "$@"\n'
            )
            pip.chmod(0o755)
            path = f"{environment}/bin:{os.environ['PATH']}"
            for instruction, arguments in steps:
                if instruction == "RUN" and arguments.startswith("pip "):
                    script = arguments.replace("/wheels", f"{root}/wheels")
                    subprocess.run(
                        ["sh", "-ec", script],
                        check=True,
                        cwd=root / "src",
                        env=os.environ | {"PATH": path},
                    )
        subprocess.run(["chmod", "-R", "a-w", root / "final"], check=True)
        data = root / "data"
        data.mkdir(mode=0o750)
        if AS_NOBODY:
            os.chown(data, UID, UID)
        yield root


def wait_for_200(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                assert response.status == 200
                return
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(600)  # installs some 25 packages, from the network where no cache has them
def test_the_recipe_builds_and_the_service_runs_unprivileged_and_stops_at_sigterm(image):
    log = image / "stderr"
    container: dict[str, Any] = AS_NOBODY | {
        "cwd": image / "data",
        "env": {"PATH": f"{image}/final/bin:/usr/bin:/bin"},
    }
    replaced = {"0.0.0.0:7070": "127.0.0.1:0", "/data": f"{image}/data"}
    command = [replaced.get(word, word) for word in COMMAND]
    command[0] = f"{image}/final/bin/{command[0]}"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, **container
        ) as service,
    ):
        try:
            assert service.stdout is not None
            line = service.stdout.readline()
            said = re.fullmatch(r"tracesvc: listening on (http://127\.0\.0\.1:\d+)\n", line)
            assert said, (line, log.read_text())
            url = said[1]
            wait_for_200(f"{url}/healthz")
            wait_for_200(f"{url}/readyz")
            health = [word.replace("http://127.0.0.1:7070", url) for word in HEALTH]
            health[0] = f"{image}/final/bin/{health[0]}"
            subprocess.run(health, check=True, timeout=10, **container)
            service.send_signal(signal.SIGTERM)
            assert service.wait(timeout=10) == 0
        finally:
            service.kill()
    assert "Traceback" not in log.read_text()
