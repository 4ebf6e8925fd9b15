"""The group of all commands, which imports none of them before it is called for."""

from __future__ import annotations

import importlib
from typing import Final

import click

__all__ = ["group"]

COMMANDS: Final = {
    "run": "Trace an unmodified program.",
    "attach": "Trace a program that runs already.",
    "top": "The tasks of a program or a session, live.",
    "trace": "Have programs traced from afar, by a service.",
    "summary": "What a trace says: tasks, spans, the loop, losses.",
    "why": "Why a span took so long, across tasks and wake-ups.",
    "tasks": "The tree of tasks at an instant.",
    "stalls": "Long steps, and the tasks that they delayed.",
    "latency": "Histograms of spans, regions, tasks, steps, waits.",
    "lint": "Problems that a trace shows by itself.",
    "diff": "What became slower from one trace to another.",
    "query": "SQL over the tables of a trace.",
    "tail": "Events as they come, from a file or a service.",
    "plot": "A picture of a trace, for a bug report.",
    "export": "A trace in the format of another tool.",
    "import": "A trace of Go's tracer, as one of ours.",
    "cut": "The part of a trace between two times.",
    "merge": "Several traces as one.",
    "fleet": "Several sessions on one axis of time.",
    "anonymize": "A trace without names, paths and texts.",
    "recover": "The trace in the black box of a program that died.",
    "verify": "Prove a trace right, or say where it is not.",
    "ls": "Traces in a directory, or sessions of a service.",
    "rm": "Delete sessions that a service keeps.",
    "token": "Make, list and revoke the tokens of a service.",
    "view": "Traces in the browser.",
    "serve": "Collect, keep and stream the traces of many programs.",
    "store": "Check, repair and tidy the data of a service.",
    "doctor": "Which parts of the recorder run here, and why.",
    "demo": "Trace a real web application and show what one sees.",
}
"""name of the command and of its module -> a line of help, so that none must be imported for it"""

_MODULES: Final = {"import": "import_"}
"""commands whose name cannot be a module's"""


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(
            f"tracesvc.cli.{_MODULES.get(cmd_name, cmd_name)}"
        ).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tracesvc")
def group() -> None:
    """Execution tracer and flight recorder for Trio."""
