"""Requests that no client of ours sends: see `benchmarks.fuzzhttp`; ``make campaign-fuzz`` sends a hundred thousand."""

from benchmarks.fuzzhttp import requests

FOUND_SOMETHING = 5
"""a seed that did: names of files that are too long, attributes that are no map in an export"""


def test_whatever_is_asked_is_answered_with_a_reason():
    found = requests(700, seed=FOUND_SOMETHING)
    assert found["failures"] == []
    assert found["sessions"] > 5
    assert {"200", "400", "404", "409", "422"} <= set(found["statuses"])
    assert found["statuses"]["200"] > 200
