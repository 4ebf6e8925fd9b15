"""``GET /openapi.json``: the service's API as OpenAPI 3.1, from one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final, get_args

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tracesvc.service.access import RULES
from tracesvc.store import State

__all__ = ["OPERATIONS", "Operation", "description", "document"]

_FRAMES: Final = "application/vnd.tracesvc"
_MSGPACK: Final = "application/msgpack"
_JSON: Final = "application/json"
_PARQUET: Final = "application/vnd.apache.parquet"
_INTEGER: Final = {"type": "integer", "minimum": 0, "maximum": 1 << 62}
_TIME: Final = {
    "type": "string",
    "description": "time of day, +1.5s from the beginning, or @NS by the clock of the trace",
}
_DURATION: Final = {"type": "string", "examples": ["10ms", "1.5s"]}
_TEXT: Final = {"type": "string"}
_SESSIONS: Final = {"type": "array", "items": {"type": "string", "format": "uuid"}}
_BOOLEAN: Final = {"type": "string", "enum": ["true", "false", "1", "0", ""]}


def _whole(least: int, most: int = 1 << 62) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


def _decimal(least: float) -> dict[str, Any]:
    return {"type": "number", "minimum": least}


def _many(*values: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "enum": list(values)}}


@dataclass(frozen=True, slots=True)
class Operation:
    """One way to ask the service for something."""

    method: str
    path: str
    text: str
    query: Mapping[str, Any] = field(default_factory=dict)
    """parameters: name -> schema"""
    required: tuple[str, ...] = ()
    body: str | None = None
    """media type of what is sent"""
    schema: Mapping[str, Any] = field(default_factory=dict)
    """of the body, where it is JSON"""
    answers: Mapping[int, str | None] = field(default_factory=lambda: {200: _JSON})
    """status -> media type"""
    problems: tuple[int, ...] = ()
    """statuses of refusals, beside those that all have"""


_S: Final = "/v1/sessions/{session}"
_ASKED: Final = (400, 404, 422, 503)
_PICTURE: Final[Mapping[int, str | None]] = {200: _MSGPACK, 202: _JSON}
KINDS: Final = ("span", "region", "task", "step", "queue", "wait")
_COMMAND: Final = {
    "type": "object",
    "required": ["do"],
    "properties": {
        "do": {"enum": ["start", "stop", "snapshot", "set"]},
        "seconds": {"type": ["number", "null"], "exclusiveMinimum": 0},
        "options": {"type": "object"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "patience": {"type": "number", "exclusiveMinimum": 0},
    },
}
_LOGIN: Final = {
    "type": "object",
    "required": ["token"],
    "properties": {"token": {"type": "string"}},
}

OPERATIONS: Final = (
    Operation(
        "POST",
        f"{_S}/frames",
        "Take bytes of a session's stream; the answer has the durable offset.",
        {"offset": _INTEGER},
        body=_FRAMES,
        problems=(400, 408, 409, 413, 415, 422, 429, 503, 507),
    ),
    Operation(
        "GET",
        f"{_S}/frames",
        "The stream from an offset on; with follow, what comes, too.",
        {"from": _INTEGER, "follow": _BOOLEAN},
        answers={200: _FRAMES},
        problems=(400, 404, 416, 422, 503),
    ),
    Operation(
        "GET",
        f"{_S}/live",
        "The same as server-sent events.",
        {"from": _INTEGER, "plain": _BOOLEAN},
        answers={200: "text/event-stream"},
        problems=(400, 404, 416, 422, 503),
    ),
    Operation(
        "GET",
        "/v1/sessions",
        "Sessions, the youngest first.",
        {
            "source": _TEXT,
            "state": {"type": "string", "enum": list(get_args(State))},
            "since": _INTEGER,
            "until": _INTEGER,
            "tables": _BOOLEAN,
            "limit": _whole(1, 1000),
            "cursor": _TEXT,
        },
        problems=(400, 503),
    ),
    Operation("GET", _S, "What is known of a session, with its ledger.", problems=_ASKED),
    Operation(
        "DELETE", _S, "Forget a session.", answers={204: None}, problems=(404, 409, 422, 503)
    ),
    Operation("GET", f"{_S}/summary", "What it spent its time on.", problems=_ASKED),
    Operation(
        "GET", f"{_S}/tasks", "The tree of tasks at an instant.", {"at": _TIME}, problems=_ASKED
    ),
    Operation(
        "GET",
        f"{_S}/why",
        "The critical path of a span, or of a window.",
        {"span": _TEXT, "from": _TIME, "to": _TIME, "task": _whole(1), "with": _SESSIONS},
        problems=_ASKED,
    ),
    Operation(
        "GET",
        f"{_S}/stalls",
        "Long steps, and whom they delayed.",
        {"over": _DURATION, "most": _whole(1, 1000)},
        problems=_ASKED,
    ),
    Operation(
        "GET",
        f"{_S}/latency",
        "Histograms.",
        {"of": _many("span", "region", "task", "step", "queue", "wait")},
        problems=_ASKED,
    ),
    Operation(
        "GET",
        f"{_S}/lint",
        "Problems that the trace shows by itself.",
        {
            "only": {"type": "array", "items": _TEXT},
            "step": _DURATION,
            "patience": _DURATION,
            "tasks": _whole(2),
            "own": _BOOLEAN,
        },
        problems=_ASKED,
    ),
    Operation(
        "GET",
        f"{_S}/diff",
        "What became slower since another session.",
        {"before": _TEXT, "ratio": _decimal(1), "time": _DURATION, "count": _whole(1)},
        required=("before",),
        problems=_ASKED,
    ),
    Operation(
        "GET",
        f"{_S}/export/{{format}}",
        "The session in the format of another tool.",
        answers={200: "*/*"},
        problems=(404, 422, 503),
    ),
    Operation(
        "GET",
        f"{_S}/parquet/{{table}}",
        "A table of a finished session, Parquet; ranges are understood.",
        answers={200: _PARQUET, 206: _PARQUET},
        problems=(404, 412, 416, 422, 503),
    ),
    Operation(
        "GET",
        f"{_S}/cut",
        "What lies between two times, in whole generations, as a trace.",
        {"from": _TIME, "to": _TIME},
        answers={200: _FRAMES},
        problems=_ASKED,
    ),
    Operation(
        "GET",
        f"{_S}/timeline",
        "What is on the rows of a window, for a picture; 202 while it is being indexed.",
        {
            "start": _INTEGER,
            "end": _INTEGER,
            "width": _whole(1, 8192),
            "rows": _TEXT,
            "rough": _BOOLEAN,
        },
        answers=_PICTURE,
        problems=_ASKED,
    ),
    Operation(
        "GET",
        f"{_S}/outline",
        "Which rows there are.",
        {"rough": _BOOLEAN},
        answers=_PICTURE,
        problems=_ASKED,
    ),
    Operation(
        "GET",
        f"{_S}/sums",
        "How long tasks were in which state.",
        {"start": _INTEGER, "end": _INTEGER, "tasks": _TEXT},
        answers=_PICTURE,
        problems=_ASKED,
    ),
    Operation(
        "GET",
        f"{_S}/phase",
        "What a task did at a time.",
        {"task": _INTEGER, "time": _INTEGER},
        answers=_PICTURE,
        problems=_ASKED,
    ),
    Operation(
        "GET",
        f"{_S}/piece",
        "A span or a region.",
        {"kind": {"type": "string", "enum": ["span", "region"]}, "id": _INTEGER},
        answers=_PICTURE,
        problems=_ASKED,
    ),
    Operation(
        "GET",
        f"{_S}/search",
        "Spans, regions and messages by text.",
        {"text": {"type": "string", "minLength": 1, "maxLength": 200}},
        required=("text",),
        answers=_PICTURE,
        problems=_ASKED,
    ),
    Operation(
        "GET",
        f"{_S}/instances",
        "The longest of a kind and name.",
        {
            "kind": {"type": "string", "enum": list(KINDS)},
            "name": _TEXT,
            "low": _INTEGER,
            "high": _INTEGER,
        },
        answers=_PICTURE,
        problems=_ASKED,
    ),
    Operation(
        "GET",
        f"{_S}/instant",
        "All tasks that live at a time, in columns.",
        {"at": _INTEGER},
        answers=_PICTURE,
        problems=_ASKED,
    ),
    Operation(
        "GET",
        "/v1/fleet",
        "Sessions of several programs on one axis of time.",
        {"session": _SESSIONS},
        required=("session",),
        problems=_ASKED,
    ),
    Operation("GET", "/v1/clock", "The service's clock; the header tracesvc-clock tells it too."),
    Operation("GET", "/v1/sources", "Programs that wait for commands."),
    Operation(
        "GET",
        "/v1/sources/{source}/agent",
        "Wait for commands, a JSON object a line.",
        {"label": {"type": "array", "items": _TEXT}, "host": _TEXT, "pid": _TEXT},
        answers={200: "application/x-ndjson"},
        problems=(400, 403, 503),
    ),
    Operation(
        "POST",
        "/v1/sources/{source}/commands",
        "Have programs do something; source * is all of them.",
        body=_JSON,
        schema=_COMMAND,
        problems=(404, 413, 422, 503),
    ),
    Operation(
        "POST",
        "/v1/agents/{agent}",
        "What became of a command.",
        body=_JSON,
        schema={"type": "object"},
        answers={204: None},
        problems=(404, 413, 422, 503),
    ),
    Operation(
        "POST",
        "/v1/login",
        "Keep a token in the page's cookie.",
        body=_JSON,
        schema=_LOGIN,
        answers={204: None},
        problems=(401, 413, 422),
    ),
    Operation("POST", "/v1/logout", "Forget it.", answers={204: None}),
    Operation("GET", "/v1/whoami", "What this request may do."),
    Operation("GET", "/healthz", "The process answers."),
    Operation("GET", "/readyz", "It can take traces.", problems=(503,)),
    Operation("GET", "/metrics", "For Prometheus.", answers={200: "text/plain"}),
    Operation("GET", "/openapi.json", "This."),
)


def document() -> dict[str, Any]:
    """The description of the API."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tracesvc",
            "version": version("tracesvc"),
            "description": "Collects, keeps, streams and explains the traces of trio programs.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Problem": {
                    "type": "object",
                    "description": "RFC 9457; code names it for programs",
                    "required": ["title", "status", "code", "detail"],
                    "properties": {
                        "title": _TEXT,
                        "status": {"type": "integer"},
                        "code": _TEXT,
                        "detail": _TEXT,
                        "offset": {"type": ["integer", "null"]},
                    },
                }
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    right = next(
        needed
        for methods, pattern, needed in (*RULES, (("DELETE",), RULES[1][1], "admin"))
        if operation.method in methods and pattern.fullmatch(_example(operation.path))
    )
    refused = {*operation.problems, *(() if right is None else (401, 403))}
    described: dict[str, Any] = {
        "summary": operation.text,
        "operationId": f"{operation.method.lower()}{operation.path.replace('/', '-')}",
        "parameters": [*_in_path(operation), *_in_query(operation)],
        "responses": {
            **{str(s): _content(kind) for s, kind in operation.answers.items()},
            **{str(s): _PROBLEM for s in sorted(refused)},
        },
    }
    if right is not None:
        described["security"] = [{"token": []}, {}]
        described["x-scope"] = str(right)
    if operation.body is not None:
        schema = operation.schema or {"type": "string", "format": "binary"}
        described["requestBody"] = {
            "required": True,
            "content": {operation.body: {"schema": schema}},
        }
    return described


_PROBLEM: Final = {
    "description": "Refused.",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def _content(kind: str | None) -> dict[str, Any]:
    return {"description": "Done."} | ({} if kind is None else {"content": {kind: {}}})


def _example(path: str) -> str:
    return path.replace("{", "").replace("}", "")


def _in_path(operation: Operation) -> list[dict[str, Any]]:
    schemas = {"session": {"type": "string", "format": "uuid"}}
    return [
        {"name": name, "in": "path", "required": True, "schema": schemas.get(name, _TEXT)}
        for name in ("session", "format", "source", "agent", "table")
        if f"{{{name}}}" in operation.path
    ]


def _in_query(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": name in operation.required, "schema": schema}
        for name, schema in operation.query.items()
    ]


async def description(_request: Request) -> Response:
    """``GET /openapi.json``."""
    return JSONResponse(document())
