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
    idle_timeout: float = 30.0
    """for the head of a request, and for the next one on a connection"""
    source_posts: float = 0.0
    """posts a second that one source may send, see `tracesvc.service.limits`; here and below 0 is no bound"""
    source_bytes: float = 0.0
    """bytes a second"""
    source_sessions: int = 0
    """sessions of one source that may be live"""
    session_bytes: int = 0
    """of one session"""
    followers: int = 10_000
    """streams that follow a session, all together"""
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
    compact: bool = True
    """whether finished sessions become tables, too, for SQL over many: two to three times the bytes of the trace"""
    compact_memory: int = 1 << 30
    """that one session may take for that"""
    compact_after: float = 3600.0
    """without a frame until that is done with a session that has no end"""
    store: str = ""
    """servers of NATS JetStream that replicas share, ``nats://HOST:PORT``, commas between; empty: the data directory"""
    bucket: str = ""
    """where finished segments go then, like ``s3://BUCKET/PREFIX``; empty: the stream keeps all"""
    stream: str = "tracesvc"
    """the streams' names begin with it, and only replicas with the same one share sessions"""
    stream_replicas: int = 3
    """servers that have each message, where the streams are yet to be made"""
    stream_bytes: int = 0
    """of the stream of frames, where it is yet to be made; 0: without bound of its own"""
    nats_credentials: str = ""
    """file with the credentials of a NATS user"""
    nats_patience: float = 20.0
    """until NATS is given up that does not answer, as where a leader is being elected"""
    archiver: bool = True
    """whether this replica may be the one that moves segments to the bucket"""
    archive_after: float = 60.0
    """without a frame until a session without an end is archived as far as it goes"""
    forget_after: float = 60.0
    """after its last frame until the stream forgets a session that the bucket has as a whole"""
    overview_events: int = 1_000_000
    """of a session that a first picture is kept of once it is over, so that it opens at once; 0: of none"""
    trace_itself: bool = True
    """whether the service has a flight recorder of itself, for ``GET /debug/...``"""
    server: str = "anycorn"
    """the HTTP server: anycorn or hypercorn"""
