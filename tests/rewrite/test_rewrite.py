"""Cut, merged and anonymized traces: `verify` accepts them, and what they say is what was there."""

import re
import sys

import pytest

from tests.cli.commands import failed, run, small
from tests.traces import program
from tracesvc.format import Generation
from tracesvc.model.reader import read
from tracesvc.model.verify import verify
from tracesvc.rewrite import anonymize, cut, merge

SEEDS = pytest.mark.parametrize("seed", range(12))


def variants(seed):
    """A stream as it was written, as a late joiner and a slow sink have it, and as a killed program leaves it."""
    stream = program(seed, losses=0.1 * (seed % 2), generations=6)
    yield stream.data
    yield stream.data[: len(stream.data) * 2 // 3]
    generations = stream.generations()
    if len(generations) > 3:
        yield stream.joined_late(2).data
        yield stream.with_drops(generations[1] + 3, 3).data


def made(function, *args, **options):
    pieces = []
    done = function(*args, pieces.append, **options)
    data = b"".join(pieces)
    report = verify(data)
    assert report.ok, [str(violation) for violation in report.violations[:3]]
    return data, done, report


def generations_of(data):
    return [
        item.record.monotonic
        for item in read(data).items()
        if isinstance(getattr(item, "record", None), Generation)
    ]


@SEEDS
def test_every_cut_is_a_valid_trace_with_the_events_of_its_generations(seed):
    for data in variants(seed):
        begins = generations_of(data)
        for begin, end in (
            (None, None),
            (None, begins[len(begins) // 2]),
            (begins[1], None),
            (begins[1], begins[2]),
        ):
            piece, done, report = made(cut, data, begin=begin, end=end)
            assert report.events == done.events
            kept = generations_of(piece)
            assert kept == [
                t
                for i, t in enumerate(begins)
                if (end is None or t <= end)
                and (begin is None or i + 1 == len(begins) or begins[i + 1] >= begin)
            ]
            known = {(e.proc, e.seq): e for e in read(data)}
            assert all(known[e.proc, e.seq] == e for e in read(piece))
            if (begin, end) == (None, None):
                assert piece == data[: len(piece)]
                assert len(data) - len(piece) < 2000


def test_a_large_generation_is_held_on_disk(monkeypatch):
    module = sys.modules["tracesvc.rewrite.cut"]
    monkeypatch.setattr(module, "HELD", 100)
    monkeypatch.setattr(module, "PIECE", 1000)
    data, parts = program(3, events=2000).data, []
    cut(data, parts.append)
    assert b"".join(parts) == data
    assert max(map(len, parts[1:])) <= 1000  # the first is the header


def test_a_cut_outside_of_the_trace_is_refused():
    data = program(1).data
    with pytest.raises(ValueError, match="nothing in the trace"):
        cut(data, [].append, end=1)
    with pytest.raises(ValueError, match="before begin"):
        cut(data, [].append, begin=2, end=1)


@SEEDS
def test_anonymized_traces_keep_structure_and_times_and_no_text(seed):
    for data in variants(seed):
        clean, count, report = made(anonymize, data)
        before, after = list(read(data)), list(read(clean))
        assert report.events == count == len(before)
        for a, b in zip(before, after, strict=True):
            assert (a.type, a.time, a.proc, a.seq) == (b.type, b.time, b.proc, b.seq)
            for field in a.fields:
                if field.storage.value in ("int", "float"):
                    assert getattr(a, field.name) == getattr(b, field.name)
        texts = {e.name for e in before if hasattr(e, "name")} | {
            str(e.message) for e in before if e.type == "log"
        }
        for text in texts:
            if len(text) > 3 and not text.startswith(
                ("trio.", "tracesvc", "<init>", "process.rss")
            ):
                assert text.encode() not in clean


def test_equal_names_stay_equal_and_the_key_decides():
    data = program(3).data
    one, again, other = (made(anonymize, data, key=key)[0] for key in (b"k", b"k", b"l"))
    assert one == again != other
    names = {}
    for a, b in zip(read(data), read(one), strict=True):
        if hasattr(a, "name"):
            assert names.setdefault(a.name, b.name) == b.name
    assert len(set(names.values())) == len(names)


@SEEDS
def test_merged_traces_have_all_events_on_one_clock(seed):
    other = program(seed + 100, losses=0.05).data
    for data in variants(seed):
        merged, done, report = made(merge, [data, other])
        events = [list(read(source)) for source in (data, other)]
        assert report.events == done.events == sum(map(len, events))
        times = sorted(e.time for some in events for e in some)
        # Made at the same time, they are so still, as far as their exchanges with a service say.
        places = zip(done.axis.placed, events, strict=True)
        apart = max(placed.at(e.time).uncertainty for placed, some in places for e in some)
        found = sorted(e.time for e in read(merged))
        assert max(abs(a - b) for a, b in zip(found, times, strict=True)) <= 2 * apart + 10_000
        tasks = {e.task for e in read(merged) if e.type == "task_create"}
        assert len(tasks) == sum(e.type == "task_create" for some in events for e in some)


def test_three_traces_with_clocks_of_their_own_meet():
    streams = [small().end(10_000).data for _ in range(3)]
    data, done, _ = made(merge, streams)
    assert (done.traces, done.events) == (3, 27)
    assert read(data).header.source["merged"] == ["by hand"] * 3


def test_merge_wants_traces():
    with pytest.raises(ValueError, match="at least one"):
        merge([], [].append)


# --- the commands --------------------------------------------------------------------------------


def test_the_commands_write_what_verify_accepts(tmp_path):
    source = tmp_path / "a.trace"
    source.write_bytes(program(2, losses=0.05).data)
    for words in (
        ("cut", source, "--from", "0.01", "--to", "0.05s"),
        ("anonymize", source),
        ("merge", source, source),
    ):
        out = tmp_path / f"{words[0]}.trace"
        done = run(*words, "-o", out)
        assert done.returncode == 0, done.stderr
        assert re.search(r"[\d,]+ events", done.stderr)
        assert run("verify", out).returncode == 0
    assert not list(tmp_path.glob("*.part"))


def test_wrong_words_get_a_line(tmp_path):
    source = tmp_path / "a.trace"
    source.write_bytes(program(2).data)
    assert "--from must be" in failed(
        run("cut", source, "--from", "yesterday", "-o", tmp_path / "b"), 2
    )
    assert "nothing in the trace" in failed(
        run("cut", source, "--to", "-5", "-o", tmp_path / "b"), 1
    )
    assert "no frame" in failed(run("anonymize", __file__, "-o", tmp_path / "b"), 1)
    assert not (tmp_path / "b").exists()
