"""Of 1,000 traces that were changed in one place, with all checksums right again, `verify` finds at least 99 %."""

from collections import Counter

import pytest

from tests.model.mutations import Mutator
from tests.traces import program
from tracesvc.model.verify import verify

MUTANTS = 1000
PER_STREAM = 20


@pytest.mark.slow
def test_mutations_are_found(capsys):
    made: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    told_by_totals_alone: Counter[str] = Counter()
    examples = []
    for seed in range(MUTANTS // PER_STREAM):
        size, losses = (200, 400, 600)[seed % 3], 0.02 * (seed % 2)
        stream = program(seed, events=size, losses=losses, batch=60, nests=True)
        assert verify(stream.data).ok
        mutator = Mutator(stream, seed)
        for _ in range(PER_STREAM):
            kind, what, data = mutator.mutant()
            made[kind] += 1
            found = verify(data).counts.keys()
            if not found:
                missed[kind] += 1
                examples.append(what)
            elif found == {"total"}:
                told_by_totals_alone[kind] += 1
    share = 1 - missed.total() / made.total()
    without = share - told_by_totals_alone.total() / made.total()
    with capsys.disabled():
        print(
            f"\n{made.total()} mutations: {share:.1%} found, {without:.1%} without control totals"
        )
        for kind, count in sorted(made.items()):
            print(
                f"  {kind}: {count}, {told_by_totals_alone[kind]} by totals alone, {missed[kind]} missed"
            )
    assert made.total() == MUTANTS
    assert min(made.values()) > MUTANTS / 10
    assert share >= 0.99, examples
    assert without >= 0.88, "the rules themselves have become weaker"
