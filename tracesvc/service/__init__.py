"""The HTTP service: collects, keeps and streams the sessions of many programs."""

from __future__ import annotations

import ipaddress
import logging
import os
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from typing import Any, Final

import trio

from tracesvc.recorder.tracer import current_tracer
from tracesvc.service import server
from tracesvc.service.access import Gate
from tracesvc.service.app import make_app
from tracesvc.service.config import Config, parse_address
from tracesvc.service.metrics import Metrics, watch_loop
from tracesvc.service.replicas import Replicas
from tracesvc.service.tls import Certificate, CertificateError
from tracesvc.service.tokens import Scope, TokenError, TokenFile, make_token, parse_tokens
from tracesvc.sinks.delivery import open_tracer
from tracesvc.sinks.flight import FlightRecorder
from tracesvc.store import Compact, FileStore, Fleet, JetStreamStore, Store

__all__ = [
    "Certificate",
    "CertificateError",
    "Config",
    "ServiceError",
    "gate_of",
    "make_app",
    "parse_address",
    "serve",
]

log = logging.getLogger("tracesvc.service")

TOKENS: Final = "TRACESVC_TOKENS"
"""environment variable with tokens, see `tracesvc.service.tokens.parse_tokens`"""


class ServiceError(Exception):
    """The service cannot run; the message says why, and what to do about it."""


async def serve(
    config: Config,
    *,
    certificate: Certificate | None = None,
    store: Store | None = None,
    shown: Sequence[str] = (),
    stopping: trio.Event | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the service until ``stopping`` is set, then end it in good order.

    ``certificate``: what it says of itself in TLS; it may be told to `Certificate.reload`.  ``store`` takes the
    place of the one in the data directory.  ``shown``: sessions that somebody is about to look
    at, which are indexed at once.  ``task_status`` is told the URL once the service answers.

    Raises:
      ServiceError: the address cannot be listened on, or the tokens cannot be read.
      StoreError: the data directory cannot be used.
    """
    if stopping is None:
        stopping = trio.Event()
    try:
        listener = server.listen(config.host, config.port)
    except OSError as exc:
        raise ServiceError(
            f"cannot listen on {config.host}:{config.port}: {exc.strerror or exc}; "
            "choose another address, or port 0 for any free one"
        ) from exc
    with listener:
        host, port = listener.getsockname()[:2]
        scheme = "http" if certificate is None else "https"
        url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        flight = FlightRecorder() if config.trace_itself else None
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(_traced(flight))
            if store is None:
                store = await stack.enter_async_context(_store(config))
            nursery = await stack.enter_async_context(trio.open_nursery())
            replicas = None
            if isinstance(store, JetStreamStore):
                replicas = Replicas(store.link, store.fleet.stream)
            app = make_app(store, config, stopping, gate_of(config, host), flight, replicas)
            if replicas is not None:
                nursery.start_soon(replicas.run, app.state.agents.hear)
            measured: Metrics = app.state.metrics
            if isinstance(store, FileStore):
                store.observe_commits(measured.commits.observe)
            nursery.start_soon(watch_loop, measured)
            nursery.start_soon(app.state.indexes.let_go)
            for session in shown:
                nursery.start_soon(app.state.indexes.prepare, store, session)
            if config.overview_events:
                nursery.start_soon(app.state.overviews.run)

            async def answer(task_status: trio.TaskStatus[None]) -> None:
                await server.run(
                    app,
                    listener,
                    stopping,
                    grace=config.grace,
                    server=config.server,
                    certificate=certificate,
                    idle_timeout=config.idle_timeout,
                    task_status=task_status,
                )
                nursery.cancel_scope.cancel()  # what watches it is over, too

            await nursery.start(answer)
            task_status.started(url)


def _store(config: Config) -> AbstractAsyncContextManager[Store]:
    """The store that the settings name."""
    compact = None
    if config.compact:
        compact = Compact(memory=config.compact_memory, silent=config.compact_after)
    if not config.store:
        return FileStore.open(config.data, keep=config.keep, compact=compact)
    fleet = Fleet(
        config.store,
        bucket=config.bucket or None,
        stream=config.stream,
        replicas=config.stream_replicas,
        stream_bytes=config.stream_bytes or -1,
        credentials=config.nats_credentials or None,
        patience=config.nats_patience,
        archiver=config.archiver,
        archive_after=config.archive_after,
        forget_after=config.forget_after,
    )
    copies = config.data / "copies"
    return JetStreamStore.open(fleet, copies, keep=config.keep, compact=compact)


def _traced(flight: FlightRecorder | None) -> AbstractAsyncContextManager[Any]:
    """The service's own flight recorder is on; where the process is traced by hand already, that goes on."""
    tracer = current_tracer()
    by_hand = tracer is not None and not tracer.joinable
    return nullcontext() if flight is None or by_hand else open_tracer(flight, name="tracesvc")


def gate_of(config: Config, host: str, *, make: bool = True) -> Gate | None:
    """Who may come in.

    Where others than this machine reach the service, nobody without a token: if there is none yet, one is made
    (``make``).

    Raises:
      ServiceError: the tokens cannot be read, or made.
    """
    if config.insecure:
        return None
    try:
        more = parse_tokens(os.environ.get(TOKENS, ""))
        tokens = TokenFile(config.tokens or config.data / "tokens.json", more)
        known = len(tokens.look(time.monotonic()))
        here = ipaddress.ip_address(host).is_loopback
        if make and not here and not known:
            text, token = make_token(Scope, note="made at the first start")
            tokens.write([token])
            log.warning(
                "there are no tokens yet, so here is one for everything, shown once: %s", text
            )
    except TokenError as exc:
        raise ServiceError(f"the tokens cannot be used: {exc}") from exc
    return Gate(tokens, open_without=here)
