"""CTF 1.8, the Common Trace Format: a directory that babeltrace2 and Trace Compass read.

Every proc is a stream with a file of its own, every chunk of it a packet, every event type an event class.  What was
lost is in the packets' counters of discarded events.
"""

from __future__ import annotations

import json
import struct
import uuid
from pathlib import Path
from typing import Any, Final

import numpy as np

from tracesvc.events import EVENTS, Frames, Storage
from tracesvc.export.replay import Chunk, Replay
from tracesvc.export.report import Exported
from tracesvc.export.wire import Part, Raw, Records, join
from tracesvc.format import LossRow
from tracesvc.model.columns import Table

__all__ = ["write"]

MAGIC: Final = 0xC1FC1FC1
_HEADER: Final = struct.Struct("<I16sIQ6Q")
_TYPES: Final = {
    Storage.INT: "int64_t",
    Storage.FLOAT: "double_t",
    Storage.STRING: "string",
    Storage.STACK: "string",
    Storage.DATA: "string",
}


def write(replay: Replay, directory: Path) -> Exported:
    """Write all of a trace into a directory, which is made."""
    directory.mkdir(parents=True, exist_ok=True)
    writer = _Writer(replay, directory)
    for chunk in replay.chunks():
        writer.chunk(chunk)
    writer.finish()
    report = writer.report
    report.events, report.repaired = replay.events, replay.lives.repaired
    return report


class _Stream:
    """Of one proc."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number
        self.packets = 0
        self.discarded = 0
        """as the last packet says"""
        self.last = 0
        """ns of the last packet's end"""
        self.lost: list[LossRow] = []
        """not told yet"""


class _Writer:
    def __init__(self, replay: Replay, directory: Path) -> None:
        self._replay, self._directory = replay, directory
        session = replay.trace.session
        self._id = uuid.UUID(session.id) if session is not None else uuid.UUID(int=0)
        self._streams: dict[int, _Stream] = {}
        self.report: Final = Exported()

    def _stream(self, proc: int) -> _Stream:
        stream = self._streams.get(proc)
        if stream is None:
            stream = self._streams[proc] = _Stream(self._directory / f"proc_{proc}", proc)
            stream.path.write_bytes(b"")
        return stream

    def _packet(self, stream: _Stream, begin: int, end: int, events: bytes) -> None:
        """With what was lost since the packet before, if it was lost before the end of this one."""
        lost = [row for row in stream.lost if row.start < end]
        if not stream.packets:
            # Readers count what is discarded from one packet to the next: an empty one comes first.
            begin = min([begin, *(row.start for row in lost)])
            self._write(stream, begin, begin, b"")
        if lost:
            stream.lost = [row for row in stream.lost if row.start >= end]
            stream.discarded += sum(row.last - row.first + 1 for row in lost)
        self._write(stream, begin, end, events)

    def _write(self, stream: _Stream, begin: int, end: int, events: bytes) -> None:
        bits = 8 * (_HEADER.size + len(events))
        begin = max(begin, stream.last)
        stream.last = max(begin, end)
        head = _HEADER.pack(
            MAGIC,
            self._id.bytes,
            0,
            stream.number,
            begin,
            stream.last,
            bits,
            bits,
            stream.discarded,
            stream.packets,
        )
        with stream.path.open("ab") as file:
            file.write(head + events)
        stream.packets += 1

    def chunk(self, chunk: Chunk) -> None:
        """A packet for each proc in a chunk."""
        for row in chunk.losses:
            self.report.lost += row.last - row.first + 1
            self._stream(row.proc).lost.append(row)
        columns = chunk.columns
        if not len(columns):
            return
        procs = columns.proc
        for proc in np.unique(procs).tolist():
            mine = np.flatnonzero(procs == proc)
            times = columns.time[mine]
            places = np.full(len(columns), -1, np.int64)
            places[mine] = np.arange(len(mine))
            groups = []
            known = 0
            for number in np.unique(columns.type[mine]).tolist():
                if number not in EVENTS:
                    self.report.left_out[f"type {number}"] += int(
                        (columns.type[mine] == number).sum()
                    )
                    continue
                table = columns.of(EVENTS[number])
                which = np.flatnonzero(places[table.index] >= 0)
                at = places[table.index[which]]
                groups.append((at, _records(table, number, which)))
                known += len(at)
                self.report.written[EVENTS[number].type] += len(at)
            if known:
                stream = self._stream(proc)
                self._packet(stream, int(times[0]), int(times[-1]), join(groups, len(mine)))

    def finish(self) -> None:
        """The counters of what was lost at the very end, and the description of it all."""
        for stream in self._streams.values():
            if stream.lost:
                end = max(stream.last, *(max(row.start, row.end) for row in stream.lost)) + 1
                self._packet(stream, end, end, b"")
        (self._directory / "metadata").write_text(self._metadata(), "utf-8")

    def _metadata(self) -> str:
        offset = self._replay.at(0)
        seconds, rest = divmod(offset, 10**9)
        known = (int, str)
        source = {k: v for k, v in self._replay.source.items() if isinstance(v, known)}
        env = "".join(f"  {_word(k)} = {json.dumps(v)};\n" for k, v in source.items())
        events = "".join(_event_class(number) for number in EVENTS)
        return f"""/* CTF 1.8 */
typealias integer {{ size = 8; align = 8; signed = false; }} := uint8_t;
typealias integer {{ size = 16; align = 8; signed = false; }} := uint16_t;
typealias integer {{ size = 32; align = 8; signed = false; }} := uint32_t;
typealias integer {{ size = 64; align = 8; signed = false; }} := uint64_t;
typealias integer {{ size = 64; align = 8; signed = true; }} := int64_t;
typealias floating_point {{ exp_dig = 11; mant_dig = 53; align = 8; }} := double_t;
trace {{
  major = 1; minor = 8; uuid = "{self._id}"; byte_order = le;
  packet.header := struct {{
    uint32_t magic; uint8_t uuid[16]; uint32_t stream_id; uint64_t stream_instance_id;
  }};
}};
env {{
  domain = "ust"; tracer_name = "tracesvc";
{env}}};
clock {{
  name = monotonic; freq = 1000000000; offset_s = {seconds}; offset = {rest};
}};
typealias integer {{
  size = 64; align = 8; signed = false; map = clock.monotonic.value;
}} := time_t;
stream {{
  id = 0;
  event.header := struct {{ uint8_t id; time_t timestamp; }};
  packet.context := struct {{
    time_t timestamp_begin; time_t timestamp_end; uint64_t content_size; uint64_t packet_size;
    uint64_t events_discarded; uint64_t packet_seq_num;
  }};
}};
{events}"""


def _word(key: Any) -> str:
    return "source_" + "".join(c if c.isascii() and c.isalnum() else "_" for c in str(key))


def _event_class(number: int) -> str:
    event = EVENTS[number]
    # Field names begin with an underscore, which readers take off: some are words of the language.
    fields = " ".join(f"{_TYPES[f.storage]} _{f.name};" for f in event.fields)
    return f'event {{ id = {number}; name = "{event.type}"; stream_id = 0; fields := struct {{ {fields} }}; }};\n'


def _records(table: Table, number: int, which: Any) -> Records:
    parts: list[Part] = [bytes([number]), _fixed(table.time[which])]
    for field in EVENTS[number].fields:
        values = getattr(table, field.name)
        match field.storage:
            case Storage.INT:
                parts.append(_fixed(values[which]))
            case Storage.FLOAT:
                parts.append(
                    Raw(np.ascontiguousarray(values[which], "<f8").view(np.uint8).reshape(-1, 8))
                )
            case Storage.STRING:
                codes = values[which].tolist()
                texts = {i: _text(table.columns.strings[i]) for i in set(codes)}
                parts.append([texts[i] for i in codes])
            case Storage.STACK:
                stacks = table.columns.stacks
                parts.append([_text(_frames(stacks[i])) for i in values[which].tolist()])
            case Storage.DATA:
                parts.append([_text(values[i]) for i in which.tolist()])
    return Records(len(which), *parts)


def _fixed(values: Any) -> Raw:
    return Raw(np.ascontiguousarray(values, "<i8").view(np.uint8).reshape(-1, 8))


def _frames(stack: Frames) -> str:
    """A stack on a line, innermost frame first."""
    return " < ".join(f"{function} ({file}:{line})" for function, file, line in stack)


def _text(value: Any) -> bytes:
    text = value if isinstance(value, str) else json.dumps(value, default=repr) if value else ""
    return text.encode("utf-8", "replace").replace(b"\0", b"?") + b"\0"
