"""Requests that no client of ours sends: see `benchmarks.fuzzhttp`; ``make campaign-fuzz`` sends a hundred thousand."""

from benchmarks.fuzzhttp import requests


def test_whatever_is_asked_is_answered_with_a_reason():
    found = requests(700, seed=11)
    assert found["failures"] == []
    assert found["sessions"] > 5
    assert {"200", "400", "404", "409", "422"} <= set(found["statuses"])
    assert found["statuses"]["200"] > 200
