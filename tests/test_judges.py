import re
from pathlib import Path

import pytest

from tests.judges import require_program

ROOT = Path(__file__).parent.parent


def test_a_present_program_is_found():
    assert Path(require_program("sh", package="anything")).name == "sh"


@pytest.mark.parametrize(
    "ci, outcome",
    [
        (None, pytest.skip.Exception),
        ("false", pytest.skip.Exception),
        ("true", pytest.fail.Exception),
    ],
)
def test_a_missing_program_skips_with_one_line_and_fails_in_ci(monkeypatch, ci, outcome):
    monkeypatch.delenv("CI", raising=False)
    if ci is not None:
        monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome) as caught:
        require_program("no-such-program", package="anything")
    assert str(caught.value) == "needs no-such-program: apt-get install anything"


def test_make_test_installs_every_judge_that_a_test_asks_for():
    listed = {
        line.split("#")[0].strip()
        for line in (ROOT / "tools/system-packages.txt").read_text().splitlines()
    }
    asked = {
        package
        for path in ROOT.glob("tests/**/*.py")
        for package in re.findall(r'package="([\w.+-]+)"', path.read_text())
    }
    assert asked - {"anything"} <= listed
