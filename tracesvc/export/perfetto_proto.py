"""The messages of a Perfetto trace that are written one by one, and the numbers of the fields of all of them.

Field numbers are those of Perfetto's ``trace_packet.proto`` and what it imports.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, Final

from tracesvc.export.wire import varint

__all__ = [
    "CLEARED",
    "MONOTONIC",
    "bytes_field",
    "clock_snapshot",
    "counter_track",
    "debug_annotations",
    "defaults",
    "double_field",
    "int_field",
    "interned",
    "loss_stats",
    "packet",
    "process_track",
    "text_field",
    "thread_track",
    "track",
]

MONOTONIC: Final = 3
REALTIME: Final = 1
CLEARED: Final = 1
"""sequence_flags: incremental state begins anew"""


def int_field(number: int, value: int) -> bytes:
    """A field of type int64, uint64, bool or enum."""
    return varint(number << 3) + varint(value)


def bytes_field(number: int, data: bytes) -> bytes:
    """A field that is a message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def text_field(number: int, text: str) -> bytes:
    """A field of type string."""
    return bytes_field(number, text.encode("utf-8", "replace"))


def double_field(number: int, value: float) -> bytes:
    """A field of type double."""
    return varint(number << 3 | 1) + struct.pack("<d", value)


def packet(*fields: bytes, sequence: int = 1) -> bytes:
    """A TracePacket, as a field of the Trace."""
    return bytes_field(1, b"".join(fields) + int_field(10, sequence))


def defaults(sequence: int) -> bytes:
    """The first packet of a sequence: its times are those of CLOCK_MONOTONIC."""
    clock = bytes_field(59, int_field(58, MONOTONIC))
    return packet(clock, int_field(13, CLEARED), sequence=sequence)


def clock_snapshot(monotonic: int, wall: int) -> bytes:
    """One moment by both clocks, in ns; CLOCK_MONOTONIC is the time of the trace."""
    clocks = b"".join(
        bytes_field(1, int_field(1, clock) + int_field(2, time))
        for clock, time in ((MONOTONIC, monotonic), (REALTIME, wall))
    )
    return packet(bytes_field(6, clocks + int_field(2, MONOTONIC)), sequence=2)


def _descriptor(uuid: int, *fields: bytes) -> bytes:
    return packet(bytes_field(60, int_field(1, uuid) + b"".join(fields)))


def process_track(uuid: int, pid: int, name: str) -> bytes:
    """The track of the process."""
    return _descriptor(uuid, bytes_field(3, int_field(1, pid) + text_field(6, name)))


def thread_track(uuid: int, pid: int, tid: int, name: str) -> bytes:
    """The track of a thread; a run has the thread that it runs in."""
    return _descriptor(
        uuid, bytes_field(4, int_field(1, pid) + int_field(2, tid) + text_field(5, name))
    )


def track(uuid: int, parent: int, name: str) -> bytes:
    """Any other track."""
    return _descriptor(uuid, text_field(2, name), int_field(5, parent))


def counter_track(uuid: int, parent: int, name: str) -> bytes:
    """The track of a counter."""
    return _descriptor(uuid, text_field(2, name), int_field(5, parent), bytes_field(8, b""))


def interned(names: Mapping[int, str]) -> bytes:
    """Names of events, by id."""
    rows = [bytes_field(2, int_field(1, i) + text_field(2, name)) for i, name in names.items()]
    return packet(bytes_field(12, b"".join(rows)))


def interned_words(names: Mapping[int, str], values: Mapping[int, str]) -> bytes:
    """Names of debug annotations, and texts that are their values, by id."""
    rows = [bytes_field(3, int_field(1, i) + text_field(2, name)) for i, name in names.items()]
    rows += [bytes_field(29, int_field(1, i) + text_field(2, text)) for i, text in values.items()]
    return packet(bytes_field(12, b"".join(rows)))


def debug_annotations(attributes: Mapping[str, Any] | None) -> bytes:
    """Attributes as fields of a TrackEvent."""
    if not attributes or not isinstance(attributes, dict):  # a trace may say anything
        return b""
    rows = []
    for key, value in attributes.items():
        match value:
            case bool():
                typed = int_field(2, value)
            case int() if -(1 << 63) <= value < 1 << 63:
                typed = int_field(4, value)
            case float():
                typed = double_field(5, value)
            case str():
                typed = text_field(6, value)
            case _:
                typed = text_field(9, json.dumps(value, default=repr))
        rows.append(bytes_field(4, text_field(10, str(key)) + typed))
    return b"".join(rows)


def loss_stats(lost: int) -> bytes:
    """Statistics of the trace: how many events are missing."""
    return packet(bytes_field(35, bytes_field(1, int_field(19, lost))), sequence=2)
