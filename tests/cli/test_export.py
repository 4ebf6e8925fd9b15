"""``tracesvc export``."""

import json

import pytest

from tests.cli.commands import failed, run, small
from tracesvc.export import FORMATS, export


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "a.trace"
    path.write_bytes(small().end(10_000).data)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_written(tmp_path, trace, name):
    done = run("export", trace, "--to", name, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "9 events" in done.stderr
    assert (tmp_path / "out").exists()


def test_without_a_name_it_lies_here_with_the_formats_suffix(tmp_path, trace):
    assert run("export", trace, "--to", "perfetto", cwd=tmp_path).returncode == 0
    assert (tmp_path / "a.pftrace").stat().st_size > 100


def test_standard_output_takes_files(trace):
    done = run("export", trace, "--to", "jsonl", "-o", "-")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["type"] for row in rows if "seq" in row][0] == "proc_start"
    assert len(rows) == 9 + 3


def test_json_tells_what_was_written(tmp_path, trace):
    done = run("export", trace, "--to", "go", "-o", tmp_path / "out", "--json")
    told = json.loads(done.stdout)
    assert told["events"] == 9
    assert told["written"]["GoStartLocal"] == 1
    assert told["left_out"] == {"counter": 1}


def test_wrong_words_get_a_line(tmp_path, trace):
    assert "is not one of" in failed(run("export", trace, "--to", "pdf"), 2)
    assert "--push goes with" in failed(run("export", trace, "--to", "go", "--push", "http://x"), 2)
    assert "directory" in failed(run("export", trace, "--to", "ctf", "-o", "-"), 2)
    assert "no frame" in failed(run("export", __file__, "--to", "go", "-o", tmp_path / "b"), 1)
    assert not (tmp_path / "b").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert "not an empty directory" in failed(
        run("export", trace, "--to", "ctf", "-o", tmp_path / "full"), 1
    )
    gone = run("export", tmp_path / "none", "--to", "go", "-o", tmp_path / "b")
    assert "No such file" in failed(gone, 1)


def test_the_library_refuses_what_does_not_fit(trace):
    with pytest.raises(ValueError, match="to must be one of"):
        export(trace, "pdf", "x")
    with pytest.raises(ValueError, match="out must be a path"):
        export(trace, "parquet", [].append)
