"""What can be wrong with bytes that claim to be a trace."""

from __future__ import annotations

__all__ = ["FormatError", "VersionError"]


class FormatError(ValueError):
    """Bytes are not what ``docs/format.md`` allows; the message says what and where."""


class VersionError(FormatError):
    """A newer major version of the format."""
