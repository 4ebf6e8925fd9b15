"""Traces of every format version that was released stay readable, to the last field."""

import json
from pathlib import Path

import pytest

from tests.golden.make import described
from tracesvc.events import EVENTS
from tracesvc.export import FORMATS, export
from tracesvc.format.records import VERSION
from tracesvc.model.verify import verify

TRACES = sorted(Path(__file__).parent.glob("*.trace"))


def test_there_are_some_of_every_version():
    found = {int(path.name.split("-")[1]) for path in TRACES}
    assert found == set(range(1, VERSION + 1))


RECORDED = [path for path in TRACES if path.stem.endswith("-recorded")]
NOT_RECORDED = {"overhead"}
"""what comes only where the tracer is over its budget"""


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_what_is_recorded_has_every_event_of_its_vocabulary(path):
    last = int(path.stem.split("-")[4])
    types = {event.type for number, event in EVENTS.items() if number <= last} - NOT_RECORDED
    assert json.loads(path.with_suffix(".json").read_text())["types"].keys() >= types


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_a_golden_trace_reads_as_it_did_when_it_was_made(path):
    data = path.read_bytes()
    assert described(data) == json.loads(path.with_suffix(".json").read_text())
    assert verify(data).ok


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_golden_traces_go_through_every_export(tmp_path, path, name):
    done = export(path, name, tmp_path / "out")
    assert done.events == json.loads(path.with_suffix(".json").read_text())["events"]
