"""Tables that look the same everywhere: plain text in a pipe, a line under the head on a terminal."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["PlainTable", "make_console", "table"]

PIPE_WIDTH: Final = 120


class PlainTable(Table):
    """A table whose cells are text as it is: a name may well have brackets in it."""

    def row(self, *cells: str, style: str | None = None) -> None:
        self.add_row(*map(Text, cells), style=style)


def make_console() -> Console:
    """For standard output; as wide as the terminal, in a pipe 120 columns or what ``COLUMNS`` says."""
    console = Console()
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        return Console(width=PIPE_WIDTH)
    return console


def table(
    console: Console,
    title: str,
    *heads: str,
    right: Collection[int] = (),
    stretch: Collection[int] = (),
) -> PlainTable:
    """An empty table; ``right`` are the columns of figures, ``stretch`` those of which some must be left out first."""
    made = PlainTable(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD if console.is_terminal else None,
        pad_edge=False,
        show_edge=False,
        padding=(0, 2, 0, 0),
    )
    for i, head in enumerate(heads):
        if i in right:
            made.add_column(head, justify="right", no_wrap=True)
        else:
            made.add_column(
                head, overflow="fold" if i in stretch else "ellipsis", no_wrap=i not in stretch
            )
    return made
