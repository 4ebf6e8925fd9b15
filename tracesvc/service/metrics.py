"""What the service says of itself to Prometheus.

Names and labels are an interface: what is here stays.  No label has a value that a client can invent.
"""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import trio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracesvc.store import Store

__all__ = ["Metered", "Metrics", "metrics", "watch_loop"]

BEAT: Final = 0.1
"""seconds between looks at the run loop"""
SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
PROBLEM: Final = b"tracesvc-problem"
"""header of an answer that refuses: its code"""


class Metrics:
    """The figures of one service."""

    def __init__(self, data: Path) -> None:
        self.registry: Final = CollectorRegistry()
        self._data: Final = data
        self.requests: Final = Counter(
            "tracesvc_requests",
            "Requests answered.",
            ["endpoint", "status"],
            registry=self.registry,
        )
        self.refusals: Final = Counter(
            "tracesvc_refusals", "Requests refused.", ["code"], registry=self.registry
        )
        self.seconds: Final = Histogram(
            "tracesvc_request_seconds",
            "From the request to the end of the answer; not of streams that follow.",
            ["endpoint"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.ingested: Final = Counter(
            "tracesvc_ingested_bytes", "Bytes of frames made durable.", registry=self.registry
        )
        self.commits: Final = Histogram(
            "tracesvc_commit_seconds",
            "Writing and syncing what waited, all together.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.followers: Final = Gauge(
            "tracesvc_followers", "Streams that follow a session.", registry=self.registry
        )
        self.agents: Final = Gauge(
            "tracesvc_agents", "Programs that wait for commands.", registry=self.registry
        )
        self.worst_lag = 0.0
        """seconds that the run loop was late at worst, since that was asked for last"""

    def gather(self, totals: Mapping[str, Mapping[str, int]]) -> Iterator[Metric]:
        """What is measured when it is asked for; ``totals`` as of `Store.totals`."""
        for name, label, text in (
            ("sessions", "state", "Sessions that are kept."),
            ("stored", "what", "What is kept of them: bytes, frames, events."),
            ("lost_events", "cause", "Events that their traces say were lost."),
        ):
            family = GaugeMetricFamily(f"tracesvc_{name}", text, labels=[label])
            for value, count in totals[name].items():
                family.add_metric([value], count)
            yield family
        lag, self.worst_lag = self.worst_lag, 0.0
        yield GaugeMetricFamily(
            "tracesvc_loop_lag_seconds", "Worst lateness of the run loop since last asked.", lag
        )
        yield GaugeMetricFamily(
            "tracesvc_disk_free_bytes",
            "Free on the disk of the sessions.",
            shutil.disk_usage(self._data).free,
        )
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield GaugeMetricFamily(
            "tracesvc_cpu_seconds", "CPU of the process.", usage.ru_utime + usage.ru_stime
        )
        fields = Path("/proc/self/statm").read_text().split()
        yield GaugeMetricFamily(
            "tracesvc_resident_bytes", "Memory.", int(fields[1]) * resource.getpagesize()
        )
        yield GaugeMetricFamily(
            "tracesvc_open_files",
            "File descriptors.",
            sum(1 for _ in Path("/proc/self/fd").iterdir()),
        )


class Metered:
    """The layer that counts requests, and how they were answered."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        metrics, began = self._metrics, trio.current_time()
        status, code = 500, ""

        async def counted(message: Message) -> None:
            nonlocal status, code
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= 400:
                    code = next(
                        (v.decode() for n, v in message["headers"] if n == PROBLEM), "other"
                    )
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            endpoint = _endpoint(scope)
            metrics.requests.labels(endpoint, str(status)).inc()
            if code:
                metrics.refusals.labels(code).inc()
            if not scope.get("tracesvc.endless"):
                metrics.seconds.labels(endpoint).observe(trio.current_time() - began)


def _endpoint(scope: Scope) -> str:
    """The name of what answered: one of a few."""
    found: Any = scope.get("endpoint")
    return str(getattr(found, "__name__", "none"))


async def metrics(request: Request) -> Response:
    """``GET /metrics``."""
    state = request.app.state
    store: Store = state.store
    own: Metrics = state.metrics
    gathered = list(own.gather(await store.totals()))

    class Now:
        def collect(self) -> Iterator[Metric]:
            yield from own.registry.collect()
            yield from gathered

    encode, kind = choose_encoder(request.headers.get("accept", ""))
    now: Any = Now()
    return Response(encode(now), headers={"content-type": kind, "cache-control": "no-store"})


async def watch_loop(metrics: Metrics) -> None:
    """Until cancelled: how late the run loop is."""
    while True:
        due = trio.current_time() + BEAT
        await trio.sleep_until(due)
        metrics.worst_lag = max(metrics.worst_lag, trio.current_time() - due)
