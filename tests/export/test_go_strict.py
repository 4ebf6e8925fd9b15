"""What readers of Go traces want that are stricter than `go tool trace -d`: its server, and the parsers of newer Gos.

The file is taken apart here by a reader of its own, a page long; every rule is one test, named for it.
"""

from dataclasses import dataclass, field

import pytest

from tests.traces import program
from tracesvc.export import export
from tracesvc.export.go_table import BY_NUMBER, HEADER

LEAVES = {"GoEnd", "GoStop", "GoSched", "GoPreempt", "GoSleep", "GoSysBlock"}
SNAPSHOT = {"GoCreate", "GoWaiting"}


@dataclass
class Event:
    name: str
    values: dict
    p: int
    g: int
    """the goroutine that runs on the P"""


@dataclass
class File:
    records: list = field(default_factory=list)
    """(name, bytes of its body)"""
    events: list = field(default_factory=list)
    """in the order of the file; those of one P are in order of time"""
    stacks: dict = field(default_factory=dict)
    strings: dict = field(default_factory=lambda: {0: ""})
    batches: list = field(default_factory=list)
    frequency: int = 0


def taken_apart(data):
    file, at, p, running = File(), len(HEADER), 0, {}
    assert data[:at] == HEADER

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        kind, count = data[at] & 63, data[at] >> 6
        at += 1
        row = BY_NUMBER[kind]
        if row.name == "String":
            key, size = number(), number()
            file.strings[key] = data[at : at + size].decode()
            at += size
            file.records.append(("String", size))
            continue
        if count == 3:
            size = number()
            end = at + size
            values = []
            while at < end:
                values.append(number())
            assert at == end
        else:
            start = at
            values = [number() for _ in range(count + 1)]
            size = at - start
        file.records.append((row.name, size))
        if row.name == "UserLog":
            size = number()
            at += size
        if row.name == "Batch":
            p = values[0]
            file.batches.append(p)
        elif row.name == "Frequency":
            (file.frequency,) = values
        elif row.name == "Stack":
            file.stacks[values[0]] = [tuple(values[i : i + 4]) for i in range(2, len(values), 4)]
            assert values[1] == len(file.stacks[values[0]])
        elif row.timed:
            named = dict(zip(row.values, values, strict=True))
            if row.name.startswith("GoStart"):
                running[p] = named["g"]
            file.events.append(Event(row.name, named, p, running.get(p, 0)))
            if row.name in LEAVES or row.name.startswith("GoBlock"):
                running[p] = 0
    return file, {g for g in running.values() if g}


SEEDS = 12


KNOWN = {}


@pytest.fixture(params=[*range(SEEDS), "whole", "lossy", "demo"])
def exported(request, tmp_path):
    if request.param not in KNOWN:
        KNOWN[request.param] = made(request.param, request, tmp_path)
    return KNOWN[request.param]


def made(which, request, tmp_path):
    if isinstance(which, int):
        data = program(which, events=700, runs=1 + which % 3, losses=0.08 * (which % 2)).data
    else:
        source = request.getfixturevalue(which)
        data = source.read_bytes() if which == "demo" else source.data
    path = tmp_path / "a.go"
    export(data, "go", path)
    return taken_apart(path.read_bytes())


def test_what_runs_at_the_end_is_told_to_end(exported):
    _, running = exported
    assert not running


def test_a_goroutine_has_an_entry_and_is_created_once(exported):
    file, _ = exported
    created = [e for e in file.events if e.name == "GoCreate"]
    assert created
    assert all(file.stacks.get(e.values["entry"]) for e in created)
    assert len({e.values["g"] for e in created}) == len(created)
    entries = [file.strings[file.stacks[e.values["entry"]][0][1]] for e in created]
    assert not any(name.startswith("runtime.") and name != "runtime.main" for name in entries)


def test_regions_are_of_a_goroutine_that_runs(exported):
    """Spans and logs of no task (a thread of the program's own) stand where none runs: every reader takes that."""
    file, _ = exported
    for event in file.events:
        if event.name == "UserRegion":
            assert event.g, event
            if event.values["mode"] == 0:
                assert file.stacks.get(event.values["stack"]), event


def test_collections_alternate(exported):
    file, _ = exported
    # They have one counter for all Ps; where there are several, only the pairs of each can be held to an order.
    for p in set(file.batches):
        names = [e.name for e in file.events if e.p == p and e.name in ("GCStart", "GCDone")]
        assert names[::2] == ["GCStart"] * len(names[::2])
        assert names[1::2] == ["GCDone"] * len(names[1::2])
        assert len(names) % 2 == 0
    numbers = sorted(e.values["seq"] for e in file.events if e.name == "GCStart")
    assert numbers == list(range(len(numbers)))


def test_the_order_of_the_beginning_and_the_end(exported):
    file, _ = exported
    names = [name for name, _ in file.records]
    assert names[0] == "Batch"
    assert file.frequency == 10**9
    # twice at the beginning, for the first one ends the snapshot; more where there come to be more Ps
    sizes = sorted(e.values["n"] for e in file.events if e.name == "Gomaxprocs")
    assert sizes[0] == sizes[1] == 1
    assert names.count("Frequency") == 1
    tail = names[names.index("Frequency") :]
    assert set(tail) <= {"Frequency", "String", "Stack"}


def test_no_record_is_longer_than_newer_parsers_take(exported):
    file, _ = exported
    assert max(size for name, size in file.records if name != "String") <= 2048
    assert max(map(len, file.stacks.values())) <= 128


def test_no_wake_up_is_called_futile(exported):
    file, _ = exported
    assert "FutileWakeup" not in {name for name, _ in file.records}


def test_a_p_says_that_it_starts_before_it_runs_something(exported):
    file, _ = exported
    for p in set(file.batches):
        started = False
        for event in (e for e in file.events if e.p == p):
            if event.name == "ProcStart":
                assert not started
                started = True
            elif event.name == "ProcStop":
                assert started
                started = False
            elif event.name.startswith("GoStart"):
                assert started, event


def test_after_a_blocked_call_comes_another_thread(exported):
    file, _ = exported
    for p in set(file.batches):
        events = [e for e in file.events if e.p == p]
        thread = None
        for i, event in enumerate(events):
            if event.name == "ProcStart":
                thread = event.values["thread"]
            if event.name == "GoSysBlock":
                assert events[i + 1].name == "ProcStop"
                assert events[i + 2].name == "ProcStart"
                assert events[i + 2].values["thread"] != thread


def test_a_place_has_one_address(exported):
    file, _ = exported
    places = {}
    for frames in file.stacks.values():
        for pc, *place in frames:
            assert places.setdefault(pc, place) == place
            assert pc
