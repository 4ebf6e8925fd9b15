"""``tracesvc serve``: the service in the foreground, until SIGTERM or SIGINT."""

from __future__ import annotations

import ast
import gc
import inspect
import itertools
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tracesvc.cli.amounts import BYTES, SECONDS
from tracesvc.service.config import Config, parse_address
from tracesvc.store import Keep

if TYPE_CHECKING:
    from tracesvc.service import Certificate

__all__ = ["command"]

PREFIX: Final = "TRACESVC_SERVE"
"""of environment variables: --max-body is TRACESVC_SERVE_MAX_BODY"""
BY_THEMSELVES: Final = {
    *("data", "host", "port", "tokens", "insecure", "tls_certificate", "tls_key", "server", "keep")
}
"""fields of `Config` that have an option made for them; the others get one made of their name"""
COLLECTIONS: Final = 10_000, 20, 20
"""thresholds of the garbage collector: with Python's own it took a third of the time with 1,000 followers, for hardly
anything here is garbage in cycles"""


_KINDS: Final[dict[str, click.ParamType[Any]]] = {
    "int": click.IntRange(0),
    "float": click.FloatRange(0),
    "bool": click.BOOL,
}


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, int]:
    try:
        return parse_address(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


def _file(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    """Take what a configuration file says for defaults: flags and the environment go before it."""
    if value is None:
        return
    try:
        found = tomllib.loads(value.read_text())
    except OSError as exc:
        raise click.BadParameter(f"{value}: {exc.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise click.BadParameter(f"{value} is no TOML: {exc}") from None
    known = {other.name for other in context.command.params} - {"config", "check"}
    if unknown := {*found} - known:
        raise click.BadParameter(f"{value}: there is no setting {min(unknown)!r}")
    context.default_map = found


def _meanings() -> dict[str, str]:
    """What `Config` says of each of its fields, in the text below it: sizes are bytes, times seconds."""
    found = {}
    (config,) = (
        node for node in ast.parse(inspect.getsource(Config)).body if isinstance(node, ast.ClassDef)
    )
    for node, after in itertools.pairwise(config.body):
        if isinstance(node, ast.AnnAssign) and isinstance(after, ast.Expr):
            name, text = ast.unparse(node.target), str(ast.literal_eval(after.value))
            plain = re.sub(r"``|, see `[^`]*`", "", " ".join(text.split()))
            found[name] = f"{plain[0].upper()}{plain[1:]}."
    return found


def _settings(function: Any) -> Any:
    """An option for each setting that has none of its own."""
    own = [f for f in fields(Config) if f.name not in BY_THEMSELVES]
    meanings = _meanings()
    for field in reversed(own):
        name = field.name.replace("_", "-")
        function = click.option(
            f"--{name}/--no-{name}" if field.type == "bool" else f"--{name}",
            default=field.default,
            show_default=True,
            type=_KINDS.get(str(field.type).removesuffix(" | None"), click.STRING),
            help=meanings[field.name],
        )(function)
    return function


@click.command("serve", context_settings={"auto_envvar_prefix": PREFIX})
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=_file,
    help="TOML with settings by the names of these options; flags and environment go before it.",
)
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
    type=SECONDS,
    metavar="TIME",
    help="Delete sessions so long after their last frame, like 30d; else never.",
)
@click.option(
    "--keep-bytes",
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
    "--server",
    default="anycorn",
    show_default=True,
    type=click.Choice(["anycorn", "hypercorn"]),
    help="The HTTP server.",
)
@click.option(
    "--log",
    default="text",
    show_default=True,
    type=click.Choice(["text", "json"]),
    help="How to log to standard error.",
)
@click.option(
    "--log-level",
    default="warning",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="From which level on.",
)
@click.option("--check", is_flag=True, help="Say what would hold and where it is from, and end.")
@_settings
@click.pass_context
def command(
    context: click.Context,
    /,
    listen: tuple[str, int],
    log: str,
    log_level: str,
    check: bool,
    keep: float | None,
    keep_bytes: float | None,
    keep_free: float,
    **settings: Any,
) -> None:
    """Collect, keep and stream the sessions of many programs.

    On an address that others than this machine reach, nothing is open without a token; at the first start one is made
    and shown. Tokens may also come from TRACESVC_TOKENS: SCOPE[,SCOPE][@PREFIX] TOKEN, between semicolons.

    Every setting is a flag, an environment variable (--max-body: TRACESVC_SERVE_MAX_BODY) or a line in the TOML file
    (max_body), and counts in that order.  Numbers are bytes and seconds.
    """
    if (settings["tls_certificate"] is None) != (settings["tls_key"] is None):
        raise click.UsageError("--tls-certificate and --tls-key go together")
    import trio

    from tracesvc.service import CertificateError, ServiceError
    from tracesvc.service.logs import set_up
    from tracesvc.store import StoreError

    kept = Keep(keep, None if keep_bytes is None else int(keep_bytes), int(keep_free))
    host, port = listen
    config = Config(host=host, port=port, keep=kept, **settings)
    set_up(log, log_level)
    try:
        certificate = _certificate(config)
        if check:
            _check(context, config)
            return
        gc.freeze()  # what has been imported stays: no collection need look at it
        gc.set_threshold(*COLLECTIONS)
        trio.run(_serve, config, certificate)
    except* (CertificateError, ServiceError, StoreError) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise SystemExit(f"tracesvc: {error}") from None


def _certificate(config: Config) -> Certificate | None:
    from tracesvc.service import Certificate

    if config.tls_certificate is None or config.tls_key is None:
        return None
    return Certificate(config.tls_certificate, config.tls_key)


def _check(context: click.Context, config: Config) -> None:
    """Print the settings, each with where it is from."""
    from tracesvc.service import gate_of

    gate_of(config, config.host, make=False)
    for parameter in context.command.params:
        name = parameter.name
        if name in ("config", "check", "help"):
            continue
        found = context.get_parameter_source(name)
        source = "?" if found is None else found.name.lower().replace("_", " ")
        where = {"default map": "file", "commandline": "flag"}.get(source, source)
        value = context.params.get(name)
        if name == "listen":
            value = f"{config.host}:{config.port}"
        click.echo(f"{name} = {'' if value is None else value}  ({where})")


async def _serve(config: Config, certificate: Certificate | None) -> None:
    import signal

    import trio

    from tracesvc.service import serve

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
