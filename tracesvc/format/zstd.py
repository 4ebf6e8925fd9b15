"""zstd, from the standard library where Python has it (3.14), else from ``backports.zstd``."""

from __future__ import annotations

import functools
from typing import Any, Final

from tracesvc.format.errors import FormatError

__all__ = ["available", "compress", "decompress"]

WINDOW_LOG: Final = 23
"""8 MiB: what RFC 8878 asks every decoder to support; a larger window is a way to make a reader allocate it"""


@functools.cache
def _module() -> Any:
    # not at the top: the base install has no zstd, and importing it costs a few milliseconds
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            return None
    return zstd


def available() -> bool:
    """Whether this installation can compress."""
    return _module() is not None


def _need() -> Any:
    module = _module()
    if module is None:
        raise FormatError(
            "zstd is not installed: pip install 'tracesvc[push]' (or use Python 3.14)"
        )
    return module


def compress(data: bytes, level: int) -> bytes:
    """One zstd frame."""
    compressed: bytes = _need().compress(data, level)
    return compressed


def decompress(data: bytes, limit: int) -> bytes:
    """The content of one zstd frame; allocates at most ``limit`` bytes for it.

    Raises:
      FormatError: not zstd, truncated, more than one frame, or more than ``limit`` bytes.
    """
    module = _need()
    try:
        decompressor = module.ZstdDecompressor(
            options={module.DecompressionParameter.window_log_max: WINDOW_LOG}
        )
        content: bytes = decompressor.decompress(data, max_length=limit + 1)
    except module.ZstdError as exc:
        raise FormatError(f"compressed frame body is damaged: {exc}") from exc
    if len(content) > limit:
        raise FormatError(f"compressed frame body holds more than {limit} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise FormatError("compressed frame body is not one whole zstd frame")
    return content
