"""The replay: legal moves whatever is missing, the truth where nothing is."""

import numpy as np
import pytest

from tests.export.conftest import damaged, end_of
from tests.export.oracle import look
from tests.model.small import BEGIN, LOCK, Small
from tests.traces import program
from tracesvc.export.lives import GONE, LEGAL, START, UNKNOWN
from tracesvc.export.replay import Replay
from tracesvc.model.states import State


def variants(seed):
    stream = program(seed, losses=0.1 * (seed % 2), generations=6)
    yield stream.data
    yield stream.data[: len(stream.data) * 2 // 3]
    yield damaged(stream.data, seed)
    generations = stream.generations()
    if len(generations) > 3:
        yield stream.joined_late(2).data
        yield stream.with_drops(generations[1] + 3, 3).data


@pytest.mark.parametrize("size", [40, 1 << 17])
@pytest.mark.parametrize("seed", range(20))
def test_moves_are_legal_and_every_life_ends(seed, size):
    for data in variants(seed):
        replay = Replay(data, chunk=size)
        states: dict[int, int] = {}
        running: dict[int, int] = {}
        last: dict[int, int] = {}
        for chunk in replay.chunks():
            moves = chunk.moves
            for proc, time, move, task, before, since in zip(
                *(
                    a.tolist()
                    for a in (
                        moves.proc,
                        moves.time,
                        moves.move,
                        moves.task,
                        moves.before,
                        moves.since,
                    )
                ),
                strict=True,
            ):
                assert states.get(task, State.ABSENT) == before
                assert LEGAL[before, move]
                assert since <= time
                assert last.get(proc, 0) <= time or move == GONE
                last[proc] = max(time, last.get(proc, 0))
                if move == START:
                    assert proc not in running
                    running[proc] = task
                elif before == State.RUNNING:
                    assert running.pop(proc) == task
                after = {10: UNKNOWN, 11: int(State.ABSENT), 9: int(State.ABSENT)}.get(move)
                states[task] = _AFTER[move] if after is None else after
        assert not running
        assert set(states.values()) <= {int(State.ABSENT)}


_AFTER = {
    3: int(State.NEW),
    4: int(State.WAITING),
    5: int(State.RUNNABLE),
    6: int(State.RUNNING),
    7: int(State.RUNNABLE),
    8: int(State.WAITING),
}


@pytest.mark.parametrize("size", [40, 1 << 17])
@pytest.mark.parametrize("seed", range(8))
def test_whole_traces_need_no_repair_and_have_the_oracles_sums(seed, size):
    stream = program(seed)
    replay = Replay(stream.data, chunk=size)
    sums: dict[int, int] = {}
    for chunk in replay.chunks():
        spent = chunk.moves.time - chunk.moves.since
        for state in np.unique(chunk.moves.before).tolist():
            sums[state] = sums.get(state, 0) + int(spent[chunk.moves.before == state].sum())
        assert chunk.losses == []
    assert replay.lives.repaired == 0
    assert replay.events == len(stream.events)
    found = look(stream.events, end_of(stream.data))
    assert sums[State.RUNNING] == found.total("running")
    assert sums[State.WAITING] == found.total("waiting")
    assert sums.get(State.RUNNABLE, 0) + sums[State.NEW] == found.total("runnable")


def test_what_was_lost_is_told_once_and_what_nobody_told_of_too():
    stream = program(9, losses=0.15)
    rows = [row for chunk in Replay(stream.data).chunks() for row in chunk.losses]
    assert rows == stream.losses
    small = Small().events(*BEGIN).lose(7, tell=False).events(("step_block", 2, LOCK, 9))
    told = [row for chunk in Replay(small.data).chunks() for row in chunk.losses]
    assert [(row.proc, row.first, row.last, row.cause) for row in told] == [(1, 6, 12, 7)]


def test_a_gap_makes_states_unknown_until_their_own_events_tell():
    small = Small().events(
        *BEGIN, ("task_create", 3, 2, 50, "child", "child"), ("step_block", 2, LOCK, 9)
    )
    small.lose(5).events(("task_runnable", 2, 0), ("step_start", 2), ("step_yield", 2))
    unknown = []
    for chunk in Replay(small.end()).chunks():
        moves = chunk.moves
        at = moves.before == UNKNOWN
        unknown += zip(
            moves.task[at].tolist(), moves.held[at].tolist(), moves.move[at].tolist(), strict=True
        )
    assert unknown == [(2, State.WAITING, 5), (1, State.WAITING, GONE), (3, State.NEW, GONE)]
