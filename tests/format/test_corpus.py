"""Inputs that were once new to the decoders, or once failed: judged again with every run, with some fresh ones."""

import pytest

from benchmarks import fuzz
from benchmarks.fuzz import CORPUS, Mutator, judge, seeds


def test_every_input_of_the_corpus_does_what_is_declared():
    paths = sorted(CORPUS.iterdir())
    assert len(paths) > 100
    kinds = frozenset().union(*(judge(path.read_bytes()) for path in paths))
    assert len(kinds) > 150  # what it is there for


def test_fresh_inputs_do_too():
    mutator = Mutator(4, [*seeds(), *(path.read_bytes() for path in sorted(CORPUS.iterdir()))])
    taken = sum("1 taken" in judge(mutator.make()) for _ in range(3000))
    assert taken > 30  # some of them are good


def test_a_decoder_that_were_wrong_would_be_seen(monkeypatch):
    data = seeds()[0]
    rows, why = fuzz.walk(memoryview(data), 0, 0)
    longer = [(*row[:5], row[5] + 1, *row[6:]) for row in rows]
    monkeypatch.setattr(fuzz, "walk", lambda *_: (longer, why))
    with pytest.raises(AssertionError, match="do not agree"):
        judge(data)
