"""The agent of a program, and the commands of a service: over real connections."""

import json
import re

import pytest
import trio

import tracesvc
from tests.service.helpers import problem, running
from tracesvc.control.agent import agent
from tracesvc.model.verify import verify
from tracesvc.sinks.push import PushSink


async def ask(service, source, **what):
    answer = await service.client.post(f"/v1/sources/{source}/commands", json=what)
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


async def ended(service, session):
    """The stored stream, once the session is over."""
    while True:
        answer = await service.get(f"/v1/sessions/{session}")
        if answer.status_code == 200 and answer.json()["state"] == "ended":
            return (await service.get(f"/v1/sessions/{session}/frames")).content
        await trio.lowlevel.checkpoint()


async def sources(service):
    return (await service.get("/v1/sources")).json()["sources"]


async def test_a_trace_is_started_and_ends_by_itself(tmp_path, nursery):
    async with running(tmp_path) as service:
        await nursery.start(
            lambda task_status: agent(service.url, name="shop", task_status=task_status)
        )
        (known,) = await sources(service)
        assert known["source"] == "shop"
        (result,) = await ask(service, "shop", do="start", seconds=0.3)
        assert result["ok"]
        with tracesvc.span("while it is traced"):
            data = await ended(service, result["session"])
        assert verify(data).ok
        assert "while it is traced" in {
            e.name for e in tracesvc.read(data) if e.type == "span_begin"
        }
        nursery.cancel_scope.cancel()


async def test_two_traces_of_one_program_are_two_sessions(tmp_path, nursery):
    async with running(tmp_path) as service, tracesvc.open_tracer():
        await nursery.start(
            lambda task_status: agent(service.url, name="shop", task_status=task_status)
        )
        names = set()
        for _ in range(2):
            (result,) = await ask(service, "shop", do="start")
            assert result["ok"]
            (again,) = await ask(service, "shop", do="start")
            assert again["session"] == result["session"]
            (stopped,) = await ask(service, "shop", do="stop")
            assert stopped["stopped"] == result["session"]
            assert verify(await ended(service, result["session"])).ok
            names.add(result["session"])
        assert len(names) == 2
        nursery.cancel_scope.cancel()


async def test_a_snapshot_of_the_flight_recorder(tmp_path, nursery):
    flight = tracesvc.FlightRecorder()
    async with running(tmp_path) as service, tracesvc.open_tracer(flight):
        tracesvc.log("before")
        while not flight.window.generations:
            await trio.lowlevel.checkpoint()
        await nursery.start(
            lambda task_status: agent(
                service.url, name="shop", flight=flight, task_status=task_status
            )
        )
        for _ in range(2):  # each a session of its own
            (result,) = await ask(service, "shop", do="snapshot")
            assert result["ok"], result
            data = await ended(service, result["snapshot"])
            assert verify(data).ok
            assert "before" in {e.message for e in tracesvc.read(data) if e.type == "log"}
        nursery.cancel_scope.cancel()


async def test_what_the_program_pushes_already_is_what_one_gets(tmp_path, nursery):
    async with running(tmp_path) as service:
        async with tracesvc.open_tracer(PushSink(service.url)) as tracer:
            await nursery.start(
                lambda task_status: agent(service.url, name="shop", task_status=task_status)
            )
            (result,) = await ask(service, "shop", do="start", seconds=1)
            assert result["ok"]
            assert result["already"]
            assert result["session"] == tracer.statistics().session
        nursery.cancel_scope.cancel()


async def test_labels_choose_among_many(tmp_path, nursery):
    async with running(tmp_path) as service:
        for number in range(3):
            await nursery.start(
                lambda task_status, number=number: agent(
                    service.url,
                    name=f"shop {number}",
                    labels={"zone": "north" if number else "south", "n": str(number)},
                    task_status=task_status,
                )
            )
        north = await ask(service, "*", do="set", options={}, labels={"zone": "north"})
        assert {result["source"] for result in north} == {"shop 1", "shop 2"}
        (one,) = await ask(service, "shop 1", do="set", options={"stacks": "off"})
        assert one["ok"]
        answer = await service.client.post(
            "/v1/sources/shop 1/commands", json={"do": "stop", "labels": {"zone": "south"}}
        )
        problem(answer, 404, "no-agent")
        nursery.cancel_scope.cancel()


async def test_a_lost_line_ends_what_was_started_from_afar(tmp_path, nursery):
    async with running(tmp_path) as service:
        await nursery.start(
            lambda task_status: agent(
                service.url, name="shop", max_backoff=0.1, task_status=task_status
            )
        )
        (result,) = await ask(service, "shop", do="start")
        assert result["ok"]
        service.stopping.set()
        await service.stopped.wait()
        while tracesvc.recorder.tracer.current_tracer() is not None:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


async def test_wrong_options_are_told(tmp_path, nursery):
    async with running(tmp_path) as service:
        await nursery.start(
            lambda task_status: agent(service.url, name="shop", task_status=task_status)
        )
        (result,) = await ask(service, "shop", do="start", options={"way": "public"})
        assert result["error"] == "there is no option 'way' that can be set from afar"
        (result,) = await ask(service, "shop", do="set", options={"stall_s": -1})
        assert "stall_s must be seconds" in result["error"]
        (result,) = await ask(service, "shop", do="snapshot")
        assert result["error"] == "this agent was given no flight recorder"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "body, status, code",
    [
        (b"{", 422, "bad-json"),
        (b"[]", 422, "bad-json"),
        (b'{"do": "explode"}', 422, "bad-command"),
        (b'{"do": "start", "seconds": -1}', 422, "bad-command"),
        (b'{"do": "start", "seconds": "x"}', 422, "bad-command"),
        (b'{"do": "start", "patience": 0}', 422, "bad-command"),
        (b'{"do": "start", "options": 1}', 422, "bad-command"),
        (b'{"do": "start"}', 404, "no-agent"),
        (b"[" * 100_000, 413, "body-too-large"),
        (b"[" * 60_000, 422, "bad-json"),
    ],
)
async def test_a_wrong_command(tmp_path, body, status, code):
    async with running(tmp_path) as service:
        answer = await service.client.post("/v1/sources/shop/commands", content=body)
        problem(answer, status, code)


async def test_an_agent_that_says_nothing(tmp_path):
    """A client of somebody else's: it listens, and never answers."""
    async with running(tmp_path, agent_heartbeat=0.05) as service:
        stream = await service.raw(b"GET /v1/sources/mute/agent HTTP/1.1\r\nHost: x\r\n\r\n")
        async with stream:
            text = b""
            while b"\n{}\n" not in text.replace(b"\r\n", b"\n"):  # it is alive
                text += await stream.receive_some()
            hello = json.loads(re.search(rb'{"agent".*}', text)[0])
            (result,) = await ask(service, "mute", do="stop", patience=0.1)
            assert result["agent"] == hello["agent"]
            assert result["error"] == "no answer within 0.1 s"


async def test_an_answer_of_nobody(tmp_path):
    async with running(tmp_path) as service:
        answer = await service.client.post("/v1/agents/nobody", json={"command": 1})
        problem(answer, 404, "unknown-agent")
