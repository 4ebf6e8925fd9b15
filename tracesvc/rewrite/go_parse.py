"""``go 1.11 trace`` files: bytes -> events in one consistent order.

The file has a sequence of records per P.  They are merged by time, and no event of a goroutine comes before what it
needs: sequence numbers and states decide (`_Order`).  Wake-ups that Go's runtime marked as futile are taken out, as
Go's own tool does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from tracesvc.format import FormatError

__all__ = ["GoEvent", "GoTrace", "parse"]

HEADER: Final = b"go 1.11 trace\0\0\0"
MAX_STRING: Final = 1_000_000
BATCH, FREQUENCY, STACK, TIMERS, STRING, LOG = 1, 2, 3, 35, 37, 48
FUTILE: Final = 36

_NAMES: Final = [
    "Batch",
    "Frequency",
    "Stack",
    "Gomaxprocs",
    "ProcStart",
    "ProcStop",
    "GCStart",
    "GCDone",
    "GCSTWStart",
    "GCSTWDone",
    "GCSweepStart",
    "GCSweepDone",
    "GoCreate",
    "GoStart",
    "GoEnd",
    "GoStop",
    "GoSched",
    "GoPreempt",
    "GoSleep",
    "GoBlock",
    "GoUnblock",
    "GoBlockSend",
    "GoBlockRecv",
    "GoBlockSelect",
    "GoBlockSync",
    "GoBlockCond",
    "GoBlockNet",
    "GoSysCall",
    "GoSysExit",
    "GoSysBlock",
    "GoWaiting",
    "GoInSyscall",
    "HeapAlloc",
    "HeapGoal",
    "TimerGoroutine",
    "FutileWakeup",
    "String",
    "GoStartLocal",
    "GoUnblockLocal",
    "GoSysExitLocal",
    "GoStartLabel",
    "GoBlockGC",
    "GCMarkAssistStart",
    "GCMarkAssistDone",
    "UserTaskCreate",
    "UserTaskEnd",
    "UserRegion",
    "UserLog",
]
NAMES: Final = dict(enumerate(_NAMES, 1))
_WITH_STACK: Final = {
    "Gomaxprocs",
    "GCStart",
    "GCSweepStart",
    "GoCreate",
    "GoStop",
    "GoSched",
    "GoPreempt",
    "GoSleep",
    "GoBlock",
    "GoUnblock",
    "GoBlockSend",
    "GoBlockRecv",
    "GoBlockSelect",
    "GoBlockSync",
    "GoBlockCond",
    "GoBlockNet",
    "GoSysCall",
    "GoUnblockLocal",
    "GoBlockGC",
    "GCMarkAssistStart",
    "UserTaskCreate",
    "UserTaskEnd",
    "UserRegion",
    "UserLog",
}
_STARTS: Final = {"GoStart", "GoStartLocal", "GoStartLabel"}
_BLOCKS: Final = {name for name in _NAMES if name.startswith("GoBlock")} | {"GoSleep", "GoSysBlock"}
_LEAVES: Final = _BLOCKS | {"GoEnd", "GoStop", "GoSched", "GoPreempt"}

Frame = tuple[str, str, int]
"""function, file, line"""


@dataclass(slots=True)
class GoEvent:
    """One event."""

    name: str
    time: int
    """ticks; ns since the first event, once it comes from `parse`"""
    p: int
    args: list[int]
    text: str = ""
    """of a UserLog"""
    g: int = 0
    """the goroutine that runs on the P, 0: none"""


@dataclass(slots=True)
class GoTrace:
    """All of a file."""

    events: list[GoEvent] = field(default_factory=list)
    strings: dict[int, str] = field(default_factory=dict)
    stacks: dict[int, list[Frame]] = field(default_factory=dict)

    def stack(self, number: int) -> list[Frame]:
        """Frames, innermost first; none if there is no such stack."""
        return self.stacks.get(number, [])


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        if self.at >= len(self.data):
            raise FormatError(f"a Go trace that is cut off at byte {self.at}")
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise FormatError(f"a number that is too long at byte {self.at}")

    def take(self, n: int) -> bytes:
        if n > len(self.data) - self.at:
            raise FormatError(f"a Go trace that is cut off at byte {len(self.data)}")
        self.at += n
        return self.data[self.at - n : self.at]

    def text(self) -> str:
        length = self.number()
        if length > MAX_STRING:
            raise FormatError(f"a string of {length} bytes at byte {self.at}")
        return self.take(length).decode("utf-8", "replace")


def parse(data: bytes) -> GoTrace:
    """Read a whole file.

    Raises:
      FormatError: it is none, it is damaged, or there is no order in which all of it could have happened.
    """
    if data[: len(HEADER)] != HEADER:
        raise FormatError("not a 'go 1.11 trace'")
    reader = _Reader(data)
    reader.at = len(HEADER)
    trace = GoTrace()
    per_p, hertz = _records(reader, trace)
    events = _without_futile(_Order(per_p).run())
    if not events:
        raise FormatError("a Go trace without events")
    first = events[0].time
    for event in events:
        event.time = (event.time - first) * 1_000_000_000 // hertz
    trace.events = events
    return trace


def _records(reader: _Reader, trace: GoTrace) -> tuple[dict[int, list[GoEvent]], int]:
    """Events by P, and ticks per second; strings and stacks go into ``trace``."""
    per_p: dict[int, list[GoEvent]] = {}
    stacks: dict[int, list[int]] = {}
    hertz = ticks = 0
    p: int | None = None
    while reader.at < len(reader.data):
        head = reader.byte()
        number, count = head & 0x3F, head >> 6
        if number not in NAMES:
            raise FormatError(f"record type {number} at byte {reader.at - 1}")
        if number == STRING:
            name = reader.number()
            trace.strings[name] = reader.text()
            continue
        if count < 3:
            values = [reader.number() for _ in range(count + 1)]
        else:
            end = reader.number() + reader.at
            values = []
            while reader.at < end:
                values.append(reader.number())
        text = reader.text() if number == LOG else ""
        match number:
            case 1 if len(values) == 2:
                p, ticks = values
                p = -1 if p == (1 << 64) - 1 else p
                per_p.setdefault(p, [])
            case 2:
                hertz = values[0]
            case 3:
                stacks[values[0]] = values[2:]
            case 35:
                pass
            case _:
                if p is None or not values:
                    raise FormatError(f"an event before the first batch, at byte {reader.at}")
                ticks += values[0]
                per_p[p].append(GoEvent(NAMES[number], ticks, p, values[1:], text))
    if hertz <= 0:
        raise FormatError("a Go trace without a frequency")
    for number, flat in stacks.items():
        frames = zip(flat[1::4], flat[2::4], flat[3::4], strict=False)
        text_of = trace.strings.get
        trace.stacks[number] = [
            (text_of(f, ""), text_of(file, ""), line) for f, file, line in frames
        ]
    return per_p, hertz


class _Order:
    """Merges the Ps: again and again the earliest event that may come now."""

    def __init__(self, per_p: dict[int, list[GoEvent]]) -> None:
        self._queues = [events for events in per_p.values() if events]
        self._places = [0] * len(self._queues)
        self._state: dict[int, tuple[str, int]] = {}
        self._gc = 0
        self._running: dict[int, int] = {}

    def run(self) -> list[GoEvent]:
        total = sum(map(len, self._queues))
        merged: list[GoEvent] = []
        while len(merged) < total:
            best, where = None, -1
            for i, queue in enumerate(self._queues):
                if self._places[i] < len(queue):
                    event = queue[self._places[i]]
                    if (best is None or event.time < best.time) and self._move(event) is not None:
                        best, where = event, i
            if best is None:
                raise FormatError("there is no consistent order of the events of this Go trace")
            self._places[where] += 1
            self._take(best)
            merged.append(best)
        if any(a.time > b.time for a, b in pairwise(merged)):
            raise FormatError("the times of this Go trace are out of order")
        return merged

    def _move(self, event: GoEvent) -> tuple[int, str, int] | tuple[()] | None:
        """(goroutine, its state, its sequence number) after the event; () where it moves none; None: not yet."""
        name, args = event.name, event.args
        g = self._running.get(event.p, 0)
        if (
            name
            in (
                "GoCreate",
                "GoWaiting",
                "GoInSyscall",
                "GoUnblock",
                "GoUnblockLocal",
                "GoSysExit",
                "GoSysExitLocal",
            )
            or name in _STARTS
        ):
            g = args[0]
        state, seq = self._state.get(g, ("dead", 0))
        match name:
            case "GoCreate":
                return (g, "runnable", 1) if (state, seq) == ("dead", 0) else None
            case "GoWaiting" | "GoInSyscall":
                return (g, "waiting", 2) if (state, seq) == ("runnable", 1) else None
            case "GoStart" | "GoStartLabel":
                return (g, "running", seq + 1) if (state, seq) == ("runnable", args[1]) else None
            case "GoStartLocal":
                return (g, "running", seq + 1) if state == "runnable" else None
            case "GoUnblock" | "GoSysExit":
                return (g, "runnable", seq + 1) if (state, seq) == ("waiting", args[1]) else None
            case "GoUnblockLocal" | "GoSysExitLocal":
                return (g, "runnable", seq + 1) if state == "waiting" else None
            case "GoSched" | "GoPreempt":
                return (g, "runnable", seq) if state == "running" else None
            case "GCStart":
                return () if args[0] == self._gc else None
        if name in _BLOCKS:
            return (g, "waiting", seq) if state == "running" else None
        return ()

    def _take(self, event: GoEvent) -> None:
        moved = self._move(event)
        event.g = self._running.get(event.p, 0)
        if moved:
            self._state[moved[0]] = moved[1], moved[2]
        if event.name == "GCStart":
            self._gc += 1
        elif event.name in _STARTS:
            self._running[event.p] = event.g = event.args[0]
        elif event.name in _LEAVES:
            self._running.pop(event.p, None)


def _without_futile(events: list[GoEvent]) -> list[GoEvent]:
    """A futile wake-up is the unblocking, the starts and preemptions after it, the mark, and the blocking again."""
    waking: dict[int, list[int]] = {}
    futile: set[int] = set()
    gone: set[int] = set()
    for i, event in enumerate(events):
        if event.name in ("GoUnblock", "GoUnblockLocal"):
            waking[event.args[0]] = [i]
            futile.discard(event.args[0])
        elif event.name in _STARTS or event.name in ("GoPreempt", "FutileWakeup"):
            waking.setdefault(event.g, []).append(i)
            if event.name == "FutileWakeup":
                futile.add(event.g)
        elif event.name.startswith("GoBlock"):
            sequence = waking.pop(event.g, [])
            if event.g in futile:
                futile.discard(event.g)
                gone.update(sequence)
                gone.add(i)
    return [event for i, event in enumerate(events) if i not in gone]


def stack_of(event: GoEvent) -> int:
    """Id of the stack where it happened, 0 for none."""
    return event.args[-1] if event.name in _WITH_STACK and event.args else 0
