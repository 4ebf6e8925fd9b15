"""The governor on a clock and a load of the test's: it settles, it does not flap, it comes back."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracesvc.recorder.governor import LAST, LEFT_OUT, PATIENCE, SECOND, Governor

TICK = SECOND // 10


class Plant:
    """A program that is traced: what it costs at every level, as a share of the budget."""

    def __init__(self, *costs: float, floor: float = 0.02) -> None:
        """``costs`` of the levels, while it is not dark; ``floor`` while it is."""
        self.costs = costs + costs[-1:] * (len(LEFT_OUT) - len(costs))
        self.floor = floor
        self.time = 0
        self.governor = Governor(0)
        self.used: list[float] = []
        self.changes: list[tuple[int, int]] = [(0, 0)]
        """(time, level)"""

    def run(self, seconds: float, factor: Callable[[int], float] = lambda _: 1.0) -> None:
        for _ in range(round(seconds * SECOND / TICK)):
            governor = self.governor
            share = self.floor if governor.dark else self.costs[governor.level]
            used = share * factor(self.time) * TICK
            self.time += TICK
            self.used.append(used)
            governor.look(self.time, used)
            if governor.level != self.changes[-1][1]:
                self.changes.append((self.time, governor.level))

    def share(self, seconds: float) -> float:
        """Of the budget, in the last ``seconds``."""
        last = self.used[-round(seconds * SECOND / TICK) :]
        return sum(last) / (len(last) * TICK)


def test_within_its_budget_it_leaves_out_nothing():
    plant = Plant(0.9)
    plant.run(60)
    assert plant.changes == [(0, 0)]


@pytest.mark.parametrize("cost", [2, 5, 10, 30])
def test_at_any_load_it_settles_at_the_budget_within_five_seconds(cost):
    plant = Plant(cost)
    plant.run(5)
    assert plant.governor.level == LAST
    plant.run(10)
    assert 0.7 <= plant.share(10) <= 1.3
    plant.run(60)
    assert 0.9 <= plant.share(60) <= 1.1


def test_ten_times_the_load_from_one_moment_to_the_next():
    plant = Plant(0.9)
    plant.run(30)
    plant.run(5, lambda _: 10)
    plant.run(5, lambda _: 10)
    assert 0.7 <= plant.share(5) <= 1.3


def test_it_goes_no_further_than_it_must():
    plant = Plant(3, 1.0)
    plant.run(60)
    assert [level for _, level in plant.changes] == [0, 1]
    plant = Plant(3, 2.5, 0.8)
    plant.run(60)
    assert [level for _, level in plant.changes] == [0, 1, 2]


def test_it_comes_back_step_by_step_when_the_load_is_over():
    plant = Plant(8)
    plant.run(20)
    assert plant.governor.level == LAST
    plant.run(30, lambda _: 0.01)
    assert [level for _, level in plant.changes] == [0, 1, 2, 3, 4, 3, 2, 1, 0]
    downs = [time for time, _ in plant.changes[5:]]
    assert all(later - earlier >= PATIENCE for earlier, later in pairwise(downs))


def test_it_does_not_flap_where_one_level_is_too_much_and_the_next_too_little():
    plant = Plant(2, 0.1)
    plant.run(600)
    assert len(plant.changes) <= 20
    tries = [time for time, level in plant.changes if level == 0][1:]
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    assert all(later >= earlier for earlier, later in pairwise(gaps))


def test_a_short_peak_is_no_reason():
    plant = Plant(0.5)
    plant.run(10)
    plant.run(0.1, lambda _: 5)  # a tenth of a second, within one window: 1.0 on average
    plant.run(10)
    assert plant.changes == [(0, 0)]


def test_debt_of_a_long_peak_is_forgotten_in_the_end():
    plant = Plant(1000)
    plant.run(30)
    plant.run(60, lambda _: 0.0001)
    assert plant.governor.level < LAST


@given(
    costs=st.lists(st.floats(0, 100), min_size=1, max_size=len(LEFT_OUT)),
    loads=st.lists(st.floats(0, 20), min_size=1, max_size=20),
)
def test_whatever_comes_it_keeps_its_rules(costs, loads):
    plant = Plant(*sorted(costs, reverse=True))
    for load in loads:
        plant.run(2, lambda _, load=load: load)
        assert plant.governor.level <= LAST
        assert plant.governor.dark <= (plant.governor.level == LAST)
    assert all(abs(one - other) == 1 for (_, one), (_, other) in pairwise(plant.changes))


@given(st.floats(1.2, 40), st.floats(0, 0.1))
def test_the_average_of_a_steady_load_is_the_budget(cost, floor):
    plant = Plant(cost, floor=floor)
    plant.run(20)
    plant.run(120)
    assert 0.85 <= plant.share(120) <= 1.15
