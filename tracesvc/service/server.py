"""The one module that knows which HTTP server runs: anycorn, or hypercorn."""

from __future__ import annotations

import functools
import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from tracesvc.service.tls import Certificate

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["listen", "run"]

log = logging.getLogger("tracesvc.service")

USER_TIMEOUT: Final = 30_000
"""ms that a client may leave what was sent to it unacknowledged; then the kernel drops it"""
NOTSENT: Final = 64 << 10
"""bytes that the kernel takes for a client beyond what it has sent already"""
HANG_UP_AFTER: Final = 2.0
"""seconds beyond the grace: then connections are closed however busy they are"""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; its options pass to every connection that it accepts.

    Raises:
      OSError: there is no such address here, or it is in use.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT)
        listener.bind(address)
        listener.listen(1024)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


async def run(
    app: ASGIApp,
    listener: socket.socket,
    stopping: trio.Event,
    *,
    grace: float,
    server: str = "anycorn",
    certificate: Certificate | None = None,
    idle_timeout: float = 30.0,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``stopping`` is set, and then for ``grace`` seconds what is in flight. Takes ``listener`` over."""
    serve, config = _anycorn() if server == "anycorn" else _hypercorn()
    address = listener.getsockname()
    config.bind = [f"fd://{listener.detach()}"]
    config.backlog = 1024
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    config.graceful_timeout = grace
    config.keep_alive_timeout = idle_timeout

    if certificate is not None:
        certificate.serve_by(config)

    async def hang_up_late() -> None:
        await stopping.wait()
        await trio.sleep(grace + HANG_UP_AFTER)
        _hang_up(address)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang_up_late)
        await serve(app, config, shutdown_trigger=stopping.wait, task_status=_Started(task_status))
        nursery.cancel_scope.cancel()


class _Started:
    """Both servers tell the URLs that they serve; here nobody needs them."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status = task_status

    def started(self, _urls: list[str]) -> None:
        self._task_status.started()


def _anycorn() -> tuple[Any, Any]:
    from anycorn import Config, serve
    from anycorn.tcp_server import TCPServer

    _contain(TCPServer)
    return serve, Config()


def _hypercorn() -> tuple[Any, Any]:
    from hypercorn.config import Config
    from hypercorn.trio import serve
    from hypercorn.trio.tcp_server import TCPServer

    _contain(TCPServer)
    return serve, Config()


def _contain(connections: Any) -> None:
    """Whatever goes wrong with one connection ends that one, and so does its client.

    Both servers let what their protocols raise pass on into the nursery of all connections: one request with a bad
    ``http2-settings`` header ended the service.  And both keep a connection whose client has gone until the time for
    its next request is over, so that clients that come and go took file descriptors for half a minute each.
    """
    run, read = connections.run, connections._read_data
    if hasattr(run, "__wrapped__"):
        return

    @functools.wraps(run)
    async def contained(self: Any) -> None:
        try:
            await run(self)
        except* Exception as found:
            log.warning("a connection is given up: %r", _first(found))

    async def read_to_the_end(self: Any) -> None:
        await read(self)
        await self.idle_task.stop()

    connections.run, connections._read_data = contained, read_to_the_end


def _first(exc: BaseException) -> BaseException:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def _hang_up(address: Any) -> None:
    """Shut down every connection of this process that was accepted at ``address``.

    Both servers shield their sending, so no cancellation ends a connection whose client has stopped reading; this
    makes the send fail.
    """
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not entry.is_socket():
                continue
            connection = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:
            continue  # closed meanwhile
        with connection:
            try:
                connection.getpeername()
                if connection.getsockname()[1] == address[1]:
                    connection.shutdown(socket.SHUT_RDWR)
            except (OSError, IndexError, TypeError):
                continue  # a listener, or no TCP
