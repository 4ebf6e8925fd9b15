"""What ``csrc/bulk.c`` offers."""

from typing import Any

def join(
    masks: tuple[int, ...],
    rests: tuple[int, ...],
    places: list[int],
    planes: list[bytes],
    counts: list[int],
    out: Any,
    /,
) -> None: ...
def count(types: Any, counts: list[int], out: Any, /) -> None: ...
def ends(
    types: Any,
    counts: list[int],
    running: list[int | None],
    start: int,
    starts: Any,
    columns: dict[int, Any],
    /,
) -> None: ...
