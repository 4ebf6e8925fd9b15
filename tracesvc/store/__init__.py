"""Where a service keeps the streams of sessions."""

from tracesvc.store.base import (
    Appended,
    BadSessionNameError,
    BadStreamError,
    ClockOffset,
    LiveSessionError,
    NoTablesError,
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
from tracesvc.store.compaction import Compact
from tracesvc.store.files import FileStore
from tracesvc.store.jetstream import Fleet, JetStreamStore
from tracesvc.store.retention import Keep
from tracesvc.store.tables import Compacted, TableFile

__all__ = [
    "Appended",
    "BadSessionNameError",
    "BadStreamError",
    "ClockOffset",
    "Compact",
    "Compacted",
    "FileStore",
    "Fleet",
    "JetStreamStore",
    "Keep",
    "LiveSessionError",
    "NoTablesError",
    "OffsetError",
    "SessionInfo",
    "State",
    "Store",
    "StoreBrokenError",
    "StoreClosedError",
    "StoreError",
    "StoreFullError",
    "TableFile",
    "UnknownSessionError",
    "session_name",
]
