"""Sessions of many machines on one axis: the truth lies within what is stated, whichever way a session came there."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.clockwork import SimulatedClock, exchange
from tests.model.test_clocks import HOURS, MS, READING, S, messages, offsets, rates
from tracesvc.model.axis import Axis, Method
from tracesvc.model.links import Link, SpanAt
from tracesvc.model.timebase import Timebase

EPOCH = 1_800_000_000 * S
"""time of day at the true time 0"""


def base(name, clock, *, wall_error=0, exchanges=(), host=None, named=True):
    """A session that began at the true time 0, on a machine whose time of day is wrong by so much."""
    source = {"name": name, "host": host or name} | ({"clock": clock.name} if named else {})
    start = clock.at(0)
    pairs = [(start, EPOCH + wall_error)]
    return Timebase(name, source, pairs, set(exchanges), start, clock.at(HOURS))


def talk(ours, service, *rows):
    """``wall``: the service's clock is right."""
    made = (exchange(ours, service, *row) for row in rows)
    return [one._replace(wall=EPOCH + one.answered - service.offset) for one in made]


def steady(name, offset=0):
    return SimulatedClock(name, offset)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(offsets, rates, st.lists(messages, min_size=1, max_size=6)), max_size=3),
    st.integers(0, HOURS),
)
def test_every_session_is_where_it_says(machines, moment):
    service = steady("service", 10**15)
    clocks = [SimulatedClock(f"m{i}", off, rate) for i, (off, rate, _) in enumerate(machines)]
    bases = [
        base(f"s{i}", clock, exchanges=talk(clock, service, *rows), wall_error=i * 3600 * S)
        for i, (clock, (_, _, rows)) in enumerate(zip(clocks, machines, strict=True))
    ]
    axis = Axis.of(bases)
    for clock, placed in zip(clocks, axis.placed, strict=True):
        assert placed.method is Method.EXCHANGES
        found = placed.at(clock.at(moment))
        assert abs(found.time - (EPOCH + moment)) <= found.uncertainty + READING
        assert abs(placed.time(clock.at(moment)) - found.time) < 10_000


def test_machines_that_talked_to_different_replicas_meet_over_one_that_talked_to_both():
    one, two = steady("one", 5 * S), steady("two", 10**12)
    a, b, c = steady("a", 1), steady("b", 77 * S), steady("c", 10**10)
    row = (S, MS, 0, MS)
    axis = Axis.of(
        [
            base("A", a, exchanges=talk(a, one, row, (2 * S, MS, 0, MS))),
            base("B", b, exchanges=talk(b, two, row)),
            base("C", c, exchanges=[*talk(c, one, row), *talk(c, two, row)]),
        ]
    )
    assert axis.clock == "one"
    for clock, placed in zip((a, b, c), axis.placed, strict=True):
        found = placed.at(clock.at(2 * S))
        assert abs(found.time - (EPOCH + 2 * S)) <= found.uncertainty < 10 * MS


def test_one_machine_is_one_clock_with_or_without_exchanges():
    service, machine = steady("service", 9 * S), steady("machine", 4 * S)
    talked = base("talked", machine, exchanges=talk(machine, service, (S, MS, 0, MS)))
    silent = base("silent", machine, wall_error=55 * S)
    axis = Axis.of([talked, silent])
    assert [placed.method for placed in axis.placed] == [Method.EXCHANGES] * 2
    assert axis.placed[0].at(7 * S) == axis.placed[1].at(7 * S)
    assert axis.placed[1].offset(7 * S) == axis.placed[0].offset(7 * S) - 55 * S


def test_the_service_s_own_machine_is_exact():
    machine = steady("service", 4 * S)
    placed = Axis.of([base("x", machine, exchanges=talk(machine, machine, (S, MS, 0, MS)))]).placed[
        0
    ]
    assert placed.method is Method.SAME_CLOCK
    assert placed.at(machine.at(3 * S)) == (EPOCH + 3 * S, 0)


def test_a_cloned_machine_has_its_name_and_not_its_clock():
    service, clone = steady("service", 4 * S), steady("service", 900 * S)
    placed = Axis.of([base("x", clone, exchanges=talk(clone, service, (S, MS, 0, MS)))]).placed[0]
    assert placed.method is Method.EXCHANGES
    found = placed.at(clone.at(S))
    assert abs(found.time - (EPOCH + S)) <= found.uncertainty < 2 * MS


def test_without_exchanges_it_is_the_time_of_day_and_nothing_is_promised():
    a, b = steady("a", 3 * S), steady("b", 8 * S)
    axis = Axis.of([base("A", a), base("B", b, wall_error=S)])
    assert [p.method for p in axis.placed] == [Method.SAME_CLOCK, Method.TIME_OF_DAY]
    assert axis.placed[1].at(b.at(0)) == (EPOCH + S, None)


@pytest.mark.parametrize(
    "error, method", [(S // 10, Method.SAME_HOST), (9 * S, Method.TIME_OF_DAY)]
)
def test_old_traces_of_one_host_are_taken_for_one_clock_if_they_could_be(error, method):
    machine = steady("x", 3 * S)
    axis = Axis.of(
        [
            base("A", machine, host="h", named=False),
            base("B", machine, host="h", named=False, wall_error=error),
        ]
    )
    assert axis.placed[1].method is method
    wanted = 0 if method is Method.SAME_HOST else error
    assert axis.placed[1].at(machine.at(0)) == (EPOCH + wanted, None)


def link(parent, began, child, follows):
    return Link(SpanAt(parent, 1, "ask", began), SpanAt(child, 1, "answer", follows))


def test_links_narrow_what_slow_exchanges_leave_open():
    service = steady("service", 10**13)
    a, b = steady("a", 5 * S), steady("b", 10**11)
    slow = (S, 400 * MS, 0, 600 * MS)
    bases = [base(n, c, exchanges=talk(c, service, slow)) for n, c in (("A", a), ("B", b))]
    asked = [
        link("A", a.at(2 * S), "B", b.at(2 * S + 20_000)),
        link("B", b.at(3 * S), "A", a.at(3 * S + 30_000)),
    ]
    apart = Axis.of(bases)
    axis = Axis.of(bases, asked)
    assert not axis.contradictions
    for before, placed, clock in zip(apart.placed, axis.placed, (a, b), strict=True):
        found, wide = placed.at(clock.at(2 * S)), before.at(clock.at(2 * S))
        assert found.uncertainty <= wide.uncertainty
        assert abs(found.time - (EPOCH + 2 * S)) <= found.uncertainty
    times = [axis.placed[0].at(a.at(2 * S)).time, axis.placed[1].at(b.at(2 * S + 20_000)).time]
    assert times == sorted(times)


def test_a_link_that_cannot_be_is_told_and_changes_nothing():
    service = steady("service", 10**13)
    a, b = steady("a", 5 * S), steady("b", 10**11)
    bases = [
        base(n, c, exchanges=talk(c, service, (S, MS, 0, MS))) for n, c in (("A", a), ("B", b))
    ]
    axis = Axis.of(bases, [link("A", a.at(9 * S), "B", b.at(2 * S))])
    [told] = axis.contradictions
    assert told.proven
    assert 6 * S < told.by < 7 * S
    assert axis.placed[1].at(b.at(2 * S)) == Axis.of(bases).placed[1].at(b.at(2 * S))


def test_times_of_day_that_turn_cause_and_effect_round_are_put_right_as_far_as_is_known():
    a, b = steady("a", 5 * S), steady("b", 10**11)
    bases = [base("A", a), base("B", b, wall_error=-3 * S)]
    axis = Axis.of(bases, [link("A", a.at(2 * S), "B", b.at(2 * S + MS))])
    parent, child = axis.placed
    assert child.at(b.at(2 * S + MS)).time >= parent.at(a.at(2 * S)).time
    assert child.at(b.at(2 * S)).uncertainty is None
    # the clock of the one is that of the axis, so what it says is a bound
    assert not axis.contradictions


def test_a_machine_that_slept_is_told():
    service = steady("service", 10**13)
    clock = SimulatedClock("m", 5 * S, steps=[(100 * S, -50 * S)])
    rows = (S, MS, 0, MS), (200 * S, MS, 0, MS)
    [placed] = Axis.of([base("M", clock, exchanges=talk(clock, service, *rows))]).placed
    assert placed.steps == 1
    for true in (S, 99 * S, 101 * S, 200 * S):
        found = placed.at(clock.at(true))
        assert abs(found.time - (EPOCH + true)) <= found.uncertainty
    assert placed.at(clock.at(S)).uncertainty < 2 * MS
