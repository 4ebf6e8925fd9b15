"""The truth always lies within the bounds, whatever the clocks and the network do."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.clockwork import SimulatedClock, exchange
from tracesvc.format.clocks import Exchange, drift
from tracesvc.model.clocks import Bounds, Relation

MS, S = 10**6, 10**9
READING = 2
"""ns: what is read of a clock is cut to whole ns, at both ends"""
HOURS = 6 * 3600 * S

offsets = st.integers(0, 10**18)
rates = st.lists(
    st.tuples(st.integers(1, HOURS), st.integers(-245, 245)), max_size=5, unique_by=lambda r: r[0]
).map(lambda changes: [(0, 100), *sorted(changes)])
"""two clocks are apart by less than 500 ppm then, with room for how whole numbers are rounded"""
delays = st.one_of(st.integers(1000, MS), st.integers(0, 5 * S))
messages = st.tuples(st.integers(0, HOURS), delays, delays, delays)


@st.composite
def worlds(draw, least=1):
    ours = SimulatedClock("ours", draw(offsets), draw(rates))
    theirs = SimulatedClock("theirs", draw(offsets), draw(rates))
    rows = draw(st.lists(messages, min_size=least, max_size=12))
    return ours, theirs, [exchange(ours, theirs, *row) for row in rows]


@settings(deadline=None, max_examples=300)
@given(worlds(), st.lists(st.integers(0, HOURS), min_size=1, max_size=20))
def test_the_truth_lies_within(world, moments):
    ours, theirs, exchanges = world
    relation = Relation(exchanges)
    assert not relation.steps
    for true in moments:
        low, high = relation.at(ours.at(true))
        assert low - READING <= theirs.at(true) - ours.at(true) <= high + READING


@settings(deadline=None)
@given(worlds())
def test_no_exchange_is_wasted(world):
    """At an exchange it is at least as certain as that alone makes it, whatever its ways took."""
    _, _, exchanges = world
    relation = Relation(exchanges)
    for one in exchanges:
        low, high = relation.at(one.received).low, relation.at(one.sent).high
        assert low >= one.low
        assert high <= one.high
        assert (
            relation.at(one.sent).uncertainty
            <= (one.width + drift(one.received - one.sent)) // 2 + 1
        )


@settings(deadline=None)
@given(worlds(), st.integers(0, HOURS), st.integers(0, 10**7))
def test_the_common_time_never_goes_back(world, true, later):
    ours, _, exchanges = world
    relation = Relation(exchanges)
    a, b = ours.at(true), ours.at(true) + later
    assert a + relation.at(a).middle <= b + relation.at(b).middle


@settings(deadline=None)
@given(
    offsets,
    st.integers(S, HOURS),
    st.integers(30 * S, HOURS).flatmap(lambda by: st.sampled_from([by, -by])),
    st.lists(messages, min_size=1, max_size=8),
    st.lists(st.integers(0, HOURS), max_size=20),
)
def test_where_a_clock_is_stepped_both_is_possible(offset, when, by, rows, moments):
    """A machine that slept (its clock stood still) or was moved; a step is found where exchanges show it."""
    ours = SimulatedClock("ours", offset)
    theirs = SimulatedClock("theirs", 10**14, steps=[(when, by)])
    rows = [row for row in rows if not row[0] <= when <= row[0] + sum(row[1:])]
    before = [row for row in rows if row[0] < when]
    after = [row for row in rows if row[0] > when]
    exchanges = [exchange(ours, theirs, *row) for row in rows]
    relation = Relation(exchanges)
    assert len(relation.steps) == bool(before and after)
    if not rows:
        return
    for true in moments:
        if (before or true >= when) and (after or true < when):  # else nothing tells of the step
            low, high = relation.at(ours.at(true))
            assert low - READING <= theirs.at(true) - ours.at(true) <= high + READING


def test_without_exchanges_nothing_is_known():
    assert Relation([]).at(7) == Bounds(None, None)
    assert Relation([]).at(7).uncertainty is None


def test_an_exchange_during_which_a_clock_was_set_proves_nothing():
    assert Relation([Exchange(0, 10, 5000, 20, 0, "x")]).at(0) == (None, None)


def test_far_from_an_exchange_it_is_less_certain():
    relation = Relation([Exchange(0, 1_000_000, 1_000_000, 1000, 0, "x")])
    assert relation.at(0).uncertainty == 501
    assert relation.at(3600 * S).uncertainty == 500 + 3600 * S * 500 // 1_000_000


def test_two_slow_exchanges_that_were_slow_on_different_ways_are_one_quick_one():
    quick, slow = 1000, 50 * MS
    ours, theirs = SimulatedClock("ours", 0), SimulatedClock("theirs", 77 * S)
    there = exchange(ours, theirs, 0, quick, 0, slow)
    back = exchange(ours, theirs, 60 * MS, slow, 0, quick)
    assert Relation([there]).at(50 * MS).uncertainty > 24 * MS
    assert Relation([there, back]).at(60 * MS).uncertainty < 60_000
