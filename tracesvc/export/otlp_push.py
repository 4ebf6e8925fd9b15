"""Sends spans to whoever receives OTLP over HTTP: an OpenTelemetry collector, Jaeger, Tempo."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final

__all__ = ["Push"]

ATTEMPTS: Final = 4
"""of each request; the receiver's busy answers (429, 502, 503, 504) and broken connections are tried again"""
_BUSY: Final = {429, 502, 503, 504}


class Push:
    """Callable with one whole message at a time; a context manager that closes its connection.

    Args:
        url: Of the receiver; without a path ``/v1/traces`` is put behind it.
        headers: Sent along, for authentication.
        timeout: Seconds for one request.
        wait: Seconds before the second attempt, doubled with each further one.

    Raises:
        ImportError: httpx2 is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
        wait: float = 0.5,
    ) -> None:
        try:
            import httpx2
        except ImportError as exc:
            raise ImportError("pushing needs httpx2: pip install 'tracesvc[push]'") from exc
        rest = url.split("://", 1)[-1]
        self._url = url if "/" in rest.rstrip("/") else f"{url.rstrip('/')}/v1/traces"
        self._wait = wait
        self._errors: Any = httpx2.TransportError
        sent = {"content-type": "application/x-protobuf", **(headers or {})}
        self._client = httpx2.Client(headers=sent, timeout=timeout)
        self.requests = 0
        """that were accepted"""

    def __enter__(self) -> Callable[[bytes], None]:
        return self.send

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._client.close()

    def send(self, data: bytes) -> None:
        """Deliver one ``ExportTraceServiceRequest``.

        Raises:
          OSError: the receiver refused it, or could not be reached.
        """
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(self._wait * 2 ** (attempt - 1))
            try:
                answer = self._client.post(self._url, content=data)
            except self._errors as exc:
                problem = f"cannot be reached: {exc}"
                continue
            if answer.status_code < 300:
                self.requests += 1
                return
            problem = f"answered {answer.status_code}"
            if answer.status_code not in _BUSY:
                break
        raise OSError(f"{self._url} {problem}")
