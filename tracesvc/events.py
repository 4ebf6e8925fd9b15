"""The event vocabulary: everything a trace can say, in one table.

Each event type is a class below: its number on the wire, its name, its fields and, as docstring, its meaning.  The
codec, the header frame of every trace, the documentation and the checks all derive from these classes; no other module
knows a number.

Rules of evolution: a number is never used twice; a field is only ever added at the end; a reader skips what it does not
know (the header frame of a trace carries the vocabulary it was written with).

Times are integer nanoseconds of ``CLOCK_MONOTONIC``.  Task ids are never reused within a process; 0 means "no task".
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from typing import (
    Annotated,
    Any,
    ClassVar,
    Self,
    TypeVar,
    dataclass_transform,
    get_args,
)

from tracesvc.frozen import Frozen, frozen

__all__ = [
    "EVENTS",
    "FRAME_KINDS",
    "CancelSource",
    "Event",
    "Field",
    "FrameKind",
    "Frames",
    "LossCause",
    "Outcome",
    "ProcKind",
    "Reason",
    "Storage",
    "TaskState",
    "WakeCause",
]


class Storage(enum.Enum):
    """How the values of one field lie in a frame."""

    INT = "int"
    """signed 64-bit integers"""
    FLOAT = "float"
    """IEEE 754 doubles"""
    STRING = "string"
    """ids into the string table of the generation, as INT"""
    DATA = "data"
    """msgpack values as they are"""
    STACK = "stack"
    """ids into the stack table of the generation, as INT; 0: none"""


@frozen
class Field(Frozen):
    """One field of an event type."""

    name: str
    storage: Storage
    role: str
    """what the value means: task, waker, object, span, count, ns, ...; checks and documentation go by it"""


TaskId = Annotated[int, Storage.INT, "task"]
WakerId = Annotated[int, Storage.INT, "waker"]
NurseryId = Annotated[int, Storage.INT, "nursery"]
ScopeId = Annotated[int, Storage.INT, "scope"]
ObjectId = Annotated[int, Storage.INT, "object"]
SpanId = Annotated[int, Storage.INT, "span"]
RegionId = Annotated[int, Storage.INT, "region"]
ReasonNumber = Annotated[int, Storage.INT, "reason"]
Number = Annotated[int, Storage.INT, "number"]
Nanoseconds = Annotated[int, Storage.INT, "ns"]
Value = Annotated[float, Storage.FLOAT, "value"]
Name = Annotated[str, Storage.STRING, "name"]
Text = Annotated[str, Storage.DATA, "text"]
Attributes = Annotated[dict[str, Any] | None, Storage.DATA, "attributes"]
Frames = tuple[tuple[str, str, int], ...]
"""a stack: (function, file, line), innermost first, at most 64; () for none"""
Stack = Annotated[Frames, Storage.STACK, "stack"]


class _Told(enum.IntEnum):
    """Numbers that each have a meaning."""

    meaning: str

    def __new__(cls, number: int, meaning: str = "") -> Self:
        self = int.__new__(cls, number)
        self._value_ = number
        self.meaning = meaning
        return self


class Reason(enum.IntEnum):
    """What a blocked task waits for, told from the place where it is suspended."""

    NONE = 0, "not blocked", ""
    SLEEP = 1, "a deadline: trio.sleep and its relatives", ""
    CHANNEL_SEND = 2, "room in a memory channel", "channel"
    CHANNEL_RECEIVE = 3, "an item of a memory channel", "channel"
    LOCK = 4, "a trio.Lock or StrictFIFOLock", "lock"
    SEMAPHORE = 5, "a trio.Semaphore", "semaphore"
    LIMITER = 6, "a trio.CapacityLimiter", "limiter"
    CONDITION = 7, "a trio.Condition to be notified", "condition"
    EVENT = 8, "a trio.Event to be set", "event"
    NURSERY = 9, "the children of a nursery to finish", "nursery"
    READABLE = 10, "a socket or pipe to become readable", "file descriptor"
    WRITABLE = 11, "a socket or pipe to become writable", "file descriptor"
    THREAD = 12, "a worker thread (trio.to_thread)", ""
    PROCESS = 13, "a child process to exit", ""
    SIGNAL = 14, "a signal (trio.open_signal_receiver)", ""
    PARKED = 15, "anything else that suspends a task", "parking lot, where there is one"

    meaning: str
    identity: str
    """what the ``object`` number stands for with this reason"""

    def __new__(cls, number: int, meaning: str = "", identity: str = "") -> Reason:
        self = int.__new__(cls, number)
        self._value_ = number
        self.meaning = meaning
        self.identity = identity
        return self


class WakeCause(_Told):
    """What made a blocked task runnable."""

    UNKNOWN = (
        0,
        "the run loop, for a reason that does not show: `trio.testing.wait_all_tasks_blocked`",
    )
    TASK = 1, "the waker: it sent, received, set, released, finished"
    IO = (
        2,
        "a file descriptor became ready (it is the object of the wait), or a child process exited",
    )
    TIMER = 3, "a deadline passed: the end of a sleep, or a cancel scope's timeout"
    THREAD = (
        4,
        "another thread: a worker thread's result, `trio.from_thread`, a `trio.lowlevel.TrioToken`",
    )
    CANCEL = 5, "a cancellation that the waker asked for"
    SIGNAL = 6, "a signal: `trio.open_signal_receiver`, or Ctrl-C"


class CancelSource(_Told):
    """What had a cancel scope cancelled."""

    UNKNOWN = 0, "not known"
    CALLED = 1, "`CancelScope.cancel` was called"
    DEADLINE = 2, "its deadline passed"
    ERROR = 3, "an exception reached its nursery: that of a child, or of the nursery's own body"
    INTERRUPT = 4, "Ctrl-C came up while the nursery waited for its children"
    SHUTDOWN = 5, "the run ends: trio cancels its system tasks"
    ABANDONED = 6, "its task ended and left the nursery open"


class Outcome(_Told):
    """How a task ended."""

    UNKNOWN = 0, "not known: nobody looked"
    RETURNED = 1, "its function returned"
    RAISED = 2, "an exception left it: the `task_error` before it says which"
    CANCELLED = 3, "`trio.Cancelled` left it"


class TaskState(enum.IntEnum):
    """States of a task; the legal moves between them are the table in `tracesvc.model.states`."""

    RUNNABLE = 1
    RUNNING = 2
    WAITING = 3
    DEAD = 4


class ProcKind(enum.IntEnum):
    """What kind of writer a proc is."""

    PROCESS = 0
    """the process itself: counters and whatever has no thread of its own"""
    RUN = 1
    """one ``trio.run`` (or guest run)"""
    THREAD = 2
    """a worker thread, or any other thread that emitted something"""
    TASK = 3
    """opened by a task: ``async with tracer.proc(name)``"""


class LossCause(enum.IntEnum):
    """Why events that were emitted are not in the stream."""

    QUEUE_FULL = 1, "the reader was behind: the full queue had no room"
    NO_READER = 2, "nobody read the trace, or the reader's run had ended"
    SINK_FULL = 3, "a sink was behind: its own queue had no room"
    SINK_FAILED = 4, "a sink failed and was dropped"
    QUOTA = 5, "a service refused them: over quota"
    CRASH = 6, "the process ended before they were handed over"
    DAMAGE = 7, "a frame was damaged on its way"
    NO_MEMORY = 8, "the process had no memory left to record them in"
    SAMPLED = (
        9,
        "annotations that the tracer left out, one of a few being kept, for the sake of its budget",
        True,
    )
    OVER_BUDGET = 10, "the tracer was over its budget and recorded nothing of this stretch"

    meaning: str
    keeps_state: bool
    """whether what is known of tasks, spans and regions stays true without them; they lie anywhere in their interval"""

    def __new__(cls, number: int, meaning: str = "", keeps_state: bool = False) -> LossCause:
        self = int.__new__(cls, number)
        self._value_ = number
        self.meaning = meaning
        self.keeps_state = keeps_state
        return self

    @classmethod
    def loses_track(cls, number: int) -> bool:
        """Whether after a loss of the cause ``number`` (which may be none) the state is not known."""
        return number not in set(cls) or not cls(number).keeps_state


class FrameKind(_Told):
    """The kinds of frame a stream consists of."""

    HEADER = 1, "what was traced, by whom, with which vocabulary; first frame of a session"
    GENERATION = 2, "a new generation begins: clock sync (monotonic, wall); tables start empty"
    PROCS = 3, "the account of each proc: name, kind, events emitted and lost up to here"
    STRINGS = 4, "rows of the generation's string table"
    STACKS = 5, "rows of the generation's stack table"
    EVENTS = 6, "a batch of events of one proc, in columns"
    SNAPSHOT = 7, "state of the live tasks, and of the open spans and regions, in parts"
    LOSS = 8, "sequence numbers emitted that are not in the stream, with cause and interval"
    END = 9, "end mark: the session was stopped; final clock sync and totals"
    CLOCKS = 10, "exchanges with a service, which relate the clock of the session to its own"


FRAME_KINDS: dict[int, FrameKind] = {kind.value: kind for kind in FrameKind}

EVENTS: dict[int, type[Event]] = {}
"""number -> event class, in order of number"""


EventClass = TypeVar("EventClass", bound="type[Event]")


@frozen
class Event(Frozen):
    """What every event has; the classes below add their own fields."""

    number: ClassVar[int] = 0
    type: ClassVar[str] = ""
    fields: ClassVar[tuple[Field, ...]] = ()

    time: int
    """ns, ``CLOCK_MONOTONIC``"""
    proc: int
    """id of the writer"""
    seq: int
    """position among all events of that writer, from 0; assigned before any loss"""


@functools.cache  # evaluating them is most of what it takes to import this module
def _meaning(kind: str) -> Any:
    """Storage and role, of an annotation of the classes below."""
    return get_args(eval(kind, globals()))[1:]  # noqa: S307


@dataclass_transform(frozen_default=True)
def _event(number: int) -> Callable[[EventClass], EventClass]:
    """Enter a class into the table under ``number``."""

    def register(cls: EventClass) -> EventClass:
        made = frozen(cls)
        made.number = number
        made.type = "".join("_" + c.lower() if c.isupper() else c for c in made.__name__)[1:]
        made.fields = tuple(Field(name, *_meaning(k)) for name, k in cls.__annotations__.items())
        assert number not in EVENTS, f"event number {number} is taken"
        EVENTS[number] = made
        return made

    return register


# --- procs ---------------------------------------------------------------------------------------


@_event(1)
class ProcStart(Event):
    """A writer began: a run, a thread, a task with its own buffers."""

    kind: Annotated[int, Storage.INT, "proc kind"]
    thread: Number
    name: Name


@_event(2)
class ProcStop(Event):
    """A writer ended; its last event."""


# --- tasks ---------------------------------------------------------------------------------------


@_event(3)
class TaskCreate(Event):
    """A task was spawned (or lived already when tracing began); it is runnable."""

    task: TaskId
    parent: Annotated[int, Storage.INT, "parent"]
    nursery: NurseryId
    name: Name
    entry: Name


@_event(4)
class TaskWaiting(Event):
    """A task that lived already when tracing began was blocked then; follows its TaskCreate."""

    task: TaskId
    reason: ReasonNumber
    object: ObjectId


@_event(5)
class TaskRunnable(Event):
    """A blocked task was woken: by the task that runs (waker), or by I/O or a timer (waker 0)."""

    task: TaskId
    waker: WakerId
    cause: Annotated[int, Storage.INT, "cause"] = 0
    """a `WakeCause`; 0 where the writer did not know this field"""


@_event(6)
class StepStart(Event):
    """The run loop began a step of a task."""

    task: TaskId


@_event(7)
class StepYield(Event):
    """The step ended and the task is runnable again: a checkpoint."""

    task: TaskId


@_event(8)
class StepBlock(Event):
    """The step ended and the task waits for something."""

    task: TaskId
    reason: ReasonNumber
    object: ObjectId


@_event(9)
class TaskExit(Event):
    """The task finished; ends its step."""

    task: TaskId
    outcome: Annotated[int, Storage.INT, "outcome"] = 0
    """an `Outcome`; 0 where the writer did not know this field"""


# --- the run loop --------------------------------------------------------------------------------


@_event(10)
class IoWaitStart(Event):
    """The run loop has nothing to run and waits for I/O, at most ``timeout``; polls (timeout 0) are not recorded."""

    timeout: Nanoseconds


@_event(11)
class IoWaitEnd(Event):
    """The wait for I/O is over: something arrived, or the time was up."""


# --- threads and garbage collection --------------------------------------------------------------


@_event(12)
class ThreadStart(Event):
    """A worker thread began a call for a task (``trio.to_thread.run_sync``)."""

    task: TaskId
    function: Name


@_event(13)
class ThreadEnd(Event):
    """The call ended."""

    task: TaskId


@_event(14)
class GcStart(Event):
    """The garbage collector stopped the program."""

    generation: Number


@_event(15)
class GcEnd(Event):
    """The collection is over."""

    generation: Number
    collected: Number


# --- annotations ---------------------------------------------------------------------------------


@_event(16)
class SpanBegin(Event):
    """A logical piece of work began; it may cross tasks and threads."""

    span: SpanId
    parent: Annotated[int, Storage.INT, "parent span"]
    task: TaskId
    name: Name
    attributes: Attributes


@_event(17)
class SpanEnd(Event):
    """The span ended, in ``task``."""

    span: SpanId
    task: TaskId


@_event(18)
class RegionBegin(Event):
    """A lexical piece of work inside one task began; regions of a task nest."""

    region: RegionId
    task: TaskId
    name: Name
    attributes: Attributes


@_event(19)
class RegionEnd(Event):
    """The region ended; ``task`` is the one it belongs to."""

    region: RegionId
    task: TaskId


@_event(20)
class Log(Event):
    """A message of the program. ``cut`` is the number of characters that were cut off, 0 for a whole text."""

    task: TaskId
    span: SpanId
    level: Number
    cut: Number
    message: Text
    attributes: Attributes


@_event(21)
class Counter(Event):
    """A number that changes over time: the program's own, or ``trio.run_queue``, ``trio.loop_lag``, ``process.rss``."""

    name: Name
    value: Value
    task: TaskId


# --- stacks --------------------------------------------------------------------------------------


@_event(22)
class TaskStack(Event):
    """Where a task is suspended, in a wait that lasts long: written when it is woken, or while it still waits."""

    task: TaskId
    stack: Stack


@_event(23)
class StepStack(Event):
    """A step runs for long: what was running ``lasted`` ns after it began, looked at ``late`` ns after it was due."""

    task: TaskId
    stack: Stack
    lasted: Nanoseconds
    late: Nanoseconds


# --- the tracer itself ---------------------------------------------------------------------------


@_event(24)
class Overhead(Event):
    """The tracer's own cost over its budget, and what it leaves out from now on; see the options of a tracer."""

    level: Annotated[int, Storage.INT, "overhead level"]
    share: Value
    left_out: Name


# --- structured concurrency ----------------------------------------------------------------------


@_event(25)
class NurseryOpen(Event):
    """A task opened a nursery (or had it open already when tracing began)."""

    task: TaskId
    nursery: NurseryId


@_event(26)
class NurseryClose(Event):
    """A nursery is over: its body and its ``children`` tasks have ended, and ``errors`` exceptions reached it."""

    task: TaskId
    nursery: NurseryId
    children: Number
    errors: Number


@_event(27)
class TaskError(Event):
    """An exception ended a task and reached its nursery (0: the run), or ended the body of a nursery of ``task``."""

    task: TaskId
    nursery: NurseryId
    exception: Annotated[str, Storage.STRING, "exception"]
    message: Annotated[str, Storage.STRING, "message"]


@_event(28)
class CancelRequest(Event):
    """A cancel scope was cancelled: ``scope`` of ``task``, that of its ``nursery`` maybe, by ``requester``."""

    scope: ScopeId
    task: TaskId
    requester: Annotated[int, Storage.INT, "requester"]
    source: Annotated[int, Storage.INT, "cancel source"]
    nursery: NurseryId
    timeout: Annotated[int, Storage.INT, "timeout"]
    why: Annotated[str, Storage.STRING, "why"]


@_event(29)
class TaskCancelled(Event):
    """A task is resumed with ``trio.Cancelled``, because ``scope`` was cancelled; follows its TaskRunnable, if any."""

    task: TaskId
    scope: ScopeId


@_event(30)
class ScopeOpen(Event):
    """A task entered a cancel scope; those of nurseries too."""

    task: TaskId
    scope: ScopeId
    timeout: Annotated[int, Storage.INT, "timeout"]
    shield: Annotated[int, Storage.INT, "shield"]


@_event(31)
class ScopeClose(Event):
    """A task left a cancel scope."""

    task: TaskId
    scope: ScopeId
    caught: Annotated[int, Storage.INT, "caught"]


@_event(32)
class ObjectName(Event):
    """The program calls an object by a name: ``tracesvc.watch``."""

    kind: ReasonNumber
    object: ObjectId
    name: Name
