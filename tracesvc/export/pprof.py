"""``profile.proto``: where tasks spend their time, for ``go tool pprof`` and whatever else reads it.

Sample types: running, runnable and waiting time in ns, and how many steps and waits there were.  A stack is the task's
entry and, where it waits, what for, and in between where it is suspended, if the trace has that; the label ``reason``
says what for too.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any, Final

from tracesvc.events import Frames
from tracesvc.export.go_stacks import place_of
from tracesvc.export.lives import UNKNOWN
from tracesvc.export.perfetto_proto import bytes_field, int_field
from tracesvc.export.replay import NAMELESS, Replay
from tracesvc.export.report import Exported
from tracesvc.export.times import Times
from tracesvc.export.wire import varint
from tracesvc.export.words import reason_of
from tracesvc.model.states import State

__all__ = ["TYPES", "write"]

TYPES: Final = (
    ("steps", "count"),
    ("running", "nanoseconds"),
    ("runnable", "nanoseconds"),
    ("waits", "count"),
    ("waiting", "nanoseconds"),
    ("unknown", "nanoseconds"),
)
"""sample types, in order; the first is not what pprof shows by default: that is the last but one"""
_COLUMNS: Final = {
    int(State.RUNNING): (0, 1),
    int(State.RUNNABLE): (None, 2),
    int(State.WAITING): (3, 4),
    UNKNOWN: (None, 5),
}


def write(replay: Replay, out: Callable[[bytes], Any]) -> Exported:
    """Write the profile of all of a trace."""
    times, report = Times(), Exported()
    for chunk in replay.chunks():
        times.add(chunk)
        report.lost += sum(row.last - row.first + 1 for row in chunk.losses)
    profile = _Profile()
    for (name, entry, state, reason), (count, ns) in times.sums.items():
        values = [0] * len(TYPES)
        often, long = _COLUMNS[state]
        if often is not None:
            values[often] = count
        values[long] = ns
        waits = f"waiting: {reason_of(reason)}" if state == State.WAITING else ""
        profile.sample(name, entry, waits, reason_of(reason) if waits else "", values)
        report.written["sample"] += 1
    for (name, entry, reason, stack), (count, ns) in times.waits.items():
        values = [0, 0, 0, count, ns, 0]
        why = reason_of(reason)
        profile.sample(name, entry, f"waiting: {why}", why, values, stack)
        report.written["sample"] += 1
    if report.lost:
        profile.comment(f"{report.lost} events of this trace are missing")
    began = replay.began or 0
    out(gzip.compress(profile.data(replay.at(began), replay.ended - began), mtime=0))
    report.events, report.repaired = replay.events, replay.lives.repaired
    return report


class _Profile:
    def __init__(self) -> None:
        self._strings: dict[str, int] = {"": 0}
        self._places: dict[tuple[str, str, int], int] = {}
        self._samples: list[bytes] = []
        self._comments: list[int] = []

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _location(self, function: str, file: str, line: int) -> int:
        return self._places.setdefault((function, file, line), len(self._places) + 1)

    def comment(self, text: str) -> None:
        """A remark on the whole profile."""
        self._comments.append(self._string(text))

    def sample(
        self,
        name: str,
        entry: str,
        waits: str,
        reason: str,
        values: list[int],
        frames: Frames = (),
    ) -> None:
        """One stack, and what it cost."""
        function, file, line = place_of(entry)
        stack = [self._location(*frame) for frame in frames]
        stack.append(self._location(name or function or NAMELESS, file, line))
        if waits:
            stack.insert(0, self._location(waits, "trio", 0))
        body = bytes_field(1, b"".join(map(varint, stack)))
        body += bytes_field(2, b"".join(map(varint, values)))
        if reason:
            label = int_field(1, self._string("reason")) + int_field(2, self._string(reason))
            body += bytes_field(3, label)
        self._samples.append(bytes_field(2, body))

    def data(self, time: int, duration: int) -> bytes:
        """The message."""
        parts = [
            bytes_field(1, int_field(1, self._string(what)) + int_field(2, self._string(unit)))
            for what, unit in TYPES
        ]
        parts += self._samples
        for (function, file, line), number in self._places.items():
            at = bytes_field(4, int_field(1, number) + int_field(2, line))
            parts.append(bytes_field(4, int_field(1, number) + at))
            names = int_field(2, self._string(function)) + int_field(4, self._string(file))
            parts.append(bytes_field(5, int_field(1, number) + names))
        parts += [int_field(9, time), int_field(10, max(0, duration))]
        parts += [int_field(13, comment) for comment in self._comments]
        parts.append(int_field(14, self._string("waiting")))
        parts += [bytes_field(6, text.encode("utf-8", "replace")) for text in self._strings]
        return b"".join(parts)
