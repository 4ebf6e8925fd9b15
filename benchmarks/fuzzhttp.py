"""Requests that no client of ours sends, at the service's application, without a socket between.

Bodies of every kind `benchmarks.fuzz` can make, in any pieces, from any offset, broken off anywhere; every path with
any parameters.  Whatever comes, the answer is no 500 and a refusal says why, an acknowledged offset is never taken
back, and what is stored in the end are good frames from front to end.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import trio

from benchmarks.fuzz import Mutator, seeds
from benchmarks.pushing import Program, Scene
from tracesvc.format import Damage, FrameDecoder
from tracesvc.service import Config, make_app
from tracesvc.store import FileStore

__all__ = ["requests"]

SESSIONS: Final = 12
PARAMETERS: Final = (
    *(
        "from",
        "follow",
        "plain",
        "limit",
        "state",
        "cursor",
        "source",
        "at",
        "span",
        "to",
        "task",
        "over",
        "most",
    ),
    *(
        "of",
        "only",
        "step",
        "patience",
        "tasks",
        "own",
        "before",
        "ratio",
        "time",
        "count",
        "start",
        "end",
    ),
    *("width", "rows", "kind", "id", "text", "name", "low", "high", "offset", "seconds", "label"),
)
PATHS: Final = (
    *(f"/v1/sessions/{{session}}{rest}" for rest in ("", "/frames", "/summary", "/tasks", "/why")),
    *(f"/v1/sessions/{{session}}/{rest}" for rest in ("stalls", "latency", "lint", "diff", "sums")),
    *(f"/v1/sessions/{{session}}/{rest}" for rest in ("outline", "timeline", "phase", "instant")),
    *(f"/v1/sessions/{{session}}/{rest}" for rest in ("piece", "search", "export/perfetto", "x")),
    *(
        "/v1/sessions",
        "/v1/sources",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/",
        "/{text}",
    ),
)
VALUES: Final = (
    *(
        "",
        "0",
        "1",
        "-1",
        "00",
        "1e9",
        "true",
        "false",
        "yes",
        "NaN",
        "9" * 30,
        "1" * 5000,
        "live",
        "ended",
    ),
    *(
        "span",
        "t1",
        "t1,r1,gc",
        "10ms",
        "1.5s",
        "12:00",
        "12:00:00.5",
        "\x00",
        "\U0001f600",
        "%",
        "é",
        "[]",
    ),
    *(str((1 << 62) - 1), str(1 << 62), str((1 << 63) - 1), "0x10", "W10=", "1_000", " 1", "١"),
)
FINE: Final = {200, 202, 204, 206, 400, 404, 405, 406, 408, 409, 413, 415, 416, 422, 431, 503}


class _Asked:
    """One request to the application, and its answer."""

    def __init__(
        self, app: Any, method: str, path: str, query: str, headers: Any, body: list[bytes]
    ) -> None:
        self._app, self._body = app, body
        self.status, self.content = 0, b""
        self.headers: dict[str, str] = {}
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": quote(path).encode(),
            "query_string": query.encode("ascii", "replace"),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "extensions": {},
            "state": {},
        }

    async def __call__(self, *, gone: bool = False) -> _Asked:
        parts = list(self._body)

        async def receive() -> dict[str, Any]:
            await trio.lowlevel.checkpoint()
            if parts:
                part = parts.pop(0)
                return {"type": "http.request", "body": part, "more_body": bool(parts) or gone}
            if gone or self.status:
                return {"type": "http.disconnect"}
            await trio.sleep_forever()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                self.content += message.get("body", b"")

        with trio.fail_after(60):
            await self._app(self.scope, receive, send)
        return self


class _Session:
    """One that is being pushed: what its program would send next, and how far it is durable."""

    def __init__(self, number: int) -> None:
        self._program = Program([Scene(40, number), Scene(6, number)], f"fuzz-{number % 3}")
        self.name = self._program.session
        self.durable = self.refused = 0
        self._right = bytearray(self._program.begin())

    def due(self) -> bytes:
        """The next piece, if all that was taken was what the program sent."""
        if self.durable >= len(self._right):
            self._right += self._program.play(1)
        return bytes(self._right[self.durable :])


class _Round:
    """Requests, one after another, and what is known from the answers."""

    def __init__(self, app: Any, seed: int) -> None:
        self._app = app
        self._chance = random.Random(seed)
        self._mutator = Mutator(seed, seeds())
        self._sessions = [_Session(i) for i in range(SESSIONS)]
        self.statuses: dict[int, int] = {}
        self.failures: list[str] = []

    async def one(self) -> None:
        """Send something."""
        if self._chance.random() < 0.6:
            await self._post()
        else:
            await self._get()

    async def _send(self, asked: _Asked, *, gone: bool = False) -> str | None:
        """What was asked, if there is an answer."""
        scope = asked.scope
        what = f"{scope['method']} {scope['path']}?{scope['query_string']!r}"[:300]
        try:
            await asked(gone=gone)
        except Exception as exc:
            self.failures.append(f"{what}: {exc!r}")
            return None
        if gone and not asked.status:
            return None
        self.statuses[asked.status] = self.statuses.get(asked.status, 0) + 1
        kind = asked.headers.get("content-type")
        if asked.status not in FINE:
            self.failures.append(f"{what}: {asked.status} {asked.content[:200]!r}")
        elif (
            asked.status >= 400 and kind != "application/problem+json" and scope["method"] != "HEAD"
        ):
            self.failures.append(f"{what}: {asked.status} without a reason: {asked.headers}")
        return what

    async def _post(self) -> None:
        chance = self._chance
        which = chance.randrange(SESSIONS)
        session = self._sessions[which]
        if session.refused > 5:  # something that was changed was taken: nothing right can follow
            session = self._sessions[which] = _Session(chance.randrange(1 << 30))
        roll, body, offset = chance.random(), session.due(), session.durable
        if 0.4 < roll < 0.6:
            keep, self._mutator.pool = self._mutator.pool, [body]
            body, self._mutator.pool = self._mutator.make(), keep
        elif roll > 0.6:
            body = self._mutator.make()
        if chance.random() < 0.15:
            offset = max(0, offset + chance.choice((-1, 1, -50, 1000, -offset)))
        query = f"offset={offset}"
        if chance.random() < 0.05:
            query = f"offset={quote(chance.choice(VALUES))}"
        kind = b"application/vnd.tracesvc" if chance.random() < 0.97 else b"text/plain"
        headers = [(b"host", b"x"), (b"content-type", kind)]
        if chance.random() < 0.02:
            headers.append((b"content-encoding", b"gzip"))
        pieces = sorted(chance.randrange(len(body) + 1) for _ in range(chance.randrange(4)))
        parts = [body[a:b] for a, b in pairwise([0, *pieces, len(body)])]
        gone = chance.random() < 0.05
        if gone:
            parts = parts[: chance.randrange(len(parts) + 1)]
        path = f"/v1/sessions/{session.name}/frames"
        asked = _Asked(self._app, "POST", path, query, headers, parts)
        what = await self._send(asked, gone=gone)
        session.refused = session.refused + 1 if asked.status == 422 and roll < 0.4 else 0
        if what is not None and "json" in asked.headers.get("content-type", ""):
            told = json.loads(asked.content).get("offset")
            if isinstance(told, int):
                if told < session.durable:
                    self.failures.append(f"{what}: {told} after {session.durable}")
                session.durable = told

    async def _get(self) -> None:
        chance = self._chance
        session = chance.choice(self._sessions).name
        path = chance.choice(PATHS).format(session=session, text=chance.choice(VALUES))
        names = [chance.choice(PARAMETERS) for _ in range(chance.randrange(4))]
        query = "&".join(f"{name}={self._text()}" for name in names)
        method = "GET" if chance.random() < 0.95 else chance.choice(("HEAD", "PUT", "OPTIONS"))
        await self._send(_Asked(self._app, method, path, query, [(b"host", b"x")], [b""]))

    def _text(self) -> str:
        chance = self._chance
        if chance.random() < 0.2:
            return quote(chance.randbytes(chance.randrange(12)))
        text = chance.choice(VALUES)
        return text if text.isascii() and chance.random() < 0.3 else quote(text)


async def _ask(count: int, seed: int, data: Path) -> dict[str, Any]:
    config = Config(data, question_timeout=30.0)
    async with FileStore.open(data) as store:
        app = make_app(store, config, trio.Event())
        requests = _Round(app, seed)
        for _ in range(count):
            await requests.one()
    return {
        "requests": count,
        "statuses": {str(status): n for status, n in sorted(requests.statuses.items())},
        "failures": requests.failures,
    }


def requests(count: int, seed: int = 1) -> dict[str, Any]:
    """So many requests; the figures, and what failed."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tracesvc-fuzz-") as data:
        figures = trio.run(_ask, count, seed, Path(data))
        sessions = sorted((Path(data) / "sessions").iterdir())
        for path in sessions:
            figures["failures"] += [f"{path.name}: {line}" for line in _damaged(path)]
    figures |= {"sessions": len(sessions), "seconds": time.monotonic() - began}
    for line in figures["failures"][:20]:
        print(f"FAILED: {line}", file=sys.stderr)
    return figures


def _damaged(directory: Path) -> list[str]:
    """What in the files of a session is no good frame."""
    decoder = FrameDecoder()
    for path in sorted(directory.glob("*.trace")):
        decoder.feed(path.read_bytes())
    decoder.close()
    return [f"stored: {item}" for item in decoder if isinstance(item, Damage)]
