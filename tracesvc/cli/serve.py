"""``tracesvc serve``: the service in the foreground, until SIGTERM or SIGINT."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tracesvc.cli.amounts import BYTES, SECONDS


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int]:
    from tracesvc.service.config import parse_address

    try:
        return parse_address(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


@click.command("serve")
@click.option(
    "--listen",
    default="127.0.0.1:7070",
    show_default=True,
    metavar="HOST:PORT",
    callback=_address,
    help="Where to listen; port 0 takes a free one.",
)
@click.option(
    "--data",
    default="tracesvc-data",
    show_default=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Directory for the sessions; made where there is none.",
)
@click.option(
    "--tokens",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the tokens; else tokens.json in the data directory. See tracesvc token.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Let everybody who reaches the service do everything, without a token.",
)
@click.option(
    "--tls-certificate",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Certificate chain, PEM; read again at SIGHUP.",
)
@click.option(
    "--tls-key",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Its private key, PEM.",
)
@click.option(
    "--keep",
    "age",
    type=SECONDS,
    metavar="TIME",
    help="Delete sessions so long after their last frame, like 30d; else never.",
)
@click.option(
    "--keep-bytes",
    "source_bytes",
    type=BYTES,
    metavar="BYTES",
    help="Delete the oldest sessions of a source that has more, like 20G; else never.",
)
@click.option(
    "--keep-free",
    default="256M",
    show_default=True,
    type=BYTES,
    metavar="BYTES",
    help="Take nothing while less of the disk is free.",
)
@click.option(
    "--grace",
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(0, 3600),
    help="Time for requests in flight, once told to stop.",
)
@click.option(
    "--server",
    default="anycorn",
    show_default=True,
    type=click.Choice(["anycorn", "hypercorn"]),
    help="The HTTP server.",
)
def command(
    listen: tuple[str, int],
    data: Path,
    tokens: Path | None,
    insecure: bool,
    tls_certificate: Path | None,
    tls_key: Path | None,
    age: float | None,
    source_bytes: float | None,
    keep_free: float,
    grace: float,
    server: str,
) -> None:
    """Collect, keep and stream the sessions of many programs.

    On an address that others than this machine reach, nothing is open without a token; at the first start one is made
    and shown. Tokens may also come from TRACESVC_TOKENS: SCOPE[,SCOPE][@PREFIX] TOKEN, between semicolons.
    """
    if (tls_certificate is None) != (tls_key is None):
        raise click.UsageError("--tls-certificate and --tls-key go together")
    import logging

    import trio

    from tracesvc.service import CertificateError, Config, ServiceError
    from tracesvc.store import Keep, StoreError

    keep = Keep(age, None if source_bytes is None else int(source_bytes), int(keep_free))
    logging.basicConfig(format="tracesvc: %(message)s", level=logging.WARNING, stream=sys.stderr)
    host, port = listen
    try:
        trio.run(
            _serve,
            Config(
                data,
                host,
                port,
                tokens=tokens,
                insecure=insecure,
                tls_certificate=tls_certificate,
                tls_key=tls_key,
                keep=keep,
                grace=grace,
                server=server,
            ),
        )
    except* (CertificateError, ServiceError, StoreError) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise SystemExit(f"tracesvc: {error}") from None


async def _serve(config: object) -> None:
    import signal

    import trio

    from tracesvc.service import Certificate, Config, serve

    assert isinstance(config, Config)
    certificate = None
    if config.tls_certificate is not None and config.tls_key is not None:
        certificate = Certificate(config.tls_certificate, config.tls_key)
    stopping = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:

            async def serve_to_the_end(task_status: trio.TaskStatus[str]) -> None:
                await serve(
                    config, certificate=certificate, stopping=stopping, task_status=task_status
                )
                nursery.cancel_scope.cancel()

            url = await nursery.start(serve_to_the_end)
            print(f"tracesvc: listening on {url}", flush=True)
            async for number in signals:
                if number == signal.SIGHUP:
                    if certificate is not None:
                        certificate.reload()
                    continue
                if stopping.is_set():  # asked twice: at once
                    nursery.cancel_scope.cancel()
                stopping.set()
