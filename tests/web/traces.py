"""Traces to look at: one of a real program, and the odd ones that a page has to bear."""

import gc
import random
import tempfile
import time
import uuid
from functools import cache
from pathlib import Path

import trio

import tracesvc
from tests.analysis.streams import Hand
from tests.traces import program
from tracesvc.events import ProcKind, Reason
from tracesvc.format import compress

SECOND = 10**9
SLEEP, EVENT, NURSERY = int(Reason.SLEEP), int(Reason.EVENT), int(Reason.NURSERY)


def _busy(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


async def _client(number, send, lock, receipts):
    for i in range(4):
        with tracesvc.span("order", number=number, item=f"item {i}"):
            with tracesvc.region("checkout"):
                async with lock:
                    await trio.sleep(0.004)
            await send.send(i)
            await receipts.acquire()
            tracesvc.counter("orders", float(number * 4 + i))
    await send.aclose()


async def _worker(receive, receipts):
    async for _ in receive:
        await trio.to_thread.run_sync(time.sleep, 0.001)
        receipts.release()


async def _hog():
    await trio.sleep(0.05)
    with tracesvc.region("crunch"):
        _busy(0.06)
    tracesvc.log("crunched", level=30, seconds=0.06)


async def _fails():
    raise ValueError("no <stock>")


async def _shop(path):
    async with tracesvc.open_tracer(tracesvc.FileSink(path)), trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel(1)
        lock, receipts = trio.Lock(), trio.Semaphore(0)
        async with send, receive:
            for i in range(12):
                nursery.start_soon(_client, i, send.clone(), lock, receipts, name="client")
            nursery.start_soon(_worker, receive.clone(), receipts, name="worker")
            nursery.start_soon(_hog, name="hog")
            with trio.move_on_after(0.08):
                await trio.sleep_forever()
            gc.collect()
            try:
                async with trio.open_nursery() as inner:
                    inner.start_soon(_fails, name="fails")
            except* ValueError:
                pass
            with tracesvc.span("payment <b>not bold</b>"):
                await trio.sleep(0.02)


@cache
def shop():
    """A program that does a bit of everything."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "shop.trace"
        trio.run(_shop, path)
        data = path.read_bytes()
    with tracesvc.read(data) as trace:
        return trace.session.id, data


def _named():
    return str(uuid.uuid4())


def _hand(begin=0):
    hand = Hand(begin, _named())
    hand.kinds[1] = ProcKind.RUN
    hand.emitted[1] = 0
    return hand.generation(begin)


def _whole(hand):
    return hand.session, hand.data


@cache
def one_event():
    hand = _hand().events(1, ("counter", 5, "lonely", 1.0, 0))
    return _whole(hand.end(5))


@cache
def no_tasks():
    events = [("counter", i * 1000, "level", float(i % 7), 0) for i in range(1, 200)]
    return _whole(_hand().events(1, *events).end(200_000))


@cache
def an_instant():
    hand = _hand(7)
    hand.events(1, ("task_create", 7, 1, 0, 0, "all at once", "f"), ("proc_start", 7, 1, 1, "run"))
    hand.events(1, ("step_start", 7, 1), ("step_block", 7, 1, SLEEP, 0))
    return _whole(hand.end(7))


def _life(task, name, start, end, parent=0, nursery=0):
    return [
        ("task_create", start, task, parent, nursery, name, "entry"),
        ("step_start", start + 1, task),
        ("step_block", start + 1000, task, SLEEP, 0),
        ("task_runnable", end - 1000, task, 0, 3),
        ("step_start", end - 500, task),
        ("task_exit", end, task),
    ]


@cache
def one_finding():
    """A step of 300 ms: it never yields."""
    hand = _hand().events(
        1,
        ("proc_start", 0, 1, 1, "run"),
        ("task_create", 1, 1, 0, 0, "endless", "f"),
        ("step_start", 1000, 1),
        ("step_block", 300_001_000, 1, SLEEP, 0),
        ("task_runnable", 400_000_000, 1, 0, 3),
        ("step_start", 400_001_000, 1),
        ("task_exit", 400_002_000, 1),
        ("proc_stop", 400_003_000),
    )
    return _whole(hand.end(400_004_000))


@cache
def a_cancellation():
    """Task 1 cancels scope 70: 2 waits, 3 is about to run, 4 runs, 5 belongs to another scope, 6 waits, in vain."""
    hand = _hand()
    hand.events(1, ("proc_start", 0, 1, 1, "run"), ("task_create", 1, 1, 0, 0, "boss", "f"))
    for task in range(2, 7):
        hand.events(1, ("task_create", 1 + task, task, 1, 50, f"worker {task}", "f"))
    at = 1000
    for task in (2, 3, 5, 6):
        hand.events(1, ("step_start", at, task), ("step_block", at + 100, task, SLEEP, 0))
        at += 1000
    hand.events(
        1,
        ("task_runnable", 9000, 3, 0, 3),
        ("step_start", 10_000, 1),
        ("cancel_request", 11_000, 70, 1, 1, 1, 50, -1, "enough"),
        ("task_runnable", 11_100, 2, 1, 5),
        ("task_runnable", 11_200, 6, 1, 5),
        ("step_block", 12_000, 1, NURSERY, 50),
    )
    at = 20_000
    for task in (3, 2, 4, 6):
        hand.events(1, ("step_start", at, task), ("task_cancelled", at + 10, task, 70))
        hand.events(1, ("task_exit", at + 500, task))
        at += 1000
    return _whole(hand.end(60_000))


@cache
def a_day():
    hand = _hand()
    hand.events(1, ("task_create", 0, 1, 0, 0, "day", "f"), ("proc_start", 0, 1, 1, "run"))
    hand.events(1, ("step_start", 1, 1), ("step_block", 2, 1, NURSERY, 5))
    for hour in range(24):
        at = hour * 3600 * SECOND + 1000
        hand.generation(at)
        hand.events(1, *_life(hour + 2, "hourly", at, at + 60 * SECOND, 1, 5))
    return _whole(hand.end(24 * 3600 * SECOND))


@cache
def two_hours_missing():
    hand = _hand()
    hand.events(1, ("task_create", 0, 1, 0, 0, "patient", "f"), ("proc_start", 0, 1, 1, "run"))
    hand.events(1, ("step_start", 1, 1), ("step_block", SECOND, 1, EVENT, 9))
    hand.lose(1, 5000, 2 * SECOND, 7202 * SECOND)
    hand.generation(7203 * SECOND)
    hand.snapshot(1, (1, "patient", 3, SECOND, EVENT))
    hand.events(1, ("task_runnable", 7204 * SECOND, 1, 0, 2), ("step_start", 7205 * SECOND, 1))
    return _whole(hand.end(7206 * SECOND))


MANY = 100_000


@cache
def many_tasks():
    hand = _hand()
    hand.events(1, ("task_create", 0, 1, 0, 0, "parent", "f"), ("proc_start", 0, 1, 1, "run"))
    hand.events(1, ("step_start", 1, 1), ("step_block", 2, 1, NURSERY, 5))
    at = 10
    for start in range(0, MANY, 500):
        events = []
        for task in range(start + 2, start + 502):
            events += _life(task, f"kind {task % 3}", at, at + 3000, 1, 5)
            at += 3100
        hand.events(1, *events)
    return _whole(hand.end(at))


NAMES = {
    2: "x" * 1000,
    3: "مهمة القراءة من الشبكة",
    4: "👩‍🚀 launch 🚀🚀",
    5: "<img src=x onerror=alert(1)><script>alert(2)</script>",
    6: "a\u202eb\u0000c\td",
    7: "__proto__",
    8: "",
    9: "&amp;quot;",
}


@cache
def odd_names():
    hand = _hand()
    hand.events(1, ("task_create", 0, 1, 0, 0, "main", "f"), ("proc_start", 0, 1, 1, NAMES[5]))
    at = 10
    for task, name in NAMES.items():
        hand.events(1, *_life(task, name, at, at + 5000, 1, 5))
        span = [("span_begin", at + 10, task * 10, 0, task, name, {name: name, "n": 1})]
        span += [("log", at + 20, task, task * 10, 40, 0, name, {"<b>": name})]
        span += [("counter", at + 30, name or "empty", 1.5, task)]
        hand.events(1, *span, ("span_end", at + 900, task * 10, task))
        at += 6000
    return _whole(hand.end(at))


@cache
def lossy():
    stream = program(11, events=2500, losses=0.3)
    return stream.session, b"".join(compress(frame.data) for frame in stream.frames)


@cache
def busy():
    """Many events on few rows."""
    stream = program(12, events=30_000, runs=1)
    return stream.session, b"".join(compress(frame.data) for frame in stream.frames)


def random_times(data, count, seed=1):
    """Times within a trace, ns by its clock."""
    with tracesvc.read(data) as trace:
        times = trace.columns().time
    dice = random.Random(seed)
    return [dice.randrange(int(times.min()), int(times.max())) for _ in range(count)]
