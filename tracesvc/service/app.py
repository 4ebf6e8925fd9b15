"""The service as an ASGI application."""

from __future__ import annotations

import trio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from tracesvc.service import resources, streams
from tracesvc.service.config import Config
from tracesvc.service.ingest import Shortcut, ingest
from tracesvc.service.problems import Guard, handlers
from tracesvc.store import Store

__all__ = ["make_app"]


def make_app(store: Store, config: Config, stopping: trio.Event) -> Starlette:
    """``stopping`` is set when the service is to end: streams end then, and `readyz` says so."""
    app = Starlette(
        routes=[
            # first what comes most often: routes are tried in this order
            Route("/v1/sessions/{session}/frames", ingest, methods=["POST"]),
            Route("/v1/sessions", resources.sessions),
            Route("/v1/sessions/{session}", resources.session, methods=["GET", "DELETE"]),
            Route("/v1/sessions/{session}/frames", streams.frames),
            Route("/v1/sessions/{session}/live", streams.live),
            Route("/v1/sessions/{session}/summary", resources.summary),
            Route("/healthz", resources.health),
            Route("/readyz", resources.ready),
        ],
        middleware=[
            Middleware(Guard),
            Middleware(Shortcut),
        ],  # whatever is to see every request: between them
        exception_handlers=handlers,
    )
    app.state.store = store
    app.state.config = config
    app.state.stopping = stopping
    app.state.summaries = resources.Summaries()
    return app
