"""Makes the golden traces of the present format: ``python -m tests.golden.make``.

To be run at a release if the format version or the vocabulary is a new one: the trace of a program is named after both.
What lies here is never made again, it must stay readable.  ``version-1-whole`` and ``-lossy`` are of a time before this
vocabulary, and were generated.
"""

import gc
import hashlib
import json
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import trio

import tracesvc
from tracesvc.events import EVENTS
from tracesvc.format.records import VERSION
from tracesvc.model.reader import read
from tracesvc.model.verify import verify
from tracesvc.rewrite import anonymize

HERE = Path(__file__).parent
NAME = f"version-{VERSION}-to-event-{max(EVENTS)}"


async def _eventful() -> None:
    """Something of everything that the recorder tells of without being asked."""
    lock, send_receive = tracesvc.watch(trio.Lock(), name="lock"), trio.open_memory_channel[int](0)

    async def sender() -> None:
        with tracesvc.span("send", to="receiver"):
            await send_receive[0].send(1)
            await lock.acquire()
            tracesvc.counter("sent", 1)
            lock.release()

    async def receiver() -> None:
        async with lock:
            with tracesvc.region("receive"):
                tracesvc.log("received", n=await send_receive[1].receive())
            await trio.sleep(0.01)

    async def failing() -> None:
        await trio.sleep(0.005)
        raise ValueError("wrong")

    async def busy() -> None:
        until = time.perf_counter() + 0.03
        while time.perf_counter() < until:
            pass

    async with trio.open_nursery() as nursery:
        for child in (sender, receiver, busy):
            nursery.start_soon(child)
    with suppress(ExceptionGroup):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failing)
            nursery.start_soon(trio.sleep_forever)
    with trio.move_on_after(0.005):
        await trio.sleep_forever()
    with trio.CancelScope() as scope:
        scope.cancel()
        await trio.sleep_forever()
    await trio.to_thread.run_sync(time.sleep, 0.002)
    gc.collect()


def recorded() -> bytes:
    """The trace of that program; names, paths and texts are hashed."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.trace"

        async def run() -> None:
            options = {"stall_s": 0.01, "name": "golden", "groups": ["+scopes"]}
            async with tracesvc.open_tracer(tracesvc.FileSink(path), **options):
                await _eventful()

        trio.run(run)
        pieces: list[bytes] = []
        anonymize(
            path, pieces.append, key=b"golden"
        )  # the machine that made it is nobody's business
        return b"".join(pieces)


def described(data: bytes) -> dict:
    """What every later version must read in it."""
    report = verify(data)
    trace = read(data)
    events = list(trace)
    # Only what the vocabulary of the trace itself names: later versions give old events new, empty fields.
    fields = {name: [field[0] for field in row] for _, name, row in trace.header.events}
    lines = [
        json.dumps(
            [e.type, e.time, e.proc, e.seq, *(getattr(e, n) for n in fields[e.type])], default=repr
        )
        for e in events
    ]
    return {
        "events": len(events),
        "types": dict(sorted(Counter(e.type for e in events).items())),
        "lost": sum(report.account.lost.values()),
        "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }


def main() -> None:
    path = HERE / f"{NAME}-recorded.trace"
    if path.exists():
        raise SystemExit(f"{path.name} is there, and stays as it is")
    data = recorded()
    path.write_bytes(data)
    path.with_suffix(".json").write_text(json.dumps(described(data), indent=1) + "\n")


if __name__ == "__main__":
    main()
