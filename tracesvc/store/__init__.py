"""Where a service keeps the streams of sessions."""

from tracesvc.store.base import (
    Appended,
    BadSessionNameError,
    BadStreamError,
    OffsetError,
    SessionInfo,
    State,
    Store,
    StoreBrokenError,
    StoreClosedError,
    StoreError,
    StoreFullError,
    UnknownSessionError,
    session_name,
)
from tracesvc.store.files import FileStore

__all__ = [
    "Appended",
    "BadSessionNameError",
    "BadStreamError",
    "FileStore",
    "OffsetError",
    "SessionInfo",
    "State",
    "Store",
    "StoreBrokenError",
    "StoreClosedError",
    "StoreError",
    "StoreFullError",
    "UnknownSessionError",
    "session_name",
]
