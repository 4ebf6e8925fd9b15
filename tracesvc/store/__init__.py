"""Where a service keeps the streams of sessions."""

from tracesvc.store.base import (
    Appended,
    BadSessionNameError,
    BadStreamError,
    ClockOffset,
    LiveSessionError,
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
from tracesvc.store.jetstream import Fleet, JetStreamStore
from tracesvc.store.retention import Keep

__all__ = [
    "Appended",
    "BadSessionNameError",
    "BadStreamError",
    "ClockOffset",
    "FileStore",
    "Fleet",
    "JetStreamStore",
    "Keep",
    "LiveSessionError",
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
