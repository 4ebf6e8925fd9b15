"""What ``csrc/commit.c`` offers."""

from typing import Any

def commit(jobs: list[tuple[int, int, list[Any]]], /) -> list[tuple[int, bool]]: ...
