"""A service in this run on a free port, and plain sockets to treat it badly with."""

from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import httpx2
import trio

from tests.streams import joined, name_of
from tracesvc.service import Config, make_app, server
from tracesvc.store import FileStore

TRACE = {"content-type": "application/vnd.tracesvc"}


@dataclass
class Service:
    url: str
    port: int
    store: FileStore
    client: httpx2.AsyncClient
    stopping: trio.Event
    stopped: trio.Event

    async def post(self, session, offset, content, **headers):
        return await self.client.post(
            f"/v1/sessions/{session}/frames",
            params={"offset": offset},
            content=content,
            headers={**TRACE, **headers},
        )

    async def keep(self, frames):
        """Push all of it; the session's name."""
        name = name_of(frames)
        answer = await self.post(name, 0, joined(frames))
        assert (answer.status_code, answer.json()) == (200, {"offset": len(joined(frames))})
        return name

    async def get(self, path, **options):
        return await self.client.get(path, **options)

    async def raw(self, request):
        """A connection on which ``request`` was sent."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        await stream.send_all(request)
        return stream


@asynccontextmanager
async def running(root, *, disk=None, store=None, gate=None, **settings):
    """``store``: given the real one, what the service is to use in its place."""
    config = replace(Config(root, port=0, grace=0.5), **settings)
    stopping, stopped = trio.Event(), trio.Event()
    listener = server.listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    async with (
        FileStore.open(root, disk) as real,
        trio.open_nursery() as nursery,
        httpx2.AsyncClient(base_url=url, timeout=30, limits=httpx2.Limits()) as client,
    ):
        app = make_app(store(real) if store else real, config, stopping, gate)

        async def run(task_status):
            await server.run(
                app,
                listener,
                stopping,
                grace=config.grace,
                idle_timeout=config.idle_timeout,
                server=config.server,
                task_status=task_status,
            )
            stopped.set()

        await nursery.start(run)
        yield Service(url, port, real, client, stopping, stopped)
        stopping.set()


def problem(answer, status, code):
    """Check that it is one, and give its content."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert (content["status"], content["code"]) == (status, code)
    assert content["title"]
    assert content["detail"]
    assert "Traceback" not in answer.text
    return content
