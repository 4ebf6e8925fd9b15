"""The picture of a trace says what the trace says: held against a replay, row by row and pixel by pixel."""

import random
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from tests.analysis.streams import Hand
from tests.traces import program
from tracesvc.analysis import Of, latencies
from tracesvc.analysis.timeline import Index
from tracesvc.analysis.timeline.lanes import BLOCKED, READY, RUNNING, UNSURE
from tracesvc.analysis.timeline.outline import outline
from tracesvc.analysis.timeline.place import KINDS, everyone, instances, phase, piece, search
from tracesvc.analysis.timeline.window import first_rows, sums, window
from tracesvc.analysis.tree import tasks_at as tree_at
from tracesvc.events import ProcKind, Reason
from tracesvc.model import read
from tracesvc.model.phases import UNKNOWN, Phases
from tracesvc.model.pieces import OPEN, Pieces
from tracesvc.model.replay import Replay
from tracesvc.model.states import State

CODES = {
    State.RUNNABLE: READY,
    State.NEW: READY,
    State.RUNNING: RUNNING,
    UNKNOWN: UNSURE,
}


def indexed(data, pieces=1, settle=False, most=1 << 30):
    index = Index(most)
    size = len(data) // pieces + 1
    for at in range(0, len(data), size):
        index.feed(data[at : at + size])
        if settle:
            index.settle()
    index.settle()
    return index


@cache
def replayed(data):
    replay = Replay(read(data))
    parts = list(replay.parts())
    phases = Phases.join([part.phases for part in parts]).sorted()
    spans = Pieces.join([part.spans for part in parts])
    return replay, phases, spans


def code_of(state, reason):
    return BLOCKED + reason if state == State.WAITING else CODES[state]


def rows_of(phases, task):
    mine = phases.take(phases.task == task)
    columns = (mine.start, mine.end, mine.state, mine.reason)
    return [
        (start, end, code_of(state, reason))
        for start, end, state, reason in zip(*(c.tolist() for c in columns), strict=True)
    ]


def told(content, index, *names):
    types = {"code": np.uint8, "cause": np.uint8, "closed": np.uint8, "name": "<i4"}
    columns = [np.frombuffer(content[name], types.get(name, "<f8")).tolist() for name in names]
    times = {"begin", "end", "time"}
    columns = [
        [int(v) + index.began for v in column] if name in times else column
        for name, column in zip(names, columns, strict=True)
    ]
    return list(zip(*columns, strict=True))


@cache
def made(seed):
    return program(seed, events=1000, runs=1 + seed % 2, losses=seed / 6)


@pytest.fixture(params=range(3))
def stream(request):
    return made(request.param)


@pytest.mark.parametrize("pieces, settle", [(1, False), (17, False), (17, True)])
def test_every_phase_of_every_task_is_on_its_row(stream, pieces, settle):
    index = indexed(stream.data, pieces, settle)
    _, phases, _ = replayed(stream.data)
    tasks = np.unique(phases.task).tolist()
    made = window(index, index.began, index.ended, 100, [f"t{task}" for task in tasks])["rows"]
    for task in tasks:
        found = told(made[f"t{task}"], index, "begin", "end", "code")
        assert found == rows_of(phases, task)


def test_what_is_too_small_for_a_pixel_is_summed_up(stream, monkeypatch):
    monkeypatch.setattr("tracesvc.analysis.timeline.window.FEW", 0)
    index = indexed(stream.data, 5, settle=True)
    _, phases, _ = replayed(stream.data)
    dice = random.Random(1)
    for task in dice.sample(np.unique(phases.task).tolist(), 8):
        start = dice.randrange(index.began, index.ended)
        end = dice.randrange(start, index.ended) + 40
        width = 37
        content = window(index, start, end, width, [f"t{task}"])["rows"][f"t{task}"]
        if "running" not in content:
            assert content["count"] == 0
            continue
        edges = [start + i * (end - start) // width for i in range(width + 1)]
        for name, wanted in (
            ("running", lambda c: c == RUNNING),
            ("ready", lambda c: c == READY),
            ("unsure", lambda c: c == UNSURE),
            ("blocked", lambda c: c >= BLOCKED),
        ):
            shares = []
            for low, high in pairwise(edges):
                spent = sum(
                    max(0, min(until, high) - max(since, low))
                    for since, until, code in rows_of(phases, task)
                    if wanted(code)
                )
                shares.append(min(255, -(-spent * 255 // max(high - low, 1))))
            assert list(content[name] or bytes(width)) == shares, name


def test_sums_of_a_stretch_are_exact(stream):
    index = indexed(stream.data, 3, settle=True)
    _, phases, _ = replayed(stream.data)
    tasks = np.unique(phases.task).tolist()
    dice = random.Random(2)
    for chosen in ([*tasks], dice.sample(tasks, 3), None):
        start = dice.randrange(index.began, index.ended)
        end = dice.randrange(start, index.ended + 1)
        wanted = {}
        for task in tasks if chosen is None else chosen:
            for since, until, code in rows_of(phases, task):
                spent = max(0, min(until, end) - max(since, start))
                wanted[code] = wanted.get(code, 0) + spent
        made = sums(index, start, end, chosen)
        assert made["running"] == wanted.get(RUNNING, 0)
        assert made["ready"] == wanted.get(READY, 0)
        assert made["unsure"] == wanted.get(UNSURE, 0)
        blocked = {
            Reason(c - BLOCKED).name.lower(): ns for c, ns in wanted.items() if c >= BLOCKED and ns
        }
        assert made["blocked"] == blocked


def test_all_tasks_at_an_instant_are_those_of_the_tree(stream):
    index = indexed(stream.data, 4, settle=True)
    dice = random.Random(3)
    for _ in range(6):
        at = dice.randrange(index.began, index.ended)
        tree = tree_at(read(stream.data), at)
        made = everyone(index, at)
        names = {READY: "runnable", RUNNING: "running", UNSURE: "unknown"}
        found = {
            task: (names.get(code, "waiting"), Reason(code - BLOCKED) if code >= BLOCKED else None)
            for task, code in zip(made["task"], made["code"], strict=True)
        }
        wanted = {
            task.task: (task.state, Reason[task.reason.upper()] if task.reason else None)
            for task in tree.tasks.values()
        }
        assert found == wanted


def test_the_phase_at_a_place(stream):
    index = indexed(stream.data)
    _, phases, _ = replayed(stream.data)
    dice = random.Random(4)
    for i in dice.sample(range(len(phases)), 20):
        one = phases.take(np.array([i]))
        start, end, task = int(one.start[0]), int(one.end[0]), int(one.task[0])
        if start == end:
            continue
        made = phase(index, task, dice.randrange(start, end))
        assert (made["start"] + index.began, made["end"] + index.began) == (start, end)
        assert made["code"] == code_of(int(one.state[0]), int(one.reason[0]))
        assert (made["waker"], made["object"]) == (int(one.waker[0]), int(one.object[0]))
        if made["waker"] and made["state"] == "waiting":
            by = phase(index, made["waker"], end)
            woken = [task for _, task, _ in by["woke"]]
            assert made["task"] in woken or by["state"] != "running"
    assert phase(index, 10**12, index.ended) is None


def test_spans_lie_on_rows_on_which_they_do_not_overlap(stream):
    index = indexed(stream.data, 9, settle=True)
    _, _, spans = replayed(stream.data)
    rows = [row for row in first_rows(index) if row[0] == "s"]
    made = window(index, index.began, index.ended, 100, rows)["rows"]
    found = []
    for row in rows:
        here = told(made[row], index, "begin", "end", "id")
        for (_, until, _), (since, _, _) in pairwise(here):
            assert since >= until
        found += here
    wanted = list(zip(spans.begin.tolist(), spans.end.tolist(), spans.id.tolist(), strict=True))
    assert sorted((b, i) for b, _, i in found) == sorted((b, i) for b, _, i in wanted)
    ends = {i: end for _, end, i in found}
    assert all(ends[i] == end for _, end, i in wanted if end != OPEN)
    for _, _, number in found[:5]:
        one = piece(index, "span", int(number))
        i = spans.id.tolist().index(number)
        assert (one["name"], one["parent"]) == (str(spans.name[i]), int(spans.parent[i]))
        assert any(s["id"] == number for s in search(index, one["name"].upper())["spans"])


def test_the_outline_has_every_task(stream):
    index = indexed(stream.data)
    _, phases, _ = replayed(stream.data)
    made = outline(index)
    tasks = np.frombuffer(made["tasks"]["task"], "<f8").astype(np.int64)
    assert set(np.unique(phases.task).tolist()) <= set(tasks.tolist())
    assert (np.diff(tasks) > 0).all()
    assert made["events"] == len(stream.events)
    assert made["lost"] == sum(row.last - row.first + 1 for row in stream.losses)
    assert int(made["began"]) <= min(event.time for event in stream.events)


def test_memory_is_bounded_and_what_is_gone_is_said(monkeypatch):
    monkeypatch.setattr("tracesvc.analysis.timeline.lanes.SMALL", 1000)
    stream = program(1, events=20_000)
    whole = indexed(stream.data, 50)
    index = indexed(stream.data, 50, most=whole.nbytes // 2)
    assert index.nbytes < whole.nbytes * 0.7
    assert whole.since == 0
    assert index.began < index.since < index.ended
    late = sums(whole, index.since + 1, index.ended)
    assert sums(index, index.since + 1, index.ended) == late


@pytest.mark.parametrize("kind", KINDS)
def test_instances_are_those_of_the_histograms(stream, kind):
    index = indexed(stream.data, 3, settle=True)
    histograms = latencies(read(stream.data), Of(kind)).as_dict()["histograms"][kind]
    assert histograms
    for name, histogram in list(histograms.items())[:6]:
        found = instances(index, kind, name, 0, 1 << 62, most=10**6)
        took = [one["end"] - one["start"] for one in found["found"]]
        assert took == sorted(took, reverse=True)
        assert (found["count"], sum(took)) == (histogram["count"], histogram["total"])
        bucket = histogram["buckets"][-1]
        last = instances(index, kind, name, bucket["low"], bucket["high"] - 1)
        assert last["count"] == bucket["count"]


def test_whom_cancellations_reached():
    from tests.web.traces import a_cancellation

    _, data = a_cancellation()
    for pieces in (1, 9):
        index = indexed(data, pieces, settle=True)
        told = [(e.time, e.task) for e in read(data) if e.type == "task_cancelled"]
        made = window(index, index.began, index.ended, 10, [])["cancels"]
        assert [(came, task) for came, task, _, _ in made] == told
        assert {(asked, by) for *_, asked, by in made} == {(11_000, 1)}
        (came, task) = told[1]
        assert [row[:2] for row in window(index, came, came, 10, [])["cancels"]] == [[came, task]]
        assert window(index, told[-1][0] + 1, index.ended, 10, [])["cancels"] == []


def test_spans_of_a_session_that_grows_take_no_more_lanes_than_there_are_at_once():
    hand = Hand(0, "5" * 8 + "-0000-4000-8000-" + "0" * 12)
    hand.kinds[1], hand.emitted[1] = ProcKind.RUN, 0
    hand.generation(0)
    for i in range(200):  # each begins as the one three before ends
        begun = ("span_begin", 10 + i * 10, i + 1, 0, 1, "job", None)
        hand.events(1, begun, *([("span_end", 11 + i * 10, i - 2, 1)] if i > 2 else []))
    hand.end(3000)
    index = indexed(hand.data, 60, settle=True)
    rows = index.spans.rows()
    assert len(rows) == 4
    for row in rows:
        kept = index.spans.within(row, 0, 3000)
        assert (kept.begin[1:] >= kept.end[:-1]).all()
    assert sum(index.spans.count(row, 0, 3000) for row in rows) == 200
