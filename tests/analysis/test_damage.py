"""Damaged and gapped traces go through every question; what is missing is said."""

import json
import random

import pytest

from tests.export.conftest import damaged
from tests.traces import program
from tracesvc.analysis import (
    NotFoundError,
    diff,
    latencies,
    lint,
    query,
    stalls,
    summarize,
    tasks_at,
    why,
    why_window,
)
from tracesvc.analysis.lint import Limits
from tracesvc.format import FormatError
from tracesvc.model import read
from tracesvc.model.schema import TABLES
from tracesvc.plot import plot

STRICT = Limits(
    step=1, patience=1, tasks=2, self_wakes=2, handovers=2, queue=0.1, convoy=1, cancelled=1
)


def broken(seed):
    """A stream of which something is missing: bytes spoiled, a piece cut out, its beginning or its end."""
    shape = random.Random(seed)
    data = program(seed, events=400, losses=0.1 * (seed % 3)).data
    low, high = sorted(shape.randrange(len(data)) for _ in range(2))
    match seed % 5:
        case 0:
            return damaged(data, seed, 20)
        case 1:
            return data[:low] + data[high:]
        case 2:
            return data[low:]
        case 3:
            return data[:high]
    return data[:low] + shape.randbytes(high - low) + data[high:]


QUESTIONS = {
    "summary": summarize,
    "tasks": tasks_at,
    "why": why,
    "stalls": lambda trace: stalls(trace, 1000),
    "latency": latencies,
    "lint": lambda trace: lint(trace, STRICT),
}


@pytest.mark.parametrize("seed", range(15))
def test_no_question_fails(seed):
    data = broken(seed)
    try:
        whole = summarize(read(data))
    except FormatError:  # nothing of it is left
        return
    for ask in QUESTIONS.values():
        try:
            json.dumps(ask(read(data)).as_dict(), default=repr)
        except NotFoundError:
            assert not whole.spans
    middle = whole.begin + whole.duration // 2
    json.dumps(tasks_at(read(data), middle).as_dict())
    try:
        why_window(read(data), middle, middle + whole.duration // 4).as_dict()
    except NotFoundError:
        pass
    diff(read(data), read(data)).as_dict()
    plot(read(data))
    if seed < 5:
        for table in TABLES:
            query(read(data), f"select * from {table}")


@pytest.mark.parametrize("seed", range(0, 15, 5))
def test_what_is_missing_is_said(seed):
    data = broken(seed)
    found = summarize(read(data))
    assert found.lost or found.damage
    assert "missing" in plot(read(data)).svg or "damaged" in plot(read(data)).svg
    assert lint(read(data)).gaps
    assert latencies(read(data)).gaps
