"""What a fleet's store costs beside files: ``python -m tests.fleet.cost``.

The same pieces of 64 KiB are appended, durably, in this process: to files, to JetStream on one server, on three with
three replicas, and, for what the store adds to it, published with nats-py alone on those three.
Interleaved rounds, medians.
"""

import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import trio

from tests.fleet.servers import cluster, nats
from tests.streams import LOG, Maker, joined
from tracesvc.store import FileStore, Fleet, JetStreamStore
from tracesvc.store.other_loop import OtherLoop

PIECE = 64 << 10
PIECES = 64
ROUNDS = 5


def stream():
    """A session in pieces of whole frames."""
    made = Maker(text="x" * 200)
    pieces, piece = [], joined(made.start())
    while len(pieces) < PIECES:
        piece += joined(made.events(250, number=LOG))
        if len(piece) >= PIECE:
            pieces.append(piece)
            piece = b""
    return made.session, pieces


async def append(store, name, pieces):
    at = 0
    for piece in pieces:
        taken = await store.append(name, at, piece)
        assert taken.durable == at + len(piece), taken
        at = taken.durable


async def publish(other, js, name, pieces):
    for i, piece in enumerate(pieces):
        await other.call(js.publish, f"raw.{name}", piece, headers={"Nats-Msg-Id": f"{name}{i}"})


async def main(directory):
    from nats.aio.client import Client

    with nats(directory / "one") as single, cluster(directory / "three") as three:
        urls = ",".join(server.url for server in three)
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            files = await enter(FileStore.open(directory / "files"))
            one = Fleet(single.url, replicas=1, archiver=False)
            r1 = await enter(JetStreamStore.open(one, directory / "copies"))
            r3 = await enter(JetStreamStore.open(Fleet(urls, archiver=False), directory / "copies"))
            other = await enter(OtherLoop.open())
            client = Client()
            await other.call(client.connect, [server.url for server in three])
            js = client.jetstream(timeout=20)
            await other.call(js.add_stream, name="raw", subjects=["raw.*"], num_replicas=3)
            ways = {
                "files": lambda name, pieces: append(files, name, pieces),
                "JetStream, 1 server": lambda name, pieces: append(r1, name, pieces),
                "JetStream, 3 replicas": lambda name, pieces: append(r3, name, pieces),
                "nats-py alone, 3 replicas": lambda name, pieces: publish(other, js, name, pieces),
            }
            me = psutil.Process()
            print(f"{'':28}{'sessions':>9}{'MB/s':>9}{'CPU ms/MB here':>16}")
            for sessions in (1, 8):
                found = {way: [] for way in ways}
                for _ in range(ROUNDS):
                    for way, function in ways.items():
                        work = [stream() for _ in range(sessions)]
                        mb = sum(len(p) for _, pieces in work for p in pieces) / 1e6
                        cpu, began = sum(me.cpu_times()[:2]), time.monotonic()
                        async with trio.open_nursery() as nursery:
                            for name, pieces in work:
                                nursery.start_soon(function, name, pieces)
                        seconds = time.monotonic() - began
                        found[way].append(
                            (mb / seconds, (sum(me.cpu_times()[:2]) - cpu) / mb * 1000)
                        )
                for way, rows in found.items():
                    rate, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
                    print(f"{way:28}{sessions:9}{rate:9.1f}{cpu:16.1f}", flush=True)
            await other.call(client.close)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="tracesvc-cost-") as root:
        for name in ("one", "three"):
            (Path(root) / name).mkdir()
        trio.run(main, Path(root))
