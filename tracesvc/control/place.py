"""Where a program and whoever attaches to it meet: a socket in a directory that only their user can enter."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from tracesvc.control.errors import ControlError

__all__ = ["VARIABLE", "meeting_place", "seen_from_outside"]

VARIABLE: Final = "TRACESVC_DIR"
"""names another directory"""


def meeting_place() -> Path:
    """The directory of this process, made if need be: ``$TRACESVC_DIR``, else ``/tmp/tracesvc-UID``.

    Raises:
      ControlError: there is something else, or others can enter it, or it cannot be made.
    """
    path = _chosen(os.environ.get(VARIABLE))
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        raise ControlError(
            f"cannot make {path}: {exc.strerror}; choose another directory with {VARIABLE}"
        ) from exc
    _demand_private(path)
    return path


def seen_from_outside(pid: int) -> Path:
    """The directory of another process of the same user; also where that has its own ``/tmp`` or its own variables.

    Raises:
      ControlError: it is not private.
    """
    process = Path(f"/proc/{pid}")
    try:
        variables = (process / "environ").read_bytes().split(b"\0")
    except OSError:
        variables = []
    prefix = f"{VARIABLE}=".encode()
    chosen = next((v.removeprefix(prefix) for v in variables if v.startswith(prefix)), b"")
    path = _chosen(os.fsdecode(chosen))
    try:
        seen = process / "root" / path.relative_to("/")
        seen.lstat()
    except (OSError, ValueError):
        seen = path
    if seen.exists():
        _demand_private(seen)
    return seen


def _chosen(directory: str | None) -> Path:
    return Path(directory or f"/tmp/tracesvc-{os.geteuid()}")  # noqa: S108  it is looked at before it is used


def _demand_private(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ControlError(
            f"{path} is no directory that only its owner can enter: "
            f"remove it, or choose another with {VARIABLE}"
        )
