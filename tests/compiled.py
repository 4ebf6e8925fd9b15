"""Extension modules that only tests need, compiled when a test asks for them."""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

from tests.judges import absent

PACKAGE = "gcc"


def compiled(source: Path, directory: Path) -> ModuleType:
    """The module that a C file is, built into ``directory``; without a compiler the calling test ends here."""
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    if shutil.which(compiler[0]) is None:
        compiler = ["cc"]
    if shutil.which(compiler[0]) is None:
        absent("a C compiler", package=PACKAGE)
    include = sysconfig.get_path("include")
    if not (Path(include) / "Python.h").exists():
        absent("Python's headers", package="python3-dev")
    name = source.stem
    target = directory / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    command = [*compiler, "-O1", "-shared", "-fPIC", "-I", include, str(source), "-o", str(target)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    if done.returncode:
        pytest.fail(done.stderr, pytrace=False)
    spec = importlib.util.spec_from_file_location(name, target)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
