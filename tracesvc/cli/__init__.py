"""The command line. Each command is a module of its own that is imported when it is called."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of ``tracesvc`` and of ``python -m tracesvc``."""
    try:
        from tracesvc.cli.group import group
    except ModuleNotFoundError as exc:
        if exc.name != "click":
            raise
        print("tracesvc: the command line needs click: pip install 'tracesvc[cli]'", file=sys.stderr)
        raise SystemExit(2) from None
    group(prog_name="tracesvc")
