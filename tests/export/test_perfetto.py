"""Perfetto and Chrome JSON: Perfetto's own trace processor is the judge."""

import json
from collections import Counter

import pytest

from tests.export.conftest import damaged, end_of, events_of
from tests.export.oracle import look
from tests.export.perfetto_judge import query
from tests.model.small import BEGIN, Small
from tests.traces import program
from tracesvc.events import Reason
from tracesvc.export import export
from tracesvc.format import compress

SLICES = "select name, count(*) n, sum(dur) ns, sum(dur < 0) open from slice group by name"
STATS = "select name, value from stats where value > 0 and severity != 'info'"
FLOWS = "select count(*) n from flow"


@pytest.mark.parametrize("which", ["whole", "demo"])
def test_slices_sums_and_flows_are_ours(tmp_path, request, which):
    source = request.getfixturevalue(which)
    data = source.data if which == "whole" else source.read_bytes()
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
    assert flows == [{"n": found.wakers}]
    assert samples == [{"n": found.types["counter"]}]
    assert stats == []


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
