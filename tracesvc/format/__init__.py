"""Bytes <-> frames <-> events: sans-IO. ``docs/format.md`` is the written form of this package."""

from tracesvc.format.batch import Batch
from tracesvc.format.clocks import Clocks, Exchange
from tracesvc.format.errors import FormatError
from tracesvc.format.frames import MAX_FRAME, Damage, Frame, FrameDecoder, compress
from tracesvc.format.records import (
    End,
    Generation,
    Header,
    Loss,
    LossRow,
    ProcRow,
    Procs,
    Snapshot,
    Stacks,
    Strings,
)
from tracesvc.format.stream import Item, Record, StreamDecoder
from tracesvc.format.writer import SessionWriter

__all__ = [
    "MAX_FRAME",
    "Batch",
    "Clocks",
    "Damage",
    "End",
    "Exchange",
    "FormatError",
    "Frame",
    "FrameDecoder",
    "Generation",
    "Header",
    "Item",
    "Loss",
    "LossRow",
    "ProcRow",
    "Procs",
    "Record",
    "SessionWriter",
    "Snapshot",
    "Stacks",
    "StreamDecoder",
    "Strings",
    "compress",
]
