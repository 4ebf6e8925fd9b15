"""Commands find the programs wherever their lines are held: two replicas on a real NATS server."""

import json
from contextlib import asynccontextmanager

import httpx2
import pytest
import trio

import tracesvc
from tests.fleet.servers import nats
from tests.service.helpers import problem
from tracesvc.control.agent import agent
from tracesvc.model.verify import verify
from tracesvc.service import Config, replicas, serve
from tracesvc.service.commands import Agents
from tracesvc.service.replicas import Replicas
from tracesvc.service.tokens import Scope, TokenFile, make_token

COMMANDS = "/v1/sources/{}/commands"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with nats(tmp_path_factory.mktemp("nats")) as running:
        yield running


@asynccontextmanager
async def fleet(server, tmp_path, name, n=2, headers=None, **settings):
    """(client, stop) of each replica."""
    async with trio.open_nursery() as nursery:
        started = []
        for i in range(n):
            config = Config(
                tmp_path / f"replica{i}",
                port=0,
                store=server.url,
                stream=name,
                stream_replicas=1,
                nats_patience=5.0,
                archiver=False,
                trace_itself=False,
                grace=0.5,
                **{"insecure": True, **settings},
            )
            stopping = trio.Event()

            async def run(task_status, config=config, stopping=stopping):
                await serve(config, stopping=stopping, task_status=task_status)

            url = await nursery.start(run)
            client = httpx2.AsyncClient(base_url=url, timeout=30, headers=headers)
            started.append((client, stopping))
        yield started
        for client, stopping in started:
            stopping.set()
            await client.aclose()


class Heard:
    """What comes down a line: JSON objects, between the lengths of chunks."""

    def __init__(self, stream):
        self.stream, self.rest = stream, b""

    async def next(self):
        while True:
            while b"\n" not in self.rest:
                self.rest += await self.stream.receive_some()
            text, _, self.rest = self.rest.partition(b"\n")
            if text.startswith(b"{"):
                return json.loads(text)


@asynccontextmanager
async def line(client, source, label=""):
    """A program's line, by hand: its number, and the commands that come down."""
    stream = await trio.open_tcp_stream("127.0.0.1", client.base_url.port)
    token = client.headers.get("authorization", "")
    head = f"GET /v1/sources/{source}/agent{label and f'?label={label}'} HTTP/1.1\r\nHost: x\r\n"
    async with stream:
        await stream.send_all(f"{head}Authorization: {token}\r\n\r\n".encode())
        heard = Heard(stream)
        yield (await heard.next())["agent"], heard


async def known(client, n):
    """Wait until so many agents are listed there."""
    with trio.fail_after(20):
        while True:
            answer = (await client.get("/v1/sources")).json()
            if sum(len(one["agents"]) for one in answer["sources"]) == n:
                return answer
            await trio.sleep(0.05)


async def test_a_program_is_traced_through_a_replica_that_it_is_not_connected_to(server, tmp_path):
    async with fleet(server, tmp_path, "traced") as ((one, _), (other, _)):
        async with trio.open_nursery() as nursery:
            await nursery.start(
                lambda task_status: agent(str(one.base_url), name="shop", task_status=task_status)
            )
            listed = await known(other, 1)
            assert [source["source"] for source in listed["sources"]] == ["shop"]
            body = {"do": "start", "seconds": 0.3}
            answer = await other.post(COMMANDS.format("shop"), json=body)
            (result,) = answer.json()["results"]
            assert result["ok"], result
            assert answer.json()["unreachable"] == []
            with tracesvc.span("while it is traced"), trio.fail_after(30):
                while True:
                    found = await other.get(f"/v1/sessions/{result['session']}")
                    if found.status_code == 200 and found.json()["state"] == "ended":
                        break
                    await trio.sleep(0.05)
            data = (await other.get(f"/v1/sessions/{result['session']}/frames")).content
            assert verify(data).ok
            nursery.cancel_scope.cancel()


async def test_all_programs_are_asked_and_answers_come_by_whatever_replica(server, tmp_path):
    async with fleet(server, tmp_path, "all") as ((one, _), (other, _)):
        async with line(one, "a", label="x%3D1") as (a, heard_a), line(other, "b") as (b, heard_b):
            await known(one, 2)
            await known(other, 2)
            assert a != b
            results = {}

            async def ask(client, source, **body):
                answer = await client.post(COMMANDS.format(source), json={"do": "stop", **body})
                results[source, client] = answer

            for client in (one, other):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ask, client, "*")
                    for name, heard in ((a, heard_a), (b, heard_b)):
                        command = {}
                        while not command:
                            command = await heard.next()
                        # what it says goes through the replica that does not hold its line
                        said = {"command": command["command"], "ok": True, "who": name}
                        through = other if name == a else one
                        answer = await through.post(f"/v1/agents/{name}", json=said)
                        assert answer.status_code == 204
                answer = results["*", client].json()
                assert [(r["source"], r["ok"], r["who"]) for r in answer["results"]] == [
                    ("a", True, a),
                    ("b", True, b),
                ]
            problem(await one.post(COMMANDS.format("c"), json={"do": "stop"}), 404, "no-agent")
            only = {"do": "stop", "labels": {"x": "2"}}
            problem(await other.post(COMMANDS.format("*"), json=only), 404, "no-agent")
            gone = await one.post("/v1/agents/nobody", json={})
            problem(gone, 404, "unknown-agent")
            gone = await one.post(f"/v1/agents/{b}x", json={})
            problem(gone, 404, "unknown-agent")


async def test_a_program_that_says_nothing_and_a_replica_that_is_gone_are_told(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr(replicas, "ANSWER", 0.5)
    async with fleet(server, tmp_path, "silent") as ((one, _), (other, stop)):
        async with line(other, "b"):
            await known(one, 1)
            body = {"do": "stop", "patience": 0.2}
            (result,) = (await one.post(COMMANDS.format("b"), json=body)).json()["results"]
            assert (result["ok"], result["error"]) == (False, "no answer within 0.2 s")
        stop.set()  # it says that it goes: nobody waits for it
        with trio.fail_after(10):
            await known(one, 0)
        problem(await one.post(COMMANDS.format("b"), json=body), 404, "no-agent")


class Wire:
    """What is said among replicas, in memory; ``cut``: those whose words get lost."""

    def __init__(self):
        self.heard = {}
        self.connected = True
        self.cut = set()

    async def hint(self, subject, data):
        await trio.lowlevel.checkpoint()
        if json.loads(data)["from"] not in self.cut:
            for heard in self.heard.get(subject, []):
                heard(subject, data)

    async def listen(self, subject, heard):
        await trio.lowlevel.checkpoint()
        self.heard.setdefault(subject, []).append(heard)

        async def leave():
            self.heard[subject].remove(heard)
            await trio.lowlevel.checkpoint()

        return leave


async def test_who_does_not_answer_or_not_to_the_end_is_named(nursery, autojump_clock):
    wire = Wire()
    asks, dies, stays = (Replicas(wire, "f") for _ in range(3))

    async def halfway(question, say):
        await say.total(2)
        await say.items([{"n": 1}])

    async def whole(question, say):
        await say.total(1)
        await say.items([{"n": question["n"]}])

    for one, answer in ((asks, whole), (dies, halfway), (stays, whole)):
        nursery.start_soon(one.run, answer)
    await trio.sleep(0.1)
    assert asks.others == {dies.own, stays.own}
    items, why = await asks.ask({"n": 7}, 1.0)
    assert sorted(item["n"] for item in items) == [1, 7]
    assert why == {dies.own: "it did not say all that it had to say"}
    wire.cut = {dies.own}
    began = trio.current_time()
    items, why = await asks.ask({"n": 8}, 1.0)
    assert items == [{"n": 8}]
    assert why == {dies.own: "no answer within 2 s"}
    assert trio.current_time() - began <= 2.1
    await trio.sleep(6)
    assert asks.others == {stays.own}, "who says nothing for long is gone"
    assert await asks.ask({"n": 9}, 1.0) == ([{"n": 9}], {})
    wire.connected = False
    assert await asks.ask({"n": 9}, 1.0) == ([], {stays.own: "NATS cannot be reached"})
    nursery.cancel_scope.cancel()


async def test_nonsense_among_replicas_is_passed_over(nursery, autojump_clock, caplog):
    wire = Wire()
    one, two = Replicas(wire, "f"), Replicas(wire, "f")
    for each in (one, two):
        nursery.start_soon(each.run, Agents().hear)
    await trio.sleep(0.1)
    for nonsense in (b"", b"[]", b"{}", b'{"from": 1', b'"x"', b'{"from": "x", "answer": "y"}'):
        for subject in list(wire.heard):
            for heard in wire.heard[subject]:
                heard(subject, nonsense)
    assert "who else writes there" in caplog.text
    assert await one.ask({"what": "what a younger one asks"}, 1.0) == (
        [],
        {"x": "no answer within 2 s"},
    )
    nursery.cancel_scope.cancel()


async def test_whose_token_is_for_some_sources_commands_and_sees_only_those(server, tmp_path):
    file = TokenFile(tmp_path / "tokens.json")
    texts, made = {}, []
    for who, prefix in (("all", ""), ("shop", "shop")):
        rights = list(Scope) if not prefix else [Scope.READ, Scope.CONTROL, Scope.INGEST]
        texts[who], token = make_token(rights, prefix=prefix)
        made.append(token)
    file.write(made)
    bearer = {who: {"authorization": f"Bearer {text}"} for who, text in texts.items()}
    async with (
        fleet(
            server,
            tmp_path,
            "guarded",
            headers=bearer["all"],
            insecure=False,
            tokens=tmp_path / "tokens.json",
        ) as ((one, _), (other, _)),
        line(one, "bank") as (bank, _),
        line(one, "shop") as (shop, _),
    ):
        await known(other, 2)
        other.headers.update(bearer["shop"])
        listed = await known(other, 1)
        assert [found["source"] for found in listed["sources"]] == ["shop"]
        body = {"do": "stop", "patience": 0.1}
        answer = await other.post(COMMANDS.format("*"), json=body)
        assert [found["source"] for found in answer.json()["results"]] == ["shop"]
        problem(await other.post(COMMANDS.format("bank"), json=body), 403, "source-forbidden")
        problem(await other.post(f"/v1/agents/{bank}", json={}), 404, "unknown-agent")
        assert (await other.post(f"/v1/agents/{shop}", json={})).status_code == 204
