"""A data directory as one service has it: locked, and recovered from whatever happened before. For threads."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

from tracesvc.store.base import StoreError
from tracesvc.store.catalogue import Catalogue
from tracesvc.store.recovery import empty_trash, open_catalogue, recover

__all__ = ["claim", "open_root"]


def claim(root: Path) -> int:
    """Take the lock of a data directory, which is made where there is none; to be closed in the end.

    Raises:
      StoreError: it cannot be written, or another service uses it.
    """
    try:
        (root / "sessions").mkdir(mode=0o750, parents=True, exist_ok=True)
        lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as exc:
        raise StoreError(
            f"the data directory {root} cannot be written ({exc.strerror}): choose another one, "
            "or make it writable for the user that the service runs as"
        ) from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        owner = os.pread(lock, 20, 0).decode(errors="replace").strip()
        os.close(lock)
        raise StoreError(
            f"the data directory {root} is in use by another service (process {owner or 'unknown'})"
        ) from None
    except OSError as exc:
        os.close(lock)
        raise StoreError(f"the data directory {root} cannot be used: {exc}") from exc
    return lock


def open_root(root: Path) -> tuple[int, Catalogue]:
    """Take the lock and recover.

    Raises:
      StoreError: see `claim`.
    """
    lock = claim(root)
    try:
        catalogue = open_catalogue(root / "catalogue.sqlite")
        try:
            empty_trash(root)
            recover(catalogue, root / "sessions")
        except BaseException:
            catalogue.close()
            raise
    except (OSError, sqlite3.Error) as exc:
        os.close(lock)
        raise StoreError(f"the data directory {root} cannot be used: {exc}") from exc
    return lock, catalogue
