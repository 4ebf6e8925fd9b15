"""The service is killed at random moments while clients push; they resume, and nothing acknowledged is missing."""

import os
import random
import signal
import subprocess
import sys
import uuid

import httpx2
import pytest
import trio
import trio.lowlevel

from tests.service.helpers import TRACE
from tests.streams import joined, session
from tracesvc.service.server import listen

KILLS = 20
CLIENTS = 4


def start(listener, root):
    """A service on a socket that outlives it: its clients find the same port again, and need not wait for it."""
    code = (
        "import sys, socket, trio, pathlib;"
        "from tracesvc.service import Config, make_app, server; from tracesvc.store import FileStore\n"
        "async def main(fd, root):\n"
        "    async with FileStore.open(root) as store:\n"
        "        stopping, config = trio.Event(), Config(pathlib.Path(root))\n"
        "        app = make_app(store, config, stopping)\n"
        "        await server.run(app, socket.socket(fileno=fd), stopping, grace=1)\n"
        "trio.run(main, int(sys.argv[1]), sys.argv[2])"
    )
    arguments = [sys.executable, "-c", code, str(listener.fileno()), str(root)]
    return subprocess.Popen(arguments, pass_fds=[listener.fileno()])


class Client:
    """Pushes one session after another, in posts of random size, and remembers what was acknowledged."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.streams: dict[str, bytes] = {}
        self.acknowledged: dict[str, int] = {}
        self.posts = 0

    async def push(self, http, enough):
        while not enough.is_set():
            name = str(uuid.UUID(int=self.chance.getrandbits(128), version=4))
            frames = session(300, procs=2, batch=self.chance.randrange(3, 40), lost=5, session=name)
            self.streams[name], self.acknowledged[name] = joined(frames), 0
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
        self.posts += 1


@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_by_killing_the_service(tmp_path):
    chance = random.Random(os.environ.get("TRACESVC_SEED", "1"))
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    clients = [Client(chance.random()) for _ in range(CLIENTS)]
    enough = trio.Event()
    service = start(listener, tmp_path)
    try:
        async with httpx2.AsyncClient(base_url=url, timeout=20) as http:
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(client.push, http, enough)
                for _ in range(KILLS):
                    # not by the clock: after so many more posts, wherever the next ones are then
                    target = sum(client.posts for client in clients) + chance.randrange(1, 25)
                    while sum(client.posts for client in clients) < target:
                        await trio.lowlevel.checkpoint()
                    for _ in range(chance.randrange(200)):
                        await trio.lowlevel.checkpoint()
                    service.send_signal(signal.SIGKILL)
                    service.wait()
                    service = start(listener, tmp_path)
                enough.set()
            streams = {
                name: stream for client in clients for name, stream in client.streams.items()
            }
            for name, stream in streams.items():
                assert (await http.get(f"/v1/sessions/{name}/frames")).content == stream
                metadata = (await http.get(f"/v1/sessions/{name}")).json()
                assert metadata["state"] == "ended"
                assert metadata["ledger"]["closed"]
                assert sum(p["emitted"] for p in metadata["ledger"]["procs"].values()) == 610
            page = (await http.get("/v1/sessions", params={"limit": 1000})).json()
            assert {found["session"] for found in page["sessions"]} == set(streams)
    finally:
        service.kill()
        service.wait()
        listener.close()
    posts = sum(client.posts for client in clients)
    print(f"{KILLS} kills, {posts} posts acknowledged, {len(streams)} sessions whole")
