"""Memory runs out, at one allocation of the recorder after the other: the program does not notice, the ledger closes.

`make campaign-faults` tries every allocation; here it is some of them.
"""

import os
from pathlib import Path

import pytest

from tests.compiled import PACKAGE, compiled
from tests.judges import absent
from tests.recorder.faults import FOR_EVER, Faults
from tracesvc.events import LossCause
from tracesvc.recorder.native import native

ALL = "all" in os.environ.get("TRACESVC_TEST_FAULTS", "")
SHIM = Path(__file__).with_name("faults.c")

# About the native part: in the twin every line allocates, also those that have yet to catch anything.
pytestmark = pytest.mark.parametrize(
    "way", [("direct", "1"), ("public", "1")], ids=["direct-native", "public-native"], indirect=True
)


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    return compiled(SHIM, tmp_path_factory.mktemp("faults"))


@pytest.fixture
def faults(shim, monkeypatch):
    if native is None:
        absent("the native recorder", package=PACKAGE)
    monkeypatch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
    faults = Faults(shim)
    faults.run(-1, -1)  # what is made once and kept, is made
    return faults


def test_nothing_fails_where_nothing_is_made_to(faults):
    recording, allocations, failed = faults.run(-1, -1)
    assert failed == 0
    assert allocations > 100
    assert recording.lost.total() == 0


@pytest.mark.timeout(1200 if ALL else 120)
def test_one_allocation_fails(faults):
    allocations = min(faults.run(-1, -1)[1] for _ in range(3))  # a busy machine makes some more
    numbers = range(0, allocations, 1 if ALL else max(allocations // 100, 1))
    tried = lost = 0
    for number in numbers:
        recording, _, failed = faults.run(number, number)
        tried += failed
        lost += recording.lost[LossCause.NO_MEMORY]
        assert recording.lost.total() == recording.lost[LossCause.NO_MEMORY]
    print(f"{allocations:,} allocations; {tried:,} failed, {lost:,} events lost")
    assert tried > len(numbers) // 4  # there are fewer of them where events are lost
    assert lost > 0


@pytest.mark.parametrize("burst", [3, 30, 300, FOR_EVER])
def test_memory_runs_out_for_a_while(faults, burst):
    _, allocations, _ = faults.run(-1, -1)
    for number in range(0, allocations, max(allocations // (200 if ALL else 12), 1)):
        faults.run(number, min(number + burst, FOR_EVER))
