"""The HTTP service: collects, keeps and streams the sessions of many programs."""

from __future__ import annotations

from functools import partial

import trio

from tracesvc.service import server
from tracesvc.service.app import make_app
from tracesvc.service.config import Config, parse_address
from tracesvc.store import FileStore

__all__ = ["Config", "ServiceError", "make_app", "parse_address", "serve"]


class ServiceError(Exception):
    """The service cannot run; the message says why, and what to do about it."""


async def serve(
    config: Config,
    *,
    stopping: trio.Event | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the service until ``stopping`` is set, then end it in good order.

    ``task_status`` is told the URL once the service answers.

    Raises:
      ServiceError: the address cannot be listened on.
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
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        async with (
            FileStore.open(config.data, keep=config.keep) as store,
            trio.open_nursery() as nursery,
        ):
            app = make_app(store, config, stopping)
            await nursery.start(
                partial(
                    server.run, app, listener, stopping, grace=config.grace, server=config.server
                )
            )
            task_status.started(url)
