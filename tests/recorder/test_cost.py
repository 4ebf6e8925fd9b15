"""What an annotation costs, in instructions: they do not depend on how busy the machine is."""

import pytest

from benchmarks.annotations import BARS, counted
from tests.judges import require_program
from tracesvc.recorder.native import native


@pytest.fixture(autouse=True)
def way():
    """Both are natively recorded, whatever the other tests of the recorder do."""


@pytest.mark.slow
@pytest.mark.skipif(native is None, reason="the native recorder was not built")
@pytest.mark.parametrize("recorder", ["native", "off"])
def test_annotations_stay_below_their_bars(recorder):
    require_program("valgrind", package="valgrind")
    costs = counted(recorder)
    print(costs)
    bars = {what: bar for (who, what), bar in BARS.items() if who == recorder}
    assert {what: cost for what, cost in costs.items() if cost > bars.get(what, cost)} == {}
