"""What a store knows of a session's clock, and that catalogues without it go on being read."""

import sqlite3
import uuid

import msgpack
import pytest

from tests.streams import SECOND, Maker, joined
from tracesvc.format import Exchange, SessionWriter
from tracesvc.store import FileStore
from tracesvc.store.ledger import Ledger


def exchange(sent, ahead, width=1000, clock="c1"):
    """With a service whose clock is ``ahead`` ns ahead."""
    arrived = sent + ahead + width // 2
    return Exchange(sent, arrived, arrived, sent + width, 10**18 + arrived, clock)


def talking(**options):
    made = Maker(**options)
    frames = made.start()
    for i in range(6):
        frames += made.events(10)
        frames += made.writer.clocks(
            [exchange(made.time, 5 * SECOND), exchange(made.time + i, 5 * SECOND)]
        )
    return made, [*frames, *made.end()]


async def test_the_offset_of_a_session_is_listed(tmp_path):
    made, frames = talking()
    async with FileStore.open(tmp_path) as store:
        await store.append(made.session, 0, joined(frames))
        info = await store.info(made.session)
        [listed] = await store.list()
        assert listed.clock == info.clock
        clock = info.clock
        assert clock.clock == "c1"
        assert clock.uncertainty <= 501
        # the service's time of day then is 10^18 after its clock, which is 5 s ahead of the session's
        told = made.start_wall - SECOND  # of the session's clock, at 0
        assert abs(clock.offset - (10**18 + 5 * SECOND - told)) <= clock.uncertainty
    async with FileStore.open(tmp_path) as store:  # and from the catalogue
        assert (await store.info(made.session)).clock == clock


async def test_of_a_session_that_says_nothing_nothing_is_known(tmp_path):
    made = Maker()
    async with FileStore.open(tmp_path) as store:
        await store.append(made.session, 0, joined(made.start()))
        assert (await store.info(made.session)).clock is None
        assert [info.clock for info in await store.list()] == [None]


async def test_a_catalogue_without_clocks_is_taken_over(tmp_path):
    made, frames = talking()
    async with FileStore.open(tmp_path) as store:
        await store.append(made.session, 0, joined(frames))
    database = sqlite3.connect(tmp_path / "catalogue.sqlite")
    [(packed,)] = database.execute("SELECT ledger FROM sessions")
    *fields, procs = msgpack.unpackb(packed, strict_map_key=False)
    old = msgpack.packb([*fields[:11], procs])
    database.execute("UPDATE sessions SET ledger = ?", (old,))
    database.execute("ALTER TABLE sessions DROP COLUMN clock")
    database.execute("PRAGMA user_version = 2")
    database.commit()
    database.close()
    async with FileStore.open(tmp_path) as store:
        [listed] = await store.list()
        assert listed.clock is None
        assert listed.events == 60
        assert (await store.ledger(made.session))["closed"]


@pytest.mark.parametrize(
    "row",
    [
        [1, 2, 3, 4, 5],
        [1, 2, 3, 4, 5, 6],
        [1, 2, 3, 4, 1 << 63, "x"],
        ["1", 2, 3, 4, 5, "x"],
        [1, 2, 3, 4, 5, "x" * 129],
        7,
    ],
)
async def test_what_is_no_exchange_is_refused(tmp_path, row):
    made = Maker()
    frames = made.start()
    writer: SessionWriter = made.writer
    bad = type("Bad", (), {"kind": 10, "pack": lambda _self: [row]})()
    async with FileStore.open(tmp_path) as store:
        result = await store.append(made.session, 0, joined([*frames, writer._frame(bad)]))
        assert result.durable == len(joined(frames))
        assert result.problem.code == "bad-frame"


def test_a_ledger_keeps_the_last_exchanges():
    ledger = Ledger(str(uuid.uuid4()), {"name": "x"}, 10**18)
    made, frames = talking()
    from tracesvc.format import FrameDecoder
    from tracesvc.store.intake import record_of

    decoder = FrameDecoder()
    decoder.feed(joined(frames))
    for frame in decoder:
        ledger.note(frame.number, record_of(frame.kind, frame.data[7], memoryview(frame.data)[23:]))
    assert len(ledger.exchanges) == 4
    assert ledger.exchanges == sorted(ledger.exchanges)
    again = Ledger.unpack(ledger.pack())
    assert again == ledger
    assert again.offset == ledger.offset
    assert again.monotonic == SECOND
    del made
