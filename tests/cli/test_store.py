"""``tracesvc store``: a data directory looked at, mended and tidied."""

import json

import pytest
import trio

from tests.cli.commands import run as tracesvc
from tests.store.helpers import keep, segment
from tests.streams import joined, name_of, session
from tracesvc.store import FileStore


@pytest.fixture
def data(tmp_path):
    """A directory with three sessions; and their frames."""
    frames = [session(100, batch=10, lost=2) for _ in range(3)]

    async def fill():
        async with FileStore.open(tmp_path) as store:
            for each in frames:
                await keep(store, each)

    trio.run(fill)
    return tmp_path, frames


def ledgers(root, names):
    async def look():
        async with FileStore.open(root) as store:
            return [(await store.ledger(name))["closed"] for name in names]

    return trio.run(look)


def test_a_good_directory(data):
    root, frames = data
    run = tracesvc("store", "check", root)
    assert run.returncode == 0, run.stderr
    total = sum(len(joined(each)) for each in frames)
    assert f"3 sessions, {sum(map(len, frames))} frames, {total:,} bytes: all as it should be" in (
        run.stdout
    )
    found = json.loads(tracesvc("store", "check", root, "--json").stdout)
    assert found["ok"]
    assert {row["name"] for row in found["found"]} == {name_of(each) for each in frames}


def test_what_is_wrong_is_told_and_mended(data):
    root, frames = data
    names = [name_of(each) for each in frames]
    with segment(root, names[0]).open("ab") as file:
        file.write(frames[0][-1].data[:30])
    (root / "catalogue.sqlite").write_bytes(b"no database")
    (root / "trash" / names[0]).mkdir(parents=True)
    run = tracesvc("store", "check", root)
    assert run.returncode == 1
    end = len(joined(frames[0]))
    assert f"{names[0]}: 30 bytes behind the last whole frame, at {end}" in run.stdout
    assert "catalogue.sqlite: cannot be used" in run.stdout
    assert "trash: 1 sessions that were being deleted" in run.stdout
    assert tracesvc("store", "check", root).returncode == 1, "checking changes nothing"
    run = tracesvc("store", "repair", root)
    assert run.returncode == 0, run.stdout
    assert tracesvc("store", "check", root).returncode == 0
    assert segment(root, names[0]).read_bytes() == joined(frames[0])
    assert ledgers(root, names) == [True] * 3


def test_damage_in_the_middle_is_told_and_stays(data):
    root, frames = data
    name, bad = name_of(frames[0]), frames[0][7]
    content = bytearray(segment(root, name).read_bytes())
    content[bad.end - 1] ^= 1
    segment(root, name).write_bytes(content)
    (root / "sessions" / "notes").mkdir()
    run = tracesvc("store", "repair", root)
    assert run.returncode == 1
    assert f"{name}: bytes {bad.offset} to {bad.end}: wrong checksum\n" in run.stdout
    assert "notes: no session: left alone" in run.stdout
    assert segment(root, name).read_bytes() == content


def test_what_is_not_to_be_kept_goes(data):
    root, frames = data
    size = len(joined(frames[0]))
    run = tracesvc("store", "gc", root, "--keep-bytes", f"{2 * size}")
    assert run.returncode == 0, run.stderr
    (gone,) = run.stdout.split()
    assert gone in {name_of(each) for each in frames}
    assert len(list((root / "sessions").iterdir())) == 2
    assert tracesvc("store", "gc", root, "--keep", "1d").stdout == ""
    assert len(tracesvc("store", "gc", root, "--keep", "0s").stdout.split()) == 2


@pytest.mark.parametrize(
    "arguments, status, error",
    [
        (("gc",), 2, "say what to keep"),
        (("gc", "--keep", "long"), 2, "is not like 12h or 30d"),
        (("gc", "--keep-bytes", "3X"), 2, "is not like 500M or 20G"),
    ],
)
def test_wrong_usage_is_one_line(data, arguments, status, error):
    run = tracesvc("store", *arguments[:1], data[0], *arguments[1:])
    assert run.returncode == status
    assert error in run.stderr


def test_no_data_directory(tmp_path):
    for what in ("check", "repair"):
        run = tracesvc("store", what, tmp_path / "none")
        assert run.returncode == 1
        assert "is no data directory of a service" in run.stderr
        assert not (tmp_path / "none").exists()


async def test_not_while_a_service_uses_it(tmp_path):
    async with FileStore.open(tmp_path):
        run = await trio.to_thread.run_sync(tracesvc, "store", "check", tmp_path)
    assert run.returncode == 1
    assert "in use by another service" in run.stderr
