"""Finished sessions as tables: what is in them, and what becomes of them whatever happens."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
import trio

from tests.store.helpers import segment
from tests.traces import program
from tracesvc.analysis import query
from tracesvc.analysis.history import query_many
from tracesvc.model.reader import read
from tracesvc.model.schema import OF_SESSION, TABLES
from tracesvc.store import Compact, FileStore, Keep, NoTablesError, compacting, compaction
from tracesvc.store.compacting import compact
from tracesvc.store.disk import Disk
from tracesvc.store.tables import Compacted, faults, found_tables

IN_CHILD = compaction.in_child
AT_ONCE = Compact(settled=0.0, silent=0.0)


def made(seed, events=600, losses=0.0):
    data = program(seed, events=events, losses=losses).data
    return read(data).session.id, data


async def fill(store, *seeds, **options):
    names = []
    for seed in seeds:
        name, data = made(seed, **options)
        assert (await store.append(name, 0, data)).durable == len(data)
        names.append(name)
    return names


async def tables_of(store, names, within=60):
    """Wait until all of them have tables."""
    with trio.fail_after(within):
        while True:
            found = {info.session: info.tables for info in await store.list(tables=True)}
            if all(found[name] is not None for name in names):
                return [found[name] for name in names]
            await trio.sleep(0.05)


def ask(root, tables, sql):
    def files(table):
        return [
            str(root / "sessions" / one.session / "parquet" / one.name / f"{table}.parquet")
            for one in tables
            if table in one.tables
        ]

    return query_many(files, sql)


async def until(condition, within=30):
    with trio.fail_after(within):
        while not condition():  # noqa: ASYNC110  # nobody sets an event
            await trio.sleep(0.02)


async def in_thread(source, session, size, directory, memory):
    """What the process does, without one: it takes its time where others work."""
    try:
        await trio.to_thread.run_sync(compact, source, session, size, directory)
    except Exception as exc:
        return str(exc)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(compaction, "EVERY", 0.05)
    monkeypatch.setattr(compaction, "in_child", in_thread)


async def test_what_has_ended_becomes_tables_and_they_say_what_the_sessions_say(tmp_path, quick):
    async with FileStore.open(tmp_path, compact=AT_ONCE) as store:
        names = await fill(store, 1, 2, losses=0.05)
        found = await tables_of(store, names)
        assert (await store.totals())["stored"]["parquet"] == sum(one.room for one in found)
        for name, one in zip(names, found, strict=True):
            assert one.size == (await store.info(name)).bytes
            file = await store.table(name, "events")
            data = b""
            while len(data) < file.bytes:
                data += await store.read_table(name, "events", len(data), 10_000)
            path = tmp_path / "sessions" / name / "parquet" / one.name / "events.parquet"
            assert data == path.read_bytes()
            with pytest.raises(NoTablesError):
                await store.table(name, "no such")
    sums = " union all ".join(
        f"select '{table}', count(*), coalesce(sum(hash(t)), 0) from {table} t" for table in TABLES
    )
    own = " union all ".join(
        f"select '{table}', count(*), coalesce(sum(hash(t)), 0) "
        f"from (select * exclude (session, source) from {table}) t"
        for table in TABLES
    )
    alone = [query(read(made(seed, losses=0.05)[1]), sums).rows for seed in (1, 2)]
    for both, *each in zip(ask(tmp_path, found, own).rows, *alone, strict=True):
        assert both == (each[0][0], each[0][1] + each[1][1], each[0][2] + each[1][2])
    rows = ask(
        tmp_path, found, "select session, source, events, lost, whole from sessions order by source"
    )
    assert [row[:2] for row in rows.rows] == [(names[0], "program 1"), (names[1], "program 2")]
    for row, seed in zip(rows.rows, (1, 2), strict=True):
        stream = program(seed, events=600, losses=0.05)
        assert row[2] == len(stream.events)
        assert row[3] > 0
        assert row[4] is True


async def test_what_goes_on_is_left_alone_and_made_anew_when_it_is_over(tmp_path, quick):
    name, data = made(3)
    half = len(data) // 2
    async with FileStore.open(tmp_path, compact=Compact(settled=0.0, silent=3600.0)) as store:
        taken = await store.append(name, 0, data[:half])
        await fill(store, 4)
        await tables_of(store, [made(4)[0]])
        with pytest.raises(NoTablesError):
            await store.table(name, "events")
    async with FileStore.open(tmp_path, compact=AT_ONCE) as store:  # silence is enough
        (early,) = await tables_of(store, [name])
        assert early.size == taken.durable
    async with FileStore.open(tmp_path) as store:
        assert (await store.append(name, taken.durable, data[taken.durable :])).durable == len(data)
        with pytest.raises(NoTablesError):  # of what there was before
            await store.table(name, "events")
    async with FileStore.open(tmp_path, compact=AT_ONCE) as store:
        (late,) = await tables_of(store, [name])
        assert late.size == len(data)
    places = list((tmp_path / "sessions" / name / "parquet").iterdir())
    assert [place.name for place in places] == [late.name]


async def test_damaged_or_missing_tables_are_made_again(tmp_path, quick):
    async with FileStore.open(tmp_path, compact=AT_ONCE) as store:
        names = await fill(store, 5, 6, 7)
        found = await tables_of(store, names)
    for one, harm in zip(found, ("gone", "short", "manifest"), strict=True):
        place = tmp_path / "sessions" / one.session / "parquet" / one.name
        if harm == "gone":
            (place / "events.parquet").unlink()
        elif harm == "short":
            (place / "events.parquet").write_bytes((place / "events.parquet").read_bytes()[:-1])
        else:
            (place / "manifest.json").write_bytes(b"{")
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    (tmp_path.with_name("copy") / "catalogue.sqlite").unlink()
    for root in (tmp_path, tmp_path.with_name("copy")):
        async with FileStore.open(root, compact=AT_ONCE) as store:
            sessions = root / "sessions"
            await until(
                lambda sessions=sessions: all(
                    found_tables(sessions / one.session, one.size) == one for one in found
                )
            )
            await tables_of(store, names)
        for one in found:
            assert faults(root / "sessions" / one.session, one) == []


async def test_a_catalogue_that_is_lost_finds_the_tables_again(tmp_path, quick):
    async with FileStore.open(tmp_path, compact=AT_ONCE) as store:
        names = await fill(store, 8)
        found = await tables_of(store, names)
    (tmp_path / "catalogue.sqlite").unlink()
    async with FileStore.open(tmp_path) as store:
        assert [info.tables for info in await store.list(tables=True)] == found


async def test_deleting_takes_the_tables_along_and_ends_what_is_being_made(
    tmp_path, quick, monkeypatch
):
    began = trio.Event()

    async def endless(*_words):
        began.set()
        await trio.sleep_forever()

    monkeypatch.setattr(compaction, "in_child", endless)
    async with FileStore.open(tmp_path, compact=AT_ONCE) as store:
        (name,) = await fill(store, 9)
        await began.wait()
        with trio.fail_after(10):
            await store.delete(name)
    monkeypatch.setattr(compaction, "in_child", in_thread)
    async with FileStore.open(tmp_path, compact=AT_ONCE, keep=Keep(source_bytes=1)) as store:
        names = await fill(store, 10, 11)
        await tables_of(store, names)
        assert set(await store.tidy()) == set(names)
        assert await store.list() == []
        assert (await store.totals())["stored"]["parquet"] == 0
    assert list((tmp_path / "sessions").iterdir()) == []
    assert list((tmp_path / "trash").iterdir()) == []


async def test_a_service_that_ends_leaves_nothing_half_made(tmp_path, quick, monkeypatch):
    """A real process, which takes longer than we wait."""
    monkeypatch.setattr(compaction, "in_child", IN_CHILD)
    async with FileStore.open(tmp_path) as store:
        (name,) = await fill(store, 16, events=60_000)
    place = tmp_path / "sessions" / name / "parquet"
    async with FileStore.open(tmp_path, compact=AT_ONCE):
        await until(lambda: list(place.rglob("*.parquet")), within=60)
    assert not place.exists() or [path.name for path in place.iterdir()] != ["part"]


class Narrow(Disk):
    def free(self, path):
        return 1 << 20


async def test_what_is_to_stay_free_stays_free(tmp_path, quick, caplog):
    async with FileStore.open(tmp_path, Narrow(), compact=AT_ONCE) as store:
        (name,) = await fill(store, 12)
        await until(lambda: "too little of the disk is free" in caplog.text)
        with pytest.raises(NoTablesError):
            await store.table(name, "events")
    assert not (tmp_path / "sessions" / name / "parquet").exists()


@pytest.fixture
def stored(tmp_path):
    """(directory, session, size) of one that has no tables yet."""
    name, data = made(13)
    directory = tmp_path / "sessions" / name
    directory.mkdir(parents=True)
    segment(tmp_path, name).write_bytes(data)
    return directory, name, len(data)


@pytest.mark.parametrize("at", ["write", "sync", "rename"])
def test_a_full_or_broken_disk_leaves_nothing_behind(stored, monkeypatch, at):
    directory, name, size = stored

    def fail(*_words, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        if at == "write":
            patched.setattr("tracesvc.model.parquet.SYNC_EVERY", 0)
            patched.setattr("tracesvc.model.parquet.os.fdatasync", fail)
        elif at == "sync":
            patched.setattr(compacting, "_sync", fail)
        else:
            patched.setattr("pathlib.Path.rename", fail)
        with pytest.raises(OSError, match="No space"):
            compact(directory, name, size, directory)
    assert [path.suffix for path in directory.iterdir()] == [".trace"]
    assert found_tables(directory, size) is None
    assert compact(directory, name, size, directory) == found_tables(directory, size)


COMPACT = """
import sys; from pathlib import Path; from tracesvc.store.compacting import compact
compact(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[1]))
"""


def test_a_process_killed_at_any_time_leaves_all_of_it_or_nothing_that_counts(stored):
    directory, name, size = stored
    words = [sys.executable, "-c", COMPACT, str(directory), name, str(size)]
    before = compact(directory, name, size, directory)
    shutil.rmtree(directory / "parquet")
    killed = 0
    for files in (1, 3, 8, 14):
        child = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        while child.poll() is None and len(list((directory / "parquet").rglob("*"))) < files:
            time.sleep(0.0005)
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            killed += 1
        child.wait()
        found = found_tables(directory, size)
        assert found is None or (found == before and faults(directory, found) == [])
    assert killed
    assert compact(directory, name, size, directory) == before
    assert [path.name for path in (directory / "parquet").iterdir()] == [before.name]


def test_a_process_whose_parent_is_gone_ends(stored):
    directory, name, size = stored
    words = [sys.executable, "-m", "tracesvc.store.compacting"]
    words += [str(directory), name, str(size), str(directory), str(1 << 30)]
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert child.wait(timeout=30) == 1
    assert found_tables(directory, size) is None


async def test_a_process_makes_them_within_its_memory_or_tells_why_not(stored):
    directory, name, size = stored
    why = await compaction.in_child(directory, name, size, directory, 60 << 20)
    assert why is not None
    assert found_tables(directory, size) is None
    assert await compaction.in_child(directory, name, size, directory, 1 << 30) is None
    assert faults(directory, found_tables(directory, size)) == []


async def test_what_is_no_trace_is_told_and_not_tried_for_ever(tmp_path, quick, caplog):
    async with FileStore.open(tmp_path) as store:
        (name,) = await fill(store, 14)
    path = segment(tmp_path, name)
    path.write_bytes(bytes(path.stat().st_size))
    async with FileStore.open(tmp_path, compact=AT_ONCE) as store:
        await until(lambda: "gets no tables" in caplog.text)
        await fill(store, 15)
        await tables_of(store, [made(15)[0]])
    assert caplog.text.count(f"session {name} gets no tables") == 1


def test_every_file_says_whose_rows_it_has_and_is_plain_parquet(stored):
    directory, name, size = stored
    found = compact(directory, name, size, directory)
    place = directory / "parquet" / found.name
    manifest = json.loads((place / "manifest.json").read_bytes())
    assert Compacted.unpack(json.dumps(manifest)) == found
    for table, file in found.tables.items():
        read_back = pq.read_table(place / f"{table}.parquet")
        assert read_back.num_rows == file.rows > 0
        assert set(read_back["session"].to_pylist()) == {name}
        assert read_back.schema.names[:2] == [column.name for column in OF_SESSION]
    with pytest.raises(ValueError, match="another version"):
        Compacted.unpack(json.dumps({**manifest, "version": 99}))
    with pytest.raises(ValueError, match="no manifest"):
        Compacted.unpack("[]")
