"""The service as an ASGI application."""

from __future__ import annotations

import trio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from tracesvc.service import access, commands, resources, streams
from tracesvc.service.answers import Answers
from tracesvc.service.config import Config
from tracesvc.service.exports import Exports, export
from tracesvc.service.ingest import Shortcut, ingest
from tracesvc.service.page import page
from tracesvc.service.problems import Guard, handlers
from tracesvc.service.questions import question_routes
from tracesvc.service.timeline import Indexes, picture_routes
from tracesvc.store import Store

__all__ = ["make_app"]


def make_app(
    store: Store, config: Config, stopping: trio.Event, gate: access.Gate | None = None
) -> Starlette:
    """``stopping`` is set when the service is to end: streams end then, and `readyz` says so.

    ``gate``: who may come in; None: everybody may do everything.
    """
    app = Starlette(
        routes=[
            # first what comes most often: routes are tried in this order
            Route("/v1/sessions/{session}/frames", ingest, methods=["POST"]),
            Route("/v1/sessions", resources.sessions),
            Route("/v1/sessions/{session}", resources.session, methods=["GET", "DELETE"]),
            Route("/v1/sessions/{session}/frames", streams.frames),
            Route("/v1/sessions/{session}/live", streams.live),
            *question_routes("/v1/sessions/{session}"),
            *picture_routes("/v1/sessions/{session}"),
            Route("/v1/sessions/{session}/export/{format}", export),
            Route("/v1/sources", commands.sources),
            Route("/v1/sources/{source}/agent", commands.listen),
            Route("/v1/sources/{source}/commands", commands.command, methods=["POST"]),
            Route("/v1/agents/{agent}", commands.report, methods=["POST"]),
            Route("/v1/login", access.login, methods=["POST"]),
            Route("/v1/logout", access.logout, methods=["POST"]),
            Route("/v1/whoami", access.whoami),
            Route("/healthz", resources.health),
            Route("/readyz", resources.ready),
            Route("/", page),
            Route("/{file}", page),
        ],
        middleware=[
            Middleware(Guard),
            Middleware(access.AccessControl, gate=gate, store=store),
            Middleware(Shortcut),
        ],  # whatever is to see every request: between them
        exception_handlers=handlers,
    )
    app.state.store = store
    app.state.config = config
    app.state.stopping = stopping
    app.state.answers = Answers(config)
    app.state.agents = commands.Agents()
    app.state.exports = Exports()
    app.state.indexes = Indexes()
    return app
