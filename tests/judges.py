"""Foreign judges: programs that are not ours and say whether our work is right.

`make test` installs their packages where it may (`tools/system-packages.txt` lists them). Where one is
missing all the same, its tests skip with a line that names the package; under CI=true they fail, for there
nothing may go unjudged unseen.
"""

import os
import shutil
from typing import NoReturn

import pytest


def require_program(name: str, *, package: str) -> str:
    """The path of a program; without it the calling test ends here."""
    return shutil.which(name) or absent(name, package=package)


def absent(judge: str, *, package: str) -> NoReturn:
    """End the calling test for want of a judge: skipped, or failed where CI=true.

    Args:
        judge: What is missing, in the reader's words.
        package: The Debian package that brings it.
    """
    line = f"needs {judge}: apt-get install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(line, pytrace=False)
    pytest.skip(line)
