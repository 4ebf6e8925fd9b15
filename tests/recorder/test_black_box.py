"""The black box: whatever way a program dies, what it recorded is there."""

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time

import pytest
import trio

import tracesvc
from tests.recorder.recording import Memory, Recording
from tracesvc import Tracer, open_tracer
from tracesvc.events import LossCause
from tracesvc.format import FormatError
from tracesvc.format.box import Layout
from tracesvc.recorder import boxes
from tracesvc.recorder.errors import BlackBoxError
from tracesvc.rewrite import last_of_tasks, recover

SMALL = 4 << 20


def contents(tracer: Tracer) -> bytes:
    """The box as it is at one moment, of a program that lives: reading the file would let other threads write on."""
    return tracer._session.box._map[:]


def recovered(data: bytes) -> Recording:
    """The trace in a box, judged."""
    out = bytearray()
    done = recover(data, out.extend)
    recording = Recording(bytes(out), result=done)
    assert len(recording.events) == done.events
    assert recording.lost.total() >= done.lost
    assert recording.header.options["recovered_from"] != done.session
    return recording


def numbers(recording: Recording) -> list[int]:
    return [e.attributes["i"] for e in recording.of("log") if e.message == "number"]


# --- what is in it -------------------------------------------------------------------------------


async def test_at_every_moment_it_has_everything_up_to_that_moment(tmp_path):
    async with open_tracer(memory := Memory(), black_box=tmp_path, buffer_events=64) as tracer:
        for i in range(200):
            tracesvc.log("number", i=i)
            if i % 10 == 0:
                assert numbers(recovered(contents(tracer))) == list(range(i + 1))
            if i % 7 == 0:
                await trio.lowlevel.checkpoint()
    whole = Recording(memory.data)
    assert numbers(whole) == list(range(200))


async def test_it_says_the_same_as_the_trace(tmp_path):
    """Every kind of event and value goes there and back."""

    async def child(number: int) -> None:
        with tracesvc.region("child", n=number):
            await trio.sleep(0.002)

    def in_thread() -> None:
        tracesvc.counter("threads", 0.5)

    async with open_tracer(
        memory := Memory(), black_box=tmp_path, stacks="all", buffer_events=1 << 16
    ) as tracer:
        values = {"text": "h\xe9llo", "n": -(1 << 40), "large": (1 << 64) - 1, "x": 2.5}
        with tracesvc.span("outer", **values, none=None, yes=True, raw=b"\0\xff", other=object):
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(child, number)
            await trio.to_thread.run_sync(in_thread)
            tracesvc.log("x" * 20_000, level="warning", long="y" * 2000)
        box = recovered(contents(tracer))
    trace = Recording(memory.data)
    for proc in {event.proc for event in box.events}:
        ours = [event for event in box.events if event.proc == proc]
        assert ours == [event for event in trace.events if event.proc == proc][: len(ours)]
    assert {"task_create", "task_stack", "span_end", "region_begin", "counter", "thread_start"} <= {
        event.type for event in box.events
    }


async def test_what_is_overwritten_is_lost_and_said_to_be(tmp_path):
    """Nobody reads for so long that the journal begins anew."""
    async with open_tracer(
        Memory(), black_box=tmp_path, black_box_bytes=SMALL, buffer_events=4096
    ) as tracer:
        tracesvc.log("number", i=0)
        await trio.lowlevel.checkpoint()
        for i in range(1, 50_000):
            tracesvc.log("number", i=i)
        box = recovered(contents(tracer))
    said = numbers(box)
    assert said[-1] == 49_999
    assert said[-20_000:] == list(range(30_000, 50_000))
    assert box.lost[LossCause.CRASH] == box.result.lost > 0
    assert box.result.lost + len(said) >= 50_000


async def test_the_ring_keeps_the_newest_generations_in_its_bounds(tmp_path):
    async with open_tracer(
        Memory(), black_box=tmp_path, black_box_bytes=SMALL, buffer_events=256
    ) as tracer:
        size = len(contents(tracer))
        assert size <= SMALL
        with tracesvc.span("all the time"):
            for i in range(24_000):
                tracesvc.log("number", i=i, text=f"{i} " * 40)
                if i % 20 == 0:
                    await trio.lowlevel.checkpoint()
                if i % 8000 == 7999:
                    box = recovered(contents(tracer))
                    said = numbers(box)
                    assert said == list(range(said[0], i + 1))
        assert said[0] > 0
        assert len(contents(tracer)) == size
    open_spans = {strings[row.name] for snap, strings in box.snapshots for row in snap.spans}
    assert "all the time" in open_spans


async def test_a_tracer_that_is_never_read(tmp_path):
    tracer = Tracer(black_box=tmp_path)
    tracer.start()
    tracesvc.log("number", i=0)
    box = recovered(contents(tracer))
    assert numbers(box) == [0]
    assert box.of("task_create")
    await tracer.stop()
    assert not list(tmp_path.iterdir())


async def test_procs_that_are_over_do_not_come_again(tmp_path):
    """Their records may still be in the journal; their events have been in the stream."""
    async with open_tracer(memory := Memory(), black_box=tmp_path) as tracer:
        for i in range(3):
            thread = threading.Thread(target=tracesvc.log, args=("in a thread",), name=f"t{i}")
            thread.start()
            thread.join()
            await trio.lowlevel.checkpoint()
        while sum(proc.kind == "thread" for proc in tracer.statistics().procs):
            tracer.new_generation()
            tracesvc.log("number", i=0)
            tracer.seal_all()
            await trio.sleep(0.05)
        tracesvc.log("number", i=1)
        await trio.lowlevel.checkpoint()
        box = recovered(contents(tracer))
        assert len([e for e in box.of("log") if e.message == "in a thread"]) == 3
    assert box.end.emitted == len(box.events)
    Recording(memory.data)


async def test_what_each_task_did_last(tmp_path):
    async def sleeper() -> None:
        with tracesvc.span("nap"):
            await trio.sleep(0.002)
            await trio.sleep_forever()

    async with open_tracer(Memory(), black_box=tmp_path, stacks="all") as tracer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleeper, name="sleeper")
            await trio.sleep(0.02)
            tracesvc.log("goodbye")
            out = bytearray()
            recover(contents(tracer), out.extend)
            nursery.cancel_scope.cancel()
    with tracesvc.read(bytes(out)) as trace:
        first, *others = [t for t in last_of_tasks(trace) if not t.name.startswith("tracesvc ")]
    assert (first.did, first.said) == ("running", "logged 'goodbye'")
    (sleeping,) = (task for task in others if task.name == "sleeper")
    assert sleeping.did.startswith("waits: ")
    assert sleeping.said == "began span 'nap'"
    assert any("sleeper" in function for function, _, _ in sleeping.stack)


# --- who it belongs to ---------------------------------------------------------------------------


async def test_it_is_gone_after_a_proper_end_and_made_anew(tmp_path):
    for _ in range(2):
        async with open_tracer(Memory(), black_box=tmp_path) as tracer:
            assert boxes.find(tmp_path) == [tracer.black_box]
            assert boxes.lives(tracer.black_box)
            with pytest.raises(BlackBoxError, match="still runs"), boxes.opened(tracer.black_box):
                pass
        assert not list(tmp_path.iterdir())


def test_a_forked_child_writes_nothing_and_does_not_hold_the_lock(tmp_path):
    async def main() -> None:
        async with open_tracer(Memory(), black_box=tmp_path) as tracer:
            before, path = contents(tracer), tracer.black_box
            tracesvc.log("number", i=0)
            pid, told = fork_and_say(lambda: tracesvc.log("of the child"))
            assert told == b"x"
            after = recovered(contents(tracer))
            assert "of the child" not in [e.message for e in after.of("log")]
            assert before != contents(tracer)
        assert not path.exists()
        children.append(pid)

    children: list[int] = []
    trio.run(main)
    os.kill(children[0], 9)
    os.waitpid(children[0], 0)


def fork_and_say(function) -> tuple[int, bytes]:
    """A child that lives on."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            function()
            os.write(write, b"x")
            time.sleep(60)
        os._exit(1)
    os.close(write)
    told = os.read(read, 1)
    os.close(read)
    return pid, told


def test_the_lock_does_not_outlive_the_program_in_its_children(tmp_path):
    """A worker that was forked goes on; the box of its parent is free."""
    code = f"""
import os, time, trio, tracesvc
async def main():
    async with tracesvc.open_tracer(black_box={str(tmp_path)!r}):
        pid = os.fork()
        if not pid:
            os.close(1); os.close(2)
            time.sleep(60)
        print(pid, flush=True)
        os._exit(0)
trio.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    try:
        (path,) = boxes.find(tmp_path)
        with boxes.opened(path) as memory:
            recovered(bytes(memory))
    finally:
        os.kill(int(done.stdout), 9)


# --- room ----------------------------------------------------------------------------------------


async def test_a_full_disk_is_an_error_at_the_start_and_leaves_nothing(tmp_path):
    """Of a file system in memory: more than there is."""
    where = boxes.default_directory().parent / f"tracesvc-test-{os.getpid()}"
    status = os.statvfs(where.parent)
    try:
        with pytest.raises(BlackBoxError, match=r"No space left on device.*make room there"):
            async with open_tracer(
                black_box=where, black_box_bytes=status.f_bavail * status.f_frsize + (64 << 20)
            ):
                pytest.fail("there is no room for it")
        assert not list(where.iterdir())
    finally:
        where.rmdir()
    async with open_tracer(memory := Memory(), black_box=tmp_path):
        tracesvc.log("hello")
    assert "hello" in [e.message for e in Recording(memory.data).of("log")]


async def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BlackBoxError, match=r"no black box in .*file/boxes: Not a directory"):
        async with open_tracer(black_box=tmp_path / "file" / "boxes"):
            pass


@pytest.mark.parametrize("size", [SMALL, 5 << 20, 48 << 20, 1 << 30])
@pytest.mark.parametrize("records", [32, 1 << 18, 1 << 30])
def test_a_layout_stays_in_its_size(size, records):
    layout = Layout.of(size, records)
    assert size - (16 << 10) <= layout.size <= size
    assert layout.slots <= records
    assert min(layout.text_size, layout.ring_size) >= size // 8


def test_too_small_a_box_is_refused():
    with pytest.raises(ValueError, match="black_box_bytes must be at least 4194304"):
        Tracer(black_box=True, black_box_bytes=1 << 20)


def make(path, size: int, age: float) -> None:
    path.mkdir()
    with (path / "box").open("wb") as file:
        file.truncate(size)
    os.utime(path / "box", (time.time() - age,) * 2)


def test_boxes_that_are_old_or_too_many_go_and_living_ones_stay(tmp_path):
    day = 24 * 3600
    make(tmp_path / "old", 1000, 8 * day)
    make(tmp_path / "old but alive", 1000, 8 * day)
    make(tmp_path / "new", 300 << 20, 1)
    make(tmp_path / "not so new", 300 << 20, 2)
    make(tmp_path / "small", 1000, day)
    with (tmp_path / "old but alive" / "box").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        boxes.prepare(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"new", "old but alive"}


@pytest.mark.parametrize("damage", ["empty", "zeros", "half", "noise"])
def test_what_is_no_box_is_said_to_be_none(tmp_path, damage):
    data = {"empty": b"", "zeros": bytes(SMALL), "half": b"tsvcbox\x01" + bytes(100)}
    with pytest.raises(FormatError, match=r"black box|begun to record"):
        recover(data.get(damage, os.urandom(1 << 17)), lambda data: None)
