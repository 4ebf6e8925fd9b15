"""What ``csrc/frames.c`` offers."""

from typing import Any, TypeAlias

Row: TypeAlias = tuple[int, int, int, int, int, int, int, tuple[int, int, int] | None]

folds: bool
"""whether `crc32` is the quickest there is"""

def crc32(data: Any, value: int = 0, fold: bool = True, /) -> int: ...
def glance(body: Any, /) -> tuple[int, int, int] | None: ...
def walk(data: Any, events: int, largest: int, /) -> tuple[list[Row], int]: ...
