"""``go 1.11 trace``: Go's own tool is the judge."""

import pytest

from tests.export import go_judge
from tests.export.conftest import damaged, end_of, events_of
from tests.export.oracle import NET, SYNC, look
from tests.traces import program
from tracesvc.events import Reason
from tracesvc.export import export
from tracesvc.export.go import BLOCKS

SEEDS = 300
AT_ONCE = 30


def exported(source, tmp_path):
    path = tmp_path / "a.trace"
    return path, export(source, "go", path)


def expected(events):
    """How often Go should print what, without what is written for Go alone (procs, regions that it wants otherwise)."""
    found = {}

    def count(name):
        found[name] = found.get(name, 0) + 1

    waiting = {}
    for event in events:
        match event.type:
            case "task_create":
                count("GoCreate")
            case "task_waiting":
                count("GoInSyscall" if event.reason == Reason.THREAD else "GoWaiting")
                waiting[event.task] = event.reason
            case "task_runnable":
                thread = waiting.get(event.task) == Reason.THREAD
                count("GoSysExit" if thread else "GoUnblock")
            case "step_start":
                count("GoStart")
            case "step_block":
                count(BLOCKS[Reason(event.reason)])
                waiting[event.task] = event.reason
            case "task_exit":
                count("GoEnd")
            case "span_begin":
                count("UserTaskCreate")
            case "span_end":
                count("UserTaskEnd")
            case "log" | "step_stack" | "cancel_request" | "task_error" | "overhead":
                count("UserLog")
            case "counter" if event.name == "process.rss":
                count("HeapAlloc")
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_go_prints_exactly_what_is_in_generated_traces(tmp_path, first):
    for seed in range(first, first + AT_ONCE):
        stream = program(seed, events=700, runs=1 + seed % 3, losses=0.08 * (seed % 2))
        path, done = exported(stream.data, tmp_path)
        printed = go_judge.counts(path)
        assert printed == go_judge.said(done.written), seed
        if not stream.losses:
            wanted = expected(stream.events)
            assert {name: printed[name] for name in wanted} == wanted, seed
            assert done.repaired == 0


def test_go_prints_exactly_what_is_in_the_demos_trace(tmp_path, demo):
    path, done = exported(demo, tmp_path)
    printed = go_judge.counts(path)
    assert printed == go_judge.said(done.written)
    wanted = expected(events_of(demo))
    assert {name: printed[name] for name in wanted} == wanted
    assert printed["GoStart"] > 100


@pytest.mark.parametrize("seed", range(6))
def test_go_opens_what_is_left_of_a_damaged_trace(tmp_path, seed):
    path, done = exported(damaged(program(seed).data, seed, 40), tmp_path)
    assert go_judge.counts(path) == go_judge.said(done.written)
    assert done.lost > 0


def test_go_opens_traces_that_begin_late_or_have_a_sinks_gap(tmp_path, whole):
    generations = whole.generations()
    for stream in (whole.joined_late(2), whole.with_drops(generations[1] + 3, 3)):
        path, done = exported(stream.data, tmp_path)
        assert go_judge.counts(path) == go_judge.said(done.written)


@pytest.mark.parametrize("which", ["whole", "demo"])
def test_the_profiles_of_go_have_our_totals(tmp_path, request, which):
    source = request.getfixturevalue(which)
    data = source.data if which == "whole" else source.read_bytes()
    path, _ = exported(data, tmp_path)
    found = look(events_of(data), end_of(data))

    def waited(reasons):
        durations = [ns for reason in reasons for ns in found.woken.get(int(reason), ())]
        return len(durations), sum(durations)

    for kind, wanted in (
        ("sync", waited(SYNC)),
        ("net", waited(NET)),
        ("syscall", waited([Reason.THREAD])),
        ("sched", (len(found.handed), sum(found.handed))),
    ):
        count, ns = go_judge.profile(path, kind, tmp_path)
        assert count == wanted[0], kind
        assert ns == pytest.approx(wanted[1], rel=1e-6, abs=count), kind


@pytest.mark.parametrize("which", ["whole", "lossy", "demo"])
def test_the_pages_of_go_answer(tmp_path, request, which):
    source = request.getfixturevalue(which)
    path, _ = exported(source if which == "demo" else source.data, tmp_path)
    with go_judge.served(path) as url:
        for page in go_judge.PAGES:
            assert go_judge.fetch(url + page)
        tasks = go_judge.fetch(f"{url}/usertasks").decode()
        assert "span" in tasks or "GET" in tasks or "usertask?" in tasks


def test_losses_are_user_logs(tmp_path, lossy):
    path, done = exported(lossy.data, tmp_path)
    assert done.lost == sum(row.last - row.first + 1 for row in lossy.losses)
    assert path.read_bytes().count(b"are missing: ") == len(lossy.losses)


def test_an_empty_trace_opens(tmp_path):
    from tests.model.small import Small

    path, done = exported(Small().end(), tmp_path)
    assert go_judge.counts(path) == go_judge.said(done.written)
