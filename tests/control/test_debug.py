"""`tracesvc.asgi.debug_app`, mounted in a Starlette application on a real server."""

from contextlib import asynccontextmanager

import httpx2
import pytest
import trio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import tracesvc
from tracesvc.asgi import debug_app
from tracesvc.model.verify import verify
from tracesvc.service import server

TOKEN = {"authorization": "Bearer secret"}


@asynccontextmanager
async def serving(app, kind="anycorn"):
    """A client of ``app``, mounted at /debug beside a page of the program's own."""

    async def hello(request):
        await trio.sleep(0.001)
        return PlainTextResponse("hello")

    outer = Starlette(routes=[Route("/", hello), Mount("/debug", app)])
    listener = server.listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    stopping = trio.Event()
    async with trio.open_nursery() as nursery, httpx2.AsyncClient(base_url=url) as client:

        async def run(task_status):
            await server.run(
                outer, listener, stopping, grace=0.5, server=kind, task_status=task_status
            )

        await nursery.start(run)
        yield client
        stopping.set()


@pytest.mark.parametrize("kind", ["anycorn", "hypercorn"])
async def test_a_trace_of_the_next_moment(kind):
    async with serving(debug_app("secret"), kind) as client, trio.open_nursery() as nursery:

        async def visit():
            while True:
                assert (await client.get("/")).text == "hello"

        nursery.start_soon(visit)
        answer = await client.get("/debug/trace", params={"seconds": "0.3"}, headers=TOKEN)
        nursery.cancel_scope.cancel()
    assert answer.status_code == 200
    assert answer.headers["content-disposition"].endswith('.trace"')
    report = verify(answer.content)
    assert report.ok, report.violations
    assert report.events > 100


async def test_a_client_that_leaves_ends_its_trace():
    async with serving(debug_app("secret")) as client:
        stream = await trio.open_tcp_stream("127.0.0.1", client.base_url.port)
        async with stream:
            await stream.send_all(
                b"GET /debug/trace?seconds=3000 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n"
            )
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        while tracesvc.recorder.tracer.current_tracer() is not None:
            await trio.lowlevel.checkpoint()


async def test_at_most_four_at_once():
    async with serving(debug_app("secret")) as client, trio.open_nursery() as nursery:
        begun = []

        async def trace():
            async with client.stream(
                "GET", "/debug/trace", params={"seconds": "3000"}, headers=TOKEN
            ) as answer:
                begun.append(answer.status_code)
                await trio.sleep_forever()

        for _ in range(4):
            nursery.start_soon(trace)
        while len(begun) < 4:
            await trio.lowlevel.checkpoint()
        answer = await client.get("/debug/trace", headers=TOKEN)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
        nursery.cancel_scope.cancel()
    assert begun == [200] * 4


async def test_the_tree_of_tasks():
    async with serving(debug_app("secret")) as client, trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 1000, name="a sleeper")
        answer = await client.get("/debug/tasks", headers=TOKEN)
        assert "a sleeper" in answer.text
        (line,) = (line for line in answer.text.splitlines() if "a sleeper" in line)
        assert " sleep" in line
        assert line.startswith("  ")
        tree = (await client.get("/debug/tasks?format=json", headers=TOKEN)).json()
        (sleeper,) = (task for task in tree["tasks"] if task["name"] == "a sleeper")
        assert (sleeper["state"], sleeper["reason"]) == ("waiting", "sleep")
        assert sleeper["stack"][-1][0] == "sleep"  # the outermost
        numbers = {task["task"] for task in tree["tasks"]}
        assert sleeper["parent"] in numbers
        nursery.cancel_scope.cancel()


async def test_what_the_flight_recorder_holds():
    flight = tracesvc.FlightRecorder()
    async with serving(debug_app("secret", flight=flight)) as client:
        answer = await client.get("/debug/flight", headers=TOKEN)
        assert answer.status_code == 409
        async with tracesvc.open_tracer(flight):
            tracesvc.log("remember this")
            while not flight.window.generations:
                await trio.lowlevel.checkpoint()
            answer = await client.get("/debug/flight", headers=TOKEN)
    assert verify(answer.content).ok
    logs = {event.message for event in tracesvc.read(answer.content) if event.type == "log"}
    assert "remember this" in logs


@pytest.mark.parametrize(
    "path, status",
    [
        ("/debug/trace?seconds=0", 400),
        ("/debug/trace?seconds=nan", 400),
        ("/debug/trace?seconds=1e9", 400),
        ("/debug/trace?seconds=soon", 400),
        ("/debug/tasks?format=xml", 400),
        ("/debug/flight", 404),
        ("/debug/nothing", 404),
        ("/debug/", 200),
    ],
)
async def test_what_is_wrong_is_told(path, status):
    async with serving(debug_app("secret")) as client:
        answer = await client.get(path, headers=TOKEN)
        assert answer.status_code == status, answer.text
        assert (await client.post(path, headers=TOKEN)).status_code == 405


async def test_a_tracer_that_was_started_by_hand_is_left_alone():
    tracer = tracesvc.Tracer()
    async with serving(debug_app("secret")) as client:
        tracer.start()
        answer = await client.get("/debug/trace?seconds=1", headers=TOKEN)
        assert answer.status_code == 409
        assert "by hand" in answer.text
        await tracer.stop()


async def test_who_may_not_gets_nothing():
    async with serving(debug_app("secret")) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
            answer = await client.get("/debug/tasks", headers=headers)
            assert answer.status_code == 401
            assert "secret" not in answer.text


async def test_a_function_may_be_the_guard():
    async def from_here(scope):
        await trio.lowlevel.checkpoint()
        return scope["client"][0] == "127.0.0.1"

    async with serving(debug_app(from_here)) as client:
        assert (await client.get("/debug/tasks")).status_code == 200
    async with serving(debug_app(lambda scope: False)) as client:
        assert (await client.get("/debug/tasks")).status_code == 401


def test_an_empty_token_guards_nothing():
    with pytest.raises(ValueError, match="guard is empty"):
        debug_app("")
