"""The records of a ``go 1.11 trace`` file, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["BY_NAME", "BY_NUMBER", "HEADER", "GoEvent"]

HEADER: Final = b"go 1.11 trace\0\0\0"


@dataclass(frozen=True, slots=True)
class GoEvent:
    """One type of record: its number in the low six bits of the first byte, and the values behind that byte."""

    number: int
    name: str
    values: tuple[str, ...]

    @property
    def timed(self) -> bool:
        """Whether it is an event; the others are the frame of the file."""
        return self.values[:1] == ("dt",)


_ROWS: Final = """
 1 Batch               proc ticks
 2 Frequency           hertz
 3 Stack               id n frames
 4 Gomaxprocs          dt n stack
 5 ProcStart           dt thread
 6 ProcStop            dt
 7 GCStart             dt seq stack
 8 GCDone              dt
 9 GCSTWStart          dt kind
10 GCSTWDone           dt
11 GCSweepStart        dt stack
12 GCSweepDone         dt swept reclaimed
13 GoCreate            dt g entry stack
14 GoStart             dt g seq
15 GoEnd               dt
16 GoStop              dt stack
17 GoSched             dt stack
18 GoPreempt           dt stack
19 GoSleep             dt stack
20 GoBlock             dt stack
21 GoUnblock           dt g seq stack
22 GoBlockSend         dt stack
23 GoBlockRecv         dt stack
24 GoBlockSelect       dt stack
25 GoBlockSync         dt stack
26 GoBlockCond         dt stack
27 GoBlockNet          dt stack
28 GoSysCall           dt stack
29 GoSysExit           dt g seq ticks
30 GoSysBlock          dt
31 GoWaiting           dt g
32 GoInSyscall         dt g
33 HeapAlloc           dt bytes
34 HeapGoal            dt bytes
35 TimerGoroutine      g
36 FutileWakeup        dt
37 String              id length
38 GoStartLocal        dt g
39 GoUnblockLocal      dt g stack
40 GoSysExitLocal      dt g ticks
41 GoStartLabel        dt g seq label
42 GoBlockGC           dt stack
43 GCMarkAssistStart   dt stack
44 GCMarkAssistDone    dt
45 UserTaskCreate      dt task parent name stack
46 UserTaskEnd         dt task stack
47 UserRegion          dt task mode name stack
48 UserLog             dt task key stack
"""

BY_NUMBER: Final[dict[int, GoEvent]] = {
    int(number): GoEvent(int(number), name, tuple(values))
    for number, name, *values in map(str.split, _ROWS.strip().splitlines())
}
BY_NAME: Final[dict[str, GoEvent]] = {event.name: event for event in BY_NUMBER.values()}
