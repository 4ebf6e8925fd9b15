"""Records that lie the wrong way round are put in order, natively as on a list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracesvc.recorder.native import native, why_not
from tracesvc.recorder.records import Records, flat

TIMES = st.lists(st.integers(0, 50), max_size=60)


@pytest.mark.skipif(native is None, reason=f"no native recorder: {why_not}")
@given(TIMES, st.integers(0, 60))
def test_both_do_the_same(times, newest):
    made, twin = native.Records(), Records()
    for place, time in enumerate(times):
        for records in (made, twin):
            records.extend((21, time, "name", 0.5, place))
    assert made.settle(newest) == twin.settle(newest) == sum(time < newest for time in times)
    assert made.in_order(newest)
    assert list(flat(made)) == list(twin)
    order = [made.record(i)[1:] for i in range(made.events)]
    assert [time for time, *_ in order] == sorted(time for time, *_ in order)
    assert sorted(row[-1] for row in order) == list(range(len(times)))


@pytest.mark.skipif(native is None, reason=f"no native recorder: {why_not}")
def test_where_there_is_much_to_move_it_gives_up_and_loses_nothing():
    made = native.Records()
    for time in range(5000, 0, -1):
        made.extend((21, time, "name", 0.5, time))
    assert made.settle(0) == 0
    assert not made.in_order(0)
    listed = flat(made)
    listed.settle(0)
    assert [listed.record(i)[4] for i in range(listed.events)] == list(range(1, 5001))
