import os
import resource
import signal
import subprocess
import sys
import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.streams import Maker, joined, session
from tracesvc.events import LossCause
from tracesvc.format import Batch, Item, StreamDecoder
from tracesvc.sinks import FileSink, FrameQueue, SinkError


def feed(queue, frames):
    for frame in frames:
        queue.put(frame)


def whole(data) -> list[Item]:
    """What is in a stream without damage."""
    decoder = StreamDecoder()
    decoder.feed(data)
    decoder.close()
    items = [item for item in decoder if isinstance(item, Item)]
    assert sum(len(item.frame.data) for item in items) == len(data)
    return items


def finished(frames):
    queue = FrameQueue()
    feed(queue, frames)
    queue.finish()
    return queue


async def test_the_file_is_the_stream(tmp_path):
    path = tmp_path / "a.trace"
    path.write_bytes(b"what was here before")
    frames = session(1000, procs=3)
    sink = FileSink(path)
    await sink.run(finished(frames))
    assert path.read_bytes() == joined(frames)
    statistics = sink.statistics()
    assert statistics.name == f"file {path}"
    assert statistics.frames == len(frames)
    assert statistics.bytes == path.stat().st_size
    assert statistics.events == 3000
    assert statistics.lost == {}


async def test_its_threads_are_its_own(tmp_path, monkeypatch):
    """The program's, of trio's cache, would be renamed under its eyes the moment that it is done with them."""
    write, writers, queue = os.write, set(), FrameQueue()

    def recorded(*args):
        writers.add(threading.get_ident())
        return write(*args)

    monkeypatch.setattr("tracesvc.sinks.file.os.write", recorded)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(FileSink(tmp_path / "a.trace").run, queue)
        for frame in session(1000):
            queue.put(frame)
            queue.tick()
            await wait_all_tasks_blocked()
            assert await trio.to_thread.run_sync(threading.get_ident) not in writers
        queue.finish()
    assert writers


@pytest.mark.parametrize("compression", ["zstd", "auto"])
async def test_compressed_frames_say_the_same(tmp_path, compression):
    frames = session(1000)
    sink = FileSink(str(tmp_path / "a.trace"), compression=compression)
    await sink.run(finished(frames))
    data = (tmp_path / "a.trace").read_bytes()
    assert len(data) < len(joined(frames))
    assert sink.statistics().bytes == len(data)
    items = whole(data)
    assert [item.frame.number for item in items] == [frame.number for frame in frames]
    assert sum(i.record.count for i in items if isinstance(i.record, Batch)) == 2000


def test_an_unknown_compression_is_refused(tmp_path):
    with pytest.raises(ValueError, match="compression"):
        FileSink(tmp_path / "a", compression="gzip")  # type: ignore[arg-type]


async def test_what_is_queued_is_written_at_a_tick_and_nothing_touches_the_disk_before(
    tmp_path, nursery, mock_clock
):
    path = tmp_path / "a.trace"
    sink, queue, frames = FileSink(path), FrameQueue(), session(10)
    done = trio.Event()

    async def run():
        await sink.run(queue)
        done.set()

    nursery.start_soon(run)
    feed(queue, frames)
    await wait_all_tasks_blocked()
    while not path.exists():  # the thread opens it
        await wait_all_tasks_blocked()
    assert path.stat().st_size == 0
    queue.tick()
    while sink.statistics().frames == 0:
        await wait_all_tasks_blocked()
    assert path.read_bytes() == joined(frames)
    queue.finish()
    await done.wait()


async def test_a_path_that_cannot_be_written_is_reported_at_once(tmp_path, nursery):
    sink = FileSink(tmp_path / "no" / "such" / "directory")
    with pytest.raises(SinkError, match=r"cannot write .*: No such file.*; make room there, or"):
        await sink.run(FrameQueue())


@pytest.mark.parametrize("compression, room", [(None, 20_001), ("zstd", 5_001)])
async def test_a_full_disk_keeps_whole_frames_and_counts_the_rest(tmp_path, compression, room):
    made = Maker()
    frames = [*made.start(), *(f for _ in range(20) for f in made.events(500)), *made.end()]
    path, queue = tmp_path / "a.trace", finished(frames)
    sink = FileSink(path, compression=compression)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))
    try:
        with pytest.raises(SinkError, match="File too large"):
            await sink.run(queue)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    items = whole(path.read_bytes())
    stored = sum(i.record.count for i in items if isinstance(i.record, Batch))
    statistics = sink.statistics()
    assert 0 < statistics.events == stored < 10_000
    assert statistics.frames == len(items)
    assert statistics.bytes == path.stat().st_size
    assert statistics.lost == {LossCause.SINK_FAILED: 10_000 - stored}


async def test_cancelling_leaves_a_hanging_write_behind(tmp_path, nursery):
    """A pipe that nobody reads from stands for a disk that hangs."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    made = Maker(text="x" * 1000)
    queue = finished([*made.start(), *(f for _ in range(10) for f in made.events(100, number=20))])
    sink = FileSink(path)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as inner:
            inner.start_soon(sink.run, queue)
            while queue.queued_bytes or sink._queue is None:
                await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert sink.statistics().lost == {LossCause.SINK_FAILED: 1000}
    os.close(reader)  # lets the thread go: its write fails, and it closes the file
    for thread in threading.enumerate():
        if thread.name == "tracesvc file":
            thread.join(0.01)


def test_a_killed_program_leaves_what_was_written(tmp_path):
    code = f"""
import os, trio
from tests.streams import session
from tracesvc.sinks import FileSink, FrameQueue

async def main():
    sink, queue = FileSink({str(tmp_path / "a.trace")!r}), FrameQueue()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sink.run, queue)
        for frame in session(50_000, batch=1000):
            queue.put(frame)
            if not frame.number % 5:
                queue.tick()
                await trio.lowlevel.checkpoint()
        while not sink.statistics().frames:
            await trio.lowlevel.checkpoint()
        os.kill(os.getpid(), 9)

trio.run(main)
"""
    run = subprocess.run([sys.executable, "-c", code], check=False)
    assert run.returncode == -signal.SIGKILL
    decoder = StreamDecoder()
    decoder.feed((tmp_path / "a.trace").read_bytes())
    items = list(decoder)
    assert items
    assert all(isinstance(item, Item) for item in items)
