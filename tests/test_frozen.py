"""`tracesvc.frozen`: what its classes have in common with frozen dataclasses."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, field

import pytest

from tracesvc.frozen import Frozen, frozen, frozen_by_keyword


@frozen
class Point(Frozen):
    x: int
    y: int = 0
    tags: list[str] = field(default_factory=list)


@frozen
class Named(Point):
    name: str = "?"


@frozen_by_keyword
class Range(Frozen):
    low: int = 0
    high: int = 1

    def __post_init__(self) -> None:
        if self.high < self.low:
            raise ValueError("high is below low")


def test_fields_have_values_in_order_or_by_name_or_by_default():
    assert repr(Point(1)) == "Point(x=1, y=0, tags=[])"
    assert Point(1, y=2) == Point(1, 2)
    assert Named(1, 2, ["a"], "n").name == "n"
    with pytest.raises(TypeError, match="x"):
        Point()


def test_a_default_that_is_made_is_made_anew():
    first, second = Point(1), Point(1)
    first.tags.append("mine")
    assert second.tags == []
    given = ["given"]
    assert Point(1, 0, given).tags is given


def test_it_cannot_be_changed():
    point = Point(1)
    with pytest.raises(FrozenInstanceError):
        point.x = 2
    with pytest.raises(FrozenInstanceError):
        del point.x
    with pytest.raises(AttributeError):
        point.z = 3


def test_equal_are_those_of_one_class_with_the_same_values():
    assert Range(low=1, high=2) == Range(low=1, high=2)
    assert hash(Range(low=1, high=2)) == hash(Range(low=1, high=2))
    assert Point(1) != Named(1)


def test_by_keyword_only_and_checked():
    with pytest.raises(TypeError):
        Range(1, 2)
    with pytest.raises(ValueError, match="below"):
        Range(low=2, high=1)
    with pytest.raises(ValueError, match="below"):
        Range(low=0).__replace__(high=-1)


@pytest.mark.parametrize("thing", [Point(1, 2, ["a"]), Range(high=3), Named(1)])
def test_copies_are_equal(thing):
    assert copy.copy(thing) == thing
    assert copy.deepcopy(thing) == thing
    assert pickle.loads(pickle.dumps(thing)) == thing


def test_a_pattern_matches_by_place():
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)
