"""The settings of the service."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tracesvc.store import Keep

__all__ = ["Config", "parse_address"]


def parse_address(text: str) -> tuple[str, int]:
    """(host, port) of ``HOST:PORT`` or ``[IPV6]:PORT``.

    Raises:
      ValueError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ValueError(f"an address to listen on is HOST:PORT, like 127.0.0.1:7070, not {text!r}")
    return host, int(port)


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes are in bytes, times in seconds."""

    data: Path
    """directory of the sessions"""
    host: str = "127.0.0.1"
    port: int = 7070
    """0: any free port"""
    tokens: Path | None = None
    """file of the tokens; None: ``tokens.json`` beside the sessions"""
    insecure: bool = False
    """whether everybody may do everything though others than this machine reach the service"""
    tls_certificate: Path | None = None
    """file of the certificate chain, PEM; read again at SIGHUP, as is the next"""
    tls_key: Path | None = None
    grace: float = 5.0
    """for requests in flight, once the service has been told to stop; two seconds later every connection is closed"""
    max_body: int = 256 << 20
    """of one request; more is answered with 413, and what came before is kept"""
    body_timeout: float = 60.0
    """for the next part of a request's body"""
    question_timeout: float = 60.0
    """for the answer to a question, waiting for its turn included"""
    export_timeout: float = 30.0
    """for a client to take the next 256 KiB of an export"""
    heartbeat: float = 15.0
    """between comments in a stream of server-sent events that has nothing else to say"""
    agent_heartbeat: float = 5.0
    """between signs of life to a program that waits for commands"""
    keep: Keep = field(default_factory=lambda: Keep(free=256 << 20))
    """how long and how much"""
    trace_itself: bool = True
    """whether the service has a flight recorder of itself, for ``GET /debug/...``"""
    server: str = "anycorn"
    """the HTTP server: anycorn or hypercorn"""
