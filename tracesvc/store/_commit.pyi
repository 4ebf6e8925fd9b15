"""What ``csrc/commit.c`` offers."""

from typing import Any

def commit(jobs: list[tuple[int, int, list[Any], int]], /) -> list[tuple[int, bool]]: ...
