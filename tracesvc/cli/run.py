"""``tracesvc run``: trace an unmodified program."""

from __future__ import annotations

import atexit
import importlib.util
import io
import os
import signal
import sys
import types
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

import click

from tracesvc.recorder.errors import BlackBoxError
from tracesvc.sinks.base import Sink
from tracesvc.sinks.outside import OutsideTracer

__all__ = ["command"]


@click.command(
    name="run",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    short_help="Trace an unmodified program.",
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), help="Write the trace to this file."
)
@click.option(
    "--push", metavar="URL", help="Push the trace to a service, e.g. http://127.0.0.1:7070."
)
@click.option("--token", envvar="TRACESVC_TOKEN", help="Token for the service.", show_envvar=True)
@click.option(
    "--name", help="What the program is called in the trace; by default its script or module."
)
@click.option(
    "--compress/--no-compress",
    default=None,
    help="zstd in the file; by default where it is installed.",
)
@click.option(
    "--black-box",
    metavar="DIR",
    help="Keep the newest events in DIR (auto: in memory), where they outlive the program: tracesvc recover.",
)
@click.option("-q", "--quiet", is_flag=True, help="No closing line on standard error.")
@click.option("-m", "module", is_flag=True, help="PROGRAM is a module, as with python -m.")
@click.argument("program")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def command(
    output: str | None,
    push: str | None,
    token: str | None,
    name: str | None,
    compress: bool | None,
    black_box: str | None,
    quiet: bool,
    module: bool,
    program: str,
    args: tuple[str, ...],
) -> None:
    """Run PROGRAM, a script or with -m a module, and trace every trio run in it.

    The exit code and the signals are the program's own.  Without -o and --push the trace goes to PROGRAM.trace in the
    current directory.
    """
    name = name or (program if module else Path(program).name)
    if output is None and push is None:
        output = f"{name.removesuffix('.py')}.trace"
    try:
        code, main = _load_module(program) if module else _load_script(program)
    except (OSError, ImportError, SyntaxError) as exc:
        raise click.UsageError(f"cannot run {program}: {exc}") from exc
    box: str | bool = black_box == "auto" or black_box or False
    tracer = OutsideTracer(*_sinks(output, push, token, compress), name=name, black_box=box)
    sys.argv = [main.__file__ or program, *args]
    if not module:
        sys.path[0] = str(Path(program).resolve().parent)
    sys.modules["__main__"] = main
    ending = _Ending(tracer, output, push, quiet)
    try:
        tracer.start()
    except BlackBoxError as exc:
        raise click.ClickException(str(exc)) from exc
    # registered before the program can: so it runs after everything that the program does at its exit
    atexit.register(ending)
    try:
        exec(code, main.__dict__)
    except SystemExit:
        raise
    except BaseException as exc:
        ending.interrupted = isinstance(exc, KeyboardInterrupt)
        exc.__traceback__ = _own(
            exc.__traceback__
        )  # the one that is printed, whatever the hook is given
        sys.excepthook(type(exc), exc, exc.__traceback__)
        raise SystemExit(1) from None


def _sinks(
    output: str | None, push: str | None, token: str | None, compress: bool | None
) -> list[Sink]:
    from tracesvc.sinks.file import FileSink

    sinks: list[Sink] = []
    if output is not None:
        compression: Any = "auto" if compress is None else "zstd" if compress else None
        sinks.append(FileSink(output, compression=compression))
    if push is not None:
        from tracesvc.sinks.push import PushSink

        sinks.append(PushSink(push, token=token))
    return sinks


def _load_script(path: str) -> tuple[CodeType, types.ModuleType]:
    """A script's code, and the module that it is to run as."""
    if Path(path).is_dir():
        path = str(Path(path) / "__main__.py")
    with io.open_code(str(Path(path).resolve())) as file:
        code = compile(file.read(), path, "exec")
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=path, __builtins__=__builtins__, __spec__=None)
    return code, main


def _load_module(name: str) -> tuple[CodeType, types.ModuleType]:
    """A module's code, and the module that it is to run as; for a package its ``__main__``."""
    sys.path[0] = str(Path.cwd())
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    if spec is None or spec.loader is None or not hasattr(spec.loader, "get_code"):
        raise ImportError(f"no module named {name} that can be run")
    code = spec.loader.get_code(spec.name)
    if code is None:
        raise ImportError(f"{name} has no Python code")
    main = types.ModuleType("__main__")
    main.__dict__.update(
        __file__=spec.origin,
        __builtins__=__builtins__,
        __spec__=spec,
        __loader__=spec.loader,
        __package__=spec.parent,
    )
    return code, main


def _own(traceback: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that is the program's."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    return traceback


class _Ending:
    """What is left to do when the program is over."""

    def __init__(
        self, tracer: OutsideTracer, output: str | None, push: str | None, quiet: bool
    ) -> None:
        self._tracer = tracer
        self._where = " and ".join(filter(None, (output, push)))
        self._quiet = quiet
        self._pid = os.getpid()
        self.interrupted = False

    def __call__(self) -> None:
        if os.getpid() != self._pid:  # a forked child exits through here as well
            return
        self._tracer.stop()
        statistics = self._tracer.tracer.statistics()
        if not self._quiet:
            lost = sum(statistics.lost.values()) + sum(
                sum(sink.lost.values()) for sink in statistics.sinks
            )
            print(
                f"tracesvc: {statistics.events:,} events, {lost:,} lost; {self._where}",
                file=sys.stderr,
            )
        if self.interrupted:  # as Python itself ends: by the signal, so that a shell sees it
            sys.stdout.flush()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
