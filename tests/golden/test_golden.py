"""Traces of every format version that was released stay readable, to the last field."""

import json
from pathlib import Path

import pytest

from tests.golden.make import KINDS, described
from tracesvc.export import FORMATS, export
from tracesvc.format.records import VERSION
from tracesvc.model.verify import verify

TRACES = sorted(Path(__file__).parent.glob("*.trace"))


def test_there_are_some_of_every_version():
    assert [path.name for path in TRACES] == sorted(
        f"version-{version}-{kind}.trace" for version in range(1, VERSION + 1) for kind in KINDS
    )


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
