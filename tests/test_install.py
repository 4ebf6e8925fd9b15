"""Installed where there is no compiler. `make campaign-wheels` builds and uses wheels on every CPython."""

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks.wheels import judge, source, use


@pytest.mark.slow
def test_without_a_compiler_it_installs_and_the_twin_records(tmp_path):
    target = tmp_path / "site"
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"),
        *("--no-build-isolation", "--no-compile", "--target", target, source(tmp_path / "source")),
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        command, env={**environment, "CC": "false"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(target.rglob("*.so"))
    found, said = use(Path(sys.executable), tmp_path, {**environment, "PYTHONPATH": str(target)})
    assert judge(found, said, compiler=False) == ""
    assert found["native recorder"]["advice"]


def test_native_parts_are_built_all_together():
    """One that is missing beside others was added after the build: its tests would be passed over unseen."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    parts = [part["name"] for part in project["tool"]["setuptools"]["ext-modules"]]
    missing = [part for part in parts if importlib.util.find_spec(part) is None]
    assert missing in ([], parts), "older than its sources: make .venv/.stamp"
