"""The command line. Each command is a module of its own that is imported when it is called.

This is also where every failure becomes one line on standard error, and an exit code: 2 for a command line that makes
no sense, 1 for everything else, 130 after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of ``tracesvc`` and of ``python -m tracesvc``."""
    try:
        import click

        from tracesvc.cli.group import group
    except ModuleNotFoundError as exc:
        if exc.name != "click":
            raise
        _fail("the command line needs click: pip install 'tracesvc[cli]'", 2)
    # What a traced program leaves in its standard output is its own affair.
    own_output = next((word for word in sys.argv[1:] if not word.startswith("-")), None) != "run"
    try:
        code = group.main(prog_name="tracesvc", standalone_mode=False)
        if own_output:
            sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message())
        raise SystemExit(2) from None
    except click.UsageError as exc:
        command = exc.ctx.command_path if exc.ctx is not None else "tracesvc"
        _fail(f"{exc.format_message()} ({command} --help tells more)", 2)
    except click.ClickException as exc:
        _fail(exc.format_message(), 1)
    except (click.Abort, KeyboardInterrupt):
        raise SystemExit(130) from None
    except BrokenPipeError:
        _leave_the_pipe()
        raise SystemExit(1) from None
    except OSError as exc:
        _fail(f"{exc.filename}: {exc.strerror}" if exc.filename and exc.strerror else str(exc), 1)
    except ImportError as exc:  # an extra that is not installed
        _fail(str(exc), 1)
    except ValueError as exc:
        from tracesvc.format import FormatError

        if not isinstance(exc, FormatError):
            raise
        _fail(str(exc), 1)
    if isinstance(code, int):
        raise SystemExit(code)


def _fail(text: str, code: int) -> None:
    print(f"tracesvc: {' '.join(text.split())}", file=sys.stderr)
    raise SystemExit(code) from None


def _leave_the_pipe() -> None:
    """Nobody reads our output any more: that is no failure to tell of, not even at exit."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
