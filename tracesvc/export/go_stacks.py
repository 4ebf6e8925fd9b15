"""The string and stack tables of a Go trace: what a task is called, and what it did last, in one or two frames."""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tracesvc.events import Frames, Reason
from tracesvc.export.go_table import BY_NAME
from tracesvc.export.replay import NAMELESS
from tracesvc.export.wire import varint

__all__ = ["ENTRY", "WAKE", "YIELD", "Tables", "place_of"]

Integers: TypeAlias = NDArray[np.int64]

ENTRY: Final = 0
"""what a stack tells, beside the entry of its task: nothing; a number of `tracesvc.events.Reason`: what blocks it"""
YIELD: Final = 32
WAKE: Final = 33
CODES: Final = 64

_FRAMES: Final = {
    Reason.SLEEP: ("trio.sleep", "trio/_timeouts.py"),
    Reason.CHANNEL_SEND: ("trio.MemorySendChannel.send", "trio/_channel.py"),
    Reason.CHANNEL_RECEIVE: ("trio.MemoryReceiveChannel.receive", "trio/_channel.py"),
    Reason.LOCK: ("trio.Lock.acquire", "trio/_sync.py"),
    Reason.SEMAPHORE: ("trio.Semaphore.acquire", "trio/_sync.py"),
    Reason.LIMITER: ("trio.CapacityLimiter.acquire", "trio/_sync.py"),
    Reason.CONDITION: ("trio.Condition.wait", "trio/_sync.py"),
    Reason.EVENT: ("trio.Event.wait", "trio/_sync.py"),
    Reason.NURSERY: ("trio.Nursery.__aexit__", "trio/_core/_run.py"),
    Reason.READABLE: ("trio.lowlevel.wait_readable", "trio/_core/_io_epoll.py"),
    Reason.WRITABLE: ("trio.lowlevel.wait_writable", "trio/_core/_io_epoll.py"),
    Reason.THREAD: ("trio.to_thread.run_sync", "trio/_threads.py"),
    Reason.PROCESS: ("trio.Process.wait", "trio/_subprocess.py"),
    Reason.SIGNAL: ("trio.open_signal_receiver", "trio/_signals.py"),
    Reason.PARKED: ("trio.lowlevel.wait_task_rescheduled", "trio/_core/_traps.py"),
    Reason.NONE: ("trio.lowlevel.wait_task_rescheduled", "trio/_core/_traps.py"),
    YIELD: ("trio.lowlevel.checkpoint", "trio/_core/_run.py"),
    WAKE: ("trio.lowlevel.reschedule", "trio/_core/_run.py"),
}
_PLACE: Final = re.compile(r"^(?P<function>.*) \((?P<file>[^()]*):(?P<line>\d+)\)$")
MAX_STRING: Final = 1024


def place_of(entry: str) -> tuple[str, str, int]:
    """(function, file, line) of an entry like ``main (app.py:12)``; what is not there is empty or 0."""
    found = _PLACE.match(entry)
    if found is None:
        return entry, "", 0
    return found["function"], found["file"], int(found["line"])


class Tables:
    """Gives out ids of strings and stacks, and writes both tables."""

    def __init__(self) -> None:
        self._strings: dict[str, int] = {}
        self._stacks: dict[int, int] = {}
        self._frames: dict[tuple[str, str, int], int] = {}
        self._known: dict[int, list[tuple[int, ...]]] = {}
        self._wakes: dict[int, int] = {}
        self._suspended: dict[tuple[int, int], int] = {}
        self._written: list[bytes] = []

    def string(self, text: str) -> int:
        """Id of a text; 0 for the empty one."""
        return self._strings.setdefault(text, len(self._strings) + 1) if text else 0

    def stacks(
        self, codes: Any, names: Integers, entries: Integers, strings: list[str]
    ) -> Integers:
        """Ids of the stacks that tell of tasks with these names and entries what ``codes`` says."""
        keys = (entries * (1 << 24) + names) * CODES + codes
        used, places = np.unique(keys, return_inverse=True)
        ids = np.empty(len(used), np.int64)
        for i, key in enumerate(used.tolist()):
            number = self._stacks.get(key)
            if number is None:
                rest, code = divmod(key, CODES)
                entry, name = divmod(rest, 1 << 24)
                number = self._stacks[key] = self._new(code, strings[name], strings[entry])
            ids[i] = number
        return ids[places]

    def waking(self, entry: int, code: int) -> int:
        """Id of the stack that tells of a task, whose own stack has this id, that it wakes another; 0 for none."""
        if not entry:
            return 0
        number = self._wakes.get(entry)
        if number is None:
            frames = [self._frame(*_FRAMES[code], 0), *self._known[entry]]
            number = self._wakes[entry] = self._enter(frames)
        return number

    def suspended(self, entry: int, index: int, stack: Frames) -> int:
        """Id of the stack, known as ``index``, in which the task whose own stack has the id ``entry`` is suspended."""
        number = self._suspended.get((entry, index))
        if number is None:
            frames = [self._frame(*frame) for frame in stack]
            number = self._enter([*frames, self._known[entry][-1]])
            self._suspended[entry, index] = number
        return number

    def _new(self, code: int, name: str, entry: str) -> int:
        function, file, line = place_of(entry)
        name = name or function or NAMELESS
        if name.startswith("runtime."):  # Go takes those for goroutines of its own runtime
            name = f"task {name}"
        frames = [self._frame(name, file, line)]
        if code != ENTRY:
            frames.insert(0, self._frame(*_FRAMES.get(code, _FRAMES[Reason.PARKED]), 0))
        return self._enter(frames)

    def _enter(self, frames: list[tuple[int, ...]]) -> int:
        number = len(self._written) + 1
        self._known[number] = frames
        body = b"".join(varint(value) for value in (number, len(frames), *sum(frames, ())))
        self._written.append(bytes([BY_NAME["Stack"].number | 0xC0]) + varint(len(body)) + body)
        return number

    def _frame(self, function: str, file: str, line: int) -> tuple[int, ...]:
        """pc, function, file, line: Go takes frames with one pc for the same."""
        place = function, file, line
        number = self._frames.setdefault(place, len(self._frames) + 1)
        return 0x1000 + 16 * number, self.string(function), self.string(file), line

    def records(self) -> list[bytes]:
        """Both tables."""
        records = []
        for text, number in self._strings.items():
            data = text.encode("utf-8", "replace")[:MAX_STRING]
            head = bytes([BY_NAME["String"].number])
            records.append(head + varint(number) + varint(len(data)) + data)
        return records + self._written
