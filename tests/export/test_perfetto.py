"""Perfetto and Chrome JSON: Perfetto's own trace processor is the judge."""

import json
from collections import Counter

import pytest

from tests.export.conftest import damaged, end_of, events_of
from tests.export.oracle import look
from tests.export.perfetto_judge import query
from tests.model.small import BEGIN, Small
from tests.streams import Maker, joined
from tests.traces import program
from tracesvc.events import Reason
from tracesvc.export import export
from tracesvc.format import Exchange, compress

SLICES = "select name, count(*) n, sum(dur) ns, sum(dur < 0) open from slice group by name"
STATS = "select name, value from stats where value > 0 and severity != 'info'"
FLOWS = "select count(*) n from flow"


@pytest.fixture
def data(request, which):
    source = request.getfixturevalue(which)
    return source.read_bytes() if which in ("demo", "scopes") else source.data


@pytest.mark.parametrize("which", ["whole", "demo", "nested", "scopes"])
def test_slices_sums_and_flows_are_ours(tmp_path, data, which):
    path = tmp_path / "a.pftrace"
    done = export(data, "perfetto", path)
    slices, stats, flows, samples = query(
        path, SLICES, STATS, FLOWS, "select count(*) n from counter"
    )
    found = look(events_of(data), end_of(data))
    by_name = {row["name"]: (row["n"], row["ns"]) for row in slices}
    assert sum(row["n"] for row in slices) == done.written["slice"] + done.written["instant"]
    assert by_name["running"] == (found.count("running"), found.total("running"))
    assert by_name["runnable"] == (found.count("runnable"), found.total("runnable"))
    for (state, reason), durations in found.states.items():
        if state == "waiting":
            name = f"waiting: {Reason(reason).name.lower().replace('_', ' ')}"
            assert by_name[name] == (len(durations), sum(durations))
    assert by_name["wake"] == (found.wakers, 0)
    assert by_name.get("I/O wait", (0,))[0] == found.types["io_wait_end"]
    for kind, durations in found.nests.items():
        assert by_name.get(kind, (0, 0)) == (
            (len(durations), sum(durations)) if durations else (0, 0)
        )
    assert by_name.get("is cancelled", (0, 0)) == (found.types["task_cancelled"], 0)
    assert by_name.get("cancels", (0, 0)) == (found.reached, 0)
    assert bool(found.nests["nursery"]) == (which != "whole")
    assert bool(found.nests["cancel scope"]) == (which == "scopes")
    assert flows == [{"n": found.wakers + found.reached}]
    assert samples == [{"n": found.types["counter"]}]
    assert stats == []


def test_nurseries_and_scopes_lie_within_each_other_and_arrows_end_where_they_should(
    tmp_path, scopes
):
    path = tmp_path / "a.pftrace"
    export(scopes.read_bytes(), "perfetto", path)
    nests, arrows = query(
        path,
        "select s.name, s.ts, s.dur, s.depth, t.name track, extract_arg(s.arg_set_id, 'debug.nursery') nursery, "
        "extract_arg(s.arg_set_id, 'debug.scope') scope, extract_arg(s.arg_set_id, 'debug.children') children, "
        "extract_arg(s.arg_set_id, 'debug.errors') errors, extract_arg(s.arg_set_id, 'debug.caught') caught, "
        "extract_arg(s.arg_set_id, 'debug.timeout_ns') timeout "
        "from slice s join track t on s.track_id = t.id where s.name in ('nursery', 'cancel scope')",
        "select a.ts asked, b.ts reached, p.name victim, a.name begins, b.name ends, "
        "extract_arg(b.arg_set_id, 'debug.scope') scope, extract_arg(b.arg_set_id, 'debug.source') source "
        "from flow f join slice a on f.slice_out = a.id join slice b on f.slice_in = b.id "
        "join track p on b.track_id = p.id where b.name = 'is cancelled' order by b.ts",
    )
    events = events_of(scopes.read_bytes())
    opened = {e.nursery: e for e in events if e.type == "nursery_open"}
    closed = {e.nursery: e for e in events if e.type == "nursery_close"}
    entered = {e.scope: e for e in events if e.type == "scope_open"}
    left = {e.scope: e for e in events if e.type == "scope_close"}
    assert {row["track"] for row in nests} == {"nurseries and scopes"}
    assert max(row["depth"] for row in nests) >= 3
    for row in nests:
        if row["name"] == "nursery":
            begin, end = opened.pop(row["nursery"]), closed[row["nursery"]]
            assert (row["children"], row["errors"]) == (end.children, end.errors)
        else:
            begin, end = entered.pop(row["scope"]), left[row["scope"]]
            assert bool(row["caught"]) == bool(end.caught)
            assert row["timeout"] == (None if begin.timeout < 0 else begin.timeout)
        assert (row["ts"], row["dur"]) == (begin.time, end.time - begin.time)
    assert not opened
    assert not entered
    requests = {e.scope: e for e in events if e.type == "cancel_request"}
    reached = [e for e in events if e.type == "task_cancelled"]
    names = {e.task: e.name for e in events if e.type == "task_create"}
    assert [(row["reached"], row["scope"], row["victim"]) for row in arrows] == [
        (e.time, e.scope, names[e.task]) for e in reached
    ]
    assert [row["asked"] for row in arrows] == [requests[e.scope].time for e in reached]
    assert {row["source"] for row in arrows} == {"called", "deadline", "error", "shutdown"}
    assert {(row["begins"], row["ends"]) for row in arrows} == {("cancels", "is cancelled")}


@pytest.mark.parametrize("seed", range(6))
def test_what_was_open_where_events_are_lost_ends_there(tmp_path, seed):
    stream = program(seed, events=3000, losses=0.2, nests=True)
    path = tmp_path / "a.pftrace"
    done = export(stream.data, "perfetto", path)
    slices, lost, stats = query(
        path,
        SLICES,
        "select count(*) n from slice where name = 'nursery' and extract_arg(arg_set_id, 'debug.lost')",
        STATS,
    )
    (nurseries,) = [row for row in slices if row["name"] == "nursery"]
    types = Counter(event.type for event in stream.events)
    assert (nurseries["n"], nurseries["open"]) == (types["nursery_open"], 0)
    assert lost[0]["n"]
    assert done.left_out["nursery_close"] <= types["nursery_close"]
    assert sum(row["n"] for row in slices) == done.written["slice"] + done.written["instant"]
    assert {row["name"] for row in stats} <= {"traced_buf_trace_writer_packet_loss"}


def test_losses_are_in_the_statistics_and_on_a_track(tmp_path, lossy):
    path = tmp_path / "a.pftrace"
    done = export(lossy.data, "perfetto", path)
    lost = sum(row.last - row.first + 1 for row in lossy.losses)
    assert done.lost == lost
    stats, slices = query(
        path,
        STATS,
        "select s.dur from slice s join track t on s.track_id = t.id where t.name glob 'lost events*'",
    )
    assert stats == [{"name": "traced_buf_trace_writer_packet_loss", "value": lost}]
    assert sorted(row["dur"] for row in slices) == sorted(r.end - r.start for r in lossy.losses)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_of_a_damaged_trace_is_imported_whole(tmp_path, seed):
    path = tmp_path / "a.pftrace"
    done = export(damaged(program(seed).data, seed), "perfetto", path)
    slices, stats = query(path, SLICES, STATS)
    assert sum(row["n"] for row in slices) == done.written["slice"] + done.written["instant"]
    assert {row["name"] for row in stats} <= {"traced_buf_trace_writer_packet_loss"}


def test_times_of_day_are_known(tmp_path, whole):
    path = tmp_path / "a.pftrace"
    export(whole.data, "perfetto", path)
    (rows,) = query(path, "select count(*) n from clock_snapshot where clock_name = 'REALTIME'")
    assert rows[0]["n"] == len(whole.generations())


@pytest.mark.parametrize("which", ["nested", "scopes"])
def test_chrome_json_has_nurseries_scopes_and_who_cancelled_whom(tmp_path, data):
    path = tmp_path / "a.json"
    done = export(data, "chrome", path)
    found = look(events_of(data), end_of(data))
    for kind, durations in found.nests.items():
        slices, flows = query(
            path,
            f"select count(*) n, sum(dur) ns from slice where category = '{kind}'",
            FLOWS,
        )
        assert done.written[kind] == len(durations)
        # In the file they are us with three decimals, which Perfetto reads as a float.
        assert slices[0]["n"] == len(durations)
        assert (slices[0]["ns"] or 0) == pytest.approx(sum(durations), abs=len(durations))
    loaded = json.loads(path.read_text())["traceEvents"]
    assert sum(e["ph"] == "s" and e["cat"] == "cancel" for e in loaded) == found.reached
    assert sum(e["ph"] == "f" and e["cat"] == "cancel" for e in loaded) == found.reached
    assert sum(e.get("cat") == "cancelled" for e in loaded) == found.types["task_cancelled"]
    ids = [e["id"] for e in loaded if e["ph"] == "s"]
    assert len(ids) == len(set(ids)) == done.written["flow"]
    assert flows[0]["n"] <= done.written["flow"]


def test_times_of_day_are_those_of_the_service_where_the_trace_tells(tmp_path):
    """So that the traces of several machines line up, whatever their machines believe."""
    made = Maker()
    there = made.time + 10**12
    hours_later = made.start_wall + 7200 * 10**9
    frames = made.start()
    told = made.time, there, there, made.time + 800, hours_later, "service"
    frames += [*made.writer.clocks([Exchange(*told)]), *made.events(10), *made.end()]
    path = tmp_path / "a.pftrace"
    export(joined(frames), "perfetto", path)
    (rows,) = query(path, "select clock_value v from clock_snapshot where clock_name = 'REALTIME'")
    assert abs(rows[0]["v"] - hours_later) < 1000


@pytest.mark.parametrize("which", ["whole", "lossy"])
def test_chrome_json_is_imported_with_all_its_slices(tmp_path, request, which):
    stream = request.getfixturevalue(which)
    path = tmp_path / "a.json"
    done = export(stream.data, "chrome", path)
    loaded = json.loads(path.read_text())
    assert loaded["otherData"]["lost_events"] == done.lost
    phases = Counter(event["ph"] for event in loaded["traceEvents"])
    assert phases["X"] == done.written["slice"]
    assert {e["tid"] for e in loaded["traceEvents"] if e["ph"] == "X"}.isdisjoint({0, 1})
    (rows,) = query(
        path, "select count(*) n from slice where category in ('state', 'step', 'lost')"
    )
    wanted = [
        e
        for e in loaded["traceEvents"]
        if e.get("cat") in ("state", "step", "lost") and e["ph"] == "X"
    ]
    assert rows == [{"n": len(wanted)}]
    if which == "whole":
        found = look(stream.events, end_of(stream.data))
        (rows,) = query(
            path, "select name, sum(dur) ns from slice where category = 'state' group by name"
        )
        assert {row["name"]: row["ns"] for row in rows}["running"] == found.total("running")


def test_a_compressed_trace_gives_the_same_bytes(tmp_path, whole):
    paths = [tmp_path / name for name in ("plain", "compressed")]
    export(whole.data, "perfetto", paths[0])
    export(b"".join(compress(frame.data) for frame in whole.frames), "perfetto", paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_trace_of_nothing_is_no_error(tmp_path):
    path = tmp_path / "a.pftrace"
    export(Small().end(), "perfetto", path)
    assert query(path, SLICES) == [[]]
    export(Small().events(*BEGIN).data, "perfetto", path)
    (rows,) = query(path, SLICES)
    assert {row["name"] for row in rows} >= {"running", "waiting: nursery", "runnable"}
