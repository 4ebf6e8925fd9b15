"""`Tracer.read`, row by row of the table for Go's ReadTrace (section 2.4)."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import tracesvc
from tests.recorder.recording import Recording, finish
from tracesvc import ReaderBusyError, Tracer, TracerState
from tracesvc.events import FrameKind
from tracesvc.format import Batch, Generation, Item, Strings
from tracesvc.format.stream import StreamDecoder
from tracesvc.recorder import session as session_module
from tracesvc.recorder.proc import Buffer


def items_of(data: bytes) -> list[Item]:
    decoder = StreamDecoder()
    decoder.feed(data)
    decoder.close()
    items = list(decoder)
    assert all(isinstance(item, Item) for item in items)
    return items


async def test_row_1_a_second_reader_is_refused_the_first_and_the_program_go_on(nursery):
    """Go gives it nil, which looks like the end."""
    tracer, pieces = Tracer(), []

    async def read() -> None:
        while (piece := await tracer.read()) is not None:
            pieces.append(piece)

    tracer.start()
    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    for _ in range(3):
        with pytest.raises(ReaderBusyError, match="one reader at a time"):
            await tracer.read()
    tracesvc.log("the program goes on")
    await tracer.stop()
    recording = Recording(b"".join(pieces), statistics=tracer.statistics())
    assert [event.message for event in recording.of("log")] == ["the program goes on"]


async def test_row_2_the_buffer_that_was_lent_is_used_again(monkeypatch, nursery):
    tracer, made, pieces = Tracer(buffer_events=16), [], []
    monkeypatch.setattr(
        session_module, "Buffer", lambda r: made.append(buffer := Buffer(r)) or buffer
    )

    async def read() -> None:
        while (piece := await tracer.read()) is not None:
            pieces.append(piece)

    tracer.start()
    nursery.start_soon(read)
    for _ in range(200):
        for i in range(16):
            tracesvc.log(str(i))
        for _ in range(4):  # a turn of the reader takes one buffer at least
            await trio.lowlevel.checkpoint()
    await tracer.stop()
    assert tracer.statistics().buffers > 200
    assert 0 < len(made) < 40, "a buffer is made for every block"
    Recording(b"".join(pieces), statistics=tracer.statistics())


async def test_row_3_the_header_comes_first_and_alone():
    tracer = Tracer(name="the program", buffer_events=32)
    tracer.start()
    for i in range(100):
        tracesvc.log(str(i))
    (item,) = items_of(await tracer.read())
    assert item.frame.kind == FrameKind.HEADER
    assert item.frame.number == 0
    assert item.record.session == tracer.statistics().session
    assert item.record.source["name"] == "the program"
    assert item.record.options == {"buffer_events": 32}
    Recording(item.frame.data + await finish(tracer), statistics=tracer.statistics())


async def test_row_4_with_nothing_to_read_it_waits_in_the_trace_as_well(nursery):
    tracer, pieces = Tracer(), []

    async def read() -> None:
        while (piece := await tracer.read()) is not None:
            pieces.append(piece)

    tracer.start()
    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    assert len(pieces) == 1  # the header
    await tracer.stop()
    blocks = Recording(b"".join(pieces), statistics=tracer.statistics()).blocks("read")
    assert [reason.name for reason, _ in blocks] == ["CHANNEL_RECEIVE"]


async def test_row_5_buffers_come_oldest_first_and_at_exactly_their_size():
    tracer = Tracer(buffer_events=16)
    tracer.start()
    for i in range(160):
        tracesvc.log(str(i))
    data = await finish(tracer)
    batches = [item.record for item in items_of(data) if isinstance(item.record, Batch)]
    run = [batch for batch in batches if batch.proc == 1]
    assert [batch.count for batch in run[:-1]] == [16] * (len(run) - 1)
    assert 0 < run[-1].count <= 16
    recording = Recording(data, statistics=tracer.statistics())
    assert [event.message for event in recording.of("log")] == [str(i) for i in range(160)]


async def test_row_5_a_batch_stands_for_itself_with_the_names_before_it():
    tracer = Tracer(buffer_events=16)
    tracer.start()
    for i in range(64):
        tracesvc.counter(f"counter {i // 2}", i)
    data = await finish(tracer)
    known = {0}
    for item in items_of(data):
        match item.record:
            case Generation():
                known = {0}
            case Strings(rows):
                assert known.isdisjoint(number for number, _ in rows)
                known.update(number for number, _ in rows)
            case Batch() as batch if 21 in batch.numbers:
                names, _, _ = batch.columns(21)
                assert known.issuperset(names)
    values = {e.value: e.name for e in Recording(data).of("counter") if "trio" not in e.name}
    assert values == {float(i): f"counter {i // 2}" for i in range(64)}


async def test_row_6_the_footer_comes_once_when_all_else_is_out():
    """Go could write it before the stop, with stale times."""
    tracer = Tracer(buffer_events=16)
    tracer.start()
    for i in range(50):
        tracesvc.log(str(i))
    early = b"".join([await tracer.read() for _ in range(3)])
    assert not any(item.frame.kind == FrameKind.END for item in items_of(early))
    data = early + await finish(tracer)
    kinds = [item.frame.kind for item in items_of(data)]
    assert kinds.count(FrameKind.END) == 1
    assert kinds[-2:] == [FrameKind.PROCS, FrameKind.END]
    end = Recording(data, statistics=tracer.statistics()).end
    assert end.monotonic >= max(event.time for event in Recording(data).events)


async def test_row_7_none_is_the_end_and_lets_stop_go(nursery):
    tracer, stopped = Tracer(), trio.Event()

    async def stop() -> None:
        await tracer.stop()
        stopped.set()

    tracer.start()
    data = await tracer.read()
    nursery.start_soon(stop)
    await wait_all_tasks_blocked()
    while True:
        assert not stopped.is_set()
        piece = await tracer.read()
        if piece is None:
            break
        data += piece
    await stopped.wait()
    assert tracer.state is TracerState.OFF
    assert await tracer.read() is None
    Recording(data, statistics=tracer.statistics())


async def test_row_7_a_tracer_that_is_off_has_nothing_to_read():
    """Go's ReadTrace parks for ever."""
    assert await Tracer().read() is None


async def test_row_8_no_wake_up_makes_an_end_that_is_none(nursery, mock_clock):
    """Go: a spurious wake-up gives nil, which looks like the end."""
    tracer, pieces = Tracer(buffer_events=16), []

    async def read() -> None:
        while (piece := await tracer.read()) is not None:
            pieces.append(piece)

    tracer.start()
    nursery.start_soon(read)
    await wait_all_tasks_blocked()
    session, token = tracer._session, trio.lowlevel.current_trio_token()
    for _ in range(5):
        token.run_sync_soon(session._feed)
        await wait_all_tasks_blocked()
    for i in range(16):
        tracesvc.log(str(i))
    await wait_all_tasks_blocked()
    assert tracer.state is TracerState.ON
    read_before_stop = len(pieces)
    await tracer.stop()
    recording = Recording(b"".join(pieces), statistics=tracer.statistics())
    assert 1 < read_before_stop < len(pieces)
    assert len(recording.of("log")) == 16


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when the task that makes this is resumed for the ``n``-th time; 0: at once."""

    def __init__(self, scope: trio.CancelScope, n: int) -> None:
        self.task, self.scope, self.left = trio.lowlevel.current_task(), scope, n
        if not n:
            scope.cancel()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if not self.left:
                self.scope.cancel()


async def test_a_read_cancelled_at_any_await_loses_nothing(nursery):
    """However often, wherever: the next call goes on from there."""
    tracer, data, cancelled = Tracer(buffer_events=16), b"", 0

    async def read_cancelled_at_every_await() -> bytes | None:
        nonlocal cancelled
        for n in range(10):
            with trio.CancelScope() as scope:
                trio.lowlevel.add_instrument(instrument := CancelAtStep(scope, n))
                try:
                    return await tracer.read()
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            cancelled += 1
        raise AssertionError("read() never returns")

    async def stop_when_parked() -> None:
        await wait_all_tasks_blocked()
        await tracer.stop()

    tracer.start()
    for i in range(100):
        tracesvc.log(str(i))
    nursery.start_soon(stop_when_parked)
    pieces = 0
    while (piece := await read_cancelled_at_every_await()) is not None:
        pieces, data = pieces + 1, data + piece
    assert cancelled >= pieces > 4
    await wait_all_tasks_blocked()
    recording = Recording(data, statistics=tracer.statistics())
    assert [event.message for event in recording.of("log")] == [str(i) for i in range(100)]


async def test_the_reader_may_move_to_another_run():
    tracer, data, numbers = Tracer(buffer_events=16), [], iter(range(10_000))
    tracer.start()

    async def read(pieces: int) -> None:
        for _ in range(pieces):
            for _ in range(16):  # so that there is something to read
                tracesvc.log(str(next(numbers)))
            data.append(await tracer.read())

    for _ in range(10):
        await read(2)
        await trio.to_thread.run_sync(trio.run, read, 3)
    data.append(await finish(tracer))
    recording = Recording(b"".join(data), statistics=tracer.statistics())
    messages = [event.message for event in recording.of("log")]
    assert sorted(messages, key=int) == [str(i) for i in range(next(numbers))]
