"""The service as an ASGI application."""

from __future__ import annotations

from typing import Any

import trio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from tracesvc.control.debug import debug_app
from tracesvc.service import access, commands, metrics, resources, streams
from tracesvc.service.answers import Answers
from tracesvc.service.clock import clock
from tracesvc.service.config import Config
from tracesvc.service.exports import Exports, cut, export
from tracesvc.service.ingest import Shortcut, ingest
from tracesvc.service.limits import Limits
from tracesvc.service.openapi import description
from tracesvc.service.overviews import Overviews
from tracesvc.service.page import page
from tracesvc.service.parquet import parquet
from tracesvc.service.problems import Guard, handlers
from tracesvc.service.questions import fleet, question_routes
from tracesvc.service.relay import Relays
from tracesvc.service.replicas import Replicas
from tracesvc.service.timeline import Indexes, picture_routes
from tracesvc.sinks.flight import FlightRecorder
from tracesvc.store import Store

__all__ = ["make_app"]


async def _frames(request: Request) -> Response:
    """In and out; what comes in by an ordinary path has not come by here, see `Shortcut`."""
    return await (ingest if request.method == "POST" else streams.frames)(request)


def _admitted(_scope: Any) -> bool:
    """Whoever gets as far as that has been asked: it is for administrators."""
    return True


def make_app(
    store: Store,
    config: Config,
    stopping: trio.Event,
    gate: access.Gate | None = None,
    flight: FlightRecorder | None = None,
    replicas: Replicas | None = None,
) -> Starlette:
    """``stopping`` is set when the service is to end: streams end then, and `readyz` says so.

    ``gate``: who may come in; None: everybody may do everything.  ``flight``: of the service itself.
    ``replicas``: what finds the agents of the others; whoever gives it runs it.
    """
    measured = metrics.Metrics(config.data)
    app = Starlette(
        routes=[
            # first what comes most often: routes are tried in this order
            Route("/v1/sessions", resources.sessions),
            Route("/v1/sessions/{session}", resources.session, methods=["GET", "DELETE"]),
            Route("/v1/sessions/{session}/frames", _frames, methods=["GET", "POST"]),
            Route("/v1/sessions/{session}/live", streams.live),
            *question_routes("/v1/sessions/{session}"),
            *picture_routes("/v1/sessions/{session}"),
            Route("/v1/sessions/{session}/export/{format}", export),
            Route("/v1/sessions/{session}/parquet/{table}", parquet),
            Route("/v1/clock", clock),
            Route("/v1/fleet", fleet),
            Route("/v1/sessions/{session}/cut", cut),
            Route("/v1/sources", commands.sources),
            Route("/v1/sources/{source}/agent", commands.listen),
            Route("/v1/sources/{source}/commands", commands.command, methods=["POST"]),
            Route("/v1/agents/{agent}", commands.report, methods=["POST"]),
            Route("/v1/login", access.login, methods=["POST"]),
            Route("/v1/logout", access.logout, methods=["POST"]),
            Route("/v1/whoami", access.whoami),
            Route("/metrics", metrics.metrics),
            Route("/openapi.json", description),
            Route("/healthz", resources.health),
            Route("/readyz", resources.ready),
            Mount("/debug", debug_app(_admitted, flight=flight)),
            Route("/", page),
            Route("/{file}", page),
        ],
        middleware=[
            Middleware(Guard),
            Middleware(metrics.Metered, metrics=measured),
            Middleware(access.AccessControl, gate=gate, store=store),
            Middleware(Shortcut),
        ],  # whatever is to see every request: between them
        exception_handlers=handlers,
    )
    app.state.store = store
    app.state.config = config
    app.state.stopping = stopping
    app.state.answers = Answers(config)
    app.state.metrics = measured
    app.state.limits = Limits(config)
    app.state.followers = streams.Followers()
    app.state.relays = Relays(store)
    measured.followers.set_function(lambda: app.state.followers.count)
    measured.agents.set_function(lambda: len(app.state.agents))
    app.state.agents = commands.Agents(replicas)
    app.state.exports = Exports()
    app.state.overviews = Overviews(store, config.overview_events)
    app.state.indexes = Indexes(app.state.overviews)
    return app
