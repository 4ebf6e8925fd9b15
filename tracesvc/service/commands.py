"""Commands to programs: agents in them hold a stream open, on which the service sends what they are asked to do.

An agent is there for as long as its stream is; nothing of it is kept.  A command goes to every agent of its source (and
with its labels) at once, whatever replica holds its stream, and the answer waits for what they say.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tracesvc.service.access import access_of
from tracesvc.service.config import Config
from tracesvc.service.parameters import json_object
from tracesvc.service.problems import ProblemError
from tracesvc.service.replicas import Item, Replicas, Say
from tracesvc.service.streams import StreamResponse

__all__ = ["Agents", "command", "listen", "report", "sources"]

MAX_AGENTS: Final = 10_000
MAX_BODY: Final = 64 << 10
"""bytes of a command, or of what an agent says to it"""
WAITING: Final = 16
"""commands that an agent may be behind"""
PATIENCE: Final = 10.0
"""seconds that agents have to answer, where the command does not say"""
LONGEST: Final = 120.0
DEEDS: Final = ("start", "stop", "snapshot", "set")
EVERY: Final = "*"
"""in place of a source: all of them"""

Silent: TypeAlias = list[dict[str, str]]
"""replicas that do not answer, and why"""


@dataclass(slots=True)
class _Agent:
    source: str
    labels: dict[str, str]
    about: dict[str, str]
    """host, pid, ...: what it says of itself"""
    send: trio.MemorySendChannel[dict[str, Any]]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    session: str | None = None
    """that it pushes because it was told to"""

    def facts(self) -> dict[str, Any]:
        return {"agent": self.id, "labels": self.labels, "session": self.session, **self.about}

    def told(self) -> dict[str, Any]:
        """To other replicas."""
        return {"source": self.source, "facts": self.facts()}


class Agents:
    """Those that are there."""

    def __init__(self, replicas: Replicas | None = None) -> None:
        self.replicas: Final = replicas
        self._agents: Final[dict[str, _Agent]] = {}
        self._numbers: Final = itertools.count(1).__next__
        self._results: Final[dict[tuple[str, int], trio.MemorySendChannel[dict[str, Any]]]] = {}

    def __len__(self) -> int:
        return len(self._agents)

    def of(self, source: str, labels: dict[str, str], prefix: str) -> list[_Agent]:
        """Those of a source, or of all, that have these labels; ``prefix``: of sources that count."""
        return [
            agent
            for agent in self._agents.values()
            if source in (EVERY, agent.source)
            and labels.items() <= agent.labels.items()
            and agent.source.startswith(prefix)
        ]

    def add(self, agent: _Agent) -> None:
        """It is there from now on.

        Raises:
          ProblemError: there are too many.
        """
        if len(self._agents) >= MAX_AGENTS:
            why = f"{MAX_AGENTS} agents are connected"
            raise ProblemError(503, "too-many-agents", why, {"retry-after": "30"})
        if self.replicas is not None:
            agent.id = f"{self.replicas.own}.{agent.id}"
        self._agents[agent.id] = agent

    def remove(self, agent: _Agent) -> None:
        """It is gone; whoever waits for it need not any more."""
        self._agents.pop(agent.id, None)
        agent.send.close()
        for key in [key for key in self._results if key[0] == agent.id]:
            self._results[key].close()

    async def ask(self, agent: _Agent, what: dict[str, Any], patience: float) -> dict[str, Any]:
        """What it says to a command."""
        number = self._numbers()
        key = agent.id, number
        send, receive = trio.open_memory_channel[dict[str, Any]](1)
        self._results[key] = send
        said: dict[str, Any] = {"ok": False, "error": f"no answer within {patience:g} s"}
        try:
            with trio.move_on_after(patience):
                agent.send.send_nowait({**what, "command": number})
                said = await receive.receive()
        except trio.WouldBlock:
            said = {"ok": False, "error": f"{WAITING} commands wait for it already"}
        except (trio.EndOfChannel, trio.ClosedResourceError, trio.BrokenResourceError):
            said = {"ok": False, "error": "its connection was lost"}
        finally:
            self._results.pop(key).close()
            receive.close()
        return {**agent.facts(), "source": agent.source, **said}

    def answer(self, name: str, said: dict[str, Any], prefix: str) -> bool:
        """An agent says what became of a command, or of itself; False: it is not here.

        ``prefix``: of sources that whoever says so may speak for.
        """
        agent = self._agents.get(name)
        if agent is None or not agent.source.startswith(prefix):
            return False
        if "session" in said:
            session = said["session"]
            agent.session = str(session)[:64] if session is not None else None
        number = said.pop("command", None)
        waiting = self._results.get((name, number)) if isinstance(number, int) else None
        if waiting is not None:
            try:
                waiting.send_nowait(said)
            except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # said twice, or nobody waits any more
        return True

    async def hear(self, question: dict[str, Any], say: Say) -> None:
        """What another replica asks of ours."""
        match question:
            case {"what": "sources", "prefix": str(prefix)}:
                found = [agent.told() for agent in self.of(EVERY, {}, prefix)]
                await say.total(len(found))
                await say.items(found)
            case {"what": "report", "agent": str(name), "said": dict(said), "prefix": str(prefix)}:
                await say.total(1)
                await say.items([{"known": self.answer(name, said, prefix)}])
            case {
                "what": "command",
                "command": dict(command),
                "source": str(source),
                "labels": dict(labels),
                "prefix": str(prefix),
                "takes": float(patience) | int(patience),
            }:
                asked = self.of(source, labels, prefix)
                await say.total(len(asked))

                async def ask(agent: _Agent) -> None:
                    await say.items([await self.ask(agent, command, patience)])

                async with trio.open_nursery() as nursery:
                    for agent in asked:
                        nursery.start_soon(ask, agent)
            case _:  # of a younger replica
                await say.total(0)

    async def elsewhere(self, question: dict[str, Any], takes: float) -> tuple[list[Item], Silent]:
        """What other replicas say; and those that do not."""
        if self.replicas is None:
            await trio.lowlevel.checkpoint()
            return [], []
        items, why = await self.replicas.ask(question, takes)
        return items, [{"replica": name, "error": text} for name, text in sorted(why.items())]


async def listen(request: Request) -> Response:
    """``GET /v1/sources/{source}/agent?label=K=V&host=H&pid=P``: a program waits for commands, one JSON object a line.

    The first one tells its number, ``{"agent": ID, "heartbeat": SECONDS}``; an empty one says that the line is alive.
    """
    agents: Agents = request.app.state.agents
    config: Config = request.app.state.config
    labels = _labels(request.query_params.getlist("label"))
    about = {
        name: request.query_params[name][:200]
        for name in ("host", "pid", "python", "trio", "flight")
        if name in request.query_params
    }
    send, receive = trio.open_memory_channel[dict[str, Any]](WAITING)
    agent = _Agent(request.path_params["source"], labels, about, send)
    agents.add(agent)

    async def body(part: Callable[[bytes], Awaitable[None]]) -> None:
        beat = config.agent_heartbeat
        try:
            await part(_line({"agent": agent.id, "heartbeat": beat}))
            while True:
                what: dict[str, Any] = {}
                with trio.move_on_after(beat):
                    what = await receive.receive()
                await part(_line(what))
        finally:
            agents.remove(agent)

    return StreamResponse(body, request, {}, "application/x-ndjson", follows=False)


async def report(request: Request) -> Response:
    """``POST /v1/agents/{agent}``: what became of a command; any replica takes it."""
    agents: Agents = request.app.state.agents
    name, prefix = request.path_params["agent"], access_of(request).prefix
    said = await json_object(request, MAX_BODY)
    if not agents.answer(name, said, prefix):
        await _pass_on(agents.replicas, name, said, prefix)
    return Response(status_code=204)


async def _pass_on(replicas: Replicas | None, name: str, said: dict[str, Any], prefix: str) -> None:
    """Have the replica that holds the agent's line know.

    Raises:
      ProblemError: there is no such agent, or the replica does not answer.
    """
    owner = name.partition(".")[0]
    items: list[Item] = []
    if replicas is not None and owner in replicas.others:
        question = {"what": "report", "agent": name, "said": said, "prefix": prefix}
        items, why = await replicas.ask(question, 0.0, only=owner)
        if why:
            text = f"replica {owner}, which holds the line: {why[owner]}"
            raise ProblemError(503, "replica-silent", text, {"retry-after": "2"})
    if not any(item.get("known") for item in items):
        raise ProblemError(404, "unknown-agent", f"no agent {name[:60]!r} is connected")


async def command(request: Request) -> Response:
    """``POST /v1/sources/{source}/commands``: have programs do something; source ``*`` is all of them.

    The body: ``{"do": "start"|"stop"|"snapshot"|"set", "seconds": S, "options": {...}, "labels": {...}, "patience":
    S}``.  The answer has a result per agent; ``unreachable`` are replicas whose agents may not have heard of it.
    """
    agents: Agents = request.app.state.agents
    what = await json_object(request, MAX_BODY)
    deed, labels = what.get("do"), what.pop("labels", {})
    if deed not in DEEDS:
        raise ProblemError(422, "bad-command", f"do is one of {', '.join(DEEDS)}")
    seconds = what.get("seconds")
    if seconds is not None and not _positive(seconds):
        raise ProblemError(422, "bad-command", "seconds is a number above 0")
    patience = what.pop("patience", PATIENCE)
    if not _positive(patience):
        raise ProblemError(422, "bad-command", "patience is a number of seconds above 0")
    if not isinstance(labels, dict) or not isinstance(what.get("options", {}), dict):
        raise ProblemError(422, "bad-command", "labels and options are objects")
    source, prefix = request.path_params["source"], access_of(request).prefix
    labels = {str(key): str(value) for key, value in labels.items()}
    takes = min(float(patience), LONGEST)
    question = {
        "what": "command",
        "command": what,
        "source": source,
        "labels": labels,
        "prefix": prefix,
    }
    results: list[dict[str, Any]] = []
    unreachable: Silent = []

    async def ask(agent: _Agent) -> None:
        results.append(await agents.ask(agent, what, takes))

    async def ask_others() -> None:
        more, silent = await agents.elsewhere(question, takes)
        results.extend(more)
        unreachable.extend(silent)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_others)
        for agent in agents.of(source, labels, prefix):
            nursery.start_soon(ask, agent)
    if not results and unreachable:
        why = f"{len(unreachable)} replicas do not answer ({unreachable[0]['error']})"
        raise ProblemError(503, "replica-silent", why, {"retry-after": "2"})
    if not results:
        raise ProblemError(404, "no-agent", f"no program {source[:100]!r} waits for commands")
    results.sort(key=lambda result: (str(result.get("source")), str(result.get("agent"))))
    return JSONResponse({"results": results, "unreachable": unreachable})


async def sources(request: Request) -> Response:
    """``GET /v1/sources``: the programs that wait for commands, at whatever replica."""
    agents: Agents = request.app.state.agents
    prefix = access_of(request).prefix
    told = [agent.told() for agent in agents.of(EVERY, {}, prefix)]
    more, unreachable = await agents.elsewhere({"what": "sources", "prefix": prefix}, 0.0)
    found: dict[str, list[dict[str, Any]]] = {}
    for one in (*told, *more):
        found.setdefault(one["source"], []).append(one["facts"])
    listed = [{"source": name, "agents": found[name]} for name in sorted(found)]
    return JSONResponse({"sources": listed, "unreachable": unreachable})


def _labels(texts: list[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in texts[:64]:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ProblemError(400, "bad-parameter", f"label is NAME=VALUE, not {text[:40]!r}")
        labels[name[:100]] = value[:200]
    return labels


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e9


def _line(what: dict[str, Any]) -> bytes:
    return json.dumps(what).encode() + b"\n"
