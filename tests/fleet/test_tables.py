"""Tables of what a fleet has archived: made by the replica that archives, asked through any, and in the bucket."""

import json
import os
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import msgpack
import pytest
import trio
import trio.testing

from tests.cli.commands import COMMAND, ENVIRONMENT
from tests.fleet.servers import environment, nats, s3
from tests.store.test_compaction import in_thread, made, tables_of
from tests.streams import joined, name_of, session
from tracesvc.analysis import query
from tracesvc.model.reader import read
from tracesvc.store import (
    Compact,
    Fleet,
    JetStreamStore,
    NoTablesError,
    compaction,
    keeper,
    shared_compaction,
)
from tracesvc.store.archive import Archive
from tracesvc.store.compacting import compact
from tracesvc.store.contents import Contents
from tracesvc.store.shared import Chunk, SharedEntry, SharedSession
from tracesvc.store.tables import PARQUET

AT_ONCE = Compact(settled=0.0, silent=0.0)


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with nats(tmp_path_factory.mktemp("nats")) as server, s3() as variables:
        yield server, variables


@pytest.fixture
def fleet(servers, request, monkeypatch):
    server, variables = servers
    monkeypatch.setattr(keeper, "EVERY", 0.05)
    monkeypatch.setattr(compaction, "EVERY", 0.05)
    monkeypatch.setattr(shared_compaction, "in_child", in_thread)
    name = request.node.name
    with environment(variables):
        yield Fleet(
            server.url,
            bucket=f"s3://traces/{name}",
            stream=name,
            replicas=1,
            patience=10,
            archiver=False,
            forget_after=0.2,
        )


@asynccontextmanager
async def two(fleet, tmp_path):
    """A replica that archives and compacts, and one that does neither."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                JetStreamStore.open(one, tmp_path / f"cache{n}", compact=AT_ONCE)
            )
            for n, one in enumerate((replace(fleet, archiver=True), fleet))
        ]


async def asked(data, sql, *words):
    done = await trio.run_process(
        [*COMMAND, "query", "--data", data, sql, "--json", *words],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env={**ENVIRONMENT, **os.environ},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_what_is_archived_becomes_tables_that_every_replica_and_the_bucket_give(
    fleet, tmp_path
):
    async with two(fleet, tmp_path) as (one, other):
        streams = [made(seed)[1] for seed in (1, 2)]
        names = [read(data).session.id for data in streams]
        for name, data in zip(names, streams, strict=True):
            assert (await other.append(name, 0, data)).durable == len(data)
        found = await tables_of(other, names)
        for name, tables in zip(names, found, strict=True):
            file = await other.table(name, "waits")
            data = await other.read_table(name, "waits", 0, file.bytes + 100)
            assert (len(data), data[:4], data[-4:]) == (file.bytes, b"PAR1", b"PAR1")
            assert await other.read_table(name, "waits", file.bytes, 10) == b""
            assert await one.archive.tables(name, tables.size) == tables
        sql = "select count(*) as n, sum(duration) as ns from waits"
        alone = [query(read(data), sql).rows[0] for data in streams]
        total = {"n": sum(n for n, _ in alone), "ns": sum(int(ns) for _, ns in alone)}
        assert (await asked(fleet.bucket, sql))["rows"] == [total]
        only = await asked(fleet.bucket, "select distinct session from events", "--source", "*1")
        assert only["rows"] == []
        only = await asked(fleet.bucket, "select session from sessions", "--source", "program 1")
        assert only["rows"] == [{"session": names[0]}]
        live = session(20)[:-1]
        await other.append(name_of(live), 0, joined(live))
        with pytest.raises(NoTablesError):
            await other.table(name_of(live), "events")
        await other.delete(names[0])
        assert (await asked(fleet.bucket, sql))["rows"] == [
            {"n": alone[1][0], "ns": int(alone[1][1])}
        ]
        left = await trio.to_thread.run_sync(one.archive.objects.names, f"sessions/{names[0]}/")
        assert left == []


async def test_tables_that_an_earlier_archiver_began_are_finished_and_those_of_less_go(
    fleet, tmp_path
):
    name, data = made(3)
    directory = tmp_path / "made" / name
    directory.mkdir(parents=True)
    (directory / "00000000000000000000.trace").write_bytes(data)
    tables = compact(directory, name, len(data), directory)
    archive = Archive(fleet.bucket)
    place = f"sessions/{name}/{PARQUET}"
    archive.objects.create(f"{place}/v1-{7:020}/manifest.json", b"{}")  # of fewer bytes
    others = (directory / PARQUET / tables.name / "spans.parquet").read_bytes()
    archive.objects.create(f"{place}/{tables.name}/events.parquet", others)  # another's, and whole
    assert await archive.tables(name, len(data)) is None
    found = await archive.create_tables(directory / PARQUET / tables.name, tables)
    assert await archive.tables(name, len(data)) == found
    assert found.tables["events"].bytes == len(others), "what was there first counts"
    assert found.tables["waits"] == tables.tables["waits"]
    again = await archive.create_tables(directory / PARQUET / tables.name, tables)
    assert again == found
    kept = await trio.to_thread.run_sync(archive.objects.names, f"{place}/")
    assert {key.split("/")[3] for key, _ in kept} == {tables.name}


def test_an_entry_of_a_younger_replica_is_understood():
    entry = SharedEntry(b"ledger", 10, 3, 5, True, tables=b"{}")
    assert SharedEntry.unpack(entry.pack()) == entry
    longer = msgpack.packb([*msgpack.unpackb(entry.pack()), "what is to come"])
    assert SharedEntry.unpack(longer) == entry
    shorter = msgpack.packb(msgpack.unpackb(entry.pack())[:-1])
    assert SharedEntry.unpack(shorter) == replace(entry, tables=None)


async def test_two_readers_of_what_has_just_been_archived_both_get_it():
    """Both know of a chunk that the stream has forgotten meanwhile."""
    stored = SharedSession("s", size=4, chunks=[Chunk(0, 4, 1)])
    waiting = trio.Event()

    class Link:
        async def at(self, stream, seq):
            await waiting.wait()

        async def next(self, stream, subject, seq):
            return None

    class Objects:
        async def segments(self, session):
            await trio.lowlevel.checkpoint()
            return [(0, 4)]

        async def read(self, session, start, offset, n):
            return b"data"[offset : offset + n]

    contents = Contents(Link(), Objects(), "frames", str, 1.0)
    read_back = []

    async def reader():
        read_back.append(await contents.read(stored, 0, 4))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        nursery.start_soon(reader)
        await trio.testing.wait_all_tasks_blocked()
        waiting.set()
    assert read_back == [b"data"] * 2
