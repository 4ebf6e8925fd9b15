"""``tracesvc view``: traces in the browser, served from this machine to itself."""

from __future__ import annotations

import sys
from pathlib import Path

import click

__all__ = ["command"]


@click.command("view", short_help="Traces in the browser.")
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path)
)
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Any free one by default.")
@click.option("--no-browser", is_flag=True, help="Only say where the page is.")
def command(files: tuple[Path, ...], port: int, *, no_browser: bool) -> None:
    """Show traces in the browser: as a timeline, as a tree of tasks in time, as reports.

    The page is served on this machine alone, until Ctrl-C.  A file that is being written is followed.
    """
    import logging

    import trio

    from tracesvc.format import FormatError
    from tracesvc.service import Config, ServiceError
    from tracesvc.store.shown import ShownFiles

    logging.basicConfig(format="tracesvc: %(message)s", level=logging.WARNING, stream=sys.stderr)
    try:
        store = ShownFiles(files)
    except OSError as exc:
        raise SystemExit(f"tracesvc: {exc.filename}: {exc.strerror}") from None
    except FormatError as exc:
        raise SystemExit(f"tracesvc: {exc}") from None
    config = Config(
        files[0].parent, "127.0.0.1", port, grace=0.5, insecure=True, trace_itself=False
    )
    try:
        trio.run(_view, config, store, not no_browser)
    except* ServiceError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise SystemExit(f"tracesvc: {error}") from None


async def _view(config: object, store: object, browser: bool) -> None:
    import signal
    import webbrowser

    import trio

    from tracesvc.service import Config, serve
    from tracesvc.store.shown import ShownFiles

    assert isinstance(config, Config)
    assert isinstance(store, ShownFiles)
    shown = store
    stopping = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def serve_to_the_end(task_status: trio.TaskStatus[str]) -> None:
                await serve(
                    config,
                    store=shown,
                    shown=shown.sessions[:1],
                    stopping=stopping,
                    task_status=task_status,
                )
                nursery.cancel_scope.cancel()

            url = await nursery.start(serve_to_the_end)
            if len(shown.sessions) == 1:
                url = f"{url}/#/s/{shown.sessions[0]}"
            print(f"tracesvc: {url}", flush=True)
            if browser:
                await trio.to_thread.run_sync(webbrowser.open, url, abandon_on_cancel=True)
            async for _ in signals:
                if stopping.is_set():  # asked twice: at once
                    nursery.cancel_scope.cancel()
                stopping.set()
