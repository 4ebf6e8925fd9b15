"""The service is killed at random moments while clients push; they resume, and nothing acknowledged is missing."""

import math
import multiprocessing
import os
import random
import uuid

import httpx2
import pytest
import trio

from tests.service.helpers import TRACE
from tests.streams import joined, session
from tracesvc.service import Config, make_app, server
from tracesvc.store import FileStore, segments

KILLS = int(os.environ.get("TRACESVC_KILLS", "20"))
CLIENTS = int(os.environ.get("TRACESVC_CLIENTS", "4"))
SEGMENT = 5_000
"""bytes, so that most sessions have several files"""


def serve(listener, root):
    """In a process of its own, on a socket that outlives it: its clients find the same port again."""

    segments.SEGMENT = SEGMENT

    async def main():
        async with FileStore.open(root) as store:
            stopping = trio.Event()
            app = make_app(store, Config(root), stopping)
            await server.run(app, listener, stopping, grace=1)

    trio.run(main)


class Client:
    """Pushes one session after another, in posts of random size, and remembers what was acknowledged."""

    def __init__(self, seed, posted):
        self.chance = random.Random(seed)
        self.posted = posted
        self.streams: dict[str, bytes] = {}
        self.acknowledged: dict[str, int] = {}
        self.frames = 0

    async def push(self, http, enough):
        while not enough.is_set():
            name = str(uuid.UUID(int=self.chance.getrandbits(128), version=4))
            frames = session(300, procs=2, batch=self.chance.randrange(3, 40), lost=5, session=name)
            self.streams[name], self.acknowledged[name] = joined(frames), 0
            self.frames += len(frames)
            while self.acknowledged[name] < len(self.streams[name]):
                await self.post(http, name)

    async def post(self, http, name):
        """Some bytes from where the service was last heard to be; it may be further, or dead."""
        stream, at = self.streams[name], self.acknowledged[name]
        cut = self.chance.choice([len(stream), at + self.chance.randrange(1, 20_000)])
        try:
            answer = await http.post(
                f"/v1/sessions/{name}/frames",
                params={"offset": at},
                content=stream[at:cut],
                headers=TRACE,
            )
        except httpx2.TransportError:
            await trio.lowlevel.checkpoint()
            return
        assert answer.status_code in (200, 409, 422), answer.text
        durable = answer.json()["offset"]
        assert durable >= at, "the service forgot what it had acknowledged"
        self.acknowledged[name] = durable
        self.posted.send_nowait(None)


@pytest.mark.slow
@pytest.mark.timeout(60 + 5 * KILLS)
async def test_nothing_acknowledged_is_lost_by_killing_the_service(tmp_path):
    chance = random.Random(os.environ.get("TRACESVC_SEED", "1"))
    posted, posts = trio.open_memory_channel[None](math.inf)
    clients = [Client(chance.random(), posted) for _ in range(CLIENTS)]
    processes = multiprocessing.get_context("forkserver")  # it starts one in milliseconds
    processes.set_forkserver_preload(["tests.service.test_kill", "anycorn"])
    with server.listen("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def start():
            process = processes.Process(target=serve, args=(listener, tmp_path), daemon=True)
            process.start()
            return process

        service = start()
        enough = trio.Event()

        async def kill_and_restart():
            """Not by the clock: after so many more posts, wherever the next ones are then."""
            nonlocal service
            for _ in range(KILLS):
                for _ in range(chance.randrange(1, 25)):
                    await posts.receive()
                for _ in range(chance.randrange(200)):
                    await trio.lowlevel.checkpoint()
                service.kill()
                service.join()
                service = start()
            enough.set()

        async with httpx2.AsyncClient(base_url=url, timeout=20) as http:
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(client.push, http, enough)
                nursery.start_soon(kill_and_restart)
            streams = {
                name: stream for client in clients for name, stream in client.streams.items()
            }
            for name, stream in streams.items():
                assert (await http.get(f"/v1/sessions/{name}/frames")).content == stream
                metadata = (await http.get(f"/v1/sessions/{name}")).json()
                assert metadata["state"] == "ended"
                assert metadata["ledger"]["closed"]
                assert sum(p["emitted"] for p in metadata["ledger"]["procs"].values()) == 610
            listed: list[str] = []
            cursor: dict[str, str] = {}
            while not listed or cursor:
                page = (await http.get("/v1/sessions", params={"limit": 1000, **cursor})).json()
                listed += [found["session"] for found in page["sessions"]]
                cursor = {"cursor": page["next"]} if page["next"] else {}
            assert len(listed) == len(set(listed))
            assert set(listed) == set(streams)
        service.kill()
        service.join()
        service.close()
    size = sum(map(len, streams.values()))
    frames = sum(client.frames for client in clients)
    files = len(list(tmp_path.rglob("*.trace")))
    print(
        f"{KILLS} kills under {CLIENTS} clients: {len(streams)} sessions, {frames:,} frames, {size:,} bytes in "
        f"{files:,} files: all there once, every ledger closed"
    )
